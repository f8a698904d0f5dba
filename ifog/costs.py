"""What messages cost by the alpha-beta model: a latency for each, and a rate for their bytes.

With M the bytes of a model, a the latency and B the rate of a link, n ranks::

    one peer         X = a + M / B
    k neighbours     k X
    all-reduce       2 (n - 1) (a + M / (n B))            a ring

and with f and b the time of the forward and backward pass, C = f + b, a training step takes::

    nothing hidden                C + communication
    hidden behind the backward    f + max(b, communication)      gradient order, DDP
    hidden behind all             max(C, communication)          awc with overlap

Source: Hockney 1994, The communication challenge for MPP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ifog.errors import ArgumentError

__all__ = ["Link", "fitted"]


class Link(NamedTuple):
    """What one rank can send.

    Attributes:
        latency: a, in seconds.
        rate: B, in bytes a second.
    """

    latency: float
    rate: float

    def one_peer(self, nbytes: float) -> float:
        """Seconds in which every rank sends to one other, and hears from one."""
        return self.latency + nbytes / self.rate

    def neighbors(self, nbytes: float, degree: int) -> float:
        """Seconds in which every rank sends to ``degree`` others."""
        return degree * self.one_peer(nbytes)

    def allreduce(self, nbytes: float, ranks: int) -> float:
        """Seconds of a sum over all ranks, in a ring."""
        return 2 * (ranks - 1) * self.one_peer(nbytes / ranks)


def fitted(points: Sequence[tuple[float, float, float]]) -> Link:
    """The link that explains measured times best: least squares of the relative errors.

    Args:
        points: (messages one after the other, bytes of them all, seconds); two kinds at least.

    Raises:
        ArgumentError: they do not determine a link.

    Example:
        >>> link = fitted([(1, 0.0, 1e-3), (1, 1e6, 9e-3)])
        >>> round(link.latency, 6), round(link.rate)
        (0.001, 125000000)
    """
    messages, nbytes, seconds = np.array(points, dtype=float).reshape(-1, 3).T
    # a m / t + (1 / B) M / t = 1 for each point, in the least squares sense.
    system = np.stack([messages / seconds, nbytes / seconds], axis=1)
    if (seconds <= 0).any() or np.linalg.matrix_rank(system) < 2:
        raise ArgumentError(
            f"a latency and a rate cannot be found from {len(points)} measurements of one kind; "
            "measure two sizes at least"
        )
    (latency, each), *_ = np.linalg.lstsq(system, np.ones(len(seconds)), rcond=None)
    if latency < 0:  # noise: then bytes explain all there is
        column = system[:, 1]
        latency, each = 0.0, column.sum() / (column @ column)
    return Link(float(latency), 1 / float(each) if each > 0 else float("inf"))
