"""Base-(k+1) graphs: few neighbours a round, and the exact mean after few rounds, for any n.

The construction is that of Takezawa, Sato, Bao, Niwa, Yamada 2023, arXiv:2305.11420. A round is a
list of pieces; a piece joins pairs of ranks that apply one weight to each other's value.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ifog.links import Links, Whole, exchanging, require_size, require_whole
from ifog.rounds import Periodic

__all__ = ["base_graph"]


class _Piece(NamedTuple):
    one: Whole
    other: Whole
    weight: float


_Rounds = list[list[_Piece]]


def base_graph(n: int, *, degree: int = 1, simple: bool = False) -> Periodic:
    """Base-(degree + 1): every rank has at most ``degree`` neighbours, a period gives the mean.

    Every round is symmetric and doubly stochastic. If no prime factor of n exceeds degree + 1, each
    round averages groups of at most degree + 1 ranks, which is the fewest possible rounds;
    otherwise there are at most ``2 log_{degree + 1}(n) + 2``.

    Args:
        n: how many ranks.
        degree: the largest number of neighbours in a round, k.
        simple: never use that n may have small factors; the paper's "simple base" graph.

    Source: Takezawa, Sato, Bao, Niwa, Yamada 2023, arXiv:2305.11420.
    """
    require_size("base_graph", n)
    require_whole("base_graph", "degree", degree)
    rounds = _simple(np.arange(n), degree)
    if not simple:
        rounds = min(rounds, _by_factors(n, degree), key=len)
    label = f"{'simple ' if simple else ''}base-{degree + 1}"

    def build(step: int) -> Links:
        one, other, weight = zip(*rounds[step], strict=True)
        sizes = [len(ends) for ends in one]
        joined = np.concatenate(one), np.concatenate(other)
        return exchanging(n, *joined, np.repeat(weight, sizes), label)

    return Periodic(len(rounds), label, build)


def _simple(nodes: Whole, k: int) -> _Rounds:
    """Blocks of the sizes of n's digits in base k + 1: each averages, then meets the later ones."""
    digits = _digits(len(nodes), k + 1)
    sizes = [count * (k + 1) ** power for count, power in digits]
    starts = np.cumsum([0, *sizes])
    blocks = [nodes[a:b] for a, b in pairwise(starts)]
    rounds: _Rounds = []
    for block in blocks:
        _overlay(rounds, 0, _grouped(block, _factors(len(block), k + 1)))
    begin = len(rounds)
    for place, (block, (count, power)) in enumerate(zip(blocks, digits, strict=True)):
        later = nodes[starts[place + 1] :]
        if not len(later):
            break
        # One rank in each part of the block for every later one, so that the parts stay alike;
        # now the later ones hold the right total, and the parts average inside themselves again.
        parts = block.reshape(count, -1)
        weight = len(block) / (count * (len(block) + len(later)))
        meeting = _Piece(np.tile(later, count), parts[:, : len(later)].ravel(), weight)
        _overlay(rounds, begin + place, [[meeting]])
        for part in parts:
            _overlay(rounds, begin + place + 1, _grouped(part, [k + 1] * power))
    return rounds or [[_Piece(nodes[:0], nodes[:0], 0.0)]]


def _by_factors(n: int, k: int) -> _Rounds:
    """The simple graph inside blocks, then groups across the blocks by the small factors of n."""
    blocks = max(d for d in range(1, n + 1) if n % d == 0 and _is_smooth(d, k + 1))
    size = n // blocks
    rounds: _Rounds = []
    if size > 1:
        for nodes in np.arange(n).reshape(blocks, size):
            _overlay(rounds, 0, _simple(nodes, k))
    across = _factors(blocks, k + 1)
    _overlay(rounds, len(rounds), _grouped(np.arange(n).reshape(blocks, size).T.ravel(), across))
    return rounds or [[_Piece(np.arange(0), np.arange(0), 0.0)]]


def _grouped(nodes: Whole, factors: list[int]) -> _Rounds:
    """Averages in groups of q, for one factor q after the other, until runs of their product agree.

    ``nodes`` is one run, or several one after the other.
    """
    index, stride, rounds = np.arange(len(nodes)), 1, []
    for q in factors:
        digit = index // stride % q
        low = [index[digit + apart < q] for apart in range(1, q)]
        high = [places + (apart + 1) * stride for apart, places in enumerate(low)]
        ends = nodes[np.concatenate(low)], nodes[np.concatenate(high)]
        rounds.append([_Piece(*ends, 1 / q)])
        stride *= q
    return rounds


def _overlay(rounds: _Rounds, begin: int, more: _Rounds) -> None:
    """Let ``more`` happen at the same time as ``rounds``, from round ``begin`` on."""
    rounds.extend([] for _ in range(begin + len(more) - len(rounds)))
    for step, pieces in enumerate(more):
        rounds[begin + step] += pieces


def _digits(n: int, base: int) -> list[tuple[int, int]]:
    """The terms (count, power) of n = sum of count * base^power; powers fall, no count is 0."""
    digits, power = [], 0
    while n:
        n, count = divmod(n, base)
        if count:
            digits.append((count, power))
        power += 1
    return digits[::-1]


def _is_smooth(n: int, largest: int) -> bool:
    for q in range(2, largest + 1):
        while n % q == 0:
            n //= q
    return n == 1


def _factors(n: int, largest: int) -> list[int]:
    """The fewest factors up to ``largest`` whose product is n, which has such factors."""

    @cache
    def fewest(n: int) -> tuple[int, ...] | None:
        if n == 1:
            return ()
        found = [
            (q, *rest)
            for q in range(2, min(n, largest) + 1)
            if n % q == 0 and (rest := fewest(n // q)) is not None
        ]
        return min(found, key=len) if found else None

    return list(fewest(n) or ())
