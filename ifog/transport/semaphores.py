"""Semaphores in memory that processes share, through the C library: nothing of them is a file."""

from __future__ import annotations

import ctypes
import time

from ifog.errors import TransportError
from ifog.transport.base import Bytes

__all__ = ["SEMAPHORE_BYTES", "Semaphore"]

SEMAPHORE_BYTES = 64  # glibc's take 32
_quick = ctypes.PyDLL(None)  # these never block, so the interpreter need not be let go of
_slow = ctypes.CDLL(None)


class _Moment(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Semaphore:
    """A counter that one process waits on and others raise.

    Args:
        memory: [64] bytes, shared.
        fresh: whether to begin it at zero; else another process has.

    Raises:
        TransportError: the system has no such semaphores.
    """

    def __init__(self, memory: Bytes, *, fresh: bool) -> None:
        self._memory = memory  # keeps the mapping
        self._address = ctypes.c_void_p(memory.ctypes.data)
        self._until = _Moment()
        self._until_reference = ctypes.byref(self._until)
        if fresh and _quick.sem_init(self._address, 1, 0):
            raise TransportError("this system has no semaphores in shared memory")

    def post(self) -> None:
        """Raise the counter, waking its owner."""
        _quick.sem_post(self._address)

    def wait(self, seconds: float) -> bool:
        """Sleep until the counter is raised, then clear it; whether it was in time.

        Ends early when a signal comes, so that its handler runs.
        """
        until = time.time() + seconds
        self._until.seconds = int(until)
        self._until.nanoseconds = int(until % 1.0 * 1e9)
        if _slow.sem_timedwait(self._address, self._until_reference):
            return False
        while not _quick.sem_trywait(self._address):
            continue
        return True
