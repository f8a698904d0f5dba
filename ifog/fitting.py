"""A progress bar for training loops, in the format that ``%%bf`` cells fold into one for all ranks.

In a script the lowest rank draws for all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Generic, TypeVar

from ifog.context import current, is_initialized
from ifog.numbers import number
from ifog.telemetry import now

__all__ = ["FitProgress", "fit_progress"]

T = TypeVar("T")
_EVERY = 0.1  # seconds between two drawings
_WIDTH = 20


class FitProgress(Generic[T]):
    """What ``fit_progress`` gives: iterate over it once, and ``show`` figures meanwhile."""

    def __init__(self, items: Iterable[T], title: str) -> None:
        self._items = items
        self._title = f"{title}: " if title else ""
        self._total = len(items) if isinstance(items, Sized) else None
        self._figures = ""
        self._done = 0
        self._begun = now()
        self._due = 0.0
        self._draws = not is_initialized() or bool(current().cell) or _leads()

    def __iter__(self) -> Iterator[T]:
        """The items, with a bar on standard error that says how many have been done."""
        self._begun = now()
        self._draw()
        try:
            for item in self._items:
                yield item
                self._done += 1
                if now() >= self._due:
                    self._draw()
        finally:
            self._draw(end="\n")

    def show(self, **figures: float) -> None:
        """Show these behind the bar from now on: ``show(loss=loss.item())``."""
        self._figures = "".join(f", {name}={number(value)}" for name, value in figures.items())

    def _draw(self, end: str = "") -> None:
        if not self._draws:
            return
        self._due = now() + _EVERY
        elapsed = max(now() - self._begun, 1e-9)
        speed = self._done / elapsed
        rate = f"{speed:.2f}it/s" if speed else "?it/s"
        if not self._total:
            bar = f"{self._done}it [{_clock(elapsed)}"
        else:
            share = self._done / self._total
            full = int(_WIDTH * share)
            left = _clock((self._total - self._done) / speed) if speed else "?"
            drawn = "█" * full + " " * (_WIDTH - full)
            bar = f"{100 * share:3.0f}%|{drawn}| {self._done}/{self._total} "
            bar += f"[{_clock(elapsed)}<{left}"
        sys.stderr.write(f"\r{self._title}{bar}, {rate}{self._figures}]{end}")
        sys.stderr.flush()


def fit_progress(items: Iterable[T], title: str = "") -> FitProgress[T]:
    """The items, one after the other, with one progress bar for all ranks.

    In a ``%%bf`` cell the bar shows the slowest and the fastest rank, as it does for plain tqdm;
    in a script it is that of the lowest rank.

    Args:
        items: what is gone through; where it has no length, the bar has no end.
        title: what stands before the bar.

    Example:
        >>> import ifog
        >>> ifog.init()
        >>> progress = ifog.fit_progress(range(3), "train")
        >>> for step in progress:
        ...     progress.show(loss=1 / (step + 1))
    """
    return FitProgress(items, title)


def _leads() -> bool:
    context = current()
    return context.rank == context.alive[0]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
