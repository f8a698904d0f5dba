"""What an optimizer keeps for each parameter, momentum for example, as flat tensors to be mixed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ifog.errors import ArgumentError
from ifog.flat import FlatParameters

__all__ = ["MixedState"]


class MixedState:
    """The entries of an optimizer's state that are mixed with the parameters.

    Args:
        optimizer: whose state it is.
        layout: of the parameters.
        keys: the names of the entries.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, layout: FlatParameters, keys: Sequence[str]
    ) -> None:
        self.keys = tuple(keys)
        self._optimizer = optimizer
        self._layout = layout

    def gathered(self) -> list[Tensor]:
        """The entries, one after the other, each as the layout's flat tensors."""
        return [flat for key in self.keys for flat in self._layout.gathered(self._tensors(key))]

    def assign(self, flats: Sequence[Tensor]) -> None:
        """Give the entries that there are these values."""
        many = len(self._layout.flats)
        for number, key in enumerate(self.keys):
            views = self._layout.views(flats[number * many : (number + 1) * many])
            for mine, value in zip(self._tensors(key), views, strict=True):
                if mine is not None:
                    mine.copy_(value)

    def _tensors(self, key: str) -> list[Tensor | None]:
        found = [self._optimizer.state.get(x, {}).get(key) for x in self._layout.tensors]
        for x, value in zip(self._layout.tensors, found, strict=True):
            if value is not None and (not isinstance(value, Tensor) or value.shape != x.shape):
                raise ArgumentError(
                    f"mix_state: {key!r} of {type(self._optimizer).__name__} is no tensor of the "
                    "parameter's shape and cannot be mixed"
                )
        return found
