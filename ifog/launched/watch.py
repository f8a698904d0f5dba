"""Tells the keeper of a rank what its program waits in, once that takes long.

A thread looks from time to time, from when the program first talks to other ranks.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import threading
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["begin", "guard"]

guard = threading.Lock()  # lines must not be mixed with what else is written there


def begin(told: int, seconds: float) -> None:
    """Write to ``told`` which operations last longer than half of ``seconds``, and when they end.

    Args:
        told: a file descriptor for lines of JSON.
        seconds: after how long the launcher warns.
    """
    threading.Thread(target=_watch, args=(told, seconds), daemon=True, name="ifog-stall").start()


def _watch(told: int, seconds: float) -> None:
    pause = threading.Event()
    said: list[Any] | None = None
    while not pause.wait(min(1.0, seconds / 4)):
        found = _found(seconds / 2)
        if found != said:
            said = found
            with guard:
                os.write(told, json.dumps({"kind": "wait", "wait": found}).encode() + b"\n")


def _found(least: float) -> list[Any] | None:
    """The wait this rank is in, and where, if it has lasted ``least`` seconds."""
    home = sys.modules.get("ifog.context")
    here = getattr(home, "_of_process", None)
    if here is None:
        return None
    event = here.waiting()
    if event is None or event.t - event.since < least:
        return None
    place = _place(sys._current_frames().get(here.progress.thread))
    return [event.op, event.name, event.step, event.peers, event.since, event.moving, place]


def _place(frame: FrameType | None) -> str:
    """The innermost line that is of no library."""
    paths = sysconfig.get_paths()
    libraries = {f"{paths[key]}/" for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    libraries.add(f"{Path(__file__).parent.parent}/")
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((*libraries, "<")):
            return f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
