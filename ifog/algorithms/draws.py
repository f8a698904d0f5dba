"""Chance that belongs to an agent: numbers that depend on (seed, agent, step) and nothing else.

Ranks that host one agent and a simulator that hosts all of them so draw the same, whatever the
order. A key is a hash of the three; the numbers of a key are those of a SplitMix64 generator with
that seed, computed side by side for all agents.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["coin", "integers", "keys", "normal", "uniform"]

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # as a signed number; products wrap as unsigned ones do
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def keys(seed: int, agents: Tensor, step: int) -> Tensor:
    """[n] int64, a key for each agent, from agents [n] int64.

    Example:
        >>> both = keys(7, torch.tensor([3, 5]), 0)
        >>> bool(keys(7, torch.tensor([5]), 0)[0] == both[1])
        True
    """
    key = torch.full_like(agents, seed)
    for number in (torch.full_like(agents, step), agents):
        key = _hashed(_hashed(key + _GOLDEN) ^ number)
    return key


def uniform(key: Tensor, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """[n, *shape] numbers in [0, 1), from a key [n] for each agent."""
    count = 1
    for size in shape:
        count *= size
    place = torch.arange(1, count + 1, device=key.device) * _GOLDEN
    bits = _hashed(key[:, None] + place)
    width = 53 if dtype is torch.float64 else 24  # as many as the dtype can tell apart
    kept = (bits >> (64 - width)) & ((1 << width) - 1)
    return (kept.to(dtype) * 2.0**-width).view(-1, *shape)


def normal(key: Tensor, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """[n, *shape] normal numbers, mean 0 and variance 1 (Box, Muller 1958)."""
    one, other = uniform(key, 2, *shape, dtype=dtype).unbind(1)
    return torch.sqrt(-2 * torch.log1p(-one)) * torch.cos(2 * torch.pi * other)


def integers(key: Tensor, below: int, *shape: int) -> Tensor:
    """[n, *shape] whole numbers in 0 .. below - 1, int64."""
    return (uniform(key, *shape) * below).long()


def coin(seed: int, step: int) -> float:
    """A number in [0, 1) that all agents share: it depends on (seed, step) only."""
    nobody = torch.tensor([-1])
    return float(uniform(keys(seed, nobody, step)).item())


def _hashed(z: Tensor) -> Tensor:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    z = (z ^ _right(z, 30)) * _MIX_1
    z = (z ^ _right(z, 27)) * _MIX_2
    return z ^ _right(z, 31)


def _right(z: Tensor, by: int) -> Tensor:
    return (z >> by) & ((1 << (64 - by)) - 1)
