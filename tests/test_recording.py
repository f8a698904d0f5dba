from __future__ import annotations

import json
import math
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from runs import cell, graph_event, ring_matrix

from ifog import runfile
from ifog.columns import Reader, write_column
from ifog.errors import RecordingError
from ifog.recordings import Recording, record
from ifog.runfile import RunWriter, read_run
from ifog.telemetry import (
    CellEnd,
    CellStart,
    DeathEvent,
    EventLog,
    GraphEvent,
    OpEvent,
    WaitEvent,
    WatchEvent,
)

COLUMNS = [
    [],
    [0],
    [3, -5, 2**63 - 1, -(2**63), 0],
    [2**70, 1],
    [True, False, 1],
    [0.5, 1.76e9, -3.25],
    [1.76e9 + k * 2.0**-22 for k in range(20)],
    [0.1, math.pi, -0.0, 5e-324, 1.7e308],
    [math.nan, math.inf, -math.inf],
    [float(np.float32(0.1)), 1e-8],
    [1, 2.0, "three", None],
    ["x", "y", "x", 'quote " and µ \N{GRINNING FACE}', ""],
    [(), (1,), (1, 2)],
    [(0.25, 0.25)] * 9,
    [(0.1, 0.2), (0.3, 0.4), (0.5, 0.6)],
    [(0.1,), (), (0.3, 0.4)],
    [((0, 1, 0.5), (1, 0, 0.5)), ()],
    [None, {"ename": "ValueError", "line": 3, "peer": None}],
]


@pytest.mark.parametrize("values", COLUMNS, ids=range(len(COLUMNS)))
def test_a_column_comes_back_exactly_with_its_types(values):
    reader = Reader(write_column(values) + write_column([7]), 100)
    assert repr(reader.column()) == repr(values)
    assert reader.column() == [7]


def test_random_columns_come_back_exactly():
    random.seed(5)
    for _ in range(200):
        kind = random.choice((random.random, lambda: random.randrange(-(10**6), 10**6)))
        rows = [tuple(kind() for _ in range(random.randrange(4))) for _ in range(9)]
        flat = [kind() for _ in range(9)]
        for values in (rows, flat):
            assert Reader(write_column(values), 100).column() == values


def test_a_column_that_claims_more_than_it_has_is_refused():
    for broken in (
        b"",
        b"i" + bytes(8),
        struct.pack("<cII", b"i", 2**31, 1) + b"\0",
        struct.pack("<cII", b"j", 1, 8) + struct.pack("<I", 2) + b"{}" + b"\0\0",
        struct.pack("<cII", b"p", 1, 0),
        struct.pack("<cII", b"i", 1, 1) + b"\x09",
    ):
        with pytest.raises(ValueError, match=r"column|values|bytes|list|table|kind"):
            Reader(broken, 100).column()


def odd_events():
    error = {"ename": "ValueError", "evalue": "µ\n", "line": 3, "peer": None, "wait": None}
    return [
        GraphEvent(0, 1.5, 3, "ring", ((0, 1, 0.5), (1, 2, 1 / 3))),
        CellStart(2, 100.0, 1, 3, (0, 2)),
        CellStart(0, 100.00000000001, 1, 3, (0, 2)),
        OpEvent(0, 7, 0, "neighbor_allreduce", "x", 100.1, 100.2, 0.03, 2, 800, (2,), (2,),
                (0.5, 0.5), (100.15,)),
        WatchEvent(0, 100.2, "x", 1, 3, math.nan, 1.2e-7, (0.1, -0.0, math.inf)),
        WaitEvent(2, 101.7, "barrier", "", 0, (0, 1), 100.3, True, None),
        WaitEvent(2, 101.9, "barrier", "", 0, (0, 1), 100.3, False, 12),
        OpEvent(0, 8, 0, "barrier", "", 100.3, 100.4, 0.0, -1, 0, (), (), ()),
        DeathEvent(2, 102.0, "signal 9"),
        CellEnd(0, 103.0, 1, "error", 1, 10**12, 0.5, 3, error),
    ]  # fmt: skip


def written(path, batches, **options):
    writer = RunWriter(path, **options)
    for batch in batches:
        writer.write(batch)
    writer.close()
    return path


def read(path):
    file = read_run(path)
    return [event for part in range(file.parts) for event in file.events(part)[0]]


def test_events_come_back_exactly_in_the_order_in_which_they_were_heard(tmp_path):
    path = written(tmp_path / "run.ifog", [odd_events(), odd_events()[::-1]], title="Odd")
    assert repr(read(path)) == repr(odd_events() + odd_events()[::-1])
    file = read_run(path)
    assert (file.title, file.modelled, file.complete, file.cut) == ("Odd", False, True, 0)


def test_events_beyond_what_a_part_may_have_go_into_the_next(tmp_path):
    starts = [CellStart(0, float(t), t, 1, (0,)) for t in range(20_000)]
    path = written(tmp_path / "run.ifog", [starts])
    assert read_run(path).parts == 3
    assert read(path) == starts


def test_a_file_cut_anywhere_is_read_up_to_its_last_whole_part(tmp_path):
    batches = [odd_events(), odd_events()[:3], odd_events()[5:]]
    data = written(tmp_path / "run.ifog", batches).read_bytes()
    known = [[event for batch in batches[:parts] for event in batch] for parts in range(4)]
    cut, found = tmp_path / "cut.ifog", []
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        try:
            events = read(cut)
        except RecordingError as error:
            assert "cut off before its first event" in str(error)
            assert found == []
            continue
        assert not read_run(cut).complete
        assert repr(events) in map(repr, known)
        found.append(len(events))
    assert found == sorted(found)
    assert set(found) == {len(events) for events in known}


def test_every_changed_byte_is_noticed(tmp_path):
    path = written(tmp_path / "run.ifog", [odd_events()])
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :])
        with pytest.raises(RecordingError, match=r"damaged at byte|is no recording of ifog"):
            read(path)


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n" + bytes(64), b'{"cells": []}', b"\x80\x04N.", bytes(99)]
)
def test_a_foreign_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "other.ifog"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"other\.ifog is no recording of ifog; record one"):
        read_run(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.ifog", tmp_path):
        with pytest.raises(RecordingError, match="cannot be read: "):
            read_run(path)


def part(kind, body):
    head = struct.pack("<4sII", kind, len(body), zlib.crc32(body))
    return head + struct.pack("<I", zlib.crc32(head)) + body


def forged(path, *parts, form=1):
    head = part(b"head", json.dumps({"format": form}).encode())
    path.write_bytes(b"\x93ifog\r\n\x1a" + head + b"".join(parts))
    return path


def test_a_newer_format_is_refused_with_both_numbers(tmp_path):
    path = forged(tmp_path / "new.ifog", form=2)
    with pytest.raises(RecordingError, match="of format 2, this ifog reads format 1"):
        read_run(path)


class Trap:
    """Pickles to a call; nothing may ever make it."""

    def __reduce__(self):
        return (Path.touch, (Path("trapped"),))


def test_bytes_that_are_no_events_are_refused_and_run_nothing(tmp_path, monkeypatch):
    import pickle

    monkeypatch.chdir(tmp_path)
    bad = [
        pickle.dumps(Trap()),
        zlib.compress(pickle.dumps(Trap())),
        zlib.compress(b""),
        zlib.compress(write_column([{"kinds": [["op", 14]]}])),
        zlib.compress(write_column([{"kinds": [["secret", 1]]}]) + write_column([0]) * 2),
        zlib.compress(write_column([[]]) + write_column([0])),
    ]  # fmt: skip
    for body in bad:
        file = read_run(forged(tmp_path / "bad.ifog", part(b"evts", body)))
        with pytest.raises(RecordingError, match="is not as ifog writes it"):
            file.events(0)
    assert not Path("trapped").exists()


def test_a_part_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runfile, "_LARGEST", 1000)
    body = zlib.compress(bytes(10_000))
    file = read_run(forged(tmp_path / "bomb.ifog", part(b"evts", body)))
    with pytest.raises(RecordingError, match=r"a part of more than 1\.00"):
        file.events(0)


def lively(seconds, rate, n=8):
    """Ranks in a loop of float32 averages: times as noisy as real ones, glances at the tensor."""
    random_numbers = np.random.default_rng(1)
    x = random_numbers.normal(size=(n, 64)).astype(np.float32)
    clocks = np.full(n, 1.76e9)
    ticks = 2.0**22
    for k in range(int(seconds * rate)):
        ready = clocks + random_numbers.normal(0.7, 0.1, n).clip(0.1) / rate
        for rank in range(n):
            src = tuple((rank - hop) % n for hop in (1, 2, 4))
            late = random_numbers.normal(3e-4, 1e-4, 3).clip(1e-5) + ready[list(src)]
            arrived = tuple(np.rint(late * ticks) / ticks)
            t0 = float(np.rint(ready[rank] * ticks) / ticks)
            wait = max(max(arrived) - t0, 0.0)
            clocks[rank] = t1 = float(np.rint((t0 + wait + 0.2 / rate) * ticks) / ticks)
            yield OpEvent(
                rank, k, k, "neighbor_allreduce", "x", t0, t1, float(wait), src[0], 1_200_000,
                tuple((rank + hop) % n for hop in (1, 2, 4)), src, (0.25,) * 4,
                tuple(map(float, arrived)),
            )  # fmt: skip
        x += random_numbers.normal(0, 0.01, x.shape).astype(np.float32)
        if k < 256 or k % (rate // 10) == 0:
            for rank in range(n):
                sample = tuple(x[rank].tolist())
                yield WatchEvent(rank, clocks[rank], "x", k, 10**5, 9.0, 1.1920929e-07, sample)


def test_ten_minutes_of_eight_ranks_need_less_than_50_megabytes(tmp_path):
    events = list(lively(30, 100))
    batches = [events[i : i + 1000] for i in range(0, len(events), 1000)]
    path = written(tmp_path / "run.ifog", batches)
    assert path.stat().st_size < 50e6 / 20
    assert read(path) == events


def test_what_is_recorded_is_what_came_since_and_the_graph_of_before(tmp_path):
    log = EventLog()
    graph = graph_event(ring_matrix(4), "ring")
    first, second = (list(cell(ring_matrix(4), np.ones((4, 1)), 3, seq=s)) for s in (1, 2))
    log.write([graph, *first])
    with record(tmp_path / "run.ifog", log) as recording:
        log.write(second)
    assert repr(read(tmp_path / "run.ifog")) == repr([graph, *second])
    assert (recording.events, recording.lost) == (1 + len(second), 0)


def test_a_cell_that_runs_already_is_recorded_with_its_beginning(tmp_path):
    log = EventLog()
    old = list(cell(ring_matrix(2), np.ones((2, 1)), 1, seq=1))
    start = [CellStart(rank, 200.0, 2, 2, (0, 1)) for rank in (0, 1)]
    log.write([*old, *start])
    with record(tmp_path / "run.ifog", log):
        pass
    assert read(tmp_path / "run.ifog") == start


def test_past_events_are_recorded_when_asked_for(tmp_path):
    log = EventLog()
    log.write(odd_events())
    with record(tmp_path / "run.ifog", log, past=True, title="Past"):
        pass
    assert repr(read(tmp_path / "run.ifog")) == repr(odd_events())
    assert read_run(tmp_path / "run.ifog").title == "Past"


def test_events_that_came_too_fast_are_counted(tmp_path):
    log = EventLog(capacity=10)
    with record(tmp_path / "run.ifog", log) as recording:
        log.lost += 4  # dropped by a rank
        log.write([CellStart(0, float(t), t, 1, (0,)) for t in range(25)])
    assert (recording.events, recording.lost) == (10, 4 + 15)
    file = read_run(tmp_path / "run.ifog")
    assert sum(file.events(part)[1] for part in range(file.parts)) == 19


def test_a_source_that_starts_afresh_is_read_from_its_beginning(tmp_path):
    class Restarted:
        events = EventLog()

    source = Restarted()
    with record(tmp_path / "run.ifog", source):
        source.events = EventLog()
        source.events.write(odd_events())
    assert repr(read(tmp_path / "run.ifog")) == repr(odd_events())


def test_a_recording_replaces_another_one_and_nothing_else(tmp_path):
    path, notebook = tmp_path / "run.ifog", tmp_path / "lecture.ipynb"
    written(path, [odd_events()])
    notebook.write_text("{}")
    with record(path, EventLog()):
        pass
    assert read(path) == []
    with pytest.raises(RecordingError, match=r"is no recording; .* such as lecture\.ifog"):
        record(notebook, EventLog())
    assert notebook.read_text() == "{}"
    with pytest.raises(RecordingError, match="cannot be written"):
        record(tmp_path / "no" / "run.ifog", EventLog())
    with pytest.raises(TypeError, match="pass the cluster"):
        record(path, "a cluster")


def test_a_full_disk_ends_the_recording_and_is_told_at_the_end(tmp_path, monkeypatch):
    log = EventLog()
    recording = Recording(tmp_path / "run.ifog", log)

    def full(events, lost):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording._writer, "write", full)
    log.write(odd_events())
    with pytest.raises(RecordingError, match="first 0 events: No space left on device"):
        recording.stop()
    recording.stop()
    assert not read_run(tmp_path / "run.ifog").complete


CRASH = """
import os, sys, time
from ifog.recordings import record
from ifog.runfile import read_run
from ifog.telemetry import CellStart, EventLog
log = EventLog()
recording = record(sys.argv[1], log)
log.write([CellStart(0, 1.0, 1, 1, (0,))])
until = time.monotonic() + 30
while not read_run(sys.argv[1]).parts and time.monotonic() < until:
    time.sleep(0.05)
os._exit(9)
"""


def test_a_process_that_dies_leaves_a_file_that_can_be_read(tmp_path):
    path = tmp_path / "run.ifog"
    code = subprocess.run([sys.executable, "-c", CRASH, str(path)], timeout=60, check=False)
    assert code.returncode == 9
    assert read(path) == [CellStart(0, 1.0, 1, 1, (0,))]
    assert not read_run(path).complete
