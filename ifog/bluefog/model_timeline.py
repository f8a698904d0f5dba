"""Forward and backward passes in the timeline, as BlueFog's optimizers show them.

Each parameter is one row: ``FORWARD`` while the layer that holds it computes, and ``GRADIENT
COMPT.`` from the end of the model's forward pass until its gradient is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ifog.bluefog.timeline import timeline_end_activity, timeline_start_activity

__all__ = ["ModelTimeline"]


class ModelTimeline:
    """The hooks that write it.

    Args:
        models: whose passes.
        names: of their parameters.
        topic: what stands before the names.
    """

    def __init__(
        self, models: Sequence[torch.nn.Module], names: Mapping[Tensor, str], topic: str
    ) -> None:
        self._models = models
        self._rows = {x: f"{topic}.{name}" for x, name in names.items() if x.requires_grad}
        self._hooks: list[Any] = []
        self._open: set[Tensor] = set()

    def on(self) -> bool:
        """Write from now on; returns True."""
        if not self._hooks:
            layers = [layer for model in self._models for layer in model.modules()]
            for layer in layers:
                if any(x in self._rows for x in layer.parameters(recurse=False)):
                    self._hooks += [
                        layer.register_forward_pre_hook(self._layer_begins),
                        layer.register_forward_hook(self._layer_ends),
                    ]
            self._hooks += [model.register_forward_hook(self._model_ends) for model in self._models]
            self._hooks += [
                x.register_post_accumulate_grad_hook(self._gradient_ends)  # type: ignore[no-untyped-call] # torch's
                for x in self._rows
            ]
        return True

    def off(self) -> None:
        """Write no more."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _rows_of(self, layer: torch.nn.Module) -> list[str]:
        return [self._rows[x] for x in layer.parameters(recurse=False) if x in self._rows]

    def _layer_begins(self, layer: torch.nn.Module, _: Any) -> None:
        for row in self._rows_of(layer):
            timeline_start_activity(row, "FORWARD")

    def _layer_ends(self, layer: torch.nn.Module, *_: Any) -> None:
        for row in self._rows_of(layer):
            timeline_end_activity(row)

    def _model_ends(self, model: torch.nn.Module, *_: Any) -> None:
        if not torch.is_grad_enabled():
            return
        for x in model.parameters():
            if x in self._rows and x not in self._open:
                self._open.add(x)
                timeline_start_activity(self._rows[x], "GRADIENT COMPT.")

    def _gradient_ends(self, x: Tensor) -> None:
        if x in self._open:
            self._open.discard(x)
            timeline_end_activity(self._rows[x])
