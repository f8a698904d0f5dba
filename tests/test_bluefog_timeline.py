"""BlueFog's timeline has its format and its names, and is complete at any moment."""

from __future__ import annotations

import json
import threading

import torch

import ifog
from ifog.bluefog import timeline as bluefog
from ifog.bluefog.lifecycle import init as bluefog_init
from ifog.telemetry import EPOCH, OpEvent
from ifog.testing import run_ranks
from ifog.traceformat import check


def put(t0, t1, op):
    return OpEvent(0, 1, 0, op, "w", t0, t1, 0.0, -1, 8, (1,), (), ())


def bluefog_events(path):
    text = path.read_text()
    assert text.startswith("[\n")
    assert all(line.endswith(",") for line in text.splitlines()[1:])
    return json.loads(text.rstrip(",\n") + "]"), text


def test_bluefogs_timeline_is_complete_whenever_an_operation_has_returned(tmp_path, monkeypatch):
    monkeypatch.setenv("BLUEFOG_TIMELINE", f"{tmp_path}/t")

    def program():
        bluefog_init()
        x = torch.ones(4)
        found = []
        for op, call in (
            ("NEIGHBOR_ALLREDUCE", lambda: ifog.neighbor_allreduce(x, name="p")),
            ("NEIGHBOR_ALLGATHER", lambda: ifog.neighbor_allgather(x, name="p")),
            ("ALLREDUCE", lambda: ifog.allreduce(x, name="p")),
            ("BROADCAST", lambda: ifog.broadcast(x, 0, name="p")),
            ("ALLGATHER", lambda: ifog.allgather(x)),
        ):
            call()
            text = (tmp_path / f"t{ifog.rank()}.json").read_text()
            found.append(f'"ENQUEUE_{op}"' in text and f'"MPI_{op}"' in text)
        bluefog_init()  # the file is not begun anew
        return found

    assert run_ranks(3, program) == [[True] * 5] * 3
    for rank in range(3):
        events, text = bluefog_events(tmp_path / f"t{rank}.json")
        assert check(events) == []
        assert '"tid": 1' in text
        assert '"tid": 2' in text
        names = [e["args"]["name"] for e in events if e.get("name") == "process_name"]
        assert names[:4] == [
            "neighbor.allreduce.p",
            "neighbor.allgather.p",
            "allreduce.p",
            "broadcast.p",
        ]
        assert names[4].startswith("allgather.noname.")
        pids = [e["pid"] for e in events if e.get("name") == "process_sort_index"]
        assert pids == [1, 2, 3, 4, 5]
        averaged = [e["name"] for e in events if e["ph"] == "B" and e["pid"] == 1]
        assert averaged == [
            "ENQUEUE_NEIGHBOR_ALLREDUCE", "MPI_NEIGHBOR_ALLREDUCE", "COMMUNICATE", "COMPUTE_AVERAGE"
        ]  # fmt: skip
        calls = {e["tid"] for e in events if str(e.get("name")).startswith("ENQUEUE_")}
        phases = {e["tid"] for e in events if str(e.get("name")).startswith("MPI_")}
        assert (calls, phases) == ({1}, {2})


def test_each_init_begins_the_file_that_the_variable_asks_for(tmp_path, monkeypatch):
    paths = [tmp_path / "a0.json", tmp_path / "b0.json"]

    def words(path):
        return {e["name"] for e in bluefog_events(path)[0] if e["ph"] == "B"}

    def program():
        bluefog_init()  # nothing is asked for yet
        ifog.allgather(torch.ones(1))
        monkeypatch.setenv("BLUEFOG_TIMELINE", f"{tmp_path}/a")
        bluefog_init()
        ifog.allreduce(torch.ones(1))
        monkeypatch.delenv("BLUEFOG_TIMELINE")
        bluefog_init()  # it goes on
        ifog.broadcast(torch.ones(1), 0)
        assert "MPI_ALLGATHER" not in words(paths[0])
        assert {"MPI_ALLREDUCE", "MPI_BROADCAST"} <= words(paths[0])
        paths[0].unlink()
        monkeypatch.setenv("BLUEFOG_TIMELINE", f"{tmp_path}/a")
        bluefog_init()
        ifog.allgather(torch.ones(1))
        assert words(paths[0]) == {"ENQUEUE_ALLGATHER", "MPI_ALLGATHER", "COMMUNICATE"}
        monkeypatch.setenv("BLUEFOG_TIMELINE", f"{tmp_path}/b")
        bluefog_init()
        ifog.neighbor_allgather(torch.ones(1))
        assert "MPI_NEIGHBOR_ALLGATHER" in words(paths[1])
        assert "MPI_NEIGHBOR_ALLGATHER" not in words(paths[0])

    run_ranks(1, program)


def test_overlapping_operations_on_a_window_are_shown_one_after_the_other(tmp_path):
    file = bluefog.TimelineFile(str(tmp_path / "t0.json"))
    for op, t0, t1 in (("win_put", 1.0, 2.0), ("win_accumulate", 1.2, 2.1)):
        file.write([put(EPOCH + t0, EPOCH + t1, op)])
    file.write([put(EPOCH + 3.0, EPOCH + 3.5, "win_update")])
    events, text = bluefog_events(tmp_path / "t0.json")
    assert check(events) == []
    begins = {e["name"]: e["ts"] for e in events if e["ph"] == "B" and e["tid"] == 2}
    assert begins["MPI_WIN_PUT"] < 2e6 <= begins["MPI_WIN_ACCUMULATE"]
    assert "ENQUEUE_WIN_PUT" in text
    assert [e["tid"] for e in events if e.get("name") == "WIN_SYNC_COMPUTE_AVERAGE"] == [1]
    assert {e["pid"] for e in events} == {1}


def test_bluefogs_activities_say_once_that_the_timeline_is_off(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("BLUEFOG_TIMELINE", raising=False)
    monkeypatch.setattr(bluefog, "_told", threading.Event())
    started, ended = bluefog.timeline_start_activity, bluefog.timeline_end_activity

    def off():
        bluefog_init()
        monkeypatch.setenv("BLUEFOG_TIMELINE", f"{tmp_path}/late")  # counts at the next init
        return started("x", "a"), ended("x"), started("x", "a")

    assert run_ranks(1, off) == [(False, False, False)]
    assert [r.name for r in caplog.records if "timeline is off" in r.message] == ["bluefog"]
    assert list(tmp_path.iterdir()) == []

    def on():
        bluefog_init()
        with bluefog.timeline_context("x", "outer"):
            told = started("x", "inner"), ended("x")
        return *told, ended("x")

    monkeypatch.setenv("BLUEFOG_TIMELINE", f"{tmp_path}/on")
    assert run_ranks(1, on) == [(True, True, False)]
    events, _ = bluefog_events(tmp_path / "on0.json")
    assert check(events) == []
    assert [e.get("name") for e in events if e["ph"] in "BE"] == ["outer", "inner", None, None]
