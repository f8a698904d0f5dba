"""Glances at watched tensors: a norm and a few entries, taken at rounds all ranks agree on.

The consensus error needs every rank's value of the *same* round, but fast loops must not pay for a
glance each time. So a glance is taken at rounds divisible by a stride that is a power of two and
follows the speed: whatever strides the ranks choose by themselves, they share the rounds of the
largest one.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import torch

from ifog.telemetry import LawEvent, WatchEvent, now

if TYPE_CHECKING:
    from ifog.context import Context

__all__ = ["SAMPLE", "Watcher"]

SAMPLE = 64  # entries of a glance
_DENSE = 256  # rounds of which each is looked at
_BATCH = 32  # glances between two decisions about the stride
_SELDOM = (2.5, 10.0)  # glances per second to stay between
_OFTEN = (10.0, 40.0)  # and while somebody looks at a dashboard


class _Stride:
    __slots__ = ("_since", "_taken", "value")

    def __init__(self) -> None:
        self.value = 1
        self._taken = 0
        self._since = now()

    def due(self, step: int) -> bool:
        return step < _DENSE or step % self.value == 0

    def taken(self, rates: tuple[float, float]) -> None:
        self._taken += 1
        if self._taken % _BATCH == 0:
            t = now()
            rate = _BATCH / max(t - self._since, 1e-9)
            self._since = t
            slowest, fastest = rates
            if rate > fastest:
                self.value *= 2
            elif rate < slowest and self.value > 1:
                self.value //= 2


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
        if self._context.sink is None:
            return
        if self._due(name, step):
            self._skipped.pop(name, None)
            self._emit(x, name, step)
        else:
            self._skipped[name] = (step, x)

    def compare(
        self, law: str, owner: int, step: int, left: torch.Tensor, right: torch.Tensor | None
    ) -> None:
        """Emit this rank's part of a law after ``step`` rounds, unless the round is passed over."""
        # What was passed over cannot be made up for: one of the two may have changed since.
        if self._context.sink is not None and self._due((law, owner), step):
            eps = torch.finfo(left.dtype).eps
            parts = (self._glance(left), () if right is None else self._glance(right))
            event = LawEvent(self._context.rank, now(), law, owner, step, eps, *parts)
            self._context.emit(event)

    def flush(self) -> None:
        """Emit the last round of every tensor whose last round was passed over."""
        for name, (step, x) in self._skipped.items():
            self._emit(x, name, step)
        self._skipped.clear()

    def _due(self, key: Hashable, step: int) -> bool:
        stride = self._strides.get(key)
        if stride is None:
            stride = self._strides[key] = _Stride()
        if not stride.due(step):
            return False
        stride.taken(_OFTEN if self.live else _SELDOM)
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
