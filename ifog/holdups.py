"""Who waits for whom, as a graph: which ranks can go on by themselves, and what holds up the rest.

A rank that waits needs all of its peers. It may go on if each of them may: because it computes,
because something is on its way to it, or because its own wait can end. Ranks for which that does
not hold are stuck for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ifog.telemetry import WaitEvent

__all__ = ["Cause", "Holdups", "State", "of_wait"]

_FREE = ("computing", "starting", "elsewhere", "silent")
_GONE = ("dead", "raised", "interrupted", "finished", "outside")
_GRAVITY = (
    *(*_GONE, "knot"),
    *("silent", "moving", "elsewhere", "starting", "computing"),
)


class State(NamedTuple):
    """What one rank is doing.

    Attributes:
        kind: waiting, computing, starting (has not begun the cell), elsewhere (in another cell),
            silent (does not answer), finished, raised, interrupted, outside (not in the cell),
            or dead.
        since: when that began, in seconds since 1970; 0 if unknown.
        op: what it waits in, with the name, the number of earlier calls, and for whom; where a
            rank raised, ``name`` is the function.
        line: of the user's cell.
        moving: something is under way already, so the wait ends whatever the peers do.
        rounds: the mixing rounds it has finished.
        detail: how it died, or what it raised.
    """

    kind: str
    since: float = 0.0
    op: str = ""
    name: str = ""
    step: int = 0
    peers: tuple[int, ...] = ()
    line: int | None = None
    moving: bool = False
    rounds: int = 0
    detail: str = ""


def of_wait(event: WaitEvent) -> State:
    """The state of a rank that reported a wait."""
    return State(
        kind="waiting",
        since=event.since,
        op=event.op,
        name=event.name,
        step=event.step,
        peers=event.peers,
        line=event.line,
        moving=event.moving,
    )


class Cause(NamedTuple):
    """Ranks of one kind that hold up those of ``held``; a "knot" is ranks that hold up each other.

    Where only data under way is waited for, its receivers are a cause of the kind "moving".
    """

    kind: str
    ranks: tuple[int, ...]
    detail: str
    held: tuple[int, ...]


class Holdups:
    """The waits as a graph; sets of ranks are the bits of integers.

    Attributes:
        waits: the ranks that wait.
        states: all ranks, those that are only waited for included.
        stuck: the ranks whose wait cannot end.
        reach: waiting rank -> whom it waits for, directly or not.
    """

    def __init__(self, states: Mapping[int, State]) -> None:
        self.waits = {rank: s for rank, s in sorted(states.items()) if s.kind == "waiting"}
        named = {peer for s in self.waits.values() for peer in s.peers}
        self.states = dict.fromkeys(sorted(named - states.keys()), State("outside")) | dict(states)
        self.stuck = self._find_stuck()
        self.reach = self._find_reach()

    def _find_stuck(self) -> set[int]:
        free = {rank for rank, state in self.states.items() if state.kind in _FREE}
        gone = {rank for rank, state in self.states.items() if state.kind in _GONE}
        # What a rank has begun to send it may not be able to finish once it is gone.
        free |= {r for r, state in self.waits.items() if state.moving and not gone & {*state.peers}}
        left = {r: set(s.peers) - free for r, s in self.waits.items() if r not in free}
        waiters: dict[int, list[int]] = {}
        for rank, peers in left.items():
            for peer in peers:
                waiters.setdefault(peer, []).append(rank)
        queue = [rank for rank, peers in left.items() if not peers]
        while queue:
            rank = queue.pop()
            del left[rank]
            for waiter in waiters.get(rank, ()):
                left[waiter].discard(rank)
                if not left[waiter]:
                    queue.append(waiter)
        return set(left)

    def _find_reach(self) -> dict[int, int]:
        reach = {r: sum(1 << p for p in set(s.peers)) for r, s in self.waits.items()}
        for middle in self.waits:
            for rank in self.waits:
                if reach[rank] >> middle & 1:
                    reach[rank] |= reach[middle]
        return reach

    def _held_by(self, ranks: Iterable[int]) -> tuple[int, ...]:
        mask = sum(1 << rank for rank in ranks)
        return tuple(r for r, reached in self.reach.items() if reached & mask and not mask >> r & 1)

    def causes(self) -> list[Cause]:
        """What holds up ranks, the gravest first; never empty where a rank waits."""
        groups: dict[tuple[str, str], list[int]] = {}
        everybody = 0
        for reached in self.reach.values():
            everybody |= reached
        for rank, state in self.states.items():
            failed = state.kind in ("dead", "raised")
            if (everybody >> rank & 1 or failed) and rank not in self.waits:
                groups.setdefault((state.kind, state.detail), []).append(rank)
        waiting = sum(1 << rank for rank in self.waits)
        for rank, state in self.waits.items():
            if state.moving and not self.reach[rank] & ~waiting:
                groups.setdefault(("moving", ""), []).append(rank)
        found = [
            Cause(kind, tuple(ranks), detail, self._held_by(ranks))
            for (kind, detail), ranks in groups.items()
        ]
        found += [Cause("knot", knot, "", self._held_by(knot)) for knot in self._knots()]
        if not found:  # waits without a peer: for an earlier operation of the same rank
            found = [Cause("moving", tuple(self.waits), "", ())]
        return sorted(found, key=lambda cause: (_GRAVITY.index(cause.kind), cause.ranks))

    def _knots(self) -> list[tuple[int, ...]]:
        """Stuck ranks that wait for one another and for no rank that is absent for good."""
        gone = sum(1 << rank for rank, state in self.states.items() if state.kind in _GONE)
        knots, seen = [], 0
        for rank in self.stuck:
            if seen >> rank & 1 or not self.reach[rank] >> rank & 1 or self.reach[rank] & gone:
                continue
            knot = tuple(
                r for r in sorted(self.stuck) if self.reach[rank] >> r & self.reach[r] >> rank & 1
            )
            seen |= sum(1 << r for r in knot)
            knots.append(knot)
        return sorted(knots)

    def distances(self, causes: list[Cause]) -> dict[int, int]:
        """Of the causes (0) and of all that wait: for a cause (1), through one rank (2), ..."""
        waiters: dict[int, list[int]] = {}
        for rank, state in self.waits.items():
            for peer in state.peers:
                waiters.setdefault(peer, []).append(rank)
        front = sorted(rank for cause in causes for rank in cause.ranks)
        distance = dict.fromkeys(front, 0)
        steps = 0
        while front:
            steps += 1
            front = sorted({w for r in front for w in waiters.get(r, ()) if w not in distance})
            distance |= dict.fromkeys(front, steps)
        far = max(distance.values(), default=0) + 1
        return distance | {rank: far for rank in self.waits if rank not in distance}
