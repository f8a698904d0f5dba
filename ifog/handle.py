"""Handles of operations under way, and the loop that moves all of them forward.

An operation is a generator: it yields the ranks it waits for, and returns its result. Waiting for
one handle advances every handle of this rank, so two ranks may wait for their operations in
different orders without a deadlock.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any, Generic, TypeVar

from ifog.background import Background
from ifog.errors import DeadlineError, PeerFailedError
from ifog.numbers import named
from ifog.telemetry import WaitEvent, now
from ifog.transport.base import Transport

__all__ = ["Handle", "Moving", "Operation", "Progress"]

_OTHERS_EVERY = 4  # fruitless polls between two looks at the other operations
_LOOK_EVERY = 32  # fruitless polls between two looks at the clock
T = TypeVar("T")
Operation = Generator[tuple[int, ...], None, T]


class Moving(tuple[int, ...]):
    """The ranks waited for, yielded while something is under way already: the wait will end."""

    __slots__ = ()


class Handle(Generic[T]):
    """An operation under way; returned by every ``*_nonblocking`` function."""

    def __init__(self, progress: Progress, op: str, name: str, step: int) -> None:
        self._progress = progress
        self._steps: Operation[T] | None = None
        self._result: T | None = None
        self._error: BaseException | None = None
        self.finished = False
        self.op = op
        self.name = name
        self.step = step
        self.peers: tuple[int, ...] = ()
        self.blocked_at: float | None = None

    @property
    def title(self) -> str:
        """The operation in words: ``neighbor_allreduce('x')``."""
        return f"{self.op}({self.name!r})" if self.name else self.op

    def begin(self, steps: Operation[T]) -> None:
        """Enter the operation among those under way and post its first messages."""
        self._steps = steps
        with self._progress.lock:
            self._progress.active[id(self)] = self
            self.advance()

    def advance(self) -> None:
        """Move the operation as far as it goes without waiting."""
        if self._steps is None or self.finished:
            return
        try:
            self.peers = next(self._steps)
        except StopIteration as stop:
            self._result = stop.value
            self._finish()
        except BaseException as error:
            self._error = error
            self._finish()
            if not isinstance(error, Exception):
                raise
            if not isinstance(error, PeerFailedError):
                self._progress.untold[id(self)] = self

    def _finish(self) -> None:
        self.finished = True
        self._progress.active.pop(id(self), None)

    def fail(self, error: BaseException) -> None:
        """End the operation with ``error``, whatever it waits for."""
        if self._steps is not None:
            self._steps.close()
        self._error = error
        self._finish()

    def done(self) -> bool:
        """Whether the result (or the error) is there; never blocks."""
        if not self.finished:
            self._progress.advance()
        return self.finished

    def wait(self) -> T:
        """The result, once it is there.

        Raises:
            MismatchError: the ranks did not call the same thing.
            PeerFailedError: another rank raised, was interrupted or died meanwhile.
        """
        if not self.finished:
            self._progress.wait(self)
        if self._error is not None:
            self._progress.untold.pop(id(self), None)
            # Raised anew each time: a second raise must not extend the first one's traceback.
            raise self._error.with_traceback(None)
        return self._result  # type: ignore[return-value]


class Progress:
    """All operations under way on one rank.

    Attributes:
        active: those that have not finished.
        waiting_for: the one that the rank is blocked in.
        cut: the last one whose wait ended by an error.
        untold: those that failed and whose error nobody has seen.
        patience: the seconds after which a wait is given up, or None.
        thread: where the rank's own code runs.
        lock: held by whoever moves operations forward; their bodies run under it.
        background: moves them forward while the rank computes, if asked to.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.active: dict[int, Handle[Any]] = {}
        self.waiting_for: Handle[Any] | None = None
        self.cut: Handle[Any] | None = None
        self.untold: dict[int, Handle[Any]] = {}
        self.patience: float | None = None
        self.thread = threading.get_ident()
        self.lock = threading.RLock()
        self.background = Background(self)

    @property
    def moving(self) -> bool:
        """Whether bytes of any operation under way are on their way here."""
        return any(isinstance(handle.peers, Moving) for handle in list(self.active.values()))

    def advance(self) -> None:
        """Move every operation as far as it goes without waiting."""
        with self.lock:
            for handle in list(self.active.values()):
                handle.advance()

    def wait(self, handle: Handle[Any]) -> None:
        """Return once ``handle`` has finished; a signal handler may raise out of it."""
        handle.blocked_at = now()
        self.waiting_for = handle
        polls = 0
        try:
            while True:
                with self.lock:
                    handle.advance()
                if handle.finished:
                    return
                # The others may be many, and each look at all of them takes its time.
                if len(self.active) > 1 and polls % _OTHERS_EVERY == 0:
                    self.advance()
                polls += 1
                self._transport.idle(polls)
                if self.patience is not None and polls % _LOOK_EVERY == 0:
                    self._check(handle)
        finally:
            self.waiting_for = None
            if handle._error is not None or not handle.finished:
                self.cut = handle

    def _check(self, handle: Handle[Any]) -> None:
        waited, patience = now() - (handle.blocked_at or now()), self.patience
        if patience is not None and waited > patience and handle.op != "heal":
            raise DeadlineError(
                f"{handle.title} has waited {waited:.1f} s for {named(handle.peers)}, longer than "
                f"the {patience:g} s of set_timeout"
            )

    def waiting(self, rank: int) -> WaitEvent | None:
        """What the rank is blocked in at this moment; safe from any thread."""
        return _wait_of(self.waiting_for, rank)

    def was_waiting(self, rank: int) -> WaitEvent | None:
        """What the last wait was that ended by an error."""
        return _wait_of(self.cut, rank)

    def first_untold(self) -> BaseException | None:
        """The first error that nobody has seen, with a note that says whose it is."""
        if not self.untold:
            return None
        handle = next(iter(self.untold.values()))
        error = handle._error
        note = f"It happened in {handle.title}, whose handle was not waited for."
        if error is not None and note not in getattr(error, "__notes__", ()):
            error.__notes__ = [*getattr(error, "__notes__", ()), note]
        return error

    def forget(self) -> None:
        """Let errors of earlier cells be: their handles are gone or will tell."""
        self.cut = None
        self.untold.clear()

    def fail_all(self, error: BaseException) -> None:
        """End every operation under way with ``error``."""
        with self.lock:
            for handle in list(self.active.values()):
                handle.fail(error)


def _wait_of(handle: Handle[Any] | None, rank: int) -> WaitEvent | None:
    if handle is None or handle.blocked_at is None:
        return None
    peers, since = handle.peers, handle.blocked_at
    moving = isinstance(peers, Moving)
    return WaitEvent(rank, now(), handle.op, handle.name, handle.step, tuple(peers), since, moving)
