"""A run as frames: what its panels show at chosen moments, each told by what changed.

A frame is JSON, and so is a change: ``[value]`` replaces what was there, a mapping changes entries
by key or index, and a list of ``start, removed, items, start, removed, items, ...`` replaces
stretches of a list, each ``start`` counted after the stretches before it were replaced.
"""

from __future__ import annotations

import base64
import gzip
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ifog.folding import Folding
from ifog.tape import Tape

__all__ = ["Track", "change", "film", "moments", "packed", "stops"]

_log = logging.getLogger(__name__)
_MOST = 1200  # frames
_LARGE = 4  # entries of a list
_LEAST = 100  # of a short run
_APART = 0.1  # seconds between two frames of a longer one
_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class Track(NamedTuple):
    """What one panel shows: JSON texts, each with the seconds of playing from which on it holds."""

    seconds: list[float]
    frames: list[str]

    def thinned(self) -> Track:
        """Every second frame, and the last."""
        kept = sorted({*range(0, len(self.frames), 2), len(self.frames) - 1})
        return Track([self.seconds[i] for i in kept], [self.frames[i] for i in kept])


def moments(tape: Tape, most: int = _MOST) -> list[float]:
    """The moments of a run at which frames are taken, in seconds of the run.

    Evenly spread over the time that it plays; also at every round where there are few of them, and
    where cells begin and end.
    """
    spread = min(most, max(int(tape.seconds / _APART), _LEAST))
    grid = [tape.moment(seconds) for seconds in np.linspace(0.0, tape.seconds, spread + 1)]
    rounds = tape.rounds.tolist() if len(tape.rounds) <= most else []
    edges = [edge for cell in tape.cells for edge in (cell.begin, cell.end)]
    return sorted({*grid, *rounds, *(edges if len(edges) <= most else [])})


def stops(tape: Tape, taken: Sequence[float], most: int = _MOST) -> list[float]:
    """Where the arrow keys stop: at the ends of rounds, or at frames where those are too many."""
    rounds = tape.rounds.tolist()
    return sorted(set(rounds)) if 0 < len(rounds) <= most else list(taken)


def film(
    tape: Tape,
    pictures: Sequence[tuple[Callable[[], Any], Callable[..., Any], Callable[..., Any]]],
    taken: Sequence[float],
) -> list[Track]:
    """What each picture shows at the moments ``taken``; frames that change nothing are left out.

    Args:
        tape: the run.
        pictures: of each its first state, its fold over events, and its view of a state and time.
        taken: moments of the run, in ascending order.
    """
    foldings = [Folding[Any](initial, fold) for initial, fold, _ in pictures]
    tracks = [Track([], []) for _ in pictures]
    for moment in taken:
        place = tape.place(moment)
        for folding, (_, _, view), track in zip(foldings, pictures, tracks, strict=True):
            if track.frames and '{"error":' in track.frames[-1][:9]:
                continue
            text = _frame(folding, tape, place, view, moment)
            if not track.frames or text != track.frames[-1]:
                track.seconds.append(round(tape.played(moment), 6))
                track.frames.append(text)
    return tracks


def _frame(folding: Folding[Any], tape: Tape, place: int, view: Any, moment: float) -> str:
    try:
        folding.go(tape, place)
        return _JSON.encode(view(folding.state, moment))
    except Exception as error:  # as live: the panel says so, and the others go on
        _log.debug("a panel failed", exc_info=True)
        return _JSON.encode({"error": f"{type(error).__name__}: {error}"})


def packed(track: Track, limit: int) -> str:
    """The track as gzip in base64, with as many frames as fit into ``limit`` characters."""
    while True:
        states = [json.loads(frame) for frame in track.frames]
        changes = [change(*pair) for pair in pairwise(states)]
        text = _JSON.encode([track.seconds, states[0], changes])
        data = base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
        if len(data) <= limit or len(states) <= 2:
            return data
        track = track.thinned()


def change(old: Any, new: Any) -> Any:
    """What turns ``old`` into ``new``; None when nothing does."""
    if old == new:
        return None
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return _entries(old, new, old)
    if isinstance(old, list) and isinstance(new, list) and old and new:
        differ = [i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]]
        few = 2 * len(differ) <= len(new) or all(_is_large(old[place]) for place in differ)
        if len(old) == len(new) and few:
            return _entries(old, new, differ)
        return list(_stretches(old, new)) or [new]
    return [new]


def _is_large(value: Any) -> bool:
    """Whether something is likely to have parts that stay."""
    return isinstance(value, dict) or (isinstance(value, list) and len(value) > _LARGE)


def _entries(old: Any, new: Any, places: Any) -> dict[str, Any]:
    changes = {str(place): change(old[place], new[place]) for place in places}
    return {place: told for place, told in changes.items() if told is not None}


def _stretches(old: list[Any], new: list[Any]) -> Iterator[Any]:
    """The stretches to replace, when that pays: the middle, or both ends of a window that slid."""
    head = _alike(old, new)
    tail = _alike(old[head:][::-1], new[head:][::-1])
    slid = old.index(new[0]) if new[0] in old else 0
    stays = _alike(old[slid:], new) if slid else 0
    if stays > head + tail:
        yield from (0, slid, [], stays, len(old) - slid - stays, new[stays:])
    elif head + tail:
        yield from (head, len(old) - head - tail, new[head : len(new) - tail])


def _alike(old: list[Any], new: list[Any]) -> int:
    """How many entries are the same at the beginning."""
    for place, (a, b) in enumerate(zip(old, new, strict=False)):
        if a != b:
            return place
    return min(len(old), len(new))
