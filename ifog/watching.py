"""Glances at watched tensors: a norm and a few entries, taken at rounds all ranks agree on.

The consensus error needs every rank's value of the *same* round, but fast loops must not pay for a
glance each time. After the first rounds one is taken where a stride divides the round, a power of
two that follows the speed: whatever strides the ranks choose by themselves, they share the
rounds of the largest one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING

import torch

from ifog.telemetry import LawEvent, WatchEvent, now

if TYPE_CHECKING:
    from ifog.context import Context

__all__ = ["SAMPLE", "Watcher"]

SAMPLE = 64  # entries of a glance
_DENSE = (256, 8)  # rounds of which each is looked at, of small tensors and of large ones
_LARGE = 1 << 14  # entries: looking at more takes a noticeable part of a round
_BATCH = (32, 8)  # glances between two decisions about the stride
_SELDOM = (2.5, 10.0)  # glances per second to stay between
_OFTEN = (10.0, 40.0)  # and while somebody looks at a dashboard


class _Stride:
    __slots__ = ("_batch", "_glances", "_since", "dense", "value")

    def __init__(self, numel: int) -> None:
        self.value = 1
        self.dense, self._batch = _DENSE[numel > _LARGE], _BATCH[numel > _LARGE]
        self._glances = 0
        self._since = (0, now())  # a round and when it was

    def due(self, step: int) -> bool:
        return step < self.dense or step % self.value == 0

    def taken(self, step: int, rates: tuple[float, float]) -> None:
        self._glances += 1
        if self._glances % self._batch == 0:
            (first, begun), t = self._since, now()
            self._since = (step, t)
            rounds = (step - first) / max(t - begun, 1e-9)  # a second
            slowest, fastest = rates
            if not slowest <= rounds / self.value <= fastest:
                self.value = 1 << math.ceil(math.log2(max(rounds / fastest, 1.0)))


class Watcher:
    """The glances of one rank.

    Attributes:
        live: whether somebody looks at them right now.
    """

    def __init__(self, context: Context) -> None:
        self.live = False
        self._context = context
        self._strides: dict[Hashable, _Stride] = {}
        self._indices: dict[tuple[int, str], torch.Tensor] = {}
        self._skipped: dict[str, tuple[int, torch.Tensor]] = {}

    def clear(self) -> None:
        """Forget what was watched; a new cell counts its rounds from 0."""
        self._strides.clear()
        self._skipped.clear()

    def look(self, x: torch.Tensor, name: str, step: int) -> None:
        """Emit a glance at ``x`` after ``step`` rounds, unless this round is passed over."""
        stride = self._strides.get(name)
        if stride is not None and step >= stride.dense and step % stride.value:
            self._skipped[name] = (step, x)  # what nearly every round of a fast loop comes to
            return
        if self._context.sink is None:
            return
        if self._due(name, step, x.numel()):
            self._skipped.pop(name, None)
            self._emit(x, name, step)
        else:
            self._skipped[name] = (step, x)

    def compare(
        self, law: str, owner: int, step: int, left: torch.Tensor, right: torch.Tensor | None
    ) -> None:
        """Emit this rank's part of a law after ``step`` rounds, unless the round is passed over."""
        # What was passed over cannot be made up for: one of the two may have changed since.
        if self._context.sink is not None and self._due((law, owner), step, left.numel()):
            eps = torch.finfo(left.dtype).eps
            parts = (self._glance(left), () if right is None else self._glance(right))
            event = LawEvent(self._context.rank, now(), law, owner, step, eps, *parts)
            self._context.emit(event)

    def flush(self) -> None:
        """Emit the last round of every tensor whose last round was passed over."""
        for name, (step, x) in self._skipped.items():
            self._emit(x, name, step)
        self._skipped.clear()

    def _due(self, key: Hashable, step: int, numel: int) -> bool:
        stride = self._strides.get(key)
        if stride is None:
            stride = self._strides[key] = _Stride(numel)
        if not stride.due(step):
            return False
        stride.taken(step, _OFTEN if self.live else _SELDOM)
        return True

    def _glance(self, x: torch.Tensor) -> tuple[float, ...]:
        flat = x.detach().reshape(-1)
        return tuple(flat.take(self._index(flat.numel(), flat.device)).tolist())

    def _emit(self, x: torch.Tensor, name: str, step: int) -> None:
        if not x.is_floating_point() or x.numel() == 0:
            return
        norm = float(torch.linalg.vector_norm(x.detach()))
        eps = torch.finfo(x.dtype).eps
        event = (name, step, x.numel(), norm, eps, self._glance(x))
        self._context.emit(WatchEvent(self._context.rank, now(), *event))

    def _index(self, numel: int, device: torch.device) -> torch.Tensor:
        key = (numel, str(device))
        if key not in self._indices:
            count = min(SAMPLE, numel)
            self._indices[key] = torch.arange(count, device=device) * numel // count
        return self._indices[key]
