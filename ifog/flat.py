"""Many tensors as views of few flat ones, so that a model travels as one message.

The tensors stay the user's own objects: ``p.data``, ``state_dict`` and in-place changes work as
before, and whatever is written into the flat tensor is at once in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ifog.context import current, is_initialized
from ifog.errors import ArgumentError
from ifog.exchange import room

__all__ = ["Bucket", "FlatParameters", "Layout", "zeros"]

_ALIGNMENT = 64  # bytes: each tensor begins where vector instructions and matrix kernels like it


class Layout:
    """Where each of some tensors stands in one flat tensor for each device and dtype.

    Args:
        tensors: floating-point, dense, and distinct.
        names: what messages call them; by default their numbers.

    Attributes:
        tensors: the tensors, in the order given.
        kinds: the (device, dtype) of each flat tensor.

    Raises:
        ArgumentError: a tensor that cannot be averaged, or twice the same, or two that share
            memory.
    """

    def __init__(self, tensors: Iterable[Tensor], names: Sequence[str] | None = None) -> None:
        self.tensors = tuple(tensors)
        self._names = names or [f"number {place}" for place in range(len(self.tensors))]
        self.kinds: list[tuple[torch.device, torch.dtype]] = []
        self._places: list[tuple[int, int]] = []  # of each tensor: which flat one, from where
        self._sizes: list[int] = []
        for x, name in zip(self.tensors, self._names, strict=True):
            _require_plain(x, name)
            kind = (x.device, x.dtype)
            if kind not in self.kinds:
                self.kinds.append(kind)
                self._sizes.append(0)
            which = self.kinds.index(kind)
            self._places.append((which, self._sizes[which]))
            step = max(_ALIGNMENT // x.element_size(), 1)
            self._sizes[which] += -(-x.numel() // step) * step
        self._require_distinct()

    def _require_distinct(self) -> None:
        spans = sorted(
            (x.untyped_storage().data_ptr() + x.storage_offset() * x.element_size(), x.nbytes, name)
            for x, name in zip(self.tensors, self._names, strict=True)
            if x.numel()
        )
        for (start, nbytes, one), (after, _, other) in pairwise(spans):
            if after < start + nbytes:
                raise ArgumentError(
                    f"{one} and {other} share memory but are two parameters; tie weights by using "
                    "one Parameter in both places"
                )

    def describe(self) -> list[str]:
        """Each tensor's name, shape and dtype: the same on all ranks if they can be mixed."""
        return [
            f"{name}: shape {tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
            for x, name in zip(self.tensors, self._names, strict=True)
        ]

    def name(self, place: int) -> str:
        """What messages call the tensor."""
        return self._names[place]

    def views(self, flats: Sequence[Tensor]) -> list[Tensor]:
        """The part of the flat tensors that belongs to each tensor, in its shape."""
        return [
            flats[which].narrow(0, start, x.numel()).view(x.shape)
            for x, (which, start) in zip(self.tensors, self._places, strict=True)
        ]

    def buckets(self, nbytes: int) -> list[Bucket]:
        """The tensors from last to first, in stretches that are just longer than ``nbytes``."""
        found: list[Bucket] = []
        for place in reversed(range(len(self.tensors))):
            which, start = self._places[place]
            stop = start + self.tensors[place].numel()
            last = found[-1] if found else None
            size = self.tensors[place].element_size()
            if last and last.which == which and (last.stop - last.start) * size < nbytes:
                found[-1] = Bucket((place, *last.places), which, start, last.stop)
            else:
                found.append(Bucket((place,), which, start, stop))
        return found

    def of(self, bucket: Bucket) -> list[Tensor]:
        """A bucket's tensors."""
        return [self.tensors[place] for place in bucket.places]

    def views_in(self, bucket: Bucket, stretch: Tensor) -> list[Tensor]:
        """The part of a bucket's stretch that belongs to each of its tensors, in its shape."""
        return [
            stretch.narrow(0, self._places[place][1] - bucket.start, x.numel()).view(x.shape)
            for place, x in zip(bucket.places, self.of(bucket), strict=True)
        ]

    def gathered(self, values: Sequence[Tensor | None], *, extra: int = 0) -> list[Tensor]:
        """New flat tensors with these values, zeros where there is None.

        Args:
            values: of each tensor.
            extra: how many entries more to append to the first flat tensor.
        """
        flats = [
            zeros(size + (0 if which else extra), dtype, device)
            for which, (size, (device, dtype)) in enumerate(
                zip(self._sizes, self.kinds, strict=True)
            )
        ]
        for view, value in zip(self.views(flats), values, strict=True):
            if value is not None:
                view.copy_(value)
        return flats


def zeros(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A flat tensor that neighbours can read where it is, if that can be."""
    if device.type != "cpu" or not is_initialized():
        return torch.zeros(size, dtype=dtype, device=device)
    return room(current().transport, (size,), dtype).zero_()


class Bucket(NamedTuple):
    """Neighbouring tensors: a stretch of one flat tensor.

    Attributes:
        places: the numbers of the tensors.
        which: the flat tensor.
        start: where the stretch begins.
        stop: where it ends.
    """

    places: tuple[int, ...]
    which: int
    start: int
    stop: int


class FlatParameters(Layout):
    """Tensors that are views of flat ones from now on.

    Attributes:
        flats: one flat tensor for each device and dtype.

    Example:
        >>> model = torch.nn.Linear(3, 2)
        >>> flat = FlatParameters(model.parameters())
        >>> flat.flats[0].zero_()[:3].tolist(), model.bias.tolist()
        ([0.0, 0.0, 0.0], [0.0, 0.0])
    """

    def __init__(self, tensors: Iterable[Tensor], names: Sequence[str] | None = None) -> None:
        super().__init__(tensors, names)
        self.flats = self.gathered([x.detach() for x in self.tensors])
        for x, view in zip(self.tensors, self.views(self.flats), strict=True):
            x.data = view
        self._at = [x.data_ptr() for x in self.tensors]

    @property
    def displaced(self) -> bool:
        """Whether the first tensor is elsewhere by now, as after others were made around it."""
        return bool(self.tensors) and self.tensors[0].data_ptr() != self._at[0]

    def stretch(self, bucket: Bucket) -> Tensor:
        """The memory of a bucket's tensors."""
        return self.flats[bucket.which][bucket.start : bucket.stop]

    def require_in_place(self) -> None:
        """Refuse to go on when a tensor is elsewhere by now.

        Raises:
            ArgumentError: a tensor was moved, converted or given other memory.
        """
        for place, (x, at) in enumerate(zip(self.tensors, self._at, strict=True)):
            if x.data_ptr() != at or (x.device, x.dtype) != self.kinds[self._places[place][0]]:
                raise ArgumentError(
                    f"{self._names[place]} was moved, converted or given other memory after the "
                    "optimizer was made; call model.to(...) and the like first, then make the "
                    "DecentralizedOptimizer"
                )

    @torch.no_grad()
    def assign(self, flats: Sequence[Tensor]) -> None:
        """Take these values."""
        for mine, value in zip(self.flats, flats, strict=True):
            mine.copy_(value.view_as(mine))


def _require_plain(x: Tensor, name: str) -> None:
    if not isinstance(x, Tensor):
        raise ArgumentError(f"{name} is a {type(x).__name__}; only tensors can be mixed")
    if torch.nn.parameter.is_lazy(x):
        raise ArgumentError(f"{name} has no shape yet; call the lazy model once, then wrap")
    if x.layout != torch.strided or not x.is_floating_point():
        raise ArgumentError(
            f"{name} is {x.layout} {x.dtype}; only dense floating-point tensors can be averaged"
        )
