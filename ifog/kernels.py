"""The weighted sums of mixing, with the exactness that averaging algorithms rely on.

Uniform averages are summed first and divided once: equal inputs then give exactly that input for
counts that are powers of two, and tiny doubles are not lost to a multiply-add. Other weights stay
float64 Python numbers until they meet the tensor. Half precision is summed in float32. Large
tensors are summed piece by piece, so that each is read from main memory once. Many agents in one
process are multiplied by a sparse matrix.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

__all__ = ["Product", "accumulation_dtype", "mean", "summed", "weighted_sum"]

Whole: TypeAlias = npt.NDArray[np.integer]
Real: TypeAlias = npt.NDArray[np.floating]

_HALF = (torch.float16, torch.bfloat16)
_PIECE = 1 << 20  # bytes of one tensor that are summed at a time, measured from 16 to 100 MB
Pieces = Sequence[torch.Tensor]
_FEW = 1 << 16  # products in a round that are not worth a second thread
_QUIETLY = threading.Lock()
_HAS_MKL: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call] # torch's


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums of ``dtype`` are formed."""
    return torch.float32 if dtype in _HALF else dtype


def mean(
    own: torch.Tensor, received: Sequence[torch.Tensor], out: torch.Tensor | None = None
) -> torch.Tensor:
    """(received[0] + received[1] + ... + own) / (len(received) + 1), divided last.

    Args:
        own: [...] this rank's tensor; like all others not changed.
        received: tensors of the same shape and dtype, ascending by source.
        out: contiguous, where the result goes; a new tensor by default.
    """
    if len(received) == 1 and own.dtype is torch.bfloat16:
        # One sum is rounded once, and halving is exact, where the range is that of float32.
        return _by_pieces([*received, own], _average, out, own.dtype)
    return summed([*received, own], out, average=True)


def summed(
    terms: Sequence[torch.Tensor], out: torch.Tensor | None = None, *, average: bool = False
) -> torch.Tensor:
    """terms[0] + terms[1] + ..., in this order; with ``average`` divided by their number at last.

    Args:
        terms: tensors of one shape and dtype; not changed.
        out: contiguous, where the result goes; a new tensor by default.
        average: whether to divide.
    """
    return _by_pieces(terms, _average if average else _sum, out)


def _sum(pieces: Pieces, total: torch.Tensor) -> None:
    if len(pieces) == 1:
        total.copy_(pieces[0])
        return
    torch.add(pieces[0], pieces[1], out=total)
    for piece in pieces[2:]:
        total.add_(piece)


def _average(pieces: Pieces, total: torch.Tensor) -> None:
    _sum(pieces, total)
    if len(pieces) > 1:
        total.div_(_number(len(pieces), total.dtype))


@cache
def _number(value: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of one value, by which to divide takes less time than by a number."""
    return torch.tensor(value, dtype=dtype, device="cpu")


def weighted_sum(
    own: torch.Tensor,
    self_weight: float,
    received: Sequence[torch.Tensor],
    weights: Sequence[float],
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """weights[0] received[0] + weights[1] received[1] + ... + self_weight own.

    Args:
        own: [...] this rank's tensor; like all others not changed.
        self_weight: its coefficient.
        received: tensors of the same shape and dtype, ascending by source.
        weights: their coefficients; a zero skips the tensor, whatever it holds.
        out: contiguous, where the result goes; a new tensor by default.
    """
    terms = [(x, w) for x, w in zip(received, weights, strict=True) if w != 0.0]
    if self_weight != 0.0 or not terms:
        terms.append((own, self_weight))
    factors = [w for _, w in terms]

    def sum_up(pieces: Pieces, total: torch.Tensor) -> None:
        torch.mul(pieces[0], factors[0], out=total)
        for piece, factor in zip(pieces[1:], factors[1:], strict=True):
            total.add_(piece, alpha=factor)

    return _by_pieces([x for x, _ in terms], sum_up, out)


def _by_pieces(
    terms: Sequence[torch.Tensor],
    sum_up: Callable[[Pieces, torch.Tensor], None],
    out: torch.Tensor | None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``sum_up(terms, out)``, in pieces that fit into a cache, by default in the dtype of sums."""
    own, result = terms[-1], out
    if result is None:
        result = torch.empty_like(own, memory_format=torch.contiguous_format)
    dtype = dtype or accumulation_dtype(own.dtype)
    # The memory of a device has no such caches, and each start of a sum there takes its time.
    step = _PIECE // own.element_size() if own.is_cpu else max(1, own.numel())
    if own.numel() <= step and dtype == own.dtype:
        sum_up(terms, result)
        return result
    flat = [torch.split(x.reshape(-1), step) for x in terms]
    targets = torch.split(result.view(-1), step)
    scratch = None if dtype == own.dtype else torch.empty(step, dtype=dtype, device=own.device)
    for target, *pieces in zip(targets, *flat, strict=True):
        if scratch is None:
            sum_up(pieces, target)
        else:
            total = scratch[: target.numel()]
            sum_up([piece.to(dtype) for piece in pieces], total)
            target.copy_(total)
    return result


class Product:
    """A sparse matrix W that multiplies stacked tensors: ``y_v = sum_u W[v, u] x_u``.

    Row v holds the entries ``first[v]`` to ``first[v + 1]``, which are summed in this order.

    Args:
        first: [rows + 1].
        column: [entries] which row of x each multiplies.
        weight: [entries] by how much.
        width: how many rows x has.
    """

    def __init__(self, first: Whole, column: Whole, weight: Real, width: int) -> None:
        self._first = torch.from_numpy(first.astype(np.int32))
        self._column = torch.from_numpy(column.astype(np.int32))
        self._weight = torch.from_numpy(weight.astype(np.float64))
        self._shape = (len(first) - 1, width)
        self._ready: dict[tuple[torch.dtype, torch.device], Callable[[Tensor], Tensor]] = {}

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[width, ...] -> [rows, ...], a new tensor of the same dtype and device."""
        few = x.is_cpu and len(self._column) * x.numel() < _FEW * len(x)
        dtype = torch.float64 if few else accumulation_dtype(x.dtype)
        key = (dtype, x.device)
        if key not in self._ready:
            self._ready[key] = self._kernel(*key)
        flat = x.detach().reshape(len(x), -1).to(dtype)
        return self._ready[key](flat).to(x.dtype).view(self._shape[0], *x.shape[1:])

    def _kernel(self, dtype: torch.dtype, device: torch.device) -> Callable[[Tensor], Tensor]:
        first, column = self._first.to(device), self._column.to(device)
        weight = self._weight.to(device, dtype)
        starts = first[:-1]

        def gathered(flat: Tensor) -> Tensor:
            # Gather and weighted sum in one pass.
            return embedding_bag(column, flat, starts, mode="sum", per_sample_weights=weight)

        if dtype is not torch.float64 or (device.type == "cpu" and not _HAS_MKL):
            return gathered
        # For doubles that pass has no vector instructions, but it is the only one that leaves the
        # other threads alone where there is little to do.
        matrix = _csr(first, column, weight, self._shape)
        few = _FEW // max(len(column), 1)
        return lambda flat: gathered(flat) if flat.shape[1] < few else matrix @ flat


def _csr(first: Tensor, column: Tensor, weight: Tensor, shape: tuple[int, int]) -> Tensor:
    with _QUIETLY, warnings.catch_warnings():
        # That these are in beta is said once a process, to whoever comes first.
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(first, column, weight, shape, check_invariants=False)
