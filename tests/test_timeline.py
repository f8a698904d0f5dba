"""A rank's trace file shows what happened and is readable at any moment; off, nothing happens."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch

import ifog
from ifog.context import current
from ifog.errors import ArgumentError
from ifog.recorder import Timeline, file_of
from ifog.telemetry import CellEnd, CellStart, EventLog, OpEvent, WaitEvent
from ifog.testing import run_ranks
from ifog.trace import Source
from ifog.traceformat import check, check_file
from ifog.tracks import Activity, Layout


def events_of(path):
    return json.loads(path.read_text())


def slices_of(events, category):
    return [event for event in events if event.get("cat") == category]


def parsed(lines):
    return [json.loads(line) for line in lines]


def operation(t0, t1, **changes):
    event = OpEvent(1, 7, 2, "neighbor_allreduce", "x", t0, t1, 0.0, -1, 80, (0,), (0,), (0.5, 0.5))
    return event._replace(**changes)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("run", "run.2.json"), ("run.json", "run.2.json"), ("a/b.c", "a/b.c.2.json")],
)
def test_a_path_is_a_prefix(path, expected):
    assert str(file_of(path, 2)) == expected


def test_a_folder_gets_files_of_its_own(tmp_path):
    assert file_of(tmp_path, 0) == tmp_path / "timeline.0.json"
    assert file_of(f"{tmp_path}/new/", 3) == tmp_path / "new" / "timeline.3.json"


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_operation_is_a_slice_that_says_what_it_did(n, tmp_path):
    def program():
        ifog.set_topology(ifog.ring(n))
        with ifog.timeline(tmp_path / "run"):
            x = torch.ones(10)
            for _ in range(3):
                x = ifog.neighbor_allreduce(x, name="x")
            ifog.broadcast(x, n - 1, name="z")

    run_ranks(n, program)
    for rank in range(n):
        path = tmp_path / f"run.{rank}.json"
        assert check_file(path) == []
        operations = slices_of(events_of(path), "op")
        assert [event["name"] for event in operations] == [
            *["neighbor_allreduce x"] * 3,
            "broadcast z",
        ]
        around = sorted({(rank - 1) % n, (rank + 1) % n} - {rank})
        for step, told in enumerate(event["args"] for event in operations[:3]):
            assert (told["round"], told["bytes"]) == (step, 40 * len(around))
            assert sorted(told["dst"]) == sorted(told["src"]) == around
            assert told["weights"] == pytest.approx([1 / (len(around) + 1)] * (len(around) + 1))
            assert len(told["arrived"]) == len(around)
        assert operations[3]["args"]["src"] == ([] if rank == n - 1 else [n - 1])
        names = {e["name"]: e["args"] for e in events_of(path) if e["ph"] == "M"}
        assert names["process_name"] == {"name": f"rank {rank}"}
        assert names["ifog_timeline"]["size"] == n


def test_overlapping_operations_lie_on_different_tracks(tmp_path):
    def program():
        with ifog.timeline(tmp_path / "run"):
            x = torch.ones(3)
            handles = [ifog.allreduce_nonblocking(x, name=name) for name in "abc"]
            for handle in reversed(handles):
                handle.wait()
            ifog.allreduce(x, name="later")

    run_ranks(2, program)
    for rank in range(2):
        assert check_file(tmp_path / f"run.{rank}.json") == []
        operations = slices_of(events_of(tmp_path / f"run.{rank}.json"), "op")
        for a in operations:
            for b in operations:
                apart = a["ts"] + a["dur"] < b["ts"] or b["ts"] + b["dur"] < a["ts"]
                assert a is b or apart or a["tid"] != b["tid"]


def test_a_track_is_used_again_when_it_is_free():
    layout = Layout(0, 100.0)
    told = []
    # b and c begin and end while a is under way; d begins after all of them.
    for t0, t1 in ((101.1, 101.2), (101.3, 101.4), (101.0, 101.9), (102.0, 102.1)):
        told += slices_of(parsed(layout.lines(operation(t0, t1))), "op")
    b, c, a, d = (event["tid"] for event in told)
    assert b == c == d != a


def test_the_wait_is_a_slice_inside_its_operation_that_ends_when_the_last_message_came():
    event = operation(
        100.5, 100.9, late=3, wait=0.2, src=(0, 3), arrived=(100.6, 100.8), weights=(0.2, 0.4, 0.4)
    )
    lines = parsed(Layout(1, 100.0).lines(event))
    (op,), (wait,) = slices_of(lines, "op"), slices_of(lines, "wait")
    assert (op["ts"], op["dur"]) == (500_000.0, 400_000.0)
    assert (wait["ts"], wait["dur"], wait["name"]) == (600_000.0, 200_000.0, "wait for rank 3")
    assert wait["tid"] == op["tid"]
    assert op["args"]["arrived"] == [100_000.0, 300_000.0]


@pytest.mark.parametrize("wait", [1e-9, 1e-4, 0.4, 7.0])
@pytest.mark.parametrize("arrived", [(), (100.5,), (100.9,)])
def test_slices_nest_whatever_the_clocks_said(wait, arrived):
    event = operation(100.5, 100.5 if wait < 1e-6 else 100.9, late=0, wait=wait, arrived=arrived)
    assert check(parsed(Layout(1, 100.0).lines(event))) == []


def test_what_json_cannot_say_is_said_in_words():
    event = operation(100.5, 100.9, weights=(math.nan, math.inf), name='a"b\nc\\{')
    (op,) = slices_of(parsed(Layout(1, 100.0).lines(event)), "op")
    assert op["args"]["weights"] == ["nan", "inf"]
    assert op["args"]["tensor"] == 'a"b\nc\\{'
    assert "\n" not in op["name"]


def test_cells_and_waits_are_shown():
    layout = Layout(1, 100.0)
    lines = layout.lines(CellStart(1, 100.1, 4, 2, (0, 1)))
    lines += layout.lines(WaitEvent(1, 100.8, "allreduce", "y", 0, (0,), 100.2))
    lines += layout.lines(operation(100.2, 100.3))
    lines += layout.lines(CellEnd(1, 100.9, 4, "ok", 1, 0, 0.0, 0, None))
    lines += layout.lines(operation(100.95, 100.96))
    events = parsed(lines)
    assert check(events) == []
    assert [e["ph"] for e in events if e.get("name") == "cell 4"] == ["B"]
    (stuck,) = [e for e in events if e["ph"] == "i"]
    assert stuck["name"] == "waiting for rank 0 in allreduce y"
    assert stuck["args"]["waited"] == pytest.approx(600_000.0)
    assert [e["args"]["cell"] for e in slices_of(events, "op")] == [4, -4]


def test_a_second_end_of_an_activity_is_not_written():
    layout = Layout(0, 0.0)
    rows = [("B", 1.0, "x", "a"), ("B", 2.0, "x", "b"), ("E", 3.0, "x", ""), ("E", 4.0, "x", "")]
    rows.append(("E", 5.0, "x", ""))
    lines = [line for row in rows for line in layout.lines(Activity(*row))]
    assert check(parsed(lines)) == []
    assert [e["ph"] for e in parsed(lines) if e["ph"] != "M"] == ["B", "B", "E", "E"]


def test_activities_nest_and_the_open_ones_end_with_the_timeline(tmp_path):
    def program():
        with ifog.timeline(tmp_path / "run"):
            assert ifog.timeline_start_activity("x", "epoch")
            with ifog.timeline_context("x", "forward"):
                assert ifog.timeline_start_activity("y", "load")
            assert ifog.timeline_end_activity("y")
            assert not ifog.timeline_end_activity("y")

    run_ranks(1, program)
    assert check_file(tmp_path / "run.0.json") == []
    events = events_of(tmp_path / "run.0.json")
    assert [e["name"] for e in events if e["ph"] == "B"] == ["epoch", "forward", "load"]
    tracks = {e["name"]: e["tid"] for e in events if e["ph"] == "B"}
    assert tracks["epoch"] == tracks["forward"] != tracks["load"]


def test_without_a_timeline_nothing_is_written_or_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def program():
        ifog.allreduce(torch.ones(2), name="x")
        with ifog.timeline_context("x", "step"):
            started = ifog.timeline_start_activity("x", "more")
        return started, ifog.timeline_end_activity("x"), current().sink, current().timeline

    assert run_ranks(2, program) == [(False, False, None, None)] * 2
    assert list(tmp_path.iterdir()) == []


def test_other_sinks_keep_getting_the_events(tmp_path):
    log = EventLog()

    def program():
        with ifog.timeline(tmp_path / "run"):
            ifog.allreduce(torch.ones(2), name="x")
        ifog.allreduce(torch.ones(2), name="y")
        return current().sink is log

    assert run_ranks(1, program, sink=log) == [True]
    assert [e.name for e in log.since(0)[1] if isinstance(e, OpEvent)] == ["x", "y"]
    assert len(slices_of(events_of(tmp_path / "run.0.json"), "op")) == 1


def test_a_second_timeline_ends_the_first(tmp_path):
    def program():
        first = ifog.timeline(tmp_path / "a")
        second = ifog.timeline(tmp_path / "b")
        ifog.allreduce(torch.ones(2), name="x")
        first.stop()
        assert current().timeline is second
        ifog.shutdown()

    run_ranks(1, program)
    assert slices_of(events_of(tmp_path / "a.0.json"), "op") == []
    assert len(slices_of(events_of(tmp_path / "b.0.json"), "op")) == 1


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")

    def program():
        with pytest.raises(ArgumentError, match=r"timeline of rank 0.*file/run\.0\.json.*another"):
            ifog.timeline(tmp_path / "file" / "run")
        assert current().timeline is current().sink is None

    run_ranks(1, program)


def test_a_full_disk_ends_the_timeline_and_not_the_program():
    def program():
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            running = Timeline(current(), full)
            ifog.allreduce(torch.ones(2), name="x")
            running.flush()
            running.stop()
        return [str(warning.message) for warning in told]

    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    ((told,),) = run_ranks(1, program)
    assert "timeline /dev/full ends here" in told


def test_the_end_of_a_cell_is_in_the_file_at_once(tmp_path):
    def program():
        current().begin_cell(5, [0])
        running = ifog.timeline(tmp_path / "run")
        ifog.allreduce(torch.ones(2), name="x")
        current().end_cell("ok", None)
        lines = parsed(Source(running.path).lines())
        running.stop()
        return lines

    (events,) = run_ranks(1, program)
    assert check(events) == []
    assert [e["name"] for e in events if e["ph"] == "B"] == ["cell 5"]
    assert [e["args"]["cell"] for e in slices_of(events, "op")] == [5]


PROGRAM = """
import sys, torch, ifog
ifog.init()
x = torch.ones(3)
for _ in range(10):
    x = ifog.allreduce(x, name="x")
ifog.timeline_start_activity("x", "left open")
sys.stdout.write("done\\n")
sys.stdout.flush()
sys.stdin.read()
"""


@pytest.fixture
def program(tmp_path):
    """A single rank that has done ten operations with IFOG_TIMELINE set, and waits."""
    environment = {**os.environ, "IFOG_TIMELINE": f"{tmp_path}/"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "done\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_the_environment_begins_a_timeline_and_the_exit_ends_it(program, tmp_path):
    program.communicate("", timeout=60)
    assert program.returncode == 0
    assert check_file(tmp_path / "timeline.0.json") == []
    assert len(slices_of(events_of(tmp_path / "timeline.0.json"), "op")) == 10


def test_a_killed_rank_leaves_what_is_older_than_half_a_second(program, tmp_path):
    path, pause = tmp_path / "timeline.0.json", threading.Event()
    deadline = time.monotonic() + 20
    while "left open" not in path.read_text() and time.monotonic() < deadline:
        pause.wait(0.02)
    program.kill()
    program.wait(timeout=20)
    source = Source(path)
    events = parsed(source.lines())
    assert len(slices_of(events, "op")) == 10
    assert "not finished" in source.damage
    assert check(events) == [p for p in check(events) if "never ends" in p] != []


@pytest.mark.mpi
def test_cells_write_a_timeline_and_still_reach_the_notebook(cluster, tmp_path):
    before = cluster.events.since(0)[0]
    cluster.run(f"run = bf.timeline({str(tmp_path / 'run')!r})", timeout=30).raise_for_error()
    try:
        code = "x = bf.neighbor_allreduce(torch.ones(3), name='x')"
        result = cluster.run(code, timeout=30)
        result.raise_for_error()
        for rank in range(4):
            events = parsed(Source(tmp_path / f"run.{rank}.json").lines())
            (told,) = [e["args"] for e in slices_of(events, "op") if e["args"]["tensor"] == "x"]
            assert told["cell"] == result.seq
            assert f"cell {result.seq}" in {e.get("name") for e in events if e["ph"] == "B"}
    finally:
        cluster.run("run.stop()", timeout=30).raise_for_error()
    arrived = [e for e in cluster.events.since(before)[1] if isinstance(e, OpEvent)]
    assert sorted(e.rank for e in arrived if e.name == "x") == [0, 1, 2, 3]
    assert all(check_file(tmp_path / f"run.{rank}.json") == [] for rank in range(4))
