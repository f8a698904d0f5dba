"""A group of processes that may use only so much memory, in the kernel's own accounting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")


def _homes() -> Iterator[tuple[Path, str]]:
    """Folders in which this process may make groups, and the file there for the limit."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield _ROOT / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
        elif not controllers:
            yield _ROOT / path.lstrip("/"), "memory.max"


@contextmanager
def limited_memory(nbytes: int) -> Iterator[Path]:
    """The folder of such a group; skips the test where none can be made, and removes it after.

    A process enters when its number is written to ``cgroup.procs``. Those that are left go back.
    """
    why = "/proc/self/cgroup names no memory controller"
    for home, limit in _homes():
        group = home / f"ifog-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            why = str(error)
            continue
        try:
            try:
                (group / limit).write_text(str(nbytes))
            except OSError as error:
                why = str(error)
                continue
            yield group
            return
        finally:
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):  # it ended just now
                    (home / "cgroup.procs").write_text(pid)
            group.rmdir()
    pytest.skip(f"no group with a limit of memory can be made here: {why}")
