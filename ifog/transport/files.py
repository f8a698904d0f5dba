"""Files without names, through which the processes of one machine share memory."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ifog.transport.base import Bytes

__all__ = ["AnonymousFile", "machine_name", "mapped", "refused", "vacate"]


class AnonymousFile:
    """An anonymous file of this process, and the path under which others can open it."""

    def __init__(self, nbytes: int) -> None:
        self._named: Path | None = None
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("ifog", os.MFD_CLOEXEC)
            self.path = f"/proc/{os.getpid()}/fd/{self.descriptor}"
        else:
            self.descriptor, self.path = tempfile.mkstemp(prefix="ifog-")
            self._named = Path(self.path)
        os.ftruncate(self.descriptor, max(1, nbytes))

    def unlink(self) -> None:
        """Remove the name, if there is one; what is open stays."""
        if self._named is not None:
            self._named.unlink(missing_ok=True)
            self._named = None

    def close(self) -> None:
        """Close the file here; mappings of it stay."""
        self.unlink()
        os.close(self.descriptor)


def mapped(descriptor: int, nbytes: int) -> Bytes:
    """The first ``nbytes`` of an open file as memory, shared with all who map it."""
    if nbytes == 0:
        return np.empty(0, np.uint8)
    return np.frombuffer(mmap.mmap(descriptor, nbytes), np.uint8)


def vacate(memory: Bytes, offset: int, nbytes: int) -> bool:
    """Give pages of ``mapped`` memory back to the system: they are zeros, and come when used.

    Returns:
        Whether it could be done; else they stay.
    """
    buffer: Any = memory.base
    while not isinstance(buffer, mmap.mmap):
        buffer = buffer.obj
    if hasattr(mmap, "MADV_REMOVE"):
        with contextlib.suppress(OSError):  # a file system that cannot keeps them
            buffer.madvise(mmap.MADV_REMOVE, offset, nbytes)
            return True
    return False


def machine_name() -> str:
    """What is equal exactly for processes that can see each other's ``/proc`` entries."""
    parts = [socket.gethostname()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        path = Path(source)
        if path.is_symlink():
            parts.append(str(path.readlink()))
        elif path.is_file():
            parts.append(path.read_text().strip())
    return ":".join(parts)


def refused() -> bool:
    """Whether the ranks of one machine are to share no memory, to see what that is worth."""
    return os.environ.get("IFOG_SHARED_MEMORY", "1") == "0"
