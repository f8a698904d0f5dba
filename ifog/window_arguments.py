"""From the arguments of a window operation to tensors and weights, all that can be wrong found.

Nothing is sent before these checks have passed, so a refused call leaves the window as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ifog.context import Context
from ifog.errors import ArgumentError
from ifog.exchange import Parcel
from ifog.operation import host
from ifog.plans import mixing_plan

__all__ = ["factor", "factors", "payload", "require_holdable", "row"]

_DTYPES = (torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def require_holdable(tensor: Any) -> None:
    """Check that a window can be made of this.

    Raises:
        ArgumentError: no tensor, or of a dtype that windows do not have.
    """
    if not isinstance(tensor, torch.Tensor):
        raise ArgumentError(f"a window needs a torch tensor, got {type(tensor).__name__}")
    if tensor.dtype not in _DTYPES:
        raise ArgumentError(
            f"a window cannot hold {tensor.dtype}; convert the tensor to one of {list(_DTYPES)}"
        )


def payload(tensor: Any, like: torch.Tensor, name: str, op: str) -> torch.Tensor:
    """The tensor's values in host memory.

    Raises:
        ArgumentError: it has not the window's shape and dtype.
    """
    x = host(tensor, op, at_once=True)  # what is put takes effect in the order of the calls
    if x.shape != like.shape or x.dtype != like.dtype:
        raise ArgumentError(
            f"{op}: the window {name!r} holds {Parcel(like).describe()}, but the tensor has "
            f"{Parcel(x).describe()}; pass one like the window's"
        )
    return x


def factor(value: Any, dtype: torch.dtype, what: str, op: str) -> float:
    """A weight: a float, or for windows of integers a whole number.

    Raises:
        ArgumentError: it is no number, not finite, or not whole where it must be.
    """
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not math.isfinite(weight):
        raise ArgumentError(f"{op}: a weight in {what} must be a finite number, got {value!r}")
    if dtype.is_floating_point:
        return weight
    if not weight.is_integer():
        raise ArgumentError(
            f"{op}: a window of {dtype} takes whole weights, but {what} has {value}; make the "
            "window of a floating-point tensor"
        )
    return int(weight)


def factors(
    rank: int, given: Any, around: Iterable[int], dtype: torch.dtype, *, what: str, op: str
) -> dict[int, float]:
    """{rank: weight} of what was given: a mapping, ranks, or None for all of ``around``.

    Raises:
        ArgumentError: a rank is not in ``around``, or is named twice, or its weight is no number.
    """
    near = sorted(around)
    if given is None:
        given = near
    if not isinstance(given, Mapping):
        ranks = [int(peer) for peer in given]
        if len(set(ranks)) != len(ranks):
            raise ArgumentError(f"{op}: {what} names a rank twice: {ranks}")
        given = dict.fromkeys(ranks, 1)
    found = {int(peer): factor(weight, dtype, what, op) for peer, weight in given.items()}
    strangers = sorted(set(found) - set(near))
    if strangers:
        raise ArgumentError(
            f"{op} on rank {rank}: {what} names {strangers}, but only {near} are neighbours "
            "in the graph; name only those"
        )
    return found


def row(
    context: Context,
    self_weight: Any,
    neighbor_weights: Any,
    dtype: torch.dtype,
    op: str,
) -> tuple[float, dict[int, float], bool]:
    """This rank's row of W: own weight, those of the in-neighbours, and whether it is even.

    An even row is summed first and divided once.

    Raises:
        ArgumentError: one was given without the other, or they do not fit the graph or the dtype.
    """
    if (self_weight is None) != (neighbor_weights is None):
        found = "neighbor_weights" if self_weight is None else "self_weight"
        raise ArgumentError(
            f"{op}: only {found} was given; pass self_weight and neighbor_weights together, or "
            "neither"
        )
    own, weights = None, None
    if neighbor_weights is not None:
        if not isinstance(neighbor_weights, Mapping):
            raise ArgumentError(
                f"{op}: neighbor_weights must be a dict of rank -> weight, got "
                f"{type(neighbor_weights).__name__}"
            )
        own = factor(self_weight, dtype, "self_weight", op)
        near = context.weights.src
        weights = factors(
            context.rank, neighbor_weights, near, dtype, what="neighbor_weights", op=op
        )
        if not dtype.is_floating_point:
            return own, dict(sorted(weights.items())), False
    plan = mixing_plan(
        context, self_weight=own, src_weights=weights, dst_weights=None, topology=None, op=op
    )
    factor(plan.self_weight, dtype, "the average", op)
    chosen = plan.src if weights is None else {j: plan.src[j] for j in sorted(weights)}
    return plan.self_weight, chosen, plan.uniform
