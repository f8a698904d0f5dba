"""Noticing that ranks wait: asking what each of them does, and telling a stall from a delay.

Ranks that have waited a while say so by themselves. Then all ranks of the cell are asked, again and
again, and what they answer is explained. A wait that nobody can end any more is only believed when
several answers in a row show the very same waits: a message may be on its way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ifog.holdups import State, of_wait
from ifog.telemetry import WaitEvent, decode, now
from ifog.why import Explanation, explain

__all__ = ["PATIENCE", "Stalls", "answered"]

PATIENCE = 1.0  # seconds a wait may last before it is spoken of
_CERTAIN = 1.0  # seconds for which a hopeless table must not change
_TABLES = 3  # in that time, at least
_ASK_EVERY = 0.25
_ASK_SELDOM = 1.0  # when a straggler has been known for a while
_ANSWER_DUE = 0.7  # seconds after which a rank counts as silent
_QUIET = 4.0  # seconds without a rank that says it waits, after which nobody does

Ask = Callable[[Sequence[int]], Mapping[int, Any]]


class Stalls:
    """Watches the ranks of one cell.

    Attributes:
        found: who holds up whom, once a wait lasts longer than ``patience``; else None.
        final: the same for waits that cannot end, once that is certain.
        states: what each rank was doing in the last table.
    """

    def __init__(self, patience: float, ask: Ask) -> None:
        self.found: Explanation | None = None
        self.final: Explanation | None = None
        self.states: Mapping[int, State] = {}
        self._patience = patience
        self._ask = ask
        self._asked: Mapping[int, Any] = {}
        self._asked_at = 0.0
        self._heard_at = 0.0
        self._same: tuple[Any, ...] = ()
        self._same_since = 0.0
        self._tables = 0

    def heard(self, event: WaitEvent) -> None:
        """A rank says that it waits."""
        if event.t - event.since > self._patience / 2:
            self._heard_at = time.monotonic()

    def look(self, missing: Sequence[int], known: Mapping[int, State]) -> None:
        """Ask the ranks, or take in their answers; never blocks.

        Args:
            missing: the ranks that still run the cell.
            known: what is known of each rank without its answer.
        """
        moment = time.monotonic()
        if self._asked:
            late = moment - self._asked_at > _ANSWER_DUE
            if late or all(future.done() for future in self._asked.values()):
                self._take(answered(self._asked), missing, known)
                self._asked = {}
        elif moment - self._heard_at > _QUIET:
            self.found, self.states, self._tables = None, {}, 0
        elif moment - self._asked_at > self._pause() and missing:
            self._asked, self._asked_at = self._ask(missing), moment

    def _pause(self) -> float:
        calm = self.found is not None and not self.found.hopeless and self._tables > 10 * _TABLES
        return _ASK_SELDOM if calm else _ASK_EVERY

    def _take(
        self,
        answers: Mapping[int, dict[str, Any] | None],
        missing: Sequence[int],
        known: Mapping[int, State],
    ) -> None:
        moment = time.monotonic()
        passed = moment - self._asked_at
        self.states = table(answers, missing, known, now() - passed)
        longest = max((_age(answer) for answer in answers.values()), default=0.0) + passed
        self._tables += 1
        if longest <= self._patience:
            self.found = None
            return
        self._heard_at = moment
        self.found = explain(self.states, now())
        stuck = self.found.stuck if self.found is not None else ()
        same = tuple((rank, self.states[rank]) for rank in stuck)
        if same != self._same:
            self._same, self._same_since, self._tables = same, moment, 0
        elif same and self._tables >= _TABLES and moment - self._same_since >= _CERTAIN:
            self.final = explain(self.states, now(), over=True)


def answered(futures: Mapping[int, Any]) -> dict[int, dict[str, Any] | None]:
    """What each rank answered, None where it has not."""
    return {r: f.result()["content"] if f.done() else None for r, f in futures.items()}


def table(
    answers: Mapping[int, dict[str, Any] | None],
    missing: Sequence[int],
    known: Mapping[int, State],
    asked: float,
) -> dict[int, State]:
    """What each rank does, from the answers of those that still run the cell.

    Args:
        answers: rank -> its answer to "waiting", or None.
        missing: the ranks that still run the cell.
        known: what is known of each rank otherwise.
        asked: when they were asked.
    """
    states = dict(known)
    for rank in missing:
        answer = answers.get(rank)
        state = known.get(rank, State("computing"))
        if rank in answers and answer is None:
            states[rank] = State("silent", asked, rounds=state.rounds)
        elif answer is not None and answer.get("event") and state.kind == "computing":
            event = decode(answer["event"])
            if isinstance(event, WaitEvent):
                states[rank] = of_wait(event)._replace(rounds=answer.get("rounds", 0))
        elif answer is not None:
            states[rank] = state._replace(rounds=answer.get("rounds", 0))
    return states


def _age(answer: dict[str, Any] | None) -> float:
    if answer is None or not answer.get("event"):
        return 0.0
    event = decode(answer["event"])
    return event.t - event.since if isinstance(event, WaitEvent) else 0.0
