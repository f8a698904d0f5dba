"""A thread that moves operations forward while the rank's own code computes.

Messages between machines travel only while somebody asks MPI about them. A rank that computes does
not, so what is to travel meanwhile needs a thread that does. On one machine a message is a copy by
a processor that has better things to do: there the thread gains nothing and is not needed.
"""

from __future__ import annotations

import contextvars
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ifog.handle import Progress

__all__ = ["Background"]

_PERIOD = 1e-3  # seconds between two looks while bytes move: a socket holds those of many
_LONGEST = 4e-3  # and while nothing does, because a peer is still computing
_PATIENCE = 1.0  # seconds without anything under way after which the thread ends


class Background:
    """Moves what is under way on one rank forward, from ``serve`` until all of it is through.

    The thread ends by itself soon after, and is made again when it is needed.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def serve(self) -> None:
        """See to what is under way, until it is through; returns at once."""
        with self._lock:
            self._wanted.set()
            if self._thread is None:
                # What it runs must find this rank's context, which for ranks in threads is theirs.
                run = contextvars.copy_context().run
                self._thread = threading.Thread(
                    target=run, args=(self._run,), name="ifog-background", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while self._is_wanted():
            pause = _PERIOD
            while self._progress.active:
                # Whoever waits moves everything forward already, and looks more often.
                if self._progress.waiting_for is None:
                    self._progress.advance()
                pause = _PERIOD if self._progress.moving else min(1.2 * pause, _LONGEST)
                time.sleep(pause)

    def _is_wanted(self) -> bool:
        if not self._wanted.wait(_PATIENCE):
            with self._lock:
                if not self._wanted.is_set():
                    self._thread = None
                    return False
        self._wanted.clear()
        return True
