"""Gradients in flat tensors, to be mixed, and back from there.

A gradient that this rank lacks counts as zero; one that nobody has stays None. Who has which
travels behind the gradients, in the same message.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ifog.errors import ArgumentError
from ifog.flat import Bucket, Layout, zeros

__all__ = ["finite", "flattened", "flattened_bucket", "restore", "restore_bucket", "unscale"]


def flattened(layout: Layout) -> list[Tensor]:
    """The gradients of all tensors of a layout.

    Raises:
        ArgumentError: one of them is sparse.
    """
    tensors = layout.tensors
    for place, x in enumerate(tensors):
        if x.grad is not None and x.grad.layout != torch.strided:
            raise ArgumentError(
                f"{layout.name(place)} has a sparse gradient, which order='gradient' "
                "cannot mix; use order='atc', or sparse=False in the embedding"
            )
    flats = layout.gathered([x.grad for x in tensors], extra=len(tensors))
    flats[0][-len(tensors) :] = _there(tensors)
    return flats


def restore(layout: Layout, mixed: Sequence[Tensor]) -> None:
    """Let these be the gradients of the layout's tensors."""
    _give(layout.tensors, layout.views(mixed), mixed[0])


def finite(layout: Layout) -> bool:
    """Whether all entries of all gradients there are are finite."""
    found = [x.grad for x in layout.tensors if x.grad is not None]
    return all(bool(gradient.isfinite().all()) for gradient in found)


def unscale(layout: Layout, scale: Tensor) -> None:
    """Divide all gradients by the scale of a ``GradScaler``."""
    inverse = scale.double().reciprocal().float()
    for x in layout.tensors:
        if x.grad is not None:
            x.grad.mul_(inverse.to(x.grad.device))


def flattened_bucket(layout: Layout, bucket: Bucket, like: Tensor) -> Tensor:
    """The gradients of a bucket's tensors, in the dtype and on the device of ``like``."""
    tensors = layout.of(bucket)
    flat = zeros(bucket.stop - bucket.start + len(tensors), like.dtype, like.device)
    for view, x in zip(layout.views_in(bucket, flat), tensors, strict=True):
        if x.grad is not None:
            view.copy_(x.grad)
    flat[-len(tensors) :] = _there(tensors)
    return flat


def restore_bucket(layout: Layout, bucket: Bucket, mixed: Tensor) -> None:
    """Let these be the gradients of the bucket's tensors."""
    tensors = layout.of(bucket)
    _give(tensors, layout.views_in(bucket, mixed), mixed)


def _there(tensors: Sequence[Tensor]) -> Tensor:
    return torch.tensor([float(x.grad is not None) for x in tensors])


def _give(tensors: Sequence[Tensor], gradients: Sequence[Tensor], flat: Tensor) -> None:
    there = flat[-len(tensors) :].tolist()
    for x, gradient, any_ in zip(tensors, gradients, there, strict=True):
        x.grad = gradient if any_ else None
