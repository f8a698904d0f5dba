"""What one job leaves on a machine, and how it goes: marked processes and private directories.

Every process of a job carries the job's token in its environment, and its files lie in directories
of its own. A guard outside the job's session removes both when the process that started the job is
gone, however it ended.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from ifog import watchdog

__all__ = ["Footprint"]


class Footprint:
    """The processes and files of one job.

    Attributes:
        token: the value of ``IFOG_TOKEN`` in the environment of all its processes.
        home: a private directory for files, made by ``guard``.
        memory: a private directory for shared memory, too; inside ``home`` where there is no other.
    """

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)
        self.home = Path(tempfile.gettempdir()) / f"ifog-{secrets.token_hex(8)}"
        shared = Path("/dev/shm")
        usable = shared.is_dir() and os.access(shared, os.W_OK)
        self.memory = (shared if usable else self.home) / f"ifog-{secrets.token_hex(8)}"
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The mark of the job's processes."""
        return {watchdog.TOKEN: self.token}

    def guard(self) -> None:
        """Start the process that cleans up should this one be killed; then make the directories."""
        packages = str(Path(psutil.__file__).parent.parent)
        command = [sys.executable, "-I", watchdog.__file__, str(os.getpid()), self.token, packages]
        self._guard = subprocess.Popen(
            [*command, str(self.home), str(self.memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        for folder in (self.home, self.memory):
            folder.mkdir(mode=0o700)

    def kill(self) -> list[int]:
        """Kill the processes; returns those that are still there."""
        return watchdog.reap(self.token, ())

    def remove(self) -> list[int]:
        """Kill the processes, remove the files and dismiss the guard; twice does no harm.

        Returns:
            The processes that could not be killed.
        """
        left = watchdog.reap(self.token, (str(self.home), str(self.memory)))
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.wait()
            if guard.stdin is not None:
                guard.stdin.close()
        return left
