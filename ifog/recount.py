"""Ranks that count alike again after a failure, which may have stopped each at another round.

What follows a schedule must be at the same round on every rank. An interrupt or an error ends a
cell on one rank in round k and on another in round k + 1; when they have healed they go on from the
furthest of them.
"""

from __future__ import annotations

import torch

from ifog.context import current, is_initialized
from ifog.ops import allgather

__all__ = ["Recount"]


class Recount:
    """Notices that ranks have healed since it was made, or since they counted alike."""

    def __init__(self) -> None:
        self._healed = current().healed if is_initialized() else 0

    @property
    def due(self) -> bool:
        """Whether ranks have healed and may count differently."""
        return current().healed != self._healed

    def pass_over(self) -> None:
        """Go on with one's own counts."""
        self._healed = current().healed

    def agree(self, who: str, *counts: int) -> tuple[int, ...]:
        """The largest of each of the ranks' counts; every rank must call it when it is due.

        Where a cell leaves ranks out, each keeps its own.

        Args:
            who: counts, to match the ranks' calls.
            counts: of this rank.
        """
        context = current()
        self.pass_over()
        if set(context.participants) != set(context.alive):
            return counts
        told = allgather(
            torch.tensor([counts], dtype=torch.int64, device="cpu"), name=f"{who}, how far"
        )
        return tuple(told.amax(0).tolist())
