"""Schedules that draw each round anew, from the seed and the step, the same on every rank."""

from __future__ import annotations

import math

import numpy as np

from ifog.errors import ArgumentError
from ifog.links import Links, Whole, averaging, exchanging, require_size, require_whole
from ifog.rounds import Drawn

__all__ = ["epidemic", "equi_dynamic", "random_pair"]


def equi_dynamic(n: int, *, directed: bool = True, eta: float = 0.5, seed: int = 0) -> Drawn:
    """EquiDyn: one random distance u a round; everyone talks to the rank u places further on.

    *Directed* (OD-EquiDyn): ``W = (1 - eta) I + eta shift(u)``. With eta = 1/2 the squared error
    shrinks by (n - 2)/(2(n - 1)) a round in the mean. *Undirected* (OU-EquiDyn): from a random rank
    on, everyone in turn pairs with the rank u further on if both are free; pairs exchange with
    weight eta, who is left keeps its value. Doubly stochastic both.

    Args:
        n: how many ranks.
        directed: which of the two.
        eta: the weight of the other rank's value.
        seed: of the draws.

    Source: Song, Li, Jin, Shi, Yan, Yin, Yuan 2022, arXiv:2210.07881.
    """
    require_size("equi_dynamic", n)
    if not 0 < eta < 1:
        raise ArgumentError(f"equi_dynamic: eta is {eta}; it must lie between 0 and 1")
    label = "OD-EquiDyn" if directed else "OU-EquiDyn"
    everyone = np.arange(n)

    def draw(step: int) -> Links:
        if n == 1:
            return averaging(1, everyone[:0], everyone[:0], label)
        random = np.random.default_rng((seed, step))
        u, start = int(random.integers(1, n)), int(random.integers(n))
        if directed:
            source, target = np.tile(everyone, 2), np.concatenate([(everyone + u) % n, everyone])
            return Links(n, source, target, np.repeat([eta, 1 - eta], n), label)
        first = (start + _pairing(n, u)) % n
        return exchanging(n, first, (first + u) % n, eta, label)

    return Drawn(label, draw)


def _pairing(n: int, u: int) -> Whole:
    """Who, asked in turn from 0 on, is free and finds the one ``u`` further on (mod n) free.

    In runs of u: every other run pairs with the next, as long as that does not reach round. If
    u > n/2, the rest lies between the first n - u and their partners, where ``u`` further on is
    n - u back, and pairs in runs of n - u.
    """
    t, back = np.arange(n), n - u
    ahead = (t // u % 2 == 0) & (t < back)
    behind = (t // back % 2 == 0) & (t >= back) & (t < u)
    return np.flatnonzero(ahead | behind)


def epidemic(n: int, *, fan_out: int | None = None, seed: int = 0) -> Drawn:
    """Epidemic learning: everyone sends to ``fan_out`` random others, who average what they hear.

    A rank that m others chose gives itself and each of them 1/(m + 1): row-stochastic in every
    round, doubly stochastic only in the mean, so the mean of the values is not kept but walks at
    random. About the old mean, with s = fan_out, the squared error shrinks in the mean by
    ``(1 - (1 - s/(n - 1))^n)/s - 1/(n - 1)``.

    Args:
        n: how many ranks.
        fan_out: how many others each sends to; by default ``ceil(log2 n)``.
        seed: of the draws.

    Source: de Vos, Farhadkhani, Guerraoui, Kermarrec, Pires, Sharma 2023, arXiv:2310.01972.
    """
    require_size("epidemic", n)
    s = min(n - 1, math.ceil(math.log2(n))) if fan_out is None else fan_out
    require_whole("epidemic", "fan_out", s, 0 if n == 1 else 1)
    if s > n - 1:
        raise ArgumentError(f"epidemic: fan_out is {s}, but there are only {n - 1} others")

    def draw(step: int) -> Links:
        random = np.random.default_rng((seed, step))
        others = _distinct_rows(n, s, n - 1, random)  # [n, s], counted without oneself
        source = np.repeat(np.arange(n), s)
        target = others.ravel()
        return averaging(n, source, target + (target >= source), "epidemic")

    return Drawn("epidemic", draw)


def random_pair(n: int, *, seed: int = 0) -> Drawn:
    """Random pairs average, each value counting half; with odd n somebody is left out.

    Symmetric and doubly stochastic; with even n the squared error shrinks by
    (n - 2)/(2(n - 1)) a round in the mean (Boyd, Ghosh, Prabhakar, Shah 2006, "Randomized gossip
    algorithms").

    Args:
        n: how many ranks.
        seed: of the draws.
    """
    require_size("random_pair", n)

    def draw(step: int) -> Links:
        order = np.random.default_rng((seed, step)).permutation(n)
        return exchanging(n, order[: n // 2], order[n // 2 : n // 2 * 2], 0.5, "random pair")

    return Drawn("random pair", draw)


def _distinct_rows(rows: int, count: int, below: int, random: np.random.Generator) -> Whole:
    """[rows, count] numbers of ``range(below)``, different within a row, any set as likely."""
    if 2 * count > below:
        return random.permuted(np.tile(np.arange(below), (rows, 1)), axis=1)[:, :count]
    found = random.integers(below, size=(rows, count))
    while True:
        # In the order of drawing, whoever repeats an earlier one draws again.
        order = np.argsort(found, axis=1, kind="stable")
        inside = np.take_along_axis(found, order, axis=1)
        repeats = np.zeros_like(found, dtype=bool)
        np.put_along_axis(repeats, order[:, 1:], inside[:, 1:] == inside[:, :-1], axis=1)
        if not repeats.any():
            return found
        found[repeats] = random.integers(below, size=int(repeats.sum()))
