"""What a process has open: to see whether a cluster that was stopped left anything behind in it."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import psutil
import zmq

__all__ = ["descriptors", "left_open"]


def descriptors() -> Counter[str]:
    """How many file descriptors this process has of each kind, such as sockets, or of each file.

    Where the system does not tell them by kind, all count as one. ZeroMQ's own ones, which it makes
    once for the whole process, are always among them.
    """
    zmq.Context.instance().socket(zmq.DEALER).close(linger=0)
    gc.collect()
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return Counter({"descriptor": psutil.Process().num_fds()})
    found: Counter[str] = Counter()
    for descriptor in folder.iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue  # that of the folder itself
        if target.startswith("/proc/"):
            continue  # another thread is looking at a process just now
        numbered = target.startswith(("pipe:", "socket:"))
        found[target.partition(":")[0] if numbered else target] += 1
    return found


def left_open(before: Counter[str]) -> list[str]:
    """What is open now and was not before, in words."""
    more = descriptors() - before
    return [f"{count} open in the client: {what}" for what, count in sorted(more.items())]
