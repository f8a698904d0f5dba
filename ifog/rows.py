"""All ranks' rows of W in the same round, as one plan."""

from __future__ import annotations

from collections.abc import Iterator

from ifog.batches import Run
from ifog.folds import Gather
from ifog.spectrum import Row, is_closed
from ifog.telemetry import OpEvent

__all__ = ["Plan", "Rows"]

Plan = tuple[Row, ...]  # of every member, in their order


class Rows:
    """Joins the rows that the ranks of one cell tell of their rounds."""

    def __init__(self) -> None:
        self._gather: Gather[OpEvent] = Gather()
        self._members: tuple[int, ...] = ()
        self._last: Plan = ()

    def clear(self) -> None:
        """Begin a new cell."""
        self._gather.clear()

    def join(self, run: Run, members: tuple[int, ...]) -> Iterator[tuple[OpEvent, Plan]]:
        """Add a rank's rounds; the plans of those that it completes, if they are closed.

        A plan that is like the last one is the very same object.
        """
        for event, ops in self._gather.join(run, len(members)):
            plan = tuple([(op[11], op[12]) for op in map(ops.__getitem__, members)])
            if plan == self._last and members == self._members:
                yield event, self._last
            elif is_closed(plan, members):
                self._last, self._members = plan, members
                yield event, plan
