"""The errors of a cell, told once: who failed, where, and who was only set free by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ifog.magics.wording import template
from ifog.numbers import rank_ranges

__all__ = [
    "LOST",
    "Failure",
    "Raised",
    "did",
    "failures",
    "message",
    "primary",
    "released",
    "summary",
]


_TOLD = 4  # failures in the message of an exception
# Errors that are the cluster's, about a rank that is silent.
LOST = {
    "RankDied": "died",
    "NoAnswer": "does not answer",
    "NoReport": "did not report",
    "RankStopped": "is stopped",
    "Unreachable": "cannot be reached",
}


class Raised(Protocol):
    """What one rank raised, as the cluster reports it."""

    @property
    def ename(self) -> str: ...  # noqa: D102
    @property
    def evalue(self) -> str: ...  # noqa: D102
    @property
    def line(self) -> int | None: ...  # noqa: D102
    @property
    def where(self) -> str: ...  # noqa: D102
    @property
    def peer(self) -> int | None: ...  # noqa: D102
    @property
    def traceback(self) -> str: ...  # noqa: D102


class Failure(NamedTuple):
    """One error of one or more ranks.

    Attributes:
        ranks: who raised it.
        headline: type and message.
        place: cell line and function, or the empty string.
        traceback: of the first of the ranks, its last line (the headline) left out.
    """

    ranks: tuple[int, ...]
    headline: str
    place: str
    traceback: str


def primary(errors: Mapping[int, Raised]) -> dict[int, Raised]:
    """The errors that explain the others; interrupts are no errors.

    Where every error points to another rank (one died without a word), all of them are kept.
    """
    real = {r: e for r, e in sorted(errors.items()) if e.ename != "KeyboardInterrupt"}
    causes = {rank: error for rank, error in real.items() if error.peer is None}
    stopped = len(real) < len(errors)
    return causes if causes or stopped else real


def failures(errors: Mapping[int, Raised]) -> list[Failure]:
    """The primary errors; those of one type and place that differ only in numbers are one.

    It has the message of the first rank and says which others only had one like it: the numbers of
    a message belong together, a range of one of them would be no rank's message.
    """
    causes = primary(errors)
    alike: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for rank, error in causes.items():
        frame, _ = template(_headline(error))
        alike.setdefault((_place(error), frame), []).append(rank)
    found = []
    for (place, _), ranks in alike.items():
        headline = _headline(causes[ranks[0]])
        others = [rank for rank in ranks if _headline(causes[rank]) != headline]
        if others:
            headline += f" (and alike on {rank_ranges(others)})"
        found.append(Failure(tuple(ranks), headline, place, _frames(causes[ranks[0]])))
    return found


def released(errors: Mapping[int, Raised]) -> list[tuple[tuple[int, ...], str]]:
    """Ranks that raised only because another one did, with the reason, one entry a reason."""
    causes = primary(errors)
    by_peer: dict[int, list[int]] = {}
    for rank, error in sorted(errors.items()):
        if rank not in causes and error.peer is not None:
            by_peer.setdefault(error.peer, []).append(rank)
    return [(tuple(ranks), f"released: {_reason(errors, peer)}") for peer, ranks in by_peer.items()]


def _reason(errors: Mapping[int, Raised], peer: int) -> str:
    cause = errors.get(peer)
    if cause is None:
        return f"rank {peer} failed"
    if cause.ename == "KeyboardInterrupt":
        return f"rank {peer} was interrupted"
    return f"rank {peer} {did(cause.ename)}"


def did(ename: str) -> str:
    """What a rank did, in words."""
    return LOST.get(ename, f"raised {ename}")


def _frames(error: Raised) -> str:
    text = error.traceback.rstrip()
    for last in (_headline(error), f"{error.ename}: {error.evalue}", "KeyboardInterrupt:"):
        text = text.removesuffix(last).rstrip()
    return text


def _headline(error: Raised) -> str:
    return f"{error.ename}: {error.evalue}" if error.evalue else error.ename


def _place(error: Raised) -> str:
    parts = [] if error.line is None else [f"cell line {error.line}"]
    if error.where and error.where != "<module>":
        parts.append(f"in {error.where}")
    return ", ".join(parts)


def message(errors: Mapping[int, Raised]) -> str:
    """What the notebook's own exception says: a line for each of the first failures."""
    found = failures(errors)
    lines = []
    for failure in found[:_TOLD]:
        place = f" ({failure.place})" if failure.place else ""
        lines.append(f"[{rank_ranges(failure.ranks)}] {failure.headline}{place}")
    if len(found) > _TOLD:
        lines.append(f"and {len(found) - _TOLD} more")
    lines += [f"[{rank_ranges(ranks)}] {reason}" for ranks, reason in released(errors)]
    return "\n".join(lines)


def summary(errors: Mapping[int, Raised]) -> str:
    """One line: ``rank 3 raised ValueError`` or ``ranks 0-3 raised TypeError``."""
    causes = primary(errors)
    names = sorted({error.ename for error in causes.values()})
    word = "rank" if len(causes) == 1 else "ranks"
    deed = did(names[0]) if len(names) == 1 else f"raised {', '.join(names)}"
    return f"{word} {rank_ranges(causes)} {deed}"
