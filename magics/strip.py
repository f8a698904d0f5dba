"""The strip: one line under a cell that says how its ranks are doing, while they run and after.

A fold over the events of one cell. What it shows is a ``StripView`` of words and numbers; how that
is drawn is the business of ``ifog.magics.render``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ifog.folds import (
    Ranks,
    Throughput,
    fold_throughput,
    listing,
    rank_state,
    view_throughput,
)
from ifog.glances import Watched
from ifog.magics.failures import LOST, Raised, primary, released, summary
from ifog.numbers import count, duration, number, percent, size
from ifog.telemetry import CellEnd, CellStart, Event, GraphEvent, OpEvent, WatchEvent
from ifog.why import Explanation

__all__ = ["Outcome", "Strip", "StripView"]

_SPARK = 48  # points of the small curve


class Outcome(Protocol):
    """What the strip reads of a finished cell."""

    @property
    def ranks(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102
    @property
    def rounds(self) -> int: ...  # noqa: D102
    @property
    def nbytes(self) -> int: ...  # noqa: D102
    @property
    def wait(self) -> float: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def errors(self) -> Mapping[int, Any]: ...  # noqa: D102
    @property
    def finished(self) -> Mapping[int, int]: ...  # noqa: D102
    @property
    def why(self) -> Explanation | None: ...  # noqa: D102


class StripView(NamedTuple):
    """The strip in words.

    Attributes:
        word: starting, running, slow, stopped, interrupted or done.
        glyphs: the state of each rank of the cell; empty when totals take their place.
        figures: pairs of a muted label and a value, either may be empty.
        spark: the last errors of the watched tensor, oldest first.
        error: the newest of them, as text.
        elapsed: the time since the cell's start, as text.
    """

    word: str
    glyphs: tuple[tuple[int, str], ...]
    figures: tuple[tuple[str, str], ...]
    spark: tuple[float, ...]
    error: str
    elapsed: str


class Strip:
    """Follows the events of cell ``seq``, in which ``ranks`` of a world of ``n`` take part."""

    def __init__(self, seq: int, ranks: Sequence[int], n: int, started: float) -> None:
        self._seq = seq
        self._ranks = tuple(ranks)
        self._n = n
        self._started = started
        self._mine: set[int] = set()
        self._state = Throughput(ranks=Ranks())
        self._watched = Watched()
        self._errors: list[float] = []
        self._raised: dict[int, str] = {}

    def feed(self, events: Iterable[Event]) -> None:
        """Take events of any cell; those of other cells are passed over."""
        mine = self._mine
        # Most are operations, which need no closer look.
        kept = [e for e in events if (e[0] in mine if type(e) is OpEvent else self._is_mine(e))]
        fold_throughput(self._state, kept)

    def view(self, now: float, stall: Explanation | None = None, stopping: str = "") -> StripView:
        """The strip of the running cell.

        Args:
            now: the time.
            stall: who holds up whom.
            stopping: which ranks do not stop although they were told to.
        """
        ranks = self._state.ranks
        states = tuple(
            (r, rank_state(ranks, r, now) if r in self._mine else "absent") for r in self._ranks
        )
        elapsed = duration(max(now - self._started, 0.0))
        figures = [("round", count(ranks.round))] if ranks.round else []
        if self._raised:
            waiting = sum(state in ("waiting", "stalled") for _, state in states)
            figures.append(("", _stop_sentence(self._raised, waiting)))
            return StripView("stopped", states, tuple(figures), (), "", elapsed)
        states = _calm(states)
        if stopping or stall is not None:
            figures.append(("", stopping or ("" if stall is None else stall.short)))
            return StripView("slow", states, tuple(figures), (), "", elapsed)
        figures += [("", " ".join(pair)) for pair in self._rates(now)]
        error = number(self._errors[-1]) if self._errors else ""
        word = "running" if self._mine else "starting"
        return StripView(word, states, tuple(figures), tuple(self._errors), error, elapsed)

    def close(self, outcome: Outcome) -> StripView:
        """The last state of the strip, with the totals of the cell."""
        elapsed = duration(outcome.seconds)
        if outcome.status == "ok":
            return StripView("done", (), _totals(outcome, self._n), (), "", elapsed)
        if outcome.status == "interrupted":
            return StripView("interrupted", (), (("", _back(outcome)),), (), "", elapsed)
        rounds = (("round", count(outcome.rounds)),) if outcome.rounds else ()
        causes = primary(outcome.errors)
        if outcome.status == "stalled" and outcome.why is not None:
            figures = (*rounds, ("", outcome.why.short))
            causes = {}
        elif outcome.status == "timeout":
            figures = (*rounds, ("", f"no end after {elapsed}; {_back(outcome)}"))
            causes = {}
        else:
            figures = (*rounds, ("", _stop_sentence_of(outcome.errors)))
        glyphs = tuple((r, "dead" if r in causes else "finished") for r in outcome.ranks)
        return StripView("stopped", glyphs, figures, (), "", elapsed)

    def _is_mine(self, event: Event) -> bool:
        if isinstance(event, GraphEvent):
            return False
        if isinstance(event, CellStart):
            (self._mine.add if event.seq == self._seq else self._mine.discard)(event.rank)
        if event.rank not in self._mine:
            return False
        if isinstance(event, WatchEvent):
            self._glance(event)
        elif isinstance(event, CellEnd) and event.status == "error":
            error = event.error or {}
            if error.get("peer") is None:
                self._raised[event.rank] = str(error.get("ename", "an error"))
        return True

    def _glance(self, event: WatchEvent) -> None:
        glance = self._watched.put(event, self._ranks)
        if glance is None or glance.name != self._watched.first:
            return
        self._errors.append(float(np.linalg.norm(glance.distances)))
        if len(self._errors) > 2 * _SPARK:
            self._errors = self._errors[-1::-2][::-1]

    def _rates(self, now: float) -> list[list[str]]:
        view = view_throughput(self._state, now)
        return [] if view["empty"] else [view["figures"][0], view["figures"][1][:1]]


def _calm(states: Sequence[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
    # The strip's own word says that waits are long: its ranks need not shout as well.
    return tuple((rank, "waiting" if state == "stalled" else state) for rank, state in states)


def _back(outcome: Outcome) -> str:
    n = len(outcome.ranks)
    back = n - sum(error.ename in LOST for error in outcome.errors.values())
    return f"{back} of {n} rank{'s' * (n != 1)} came back"


def _totals(outcome: Outcome, n: int) -> tuple[tuple[str, str], ...]:
    figures = [("", f"{len(outcome.ranks)} of {n} rank{'s' * (n != 1)}")]
    if outcome.rounds:
        rate = outcome.rounds / max(outcome.seconds, 1e-9)
        figures.append(("", f"{count(outcome.rounds)} round{'s' * (outcome.rounds != 1)}"))
        figures.append(("", f"{number(rate)} rounds/s"))
    if outcome.nbytes:
        figures.append(("", f"{size(outcome.nbytes)} sent"))
    if outcome.rounds or outcome.nbytes:
        figures.append(("wait", percent(outcome.wait)))
    return tuple(figures)


def _stop_sentence(raised: Mapping[int, str], others: int) -> str:
    first = next(iter(raised))
    who = f"rank {first}" if len(raised) == 1 else f"ranks {listing(sorted(raised))}"
    tail = f"; {others} rank{'s' * (others != 1)} released" if others else ""
    return f"{who} raised {raised[first]}{tail}"


def _stop_sentence_of(errors: Mapping[int, Raised]) -> str:
    free = sum(len(ranks) for ranks, _ in released(errors))
    tail = f"; {free} rank{'s' * (free != 1)} released" if free else ""
    return summary(errors) + tail
