"""Whether a file follows Chrome's Trace Event Format, as far as timelines use it.

The rules are those of the format's description (Trace Event Format, Google, 2016) and of Perfetto's
reader: what each phase must carry, that slices of one track nest, and that both ends of an arrow
lie in slices.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["check", "check_file"]

_NAMES = {"process_name": "name", "thread_name": "name", "process_labels": "labels"}
_ORDERS = ("process_sort_index", "thread_sort_index")
_PHASES = "BEXiCMstf"

_Track = tuple[int, int]
_Slice = tuple[int, int]  # begin and end in ns


def check_file(path: str | Path) -> list[str]:
    """What is wrong with the file, in words; nothing if it is a complete, well-formed trace.

    The end of an array may be missing, as the format allows for programs that write as they run.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON number")

    try:
        text = Path(path).read_text(encoding="utf-8").strip()
        if text.startswith("[") and not text.endswith("]"):
            text = text.rstrip(",") + "]"
        content = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        return [f"not JSON: {error}"]
    events = content.get("traceEvents") if isinstance(content, dict) else content
    if not isinstance(events, list):
        return ["neither an array of events nor an object with traceEvents"]
    return check(events)


def check(events: Sequence[Any]) -> list[str]:
    """What is wrong with the events of a finished trace, in words; nothing if all is well."""
    problems = []
    good: list[tuple[int, Mapping[str, Any]]] = []
    for number, event in enumerate(events):
        wrong = _fields(event)
        problems += [f"event {number}: {text}" for text in wrong]
        if not wrong:
            good.append((number, event))
    slices, unmatched = _slices(good)
    problems += unmatched
    for track, found in slices.items():
        problems += _nesting(track, found)
    return problems + list(_arrows(good, slices))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _fields(event: Any) -> list[str]:
    """What an event lacks by itself."""
    if not isinstance(event, dict):
        return ["not an object"]
    phase = event.get("ph")
    if not isinstance(phase, str) or len(phase) != 1 or phase not in _PHASES:
        return [f"unknown phase {phase!r}"]
    wrong = [f"{key} is not an integer" for key in ("pid", "tid") if not _is_int(event.get(key))]
    if phase != "M" and not (_is_number(event.get("ts")) and event["ts"] >= 0):
        wrong.append("ts is not a number from 0 on")
    if phase != "E" and not isinstance(event.get("name"), str):
        wrong.append("it has no name")
    if not isinstance(event.get("args", {}), dict):
        wrong.append("args is not an object")
    elif phase == "M":
        wrong += _metadata(event)
    elif phase == "C" and not all(map(_is_number, event.get("args", {}).values())):
        wrong.append("a counter's args are not numbers")
    if phase == "X" and not (_is_number(event.get("dur")) and event["dur"] >= 0):
        wrong.append("dur is not a number from 0 on")
    if phase == "i" and event.get("s", "t") not in ("g", "p", "t"):
        wrong.append("its scope is none of g, p, t")
    if phase in "stf" and not (isinstance(event.get("id"), int | str) and "cat" in event):
        wrong.append("an arrow without id or cat")
    return wrong


def _metadata(event: Mapping[str, Any]) -> list[str]:
    name, arguments = event.get("name"), event.get("args", {})
    if name in _ORDERS and not _is_int(arguments.get("sort_index")):
        return [f"{name} without an integer sort_index"]
    if name in _NAMES and not isinstance(arguments.get(_NAMES[name]), str):
        return [f"{name} without a {_NAMES[name]}"]
    return []


def _ns(microseconds: float) -> int:
    return round(microseconds * 1000)


_Slices = dict[_Track, list[_Slice]]


def _slices(events: Sequence[tuple[int, Mapping[str, Any]]]) -> tuple[_Slices, list[str]]:
    """The slices of each track, and what is wrong with its pairs of B and E."""
    slices: _Slices = defaultdict(list)
    opened: dict[_Track, list[tuple[int, Mapping[str, Any]]]] = defaultdict(list)
    problems = []
    timed = [item for item in events if item[1]["ph"] in "BEX"]
    for number, event in sorted(timed, key=lambda item: item[1]["ts"]):
        track, phase = (event["pid"], event["tid"]), event["ph"]
        if phase == "X":
            begin = _ns(event["ts"])
            slices[track].append((begin, begin + _ns(event["dur"])))
        elif phase == "B":
            opened[track].append((number, event))
        elif not opened[track]:
            problems.append(f"event {number}: ends a slice of track {track} that never began")
        else:
            _, begun = opened[track].pop()
            if event.get("name", begun["name"]) != begun["name"]:
                problems.append(f"event {number}: ends {event['name']!r} inside {begun['name']!r}")
            slices[track].append((_ns(begun["ts"]), _ns(event["ts"])))
    for track, left in opened.items():
        problems += [f"event {number}: a slice of track {track} never ends" for number, _ in left]
    return slices, problems


def _nesting(track: _Track, slices: list[_Slice]) -> Iterator[str]:
    around: list[int] = []  # the ends of the slices that enclose the present one
    for begin, end in sorted(slices, key=lambda item: (item[0], -item[1])):
        while around and around[-1] <= begin:
            around.pop()
        if around and end > around[-1]:
            yield f"track {track}: the slice at {begin} ns ends after the one around it"
        around.append(end)


def _arrows(
    events: Sequence[tuple[int, Mapping[str, Any]]], slices: Mapping[_Track, list[_Slice]]
) -> Iterator[str]:
    ends: dict[Any, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    covered = {track: _Cover(found) for track, found in slices.items()}
    for number, event in events:
        if event["ph"] not in "stf":
            continue
        ends[event["cat"], event["name"], event["id"]][event["ph"]].append(event["ts"])
        cover = covered.get((event["pid"], event["tid"]))
        if cover is None or not cover.holds(_ns(event["ts"])):
            yield f"event {number}: an arrow's end lies in no slice"
        if event["ph"] == "f" and event.get("bp") != "e":
            yield f'event {number}: an arrow\'s head without bp "e" ends at the next slice'
    for key, found in ends.items():
        if len(found["s"]) != 1 or len(found["f"]) != 1:
            yield f"arrow {key}: {len(found['s'])} beginnings and {len(found['f'])} ends"
        elif found["f"][0] < found["s"][0]:
            yield f"arrow {key}: goes back in time"


class _Cover:
    """The times that the slices of a track cover, as disjoint intervals."""

    def __init__(self, slices: Sequence[_Slice]) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        for begin, end in sorted(slices):
            if self._ends and begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._begins.append(begin)
                self._ends.append(end)

    def holds(self, moment: int) -> bool:
        i = bisect_right(self._begins, moment) - 1
        return i >= 0 and moment <= self._ends[i]
