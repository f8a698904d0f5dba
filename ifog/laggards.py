"""What the launcher of a program says when its ranks wait long: one line, ever more rarely.

Ranks tell of long waits by themselves; of one that tells nothing it is only known that it runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ifog.holdups import State
from ifog.numbers import duration
from ifog.why import explain, operation, spelled

__all__ = ["Laggards", "Wait"]


class Wait(NamedTuple):
    """What a rank waits in, and the line of the program."""

    state: State
    place: str

    @classmethod
    def of(cls, fields: list[Any]) -> Wait:
        """From what the rank tells."""
        op, name, step, peers, since, moving, place = fields
        state = State("waiting", since, op, name, step, tuple(peers), moving=moving)
        return cls(state, place)


class Laggards:
    """When to say what about the ranks of one program.

    Args:
        n: how many ranks there are.
        patience: seconds after which a wait is spoken of; 0 for never.
    """

    def __init__(self, n: int, patience: float) -> None:
        self._n = n
        self._patience = self._next = patience
        self._waits: dict[int, Wait] = {}

    def hear(self, rank: int, fields: list[Any] | None) -> None:
        """Take in what a rank waits in, or that it does no more."""
        if fields is None:
            self._waits.pop(rank, None)
        else:
            self._waits[rank] = Wait.of(fields)

    def line(self, moment: float, ended: Collection[int]) -> str:
        """What is to be said now; mostly "".

        Args:
            moment: seconds since 1970.
            ended: the ranks that are done.
        """
        waits = {rank: wait for rank, wait in self._waits.items() if rank not in ended}
        longest = max((moment - wait.state.since for wait in waits.values()), default=0.0)
        if not self._patience or longest < self._patience:
            self._next = self._patience
            return ""
        if longest < self._next:
            return ""
        self._next = 2 * longest
        return f"ifog: {describe(waits, self._n, moment, ended)}\n"


def describe(waits: Mapping[int, Wait], n: int, moment: float, ended: Collection[int]) -> str:
    """Who waits for whom, since when and where, and what the others do."""
    groups: dict[tuple[str, tuple[int, ...], str], list[int]] = {}
    others: set[int] = set()
    for rank, wait in sorted(waits.items()):
        # Ranks in one operation with the others wait for those that have not come to it.
        away = [p for p in wait.state.peers if p not in waits or not _same(waits[p], wait)]
        peers = tuple(away or wait.state.peers)
        others.update(p for p in peers if p not in waits)
        groups.setdefault((operation(wait.state), peers, wait.place), []).append(rank)
    parts = []
    for (name, peers, place), ranks in groups.items():
        since = min(waits[rank].state.since for rank in ranks)
        has = "has" if len(ranks) == 1 else "have"
        whom = f" for {spelled(peers)}" if peers else ""
        where = f" ({place})" if place else ""
        waited = duration(moment - since)
        parts.append(f"{spelled(ranks)} {has} waited {waited}{whom} in {name}{where}")
    busy, gone = sorted(others - set(ended)), sorted(others & set(ended))
    if busy:
        parts.append(f"{spelled(busy)} {'is' if len(busy) == 1 else 'are'} still computing")
    if gone:
        parts.append(f"{spelled(gone)} {'has' if len(gone) == 1 else 'have'} ended")
    states = {rank: State("computing") for rank in range(n)} | dict.fromkeys(
        ended, State("finished")
    )
    found = explain(states | {rank: wait.state for rank, wait in waits.items()}, moment)
    if found is not None and found.hopeless:
        parts.append("this cannot end by itself")
    return "; ".join(parts)


def _same(one: Wait, other: Wait) -> bool:
    return one.state[2:5] == other.state[2:5]
