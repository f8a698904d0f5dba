"""The guard of a cluster: when the notebook's kernel is gone, so are its ranks.

A kernel killed with -9 cannot stop what it started. This file runs as a process of its own, outside
the kernel's session, holds the read end of a pipe whose write end only the kernel has, and on its
end kills every process that carries the cluster's token in its environment and removes the
cluster's private directories. It is started by its path and imports nothing of ifog.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

__all__ = ["TOKEN", "carriers", "reap"]

TOKEN = "IFOG_TOKEN"
_LOOK_EVERY = 1.0  # seconds between two looks at the parent, should a fork hold the pipe open
_PAUSE = 0.05
_PATIENCE = 60.0  # seconds after which a process that cannot be killed is left to the system


def carriers(token: str) -> list[Any]:
    """The processes of this user that carry ``token``, as ``psutil.Process`` objects."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN) == token and process.pid != os.getpid():
                found.append(process)
        except (psutil.Error, OSError):
            continue  # another user's, or gone
    return found


def reap(token: str, directories: Sequence[str], patience: float = _PATIENCE) -> list[int]:
    """Kill all that carries ``token``, then remove ``directories``.

    Returns:
        The process ids that are still there after ``patience`` seconds; normally none.
    """
    import psutil

    deadline = time.monotonic() + patience
    while left := carriers(token):
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue  # it ended by itself
        # A zombie that nobody collects is never over for psutil, but carries no token any more.
        psutil.wait_procs(left, timeout=_PAUSE)
        if time.monotonic() > deadline:
            break
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
    return [process.pid for process in left]


def _wait_for_end(kernel: int) -> None:
    # The parent changes as soon as the kernel ends, even while a process forked from it
    # keeps the pipe open.
    while os.getppid() == kernel:
        readable, _, _ = select.select([0], [], [], _LOOK_EVERY)
        if readable and not os.read(0, 1):
            return


def _main(arguments: Sequence[str]) -> None:
    kernel, token, packages, *directories = arguments
    sys.path.append(packages)
    _wait_for_end(int(kernel))
    reap(token, directories)
    # A process that was between fork and exec during the first look has its token by now.
    reap(token, directories)


if __name__ == "__main__":
    _main(sys.argv[1:])
