"""A line that says how far a long computation is, if somebody is there to read it.

It goes to stderr; in a notebook it is an output of its own, because what is written to stderr there
cannot be taken back.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

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
        self._line: _Output | _Stderr | None = None

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        """``step`` steps are done."""
        now = time.monotonic()
        if self._silent or now - self._begun < self._wait or now - self._last < _AGAIN:
            return
        self._last = now
        left = (now - self._begun) * (self._steps - step) / max(step, 1)
        values = ", ".join(f"{name} {number(value)}" for name, value in figures.items())
        line = f"{self._label}: {count(step)} of {count(self._steps)}, {values}"
        if self._line is None:
            self._line = _Output() if _in_notebook() else _Stderr()
        self._line.write(f"{line}, {duration(left)} left")

    def close(self) -> None:
        """Take the line away."""
        if self._line is not None:
            self._line.write("")


class _Stderr:
    """A line of a terminal, written over each time."""

    def write(self, text: str) -> None:
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()


class _Output:
    """An output below the cell."""

    def __init__(self) -> None:
        from IPython.display import DisplayHandle

        self._handle: Any = DisplayHandle()  # type: ignore[no-untyped-call] # IPython's
        self._shown = False

    def write(self, text: str) -> None:
        show = self._handle.update if self._shown else self._handle.display
        self._shown = True
        show({"text/plain": text}, raw=True)


def _in_notebook() -> bool:
    module: Any = sys.modules.get("IPython")
    kernel = None if module is None else getattr(module.get_ipython(), "kernel", None)
    # What a rank has shown cannot be changed afterwards.
    return kernel is not None and not type(kernel).__module__.startswith("ipyparallel")


def _is_read() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules
