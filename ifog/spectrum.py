"""What theory says about a run: the error that mixing alone leaves, and the factor per round.

The prediction is rebuilt from the matrices that were really used. While they are all the same it is
``rho^k``, with rho the second largest eigenvalue modulus; for a changing graph it is the largest
singular value of the product restricted to disagreement, ``||(I - J) W_k ... W_1 (I - J)||_2``,
where J has all entries 1/n. When the product is J itself the average is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ifog.weights import effective_neighbors, spectral_rate

__all__ = [
    "Prediction",
    "contraction_rate",
    "is_closed",
    "matrix_of_rows",
    "neighbors_of",
    "strays",
]

POINTS = 2000  # kept of a curve; beyond that every second one is dropped
_EXACT, _CLEAR = 1e-12, 1e-6  # exact: the product falls from above the one to below the other
_LARGEST = 64  # ranks up to which products are formed
_COUNTED = 128  # ranks up to which effective neighbours are computed
_EIGEN = 512  # ranks up to which eigenvalues are computed
_TRUST = 1e-13  # products below this are rounding

Row = tuple[tuple[int, ...], tuple[float, ...]]


def matrix_of_rows(rows: Sequence[Row], members: Sequence[int]) -> np.ndarray:
    """W of one round, [n, n], from each member's senders and ``(self weight, weights)``."""
    place = {rank: index for index, rank in enumerate(members)}
    matrix = np.zeros((len(members), len(members)))
    for index, (sources, weights) in enumerate(rows):
        matrix[index, index] += weights[0]
        for source, weight in zip(sources, weights[1:], strict=True):
            matrix[index, place[source]] += weight
    return matrix


@lru_cache(maxsize=256)  # most rounds are like the one before
def is_closed(rows: tuple[Row, ...], members: tuple[int, ...]) -> bool:
    """Whether these are rows of a matrix over ``members``: one of each, and no sender outside.

    They are not where the beginning of a run was lost, until every rank has been heard of.
    """
    return len(rows) == len(members) and all(
        len(weights) == len(sources) + 1 and set(sources) <= set(members)
        for sources, weights in rows
    )


def strays(
    rows: Sequence[Row], members: Sequence[int], before: np.ndarray, after: np.ndarray, slack: float
) -> list[int]:
    """The ranks whose values ``after`` a round, [n, ...], are not W times those ``before`` it."""
    with np.errstate(all="ignore"):
        off = np.abs(after - matrix_of_rows(rows, members) @ before).max(axis=1)
    return [rank for rank, far in zip(members, off, strict=True) if not far <= slack]


def neighbors_of(matrix: np.ndarray) -> float | None:
    """Effective neighbours where they are defined, rows or columns summing to 1; None elsewhere."""
    n = len(matrix)
    sums = (matrix.sum(axis=1), matrix.sum(axis=0))
    if n > _COUNTED or not any(np.allclose(side, 1.0, atol=1e-9) for side in sums):
        return None
    return effective_neighbors(matrix)


class Prediction:
    """The factors by which rounds 1, 2, ... must have shrunk the error, kept for some of them.

    ``exact_after`` is the number of rounds after which the product is J, or None; ``constant``
    tells whether all rounds used the same matrix, whose rate is then ``rate`` and whose effective
    neighbours are ``near``.
    """

    def __init__(self) -> None:
        self.rounds: list[int] = [0]
        self.factors: list[float] = [1.0]
        self.done = 0
        self.exact_after: int | None = None
        self.constant = True
        self.normal = True
        self.rate: float | None = None
        self.near: float | None = None
        self.broken = False
        self._plan: tuple[Row, ...] = ()
        self._matrix = np.zeros((0, 0))
        self._product = np.zeros((0, 0))
        self._behind = 0
        self._off = 1.0
        self._known: dict[tuple[Row, ...], np.ndarray] = {}

    def follow(self, step: int, plan: tuple[Row, ...], members: Sequence[int]) -> None:
        """Round ``step`` (from 0) used the rows ``plan``; rounds must come in order."""
        if self.broken or step < self.done:
            return
        n = len(members)
        changed = plan != self._plan
        if changed and (n > _EIGEN or any(len(row) != len(heard) + 1 for heard, row in plan)):
            self.broken = True
            return
        if step > self.done:  # a round was lost: only a constant graph can be continued
            if changed or not self.constant:
                self.broken = True
                return
            self._behind += step - self.done
            self.done = step
        if changed and not self._change(plan, members):
            return
        self._behind += 1
        self.done += 1
        self._advance(n)

    def _change(self, plan: tuple[Row, ...], members: Sequence[int]) -> bool:
        n = len(members)
        matrix = self._known.get(plan)
        if matrix is None:
            matrix = matrix_of_rows(plan, members)
            if len(self._known) < 64:
                self._known[plan] = matrix
        if self.done == 0:
            self._product = np.eye(n)
            self.rate = spectral_rate(matrix)
            self.near = neighbors_of(matrix)
            self.normal = bool(np.allclose(matrix @ matrix.T, matrix.T @ matrix, atol=1e-9))
        elif n > _LARGEST:
            self.broken = True
            return False
        else:
            self._catch_up()
            self.constant = False
            self.rate = None
        self._plan, self._matrix = plan, matrix
        return True

    def _catch_up(self) -> None:
        if self._behind:
            power = np.linalg.matrix_power(self._matrix, self._behind)
            self._product = power @ self._product
            self._behind = 0

    def _advance(self, n: int) -> None:
        if n <= _LARGEST and (not self.constant or self.done <= 2 * n):
            self._catch_up()
            off = float(np.abs(self._product - 1.0 / n).max())
            if self.exact_after is None and off < _EXACT and self._off > _CLEAR:
                self.exact_after = self.done
            self._off = off
        if self._due(n):
            self.rounds.append(self.done)
            self.factors.append(self._factor())
            if len(self.rounds) > POINTS:
                self.rounds, self.factors = self.rounds[::2], self.factors[::2]

    def _due(self, n: int) -> bool:
        stride = max(1 << max((self.done // 512).bit_length(), 0), 1)
        if n > 16 and not self.constant:
            stride = max(stride, 8)
        return self.done <= 32 or self.done % stride == 0

    def _factor(self) -> float:
        if self.exact_after is not None:
            return 0.0
        if self.constant:
            return float(self.rate or 0.0) ** self.done
        centred = self._product - self._product.mean(axis=0)
        centred -= centred.mean(axis=1, keepdims=True)
        value = float(np.linalg.norm(centred, 2))
        return 0.0 if value < _TRUST else value


def contraction_rate(
    rounds: Sequence[int], errors: Sequence[float], floor: float, window: int = 20
) -> float | None:
    """The factor per round of a curve's end, as a geometric mean.

    It is taken over the last ``window`` rounds, or further back until the error was ten times as
    large; never below ``floor``, where only rounding is left, nor across a jump upwards.

    Returns:
        None for fewer than two points above the floor.
    """
    last = len(errors) - 1
    while last > 0 and not errors[last] > floor:
        last -= 1
    if last < 1 or not math.isfinite(errors[last]):
        return None
    first = last
    while first > 0:
        before = errors[first - 1]
        if not math.isfinite(before) or before < errors[first] / 10:
            break
        if rounds[last] - rounds[first] >= window and errors[first] >= 10 * errors[last]:
            break
        first -= 1
    span = rounds[last] - rounds[first]
    if span < 1:
        return None
    return float((errors[last] / errors[first]) ** (1.0 / span))
