"""Keyboard interrupts that are counted, not raised, so that none hits a line it must not end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Presses"]

_LATE = 0.5  # seconds after the end in which a press still belongs to what has ended


class Presses:
    """Counts the keyboard interrupts of this process while it is entered.

    Outside of the main thread, which alone gets signals, it does nothing.

    Attributes:
        count: how many there were.
        late: whether one that comes right after the end is dropped. Whoever presses twice means one
            thing; Jupyter's kernel never answers for a cell that is interrupted once it has ended.
    """

    def __init__(self) -> None:
        self.count = 0
        self.late = False
        self._counts = threading.current_thread() is threading.main_thread()
        self._former: Any = None

    def __enter__(self) -> Presses:
        if self._counts:
            self._former = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        if self._counts:
            former = self._former or signal.SIG_DFL
            if self.late and callable(self._former):
                former = _after(self._former)
            signal.signal(signal.SIGINT, former)

    def _press(self, *_: object) -> None:
        self.count += 1


def _after(former: Callable[..., Any]) -> Callable[..., Any]:
    end = time.monotonic() + _LATE

    def handler(*arguments: Any) -> None:
        if time.monotonic() > end:
            former(*arguments)

    return handler
