"""Which operation of one rank is the other end of which operation of another.

Operations belong together by kind, tensor, round and cell, and a message goes from one to the other
where the sender names the receiver and the receiver the sender. One-sided operations have no other
end at the time: what a put or accumulate leaves at its target is received by the next update there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["Matcher", "Operation", "Updates"]

_SHOWN = ("neighbor_", "hierarchical_", "pair_", "broadcast")
_ONE_SIDED = ("win_put", "win_accumulate")


class Operation(NamedTuple):
    """One operation in a rank's trace; times in microseconds of the rank's file."""

    rank: int
    tid: int
    ts: float
    dur: float
    key: tuple[str, str, int, int]  # op, tensor, round, cell
    dst: tuple[int, ...]
    src: tuple[int, ...]
    arrived: tuple[float, ...]

    @classmethod
    def of(cls, rank: int, event: Mapping[str, Any]) -> Operation:
        """The operation that a line of a trace tells of."""
        told = event["args"]
        return cls(
            rank,
            event["tid"],
            event["ts"],
            event["dur"],
            (told["op"], told["tensor"], told["round"], told["cell"]),
            tuple(told["dst"]),
            tuple(told["src"]),
            tuple(told["arrived"]),
        )

    @property
    def op(self) -> str:
        """The kind of operation."""
        return self.key[0]

    @property
    def shown(self) -> bool:
        """Whether its messages are few enough to be drawn."""
        return self.op.startswith(_SHOWN)

    def arrival(self, source: int) -> float:
        """When the message of ``source`` was there; the operation's end where that is not known."""
        if len(self.arrived) != len(self.src):
            return self.ts + self.dur
        return self.ts + min(self.dur, max(0.0, self.arrived[self.src.index(source)]))


class _Group:
    """The operations of one key, until all that they name are there."""

    def __init__(self) -> None:
        self.members: dict[int, Operation] = {}
        self.expected: set[int] = set()


class Matcher:
    """Pairs up operations that come in any order; forgets those that are complete."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, int, int], _Group] = {}

    def add(self, operation: Operation) -> Iterator[tuple[Operation, Operation]]:
        """Take an operation; the pairs (sender, receiver) that it completes."""
        if (not operation.dst and not operation.src) or operation.op.startswith("win_"):
            return
        group = self._groups.setdefault(operation.key, _Group())
        me, members = operation.rank, group.members
        for rank in operation.dst:
            if rank in members and me in members[rank].src:
                yield operation, members[rank]
        for rank in operation.src:
            if rank in members and me in members[rank].dst:
                yield members[rank], operation
        members[me] = operation
        group.expected.update((me, *operation.dst, *operation.src))
        if len(members) == len(group.expected):
            del self._groups[operation.key]

    def pending(self) -> int:
        """How many operations name a rank whose operation did not come."""
        return sum(len(group.members) for group in self._groups.values())


_Draw = Callable[[Operation, float, Operation, float], None]
_Buffer = tuple[str, int, int]  # the window, whose memory, and who writes there


class Updates:
    """What one-sided operations left at their targets, and the updates that received it."""

    def __init__(self) -> None:
        self._sent: dict[_Buffer, list[Operation]] = defaultdict(list)
        self._updates: dict[tuple[str, int], list[Operation]] = defaultdict(list)

    def add(self, operation: Operation) -> None:
        """Take an operation; those that are not one-sided are none of its business."""
        window = operation.key[1]
        if operation.op.startswith(_ONE_SIDED):
            for rank in operation.dst:
                self._sent[window, rank, operation.rank].append(operation)
        elif operation.op.startswith("win_update"):
            self._updates[window, operation.rank].append(operation)

    def join(self, shifts: Mapping[int, float], draw: _Draw) -> None:
        """Draw an arrow from the end of each put or accumulate to the next update of its target.

        That is the first update that began after it had ended. A put and what came before it are
        not drawn where a later put had overwritten them by then.

        Args:
            shifts: the microseconds to add to each rank's times.
            draw: called with the sender, its time, the receiver and its time.
        """
        for (window, rank, source), sent in self._sent.items():
            updates = self._updates[window, rank]
            begins = [update.ts + shifts[rank] for update in updates]
            overwritten = -1
            for operation in reversed(sent):
                end = operation.ts + operation.dur
                i = bisect_left(begins, end + shifts[source])
                if i == len(begins) or i == overwritten:
                    continue
                if operation.op.startswith("win_put"):
                    overwritten = i
                # Inside the slice, so that readers find the arrow's beginning in it.
                draw(operation, end - 0.1, updates[i], updates[i].ts)
