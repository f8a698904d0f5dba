"""What went wrong in a cell, as plain data: the message, the line, and the user's own frames.

A traceback of a rank runs through IPython, ifog and torch; of these the user wrote nothing. What is
kept are the frames of notebook cells and of the user's files.
"""

from __future__ import annotations

import linecache
import sys
import sysconfig
import traceback
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from ifog.errors import PeerFailedError

__all__ = ["cell_line", "describe", "stack"]

_LONGEST = 4000  # characters of a message
_FRAMES = 12  # frames shown; of a deep recursion the first and the last


@cache
def _libraries() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders.add(str(Path(__file__).parent))
    for name in ("IPython", "ipykernel", "torch"):
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin is not None:
            folders.add(str(Path(origin).parent))
    return tuple(f"{folder.rstrip('/')}/" for folder in folders)


def _users(frames: traceback.StackSummary) -> list[traceback.FrameSummary]:
    return [
        frame for frame in frames if not frame.filename.startswith((*_libraries(), "<frozen", "<"))
    ]


def describe(error: BaseException) -> dict[str, Any]:
    """The fields of ``CellEnd.error`` for an exception that ended a cell."""
    frames = _users(traceback.extract_tb(error.__traceback__))
    line, where = None, ""
    if isinstance(error, SyntaxError):
        line = error.lineno
    elif frames:
        cell = frames[0].filename
        line = [frame.lineno for frame in frames if frame.filename == cell][-1]
        where = "" if frames[-1].name == "<module>" else frames[-1].name
    peer = error.rank if isinstance(error, PeerFailedError) else None
    return {
        "ename": type(error).__name__,
        "evalue": _message(error),
        "line": line,
        "where": where,
        "peer": peer,
        "traceback": "\n".join([*_shown(frames), *_last_lines(error)]),
    }


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # a user's __str__ may raise anything
        text = f"<no message: {type(broken).__name__} in __str__>"
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    text = "\n".join([text, *notes])
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _shown(frames: list[traceback.FrameSummary]) -> list[str]:
    half = _FRAMES // 2
    cut = len(frames) - 2 * half
    if cut <= 0:
        return [text for frame in frames for text in _lines_of(frame, frames[0].filename)]
    lines = _shown(frames[:half])
    lines.append(f"... {cut} more frames")
    return lines + [
        text for frame in frames[-half:] for text in _lines_of(frame, frames[0].filename)
    ]


def _lines_of(frame: traceback.FrameSummary, cell: str) -> list[str]:
    place = f"line {frame.lineno}"
    if frame.name != "<module>":
        place += f", in {frame.name}"
    if frame.filename != cell:
        earlier = "/ipykernel_" in frame.filename
        place += ", of an earlier cell" if earlier else f", of {frame.filename}"
    shown = [place]
    number = frame.lineno or 0
    for k in (number - 1, number):
        text = linecache.getline(frame.filename, k).rstrip()
        if text:
            shown.append(f"{'-->' if k == number else '   '} {k:>4} {text}")
    return shown


def _last_lines(error: BaseException) -> list[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = [] if cause is None else [f"after {type(cause).__name__}: {_message(cause)}"]
    if isinstance(error, SyntaxError):
        lines += [text.rstrip() for text in traceback.format_exception_only(error)[1:-1]]
    return [*lines, f"{type(error).__name__}: {_message(error)}"]


def stack(frame: FrameType, *, every: bool = False) -> str:
    """Where a running thread is, in the user's code only, or in ``every`` frame."""
    frames = traceback.extract_stack(frame)
    if every:
        return "".join(traceback.format_list(frames)).rstrip()
    return "\n".join(_shown(_users(frames)))


def cell_line(frame: FrameType | None) -> int | None:
    """The line of the user's cell, or script, that a running thread is in."""
    cell, line = "", None
    # Innermost frame first; the user's outermost file is the cell.
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((*_libraries(), "<")):
            line = line if name == cell else frame.f_lineno
            cell = name
        frame = frame.f_back
    return line
