"""What a rank tells the live views about its work: figures of its training, laws that must hold.

None of this moves data between ranks or waits for anybody: each rank reports its part, and the
views, which see all ranks, do the sums.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ifog.context import current
from ifog.errors import ArgumentError
from ifog.telemetry import LogEvent, now

__all__ = ["check_copies", "check_sums", "log"]


def log(**scalars: float | Tensor) -> None:
    """Show figures of this rank in the live views; every rank calls it at the same places.

    Names of figures that are measured on data all ranks share should begin with ``test``; others
    count as measured on the rank's own data. ``samples`` is how many examples were worked on since
    the last call; from it Throughput makes samples per second. A NaN is shown, not refused.

    Args:
        scalars: numbers, or tensors of one entry.

    Raises:
        ArgumentError: a value is not a number.

    Example:
        >>> import ifog
        >>> ifog.init()
        >>> ifog.log(loss=0.25, test_accuracy=torch.tensor(0.5), samples=32)
    """
    context = current()
    values = tuple((name, _number(name, value)) for name, value in scalars.items())
    step, context.logged = context.logged, context.logged + 1
    if values:
        context.emit(LogEvent(context.rank, now(), step, context.round, values))


def _number(name: str, value: float | Tensor) -> float:
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        found = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ArgumentError(
            f"log: {name} must be a number or a tensor of one entry, got {found[:80]}; pass for "
            f"example {name}={name}.mean()"
        ) from None


def check_sums(law: str, left: Tensor, right: Tensor | float) -> None:
    """Have the live views check that two tensors sum to the same over ranks; call it once a round.

    sum_i left_i = sum_i right_i, entry by entry, such as sum y = sum g of gradient tracking, or
    sum p = n of push-sum. The view Watch says in which round and, where it can be told, on which
    rank the law broke first. At most 64 entries are compared, and not in every round of a fast
    loop.

    Args:
        law: what the view calls it.
        left: [...] floating point, of the same shape on every rank.
        right: [...] of the same shape, or a number for all entries.

    Raises:
        ArgumentError: not such tensors.

    Example:
        >>> import ifog
        >>> ifog.init()
        >>> ifog.check_sums("push-sum mass", torch.ones(1), 1.0)
    """
    _require(law, left)
    other = right if isinstance(right, Tensor) else torch.full_like(left, float(right))
    if other.shape != left.shape:
        raise ArgumentError(
            f"check_sums {law!r}: left is {list(left.shape)} and right {list(other.shape)}; they "
            "are compared entry by entry, so pass the same shape, or a number"
        )
    context = current()
    context.watcher.compare(law, -1, context.round, left, other)


def check_copies(law: str, copy: Tensor, owner: int) -> None:
    """Have the live views check that all ranks hold the same copy of one rank's tensor.

    With x_hat_j as rank i keeps it called h_i^j: h_i^j = h_k^j for all ranks i, k that call this in
    a round for the owner j, such as the estimates of compressed gossip, which drift apart for good
    once a rank misses an update.

    Args:
        law: what the view calls it; the same for all owners.
        copy: [...] floating point, of the same shape on every rank that has one.
        owner: the rank whose tensor it is a copy of.

    Raises:
        ArgumentError: not such a tensor, or no such rank.

    Example:
        >>> import ifog
        >>> ifog.init()
        >>> ifog.check_copies("equal x-hat copies", torch.zeros(3), owner=0)
    """
    _require(law, copy)
    context = current()
    if not 0 <= owner < context.size:
        raise ArgumentError(
            f"check_copies {law!r}: the owner is {owner}, but the ranks are 0..{context.size - 1}"
        )
    context.watcher.compare(law, owner, context.round, copy, None)


def _require(law: str, x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.numel():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ArgumentError(
            f"{law!r} is checked on floating-point tensors with entries, got {found}"
        )
