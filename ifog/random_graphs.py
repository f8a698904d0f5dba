"""Graphs drawn at random, the same for the same seed on every rank that draws.

What is drawn may fall apart; then it is drawn again, so that every graph here mixes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ifog.errors import ArgumentError
from ifog.links import (
    Links,
    Real,
    Whole,
    circulant,
    distinct_pairs,
    generator,
    is_connected,
    require_size,
    undirected,
)

__all__ = ["equi_static", "erdos_renyi", "geometric", "random_regular", "small_world"]

_TRIES = 100
Pair = tuple[Whole, Whole]


@generator
def erdos_renyi(n: int, *, p: float | None = None, seed: int = 0) -> Links:
    """Any two ranks exchange with probability ``p``; Metropolis weights.

    Args:
        n: how many ranks.
        p: by default twice ``ln(n)/n``, the value from which such graphs hang together.
        seed: of the draw.

    Raises:
        ArgumentError: ``p`` is no probability, or so small that 100 draws fell apart.
    """
    require_size("erdos_renyi", n)
    p = min(1.0, 2 * math.log(max(n, 2)) / n) if p is None else p
    _require_probability("erdos_renyi", p)

    def draw(random: np.random.Generator) -> Pair:
        total = n * (n - 1) // 2
        return _pair_of(_some(random, total, int(random.binomial(total, p))))

    return _connected(n, draw, seed, f"erdos_renyi: with p = {p:.3g}", "erdos-renyi")


@generator
def random_regular(n: int, *, degree: int | None = None, seed: int = 0) -> Links:
    """Every rank exchanges with ``degree`` others, drawn at random; weights 1/(degree + 1).

    Stubs are paired at random; where that joins a rank to itself or two ranks twice, those pairs
    and as many good ones are dealt again until none is left. Close to uniform among the connected
    graphs of this degree, whose gap tends to ``1 - (1 + 2 sqrt(degree - 1))/(degree + 1)``
    (Friedman 2008, arXiv:cs/0405020).

    Args:
        n: how many ranks.
        degree: of each; less than n, and n * degree even; by default 4, or n - 1 if that is less.
        seed: of the draw.
    """
    require_size("random_regular", n)
    degree = min(4, n - 1) if degree is None else degree
    if degree == n - 1:
        return undirected(n, [np.triu_indices(n, 1)], "random regular")
    if not 2 <= degree < n or n * degree % 2:
        raise ArgumentError(
            f"random_regular: no connected graph of {n} ranks has degree {degree} everywhere; take "
            f"2..{n - 1} with n * degree even"
        )

    def draw(random: np.random.Generator) -> Pair:
        if degree == 2:  # connected, so a single cycle
            around = random.permutation(n)
            return around, np.roll(around, -1)
        if degree <= (n - 1) // 2:
            return _paired_stubs(n, degree, random)
        one, other = np.triu_indices(n, 1)
        left_out = _paired_stubs(n, n - 1 - degree, random)
        kept = ~np.isin(one * n + other, left_out[0] * n + left_out[1])
        return one[kept], other[kept]

    return _connected(n, draw, seed, f"random_regular: of degree {degree}", "random regular")


@generator
def small_world(n: int, *, degree: int | None = None, p: float = 0.1, seed: int = 0) -> Links:
    """A ring with links to the ``degree`` nearest ranks, each moved to anybody by chance ``p``.

    Metropolis weights (Watts, Strogatz 1998, "Collective dynamics of small-world networks").

    Args:
        n: how many ranks.
        degree: even; the ranks on both sides together; by default 4, or what fits if that is less.
        p: the probability with which a link keeps one end and draws the other one anew.
        seed: of the draw.
    """
    require_size("small_world", n)
    if n == 2:  # no even degree but 0
        return undirected(2, [(np.array([0]), np.array([1]))], "small world")
    degree = min(4, (n - 1) // 2 * 2) if degree is None else degree
    if degree % 2 or not 0 <= degree < n:
        raise ArgumentError(
            f"small_world: degree is {degree}; with {n} ranks it must be even and less than {n}"
        )
    _require_probability("small_world", p)

    def draw(random: np.random.Generator) -> Pair:
        one = np.tile(np.arange(n), degree // 2)
        other = (one + np.repeat(np.arange(1, degree // 2 + 1), n)) % n
        moves = random.random(len(one)) < p
        order = np.argsort(moves, kind="stable")  # what moves stands last, and gives way
        one, other, stay = one[order], other[order], len(one) - moves.sum()
        moving = np.arange(stay, len(one))
        for _ in range(_TRIES):  # in a dense graph there may be no free place
            other[moving] = random.integers(n, size=len(moving))
            moving = moving[_clashes(n, one, other)[moving]]
            if not len(moving):
                break
        return one, other

    return _connected(n, draw, seed, f"small_world: with degree {degree}", "small world")


@generator
def geometric(n: int, *, radius: float | None = None, seed: int = 0) -> Links:
    """Ranks at random places of the unit square exchange within ``radius``; Metropolis weights.

    Args:
        n: how many ranks.
        radius: by default 1.5 times ``sqrt(ln(n)/(pi n))``, the value from which such graphs hang
            together.
        seed: of the places.

    Raises:
        ArgumentError: ``radius`` is not positive, or so small that 100 draws fell apart.
    """
    require_size("geometric", n)
    if radius is None:
        radius = 1.5 * math.sqrt(math.log(max(n, 2)) / (math.pi * n))
    if not 0 < radius < math.inf:
        raise ArgumentError(f"geometric: radius is {radius}; it must be positive")

    def draw(random: np.random.Generator) -> Pair:
        return _within(random.random((n, 2)), radius)

    return _connected(n, draw, seed, f"geometric: with radius {radius:.3g}", "geometric")


@generator
def equi_static(
    n: int, *, offsets: int | None = None, directed: bool = True, seed: int = 0
) -> Links:
    """EquiStatic: ranks send ``u`` places further on, for ``offsets`` random distances u.

    The mean of the matrices ``A_u = ((n-1)/n) shift(u) + I/n`` over the draws u (with replacement,
    from 1..n-1); undirected, its symmetric part. Doubly stochastic, and with about
    ``(8/3) ln(2n/q) / e^2`` draws ``||W - J||_2 < e`` with probability 1 - q, whatever n.

    Args:
        n: how many ranks.
        offsets: how many draws; by default ``ceil(log2 n)``.
        directed: False sends both ways round.
        seed: of the draws.

    Source: Song, Li, Jin, Shi, Yan, Yin, Yuan 2022, arXiv:2210.07881.
    """
    require_size("equi_static", n)
    count = max(1, math.ceil(math.log2(n))) if offsets is None else offsets
    if count < 1:
        raise ArgumentError(f"equi_static: offsets is {count}; draw at least one distance")
    if n == 1:
        return circulant(1, [0], "D-EquiStatic" if directed else "U-EquiStatic")
    drawn = np.random.default_rng(seed).integers(1, n, size=count).tolist()
    share = (n - 1) / n / count
    if directed:
        return circulant(n, [0, *drawn], "D-EquiStatic", [1 / n, *[share] * count])
    both = [*drawn, *(-u for u in drawn)]
    return circulant(n, [0, *both], "U-EquiStatic", [1 / n, *[share / 2] * len(both)])


def _connected(
    n: int, draw: Callable[[np.random.Generator], Pair], seed: int, what: str, label: str
) -> Links:
    for attempt in range(_TRIES):
        one, other = draw(np.random.default_rng((seed, attempt)))
        if is_connected(n, one, other):
            return undirected(n, [(one, other)], label)
    raise ArgumentError(
        f"{what}, {_TRIES} graphs of {n} ranks fell apart; ask for more links or take another seed"
    )


def _some(random: np.random.Generator, total: int, count: int) -> Whole:
    """``count`` different numbers of ``range(total)``, any set as likely as any other."""
    if 2 * count > total:
        return np.delete(np.arange(total), _some(random, total, total - count))
    found = np.zeros(0, dtype=np.int64)
    while len(found) < count:
        # What comes first stays: a random order of all that are different.
        drawn = random.integers(total, size=2 * (count - len(found)) + 8)
        everything = np.concatenate([found, drawn])
        _, first = np.unique(everything, return_index=True)
        found = everything[np.sort(first)][:count]
    return found


def _pair_of(number: Whole) -> Pair:
    """The pair (a, b), a < b, of each number, counting 01, 02, 12, 03, 13, 23, ..."""
    high = ((1 + np.sqrt(1 + 8 * number.astype(np.float64))) / 2).astype(np.int64)
    # The root of large numbers may be off by one.
    high -= high * (high - 1) // 2 > number
    high += high * (high + 1) // 2 <= number
    return number - high * (high - 1) // 2, high


def _paired_stubs(n: int, degree: int, random: np.random.Generator) -> Pair:
    stubs = random.permutation(np.repeat(np.arange(n), degree))
    one, other = stubs[::2].copy(), stubs[1::2].copy()
    while len(bad := np.flatnonzero(_clashes(n, one, other))):
        redo = np.union1d(bad, random.integers(len(one), size=len(bad) + 1))
        ends = random.permutation(np.concatenate([one[redo], other[redo]]))
        one[redo], other[redo] = np.split(ends, 2)
    low, high = np.minimum(one, other), np.maximum(one, other)
    return low, high


def _clashes(n: int, one: Whole, other: Whole) -> npt.NDArray[np.bool_]:
    """Which pairs join a node to itself, or repeat an earlier pair."""
    keys = np.minimum(one, other) * n + np.maximum(one, other)
    repeated = np.ones(len(keys), dtype=bool)
    repeated[np.unique(keys, return_index=True)[1]] = False
    repeated |= one == other
    return repeated


def _within(places: Real, radius: float) -> Pair:
    """All pairs of places at most ``radius`` apart, in the time that listing them takes."""
    across = max(1, min(math.floor(1 / radius), math.isqrt(len(places)) + 1))
    column, row = np.minimum((places * across).astype(np.int64), across - 1).T
    cell = row * across + column
    order = np.argsort(cell, kind="stable")
    first = np.searchsorted(cell[order], np.arange(across * across + 1))
    found = []
    for down, right in ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1)):
        there = (row + down < across) & (column + right >= 0) & (column + right < across)
        mine = np.flatnonzero(there)
        beside = cell[mine] + down * across + right
        count = first[beside + 1] - first[beside]
        one = np.repeat(mine, count)
        step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        other = order[np.repeat(first[beside], count) + step]
        near = ((places[one] - places[other]) ** 2).sum(axis=1) <= radius**2
        found.append((one[near], other[near]))
    return distinct_pairs(len(places), found)


def _require_probability(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ArgumentError(f"{name}: p is {p}; a probability lies between 0 and 1")
