"""Whether a rank's process lives, is stopped or has died, and what it died of.

Ranks are grandchildren of the notebook, whose exit status only their parent is told. What can be
known is put together here: Linux (6.15 and later) keeps the status for who holds a file descriptor
of the process; a rank that leaves by ``os._exit`` writes down its last word before; and the kernel
counts the processes that it killed for want of memory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
import time
from pathlib import Path

import psutil

__all__ = ["LAST_WORDS", "Vitals", "ending", "last_word", "out_of_memory_kills"]

LAST_WORDS = "IFOG_LAST_WORDS"  # names the folder in which ranks leave them

_INFO = struct.Struct("QQ11Ii")  # Linux's struct pidfd_info
_ASK = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # its ioctl PIDFD_GET_INFO
_EXIT = 1 << 3  # its flag PIDFD_INFO_EXIT
_DYING = 2.0  # seconds that may pass between a kill's being counted and the process's end


def last_word(status: int) -> None:
    """Write down, in this process, that it leaves with ``status``."""
    folder = os.environ.get(LAST_WORDS)
    if folder:
        with contextlib.suppress(OSError):
            (Path(folder) / f"{os.getpid()}").write_text(f"left with exit status {status}")


def out_of_memory_kills() -> int | None:
    """How many processes this kernel has killed for want of memory; None where it does not say."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return None
    counts = [line.split()[1] for line in text.splitlines() if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else None


def ending(code: int) -> str:
    """How a process ended, by its exit code: its status, or minus the signal that killed it."""
    if code >= 0:
        return f"left with exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"killed by signal {-code} ({name})"


class Vitals:
    """Watches one process of this machine.

    Args:
        pid: its number.
        words: the folder of last words.
    """

    def __init__(self, pid: int, words: Path) -> None:
        self.pid = pid
        self._process = psutil.Process(pid)
        self._word = words / str(pid)
        kills = out_of_memory_kills()
        self._kills = (kills, kills)  # some seconds ago, and less long ago
        self._counted = time.monotonic()
        self._descriptor: int | None = None
        if sys.platform == "linux" and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._descriptor = os.pidfd_open(pid)

    def alive(self) -> bool:
        """Whether it runs or is stopped; to be asked again and again."""
        try:
            lives = self._process.status() != psutil.STATUS_ZOMBIE and self._process.is_running()
        except psutil.Error:
            return False
        if lives and time.monotonic() - self._counted > _DYING:
            self._kills = (self._kills[1], out_of_memory_kills())
            self._counted = time.monotonic()
        return bool(lives)

    def stopped(self) -> bool:
        """Whether it is stopped by a signal, until another one makes it go on."""
        try:
            return bool(self._process.status() == psutil.STATUS_STOPPED)
        except psutil.Error:
            return False

    def kill(self) -> None:
        """End it, also where it is stopped."""
        with contextlib.suppress(psutil.Error):
            self._process.kill()

    def cause(self) -> str:
        """What it died of, such as "killed by signal 9 (SIGKILL)"; "" where nobody knows."""
        with contextlib.suppress(OSError):
            return self._word.read_text()
        status = self._status()
        if status is None:
            return ""
        code = os.waitstatus_to_exitcode(status)
        return f"{ending(code)}{self._memory(-code)}"

    def _memory(self, number: int) -> str:
        """What the counter says about a death by SIGKILL, the signal of the kernel itself."""
        if number != signal.SIGKILL:
            return ""
        kills, before = out_of_memory_kills(), self._kills[0]
        if kills is None or before is None:
            return ", perhaps for want of memory"
        return " for want of memory" if kills > before else ""

    def _status(self) -> int | None:
        """The status that ``waitpid`` would have given, where the kernel tells others."""
        if self._descriptor is None:
            return None
        import fcntl

        question = _INFO.pack(_EXIT, *[0] * 13)
        try:
            answer = _INFO.unpack(fcntl.ioctl(self._descriptor, _ASK, question))
        except OSError:
            return None
        return int(answer[-1]) if answer[0] & _EXIT else None

    def close(self) -> None:
        """Let go of the process."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
