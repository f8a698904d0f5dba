"""Which rank sits on which machine: what the wire says, or what the environment asks for.

Machines are numbered from 0 in the order of their first ranks. The lowest rank of a machine is its
leader, the one that speaks with other machines.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ifog.errors import ArgumentError

__all__ = ["Layout", "arranged"]

VARIABLES = ("IFOG_RANKS_PER_MACHINE", "BLUEFOG_NODES_PER_MACHINE")


@dataclass(frozen=True, slots=True)
class Layout:
    """The machine of every rank; the machines are 0, 1, ... without a gap.

    Attributes:
        machines: of every rank, whether it lives or not, so that machines keep their numbers.
        dead: ranks that count on no machine any more; one with no other rank is empty.
    """

    machines: tuple[int, ...]
    dead: frozenset[int] = frozenset()

    @property
    def count(self) -> int:
        """The number of machines."""
        return max(self.machines) + 1

    def members(self, machine: int) -> tuple[int, ...]:
        """The ranks of a machine that live, ascending."""
        return tuple(
            rank
            for rank, home in enumerate(self.machines)
            if home == machine and rank not in self.dead
        )

    def mates(self, rank: int) -> tuple[int, ...]:
        """The ranks of the machine of ``rank``, itself included, ascending."""
        return self.members(self.machines[rank])

    def leaders(self) -> dict[int, int]:
        """The lowest rank of every machine that has any."""
        found: dict[int, int] = {}
        for rank, home in enumerate(self.machines):
            if rank not in self.dead:
                found.setdefault(home, rank)
        return dict(sorted(found.items()))

    def sizes(self) -> tuple[int, ...]:
        """The number of ranks of every machine."""
        return tuple(len(self.members(machine)) for machine in range(self.count))

    def without(self, dead: Iterable[int]) -> Layout:
        """The same machines, on which only ``dead`` do not count."""
        return Layout(self.machines, frozenset(dead))

    @property
    def homogeneous(self) -> bool:
        """Whether all machines have equally many ranks, each a run of consecutive ones."""
        return len(set(self.sizes())) == 1 and self.machines == tuple(sorted(self.machines))


def arranged(machines: Sequence[int], *, warn: bool = True) -> Layout:
    """The layout of a world: k consecutive ranks a machine where the environment says so.

    Args:
        machines: the machine of every rank as the wire knows it.
        warn: say so when the environment's number does not divide the number of ranks.

    Raises:
        ArgumentError: the environment's number is not a positive integer.
    """
    name = next((name for name in VARIABLES if name in os.environ), None)
    if name is None:
        return Layout(tuple(machines))
    text, n = os.environ[name], len(machines)
    if not text.strip().isdecimal() or int(text) < 1:
        raise ArgumentError(
            f"{name} is {text!r}, but the number of ranks on a machine must be a positive integer; "
            "correct it, or unset it to take the machines as they are"
        )
    k = int(text)
    if n % k and warn:
        warnings.warn(
            f"{name}={k} does not divide the {n} ranks: the last machine has {n % k}, so the "
            "layout is not homogeneous",
            stacklevel=2,
        )
    return Layout(tuple(rank // k for rank in range(n)))
