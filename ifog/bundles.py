"""Many tensors as one: those of a dtype laid out in a row, so that they travel together."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ifog.exchange import room
from ifog.transport.base import Transport

__all__ = ["Bundle", "bundled", "form", "unbundled"]

_FORMS = 1 << 20  # numbers below say other things about a message


class Bundle(NamedTuple):
    """The tensors of one dtype in a row.

    Attributes:
        flat: [n] their entries.
        places: which of the tensors they are.
    """

    flat: torch.Tensor
    places: tuple[int, ...]


def form(tensors: Sequence[torch.Tensor]) -> int:
    """A number that tells lists of tensors of different shapes or dtypes apart."""
    shapes = repr([(tuple(x.shape), str(x.dtype)) for x in tensors])
    return _FORMS + zlib.crc32(shapes.encode()) % (1 << 31)


def bundled(tensors: Sequence[torch.Tensor], transport: Transport) -> list[Bundle]:
    """The entries of ``tensors``, one bundle a dtype, where they can be lent without a copy."""
    by_dtype: dict[torch.dtype, list[int]] = {}
    for place, x in enumerate(tensors):
        by_dtype.setdefault(x.dtype, []).append(place)
    bundles = []
    for dtype, places in by_dtype.items():
        chosen = [tensors[place] for place in places]
        flat = room(transport, (sum(x.numel() for x in chosen),), dtype)
        torch._foreach_copy_(_pieces(flat, chosen), chosen)
        bundles.append(Bundle(flat, tuple(places)))
    return bundles


def unbundled(
    bundles: Sequence[Bundle], results: Sequence[torch.Tensor], like: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """``results``, one of each bundle, as tensors of the shapes and on the devices of ``like``."""
    tensors: list[torch.Tensor] = list(like)
    for bundle, result in zip(bundles, results, strict=True):
        chosen = [like[place] for place in bundle.places]
        for place, piece in zip(bundle.places, _pieces(result, chosen), strict=True):
            tensors[place] = piece.to(like[place].device)
    return tensors


def _pieces(flat: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    parts = torch.split(flat, [x.numel() for x in like])
    return [part.view(x.shape) for part, x in zip(parts, like, strict=True)]
