"""A thread that sends what was posted when the rank goes on to compute instead of posting more.

What is posted waits for more of its kind until the rank waits for any of it. A rank that does not
wait must not keep its neighbours waiting either: this thread looks every few milliseconds and sends
what was there at its last look already.
"""

from __future__ import annotations

import atexit
import contextvars
import threading
import time
import weakref
from functools import partial
from typing import Protocol

__all__ = ["Postman", "Stack"]

_PERIOD = 2e-3  # seconds between two looks; each costs a hundredth of that
_PATIENCE = 1.0  # seconds without anything posted after which the thread ends


class Stack(Protocol):
    """Where things are posted.

    Attributes:
        lock: held by whoever adds to it or sends it.
        number: changes when something is posted on an empty stack.
        unsent: whether anything is on it, or has not left yet.
    """

    lock: threading.RLock
    number: int

    @property
    def unsent(self) -> bool: ...  # noqa: D102

    def close(self) -> None:
        """Send what is there."""


class Postman:
    """Looks after one stack, from ``call`` until nothing has been posted for a second.

    Also sends what is left when the process ends.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._thread: threading.Thread | None = None
        atexit.register(partial(_close, weakref.ref(stack)))

    def call(self) -> None:
        """See to what is being posted; the caller holds the stack's lock."""
        if self._thread is None:
            # What it runs must find this rank's context, which for ranks in threads is theirs.
            run = contextvars.copy_context().run
            self._thread = threading.Thread(
                target=run, args=(self._run,), name="ifog-postman", daemon=True
            )
            self._thread.start()

    def _run(self) -> None:
        stack = self._stack
        seen, since = -1, time.monotonic()
        while True:
            time.sleep(_PERIOD)
            number = stack.number
            if number != seen:
                seen, since = number, time.monotonic()
            elif stack.unsent:
                with stack.lock:
                    if stack.number == seen:
                        stack.close()
            elif time.monotonic() - since > _PATIENCE:
                with stack.lock:
                    if stack.number == seen:
                        self._thread = None
                        return


def _close(known: weakref.ref[Stack]) -> None:
    stack = known()
    if stack is not None and stack.unsent:
        stack.close()
