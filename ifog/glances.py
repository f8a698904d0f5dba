"""All ranks' glances at one tensor after the same round, as one."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ifog.folds import Gather
from ifog.telemetry import WatchEvent

__all__ = ["Glance", "Watched"]


class Glance(NamedTuple):
    """All ranks' samples of one tensor after the same round.

    ``distances`` [ranks] are to the mean and for the whole tensor, as estimated from the samples.
    """

    name: str
    step: int
    samples: np.ndarray  # [ranks, entries]
    distances: np.ndarray  # [ranks]
    grow: float  # samples to whole tensor, of a 2-norm
    eps: float


class Watched:
    """Joins the ranks' glances of one cell; ``first`` is the name seen first."""

    def __init__(self) -> None:
        self._gather: Gather[WatchEvent] = Gather()
        self.first: str | None = None
        self.members: tuple[int, ...] = ()

    def clear(self) -> None:
        """Begin a new cell."""
        self._gather.clear()
        self.first = None

    def put(self, event: WatchEvent, members: tuple[int, ...]) -> Glance | None:
        """Add a glance; the joint one if it was the last of this round."""
        self.first = self.first or event.name
        found = self._gather.put(event.name, event.step, event.rank, event, len(members))
        if found is None or len({len(glance.sample) for glance in found.values()}) > 1:
            return None
        self.members = tuple(sorted(found))
        samples, distances, grow = _joined(
            tuple([found[rank].sample for rank in self.members]), event.numel
        )
        return Glance(event.name, event.step, samples, distances, grow, event.eps)


@lru_cache(maxsize=32)  # several views of a page ask for the same ones
def _joined(
    rows: tuple[tuple[float, ...], ...], numel: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """All samples [ranks, entries], distances to the mean [ranks], and samples to whole tensor."""
    samples = np.array(rows, dtype=np.float64)
    grow = math.sqrt(numel / max(samples.shape[1], 1))
    with np.errstate(all="ignore"):
        distances = grow * np.linalg.norm(samples - samples.mean(axis=0), axis=1)
    samples.flags.writeable = distances.flags.writeable = False
    return samples, distances, grow
