"""The weighted sums of mixing, with the exactness that averaging algorithms rely on.

Uniform averages are summed first and divided once: equal inputs then give exactly that input for
counts that are powers of two, and tiny doubles are not lost to a multiply-add. Other weights stay
float64 Python numbers until they meet the tensor. Half precision is summed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["accumulation_dtype", "mean", "weighted_sum"]

_HALF = (torch.float16, torch.bfloat16)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums of ``dtype`` are formed."""
    return torch.float32 if dtype in _HALF else dtype


def mean(
    own: torch.Tensor, received: Sequence[torch.Tensor], *, keep: bool = False
) -> torch.Tensor:
    """(received[0] + received[1] + ... + own) / (len(received) + 1), divided last.

    Args:
        own: [...] this rank's tensor; not changed.
        received: tensors of the same shape, ascending by source; the first may be overwritten.
        keep: leave ``received`` as it is.
    """
    dtype = accumulation_dtype(own.dtype)
    if not received:
        return own.clone()
    total = received[0].to(dtype, copy=keep)
    for other in received[1:]:
        total += other
    total += own
    total /= len(received) + 1
    return total.to(own.dtype)


def weighted_sum(
    own: torch.Tensor,
    self_weight: float,
    received: Sequence[torch.Tensor],
    weights: Sequence[float],
    *,
    keep: bool = False,
) -> torch.Tensor:
    """weights[0] received[0] + weights[1] received[1] + ... + self_weight own.

    Args:
        own: [...] this rank's tensor; not changed.
        self_weight: its coefficient.
        received: tensors of the same shape, ascending by source; the first may be overwritten.
        weights: their coefficients; a zero skips the tensor, whatever it holds.
        keep: leave ``received`` as it is.
    """
    dtype = accumulation_dtype(own.dtype)
    terms = [(x, w) for x, w in zip(received, weights, strict=True) if w != 0.0]
    if not terms:
        return (own.to(dtype) * self_weight).to(own.dtype)
    total = terms[0][0].to(dtype, copy=keep).mul_(terms[0][1])
    for other, weight in terms[1:]:
        total.add_(other.to(dtype), alpha=weight)
    if self_weight != 0.0:
        total.add_(own.to(dtype), alpha=self_weight)
    return total.to(own.dtype)
