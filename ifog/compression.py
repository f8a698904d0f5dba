"""Compressors: what an agent sends of its tensor, and how many bytes that takes.

A codec works on each agent's entries by themselves, and its chance belongs to (seed, agent, step),
so a rank with one agent sends what a process with all of them computes for it. Unbiased codecs
keep the expectation; the others shrink: ``E |Q(x) - x|^2 <= (1 - delta) |x|^2`` with delta > 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ifog.algorithms.draws import keys, uniform
from ifog.errors import ArgumentError

__all__ = ["Codec", "dithered", "identity", "qsgd", "random_k", "sign", "top_k"]


@dataclass(frozen=True, slots=True)
class Codec:
    """A compressor: ``codec(x, agents, step)`` is what arrives of x [n, ...].

    Attributes:
        name: for tables and pictures.
        unbiased: whether the expectation of what arrives is what was sent.
        replace: (entries [n, d], keys [n]) -> what arrives [n, d].
        bits: (d, bits of one entry) -> the bits that one agent sends.
        seed: of its chance.
    """

    name: str
    unbiased: bool
    replace: Callable[[Tensor, Tensor], Tensor]
    bits: Callable[[int, int], int]
    seed: int = 0

    def __call__(self, x: Tensor, agents: Tensor, step: int) -> Tensor:
        """[n, ...] -> [n, ...], a new tensor."""
        return self.replace(x.flatten(1), keys(self.seed, agents.to(x.device), step)).view_as(x)

    def nbytes(self, x: Tensor) -> int:
        """The bytes that one agent's row of x [n, ...] takes."""
        return math.ceil(self.bits(x[0].numel(), 8 * x.element_size()) / 8)


def identity() -> Codec:
    """Sends everything."""
    return Codec("identity", True, lambda x, _: x.clone(), lambda d, width: d * width)


def top_k(fraction: float) -> Codec:
    """Sends the ``fraction`` of the entries that are largest in modulus, and where they are.

    Biased: delta = k/d. At least one entry is sent.

    Example:
        >>> x = torch.tensor([[1.0, -3.0, 2.0, 0.5], [0.0, 0.0, 4.0, 5.0]])
        >>> top_k(0.25)(x, torch.arange(2), 0).tolist()
        [[0.0, -3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0]]

    Source: Stich, Cordonnier, Jaggi 2018, arXiv:1809.07599.
    """
    _require_fraction("top_k", fraction)

    def replace(x: Tensor, _: Tensor) -> Tensor:
        places = x.abs().topk(_count(fraction, x.shape[1]), dim=1).indices
        return torch.zeros_like(x).scatter(1, places, x.gather(1, places))

    return Codec(f"top {fraction:.3g}", False, replace, _sparse_bits(fraction))


def random_k(fraction: float, *, scaled: bool = False, seed: int = 0) -> Codec:
    """Sends a ``fraction`` of the entries, drawn anew each time.

    Args:
        fraction: at least one entry is sent.
        scaled: multiply by d/k, which makes it unbiased; otherwise delta = k/d.
        seed: of the draws.

    Example:
        >>> codec = random_k(0.5)
        >>> int(codec(torch.ones(3, 10), torch.arange(3), 0).sum())
        15

    Source: Stich, Cordonnier, Jaggi 2018, arXiv:1809.07599.
    """
    _require_fraction("random_k", fraction)

    def replace(x: Tensor, key: Tensor) -> Tensor:
        k = _count(fraction, x.shape[1])
        places = uniform(key, x.shape[1]).topk(k, dim=1).indices
        factor = x.shape[1] / k if scaled else 1.0
        return torch.zeros_like(x).scatter(1, places, factor * x.gather(1, places))

    name = f"random {fraction:.3g}" + (" scaled" if scaled else "")
    return Codec(name, scaled, replace, _sparse_bits(fraction), seed)


def qsgd(levels: int, *, seed: int = 0) -> Codec:
    """Rounds ``|x_j| / |x|_2`` up or down to a multiple of 1/levels, so that the mean is right.

    ``Q(x)_j = |x|_2 sign(x_j) floor(s |x_j| / |x|_2 + u_j) / s`` with u uniform in [0, 1).
    Unbiased; the error grows with ``sqrt(d) / s``.

    Example:
        >>> x = torch.tensor([[3.0, -4.0]])
        >>> qsgd(5)(x, torch.arange(1), 0).tolist()
        [[3.0, -4.0]]

    Source: Alistarh, Grubic, Li, Tomioka, Vojnovic 2017, arXiv:1610.02132.
    """
    _require_levels("qsgd", levels)
    return Codec(
        f"QSGD {levels}",
        True,
        lambda x, key: _rounded(x, x.norm(dim=1, keepdim=True), levels, key),
        _level_bits(levels),
        seed,
    )


def dithered(levels: int, *, seed: int = 0) -> Codec:
    """Rounds ``|x_j| / max |x|`` up or down to a multiple of 1/levels, so that the mean is right.

    ``Q(x)_j = |x|_inf sign(x_j) floor(s |x_j| / |x|_inf + u_j) / s`` with u uniform in [0, 1).
    Unbiased. With 2^(b-1) levels it is the "b-bit" quantiser of LEAD.

    Example:
        >>> x = torch.tensor([[1.0, -2.0, 0.0, 4.0]])
        >>> dithered(4)(x, torch.arange(1), 0).tolist()
        [[1.0, -2.0, 0.0, 4.0]]

    Source: Liu, Li, Wang, Tang, Yan 2021, arXiv:2007.00232.
    """
    _require_levels("dithered", levels)
    return Codec(
        f"dithered {levels}",
        True,
        lambda x, key: _rounded(x, x.abs().amax(1, keepdim=True), levels, key),
        _level_bits(levels),
        seed,
    )


def sign() -> Codec:
    """Sends the signs and one number: ``|x|_1 / d`` times the sign of each entry.

    Biased: delta = ``|x|_1^2 / (d |x|_2^2)``.

    Example:
        >>> sign()(torch.tensor([[1.0, -2.0, 3.0, -6.0]]), torch.arange(1), 0).tolist()
        [[3.0, -3.0, 3.0, -3.0]]

    Source: Karimireddy, Rebjock, Stich, Jaggi 2019, arXiv:1901.09847.
    """
    return Codec(
        "sign",
        False,
        lambda x, _: x.abs().mean(1, keepdim=True) * x.sign(),
        lambda d, width: width + d,
    )


def _rounded(x: Tensor, scale: Tensor, levels: int, key: Tensor) -> Tensor:
    unit = torch.where(scale > 0, scale, 1) / levels
    dither = uniform(key, x.shape[1], dtype=x.dtype)
    # Rounding must not lift the largest entry above its level: |x_j| / unit is at most levels.
    steps = torch.floor((x.abs() / unit).clamp(max=levels) + dither)
    return unit * x.sign() * steps


def _count(fraction: float, entries: int) -> int:
    return max(1, round(fraction * entries))


def _sparse_bits(fraction: float) -> Callable[[int, int], int]:
    """A value and a place for each entry sent."""
    return lambda d, width: _count(fraction, d) * (width + max(1, math.ceil(math.log2(d))))


def _level_bits(levels: int) -> Callable[[int, int], int]:
    """One number, and for each entry its level with a sign."""
    return lambda d, width: width + d * math.ceil(math.log2(2 * levels + 1))


def _require_fraction(name: str, fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise ArgumentError(f"{name}: fraction is {fraction}; it must be above 0 and at most 1")


def _require_levels(name: str, levels: int) -> None:
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
        raise ArgumentError(f"{name}: levels is {levels!r}; it must be a whole number from 1 on")
