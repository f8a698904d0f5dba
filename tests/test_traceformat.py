"""The checker of traces passes a good one and finds each planted damage."""

from __future__ import annotations

import json
import math

import pytest

from ifog.traceformat import check, check_file


def good():
    """A small trace in which everything occurs."""
    track = {"pid": 1, "tid": 10}
    other = {"pid": 2, "tid": 20}
    arrow = {"cat": "message", "name": "message", "id": 5}
    return [
        {"ph": "M", **track, "name": "process_name", "args": {"name": "rank 0"}},
        {"ph": "M", **track, "name": "thread_sort_index", "args": {"sort_index": 1}},
        {"ph": "X", **track, "ts": 10.0, "dur": 10.0, "name": "op", "cat": "op"},
        {"ph": "X", **track, "ts": 12.0, "dur": 3.0, "name": "wait", "cat": "wait"},
        {"ph": "B", **other, "ts": 11.0, "name": "outer"},
        {"ph": "B", **other, "ts": 12.0, "name": "inner"},
        {"ph": "E", **other, "ts": 13.0},
        {"ph": "E", **other, "ts": 30.0, "name": "outer"},
        {"ph": "i", **other, "ts": 12.5, "s": "t", "name": "stuck"},
        {"ph": "C", **other, "ts": 12.5, "name": "norm", "args": {"x": 1.5}},
        {"ph": "s", **track, "ts": 10.0, **arrow},
        {"ph": "f", **other, "ts": 12.2, **arrow, "bp": "e"},
    ]


def test_a_good_trace_passes():
    assert check(good()) == []


@pytest.mark.parametrize(
    ("number", "change", "problem"),
    [
        (2, {"ph": "Y"}, "unknown phase"),
        (2, {"ph": None}, "unknown phase"),
        (2, {"pid": "1"}, "pid is not an integer"),
        (2, {"tid": 1.5}, "tid is not an integer"),
        (2, {"ts": "10"}, "ts is not a number"),
        (2, {"ts": math.nan}, "ts is not a number"),
        (2, {"dur": -1}, "dur is not a number"),
        (2, {"dur": None}, "dur is not a number"),
        (2, {"name": None}, "it has no name"),
        (2, {"args": []}, "args is not an object"),
        (2, {"dur": 4.0}, "ends after the one around it"),
        (3, {"dur": 9.0}, "ends after the one around it"),
        (0, {"args": {}}, "process_name without a name"),
        (1, {"args": {"sort_index": "1"}}, "without an integer sort_index"),
        (4, {"tid": 21}, "never began"),
        (6, {"ph": "i"}, "it has no name"),
        (6, {"name": "outer"}, "ends 'outer' inside 'inner'"),
        (7, {"tid": 21}, "never ends"),
        (8, {"s": "x"}, "scope"),
        (9, {"args": {"x": "high"}}, "not numbers"),
        (10, {"id": 6}, "0 beginnings and 1 ends"),
        (10, {"id": None}, "without id or cat"),
        (10, {"cat": "other"}, "beginnings"),
        (10, {"ts": 9.0}, "lies in no slice"),
        (10, {"ts": 15.0}, "goes back in time"),
        (11, {"bp": "x"}, 'without bp "e"'),
        (11, {"tid": 22}, "lies in no slice"),
    ],
)
def test_planted_damage_is_found(number, change, problem):
    events = good()
    events[number] = {**events[number], **change}
    found = check(events)
    assert any(problem in text for text in found), found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[{]", "not JSON"),
        ('[{"ph": "M", "pid": 1, "tid": 1, "name": "x", "args": {"v": NaN}}]', "NaN"),
        ("3", "neither an array"),
        ('{"events": []}', "neither an array"),
        ("[3]", "not an object"),
    ],
)
def test_files_that_are_no_traces_are_found(text, problem, tmp_path):
    (tmp_path / "x.json").write_text(text)
    assert any(problem in line for line in check_file(tmp_path / "x.json"))


def test_an_array_may_end_after_any_event(tmp_path):
    lines = "[\n" + "".join(f"{json.dumps(event)},\n" for event in good())
    (tmp_path / "x.json").write_text(lines)
    assert check_file(tmp_path / "x.json") == []
    (tmp_path / "x.json").write_text(lines[:-9])
    assert check_file(tmp_path / "x.json") != []
