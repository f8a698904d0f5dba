"""A line on stderr that says how far a long computation is, if somebody is there to read it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from ifog.numbers import count, duration, number

__all__ = ["Progress"]

_FIRST, _AGAIN = 2.0, 0.3  # seconds


class Progress:
    """Says ``label: step of steps, figures, time left``, anew every third of a second.

    Args:
        label: what is computed.
        steps: how many there are.
        shown: whether to say anything; None for from the third second on, where stderr is read by a
            person: a terminal, or a notebook.
    """

    def __init__(self, label: str, steps: int, shown: bool | None) -> None:
        self._label, self._steps = label, steps
        self._begun = self._last = time.monotonic()
        self._wait = 0.0 if shown else _FIRST
        self._silent = shown is False or (shown is None and not _is_read())
        self._said = False

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        """``step`` steps are done."""
        now = time.monotonic()
        if self._silent or now - self._begun < self._wait or now - self._last < _AGAIN:
            return
        self._last, self._said = now, True
        left = (now - self._begun) * (self._steps - step) / max(step, 1)
        values = ", ".join(f"{name} {number(value)}" for name, value in figures.items())
        line = f"{self._label}: {count(step)} of {count(self._steps)}, {values}"
        sys.stderr.write(f"\r{line}, {duration(left)} left\x1b[K")
        sys.stderr.flush()

    def close(self) -> None:
        """Take the line away."""
        if self._said:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _is_read() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules
