"""Merged timelines: clocks agree within the messages' delays, and arrows join sends to receives."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ifog import cli
from ifog.bluefog.timeline import TimelineFile
from ifog.errors import ArgumentError
from ifog.mpiexec import environment, flags, mpiexec
from ifog.telemetry import EPOCH, OpEvent
from ifog.trace import Source, merge
from ifog.traceformat import check, check_file
from ifog.tracks import Layout

START = EPOCH + 1000.0


class Run:
    """Simulated ranks: each writes its timeline by its own clock, which may be wrong.

    ``ahead[r]`` are the seconds by which rank r's wall clock is ahead, and ``monotonic[r]`` what
    its other clock showed at the true time ``START``.
    """

    def __init__(self, folder, ahead, *, clock=None, monotonic=None, seed=0):
        self.folder, self.ahead, self.n = folder, ahead, len(ahead)
        self.generator = random.Random(seed)
        self.now = [START + 0.01] * self.n
        self.seq = 0
        self.layouts, self.lines = [], []
        for rank in range(self.n):
            origin = {
                "rank": rank,
                "host": f"host{rank}",
                "clock": clock or f"clock {rank}",
                "wall": START + ahead[rank],
                "monotonic": (monotonic or [1000.0] * self.n)[rank],
            }
            layout = Layout(rank, START + ahead[rank])
            self.layouts.append(layout)
            self.lines.append([layout.metadata("ifog_timeline", origin)])

    def write(self, rank, event):
        late = self.ahead[rank]
        shifted = event._replace(
            t0=event.t0 + late, t1=event.t1 + late, arrived=tuple(t + late for t in event.arrived)
        )
        self.lines[rank] += self.layouts[rank].lines(shifted)

    def round(self, op, edges, step, *, name="x", fastest=20e-6, slowest=80e-6):
        """All ranks do one operation over ``edges``, after computing for a while each."""
        begin = [t + self.generator.uniform(1e-4, 1e-3) for t in self.now]
        there = {e: begin[e[0]] + self.generator.uniform(fastest, slowest) for e in edges}
        for rank in range(self.n):
            src = tuple(u for u, v in edges if v == rank)
            dst = tuple(v for u, v in edges if u == rank)
            arrived = tuple(max(begin[rank], there[u, rank]) for u in src)
            end = max([begin[rank], *arrived]) + 1e-5
            self.seq += 1
            event = OpEvent(
                rank, self.seq, step, op, name, begin[rank], end, 0.0, -1, 8, dst, src, ()
            )
            self.write(rank, event._replace(arrived=arrived))
            self.now[rank] = end

    def one(self, rank, op, t0, t1, *, dst=(), src=(), name="w"):
        event = OpEvent(rank, 1, 0, op, name, START + t0, START + t1, 0.0, -1, 8, dst, src, ())
        self.write(rank, event)

    def paths(self):
        found = []
        for rank, lines in enumerate(self.lines):
            path = self.folder / f"run.{rank}.json"
            path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
            found.append(path)
        return found

    def merge(self, **options):
        merged = merge(self.paths(), self.folder / "all.json", **options)
        return merged, json.loads((self.folder / "all.json").read_text())["traceEvents"]


def ring(n):
    return sorted({(u, v) for u in range(n) for v in ((u + 1) % n, (u - 1) % n) if u != v})


def arrows_of(events):
    """(sender's pid, receiver's pid, time it took in us) of each arrow."""
    begins = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert begins.keys() == ends.keys()
    return [(a["pid"], ends[i]["pid"], ends[i]["ts"] - a["ts"]) for i, a in begins.items()]


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_planted_offsets_are_found_within_the_delays_and_every_message_is_an_arrow(n, tmp_path):
    ahead = [0.0, -0.2, 3.7, 1e-3, -40.0][:n]
    run = Run(tmp_path, ahead)
    for step in range(30):
        run.round("neighbor_allreduce", ring(n), step)
    merged, events = run.merge()
    assert check_file(tmp_path / "all.json") == []
    assert merged.damage == ()
    assert (merged.unmatched, merged.backward) == (0, 0)
    # The farthest rank is n // 2 edges away, and the fastest message of an edge takes 20-80 us.
    for clock in merged.clocks:
        assert abs(clock.seconds - ahead[clock.rank]) <= clock.uncertainty + 1e-6
        assert clock.uncertainty <= (n // 2) * 80e-6 + 1e-6
    arrows = arrows_of(events)
    assert merged.arrows == len(arrows) == 30 * len(ring(n))
    assert {(u - 1, v - 1) for u, v, _ in arrows} == set(ring(n))
    assert all(took >= 0 for _, _, took in arrows)
    told = json.loads((tmp_path / "all.json").read_text())["otherData"]["clocks"]
    for rank in range(1, n):
        assert told[f"rank {rank}"]["clock_ahead_us"] == pytest.approx(ahead[rank] * 1e6, abs=200)
        assert 0 < told[f"rank {rank}"]["uncertainty_us"] < 200


def test_nonblocking_operations_that_end_in_another_order_are_joined_by_name(tmp_path):
    run = Run(tmp_path, [0.0, 0.0])
    # Rank 0 finishes a then b, rank 1 b then a.
    run.one(0, "neighbor_allreduce", 0.1, 0.5, dst=(1,), src=(1,), name="a")
    run.one(0, "neighbor_allreduce", 0.2, 0.6, dst=(1,), src=(1,), name="b")
    run.one(1, "neighbor_allreduce", 0.2, 0.5, dst=(0,), src=(0,), name="b")
    run.one(1, "neighbor_allreduce", 0.1, 0.6, dst=(0,), src=(0,), name="a")
    merged, events = run.merge()
    slices = {(e["pid"], e["tid"], e["ts"]): e["name"] for e in events if e["ph"] == "X"}
    begins = {e["id"]: slices[e["pid"], e["tid"], e["ts"]] for e in events if e["ph"] == "s"}
    for end in (e for e in events if e["ph"] == "f"):
        around = {
            name
            for (pid, tid, ts), name in slices.items()
            if (pid, tid) == (end["pid"], end["tid"]) and ts <= end["ts"]
        }
        assert begins[end["id"]] in around
    assert merged.arrows == 4


def test_ranks_that_do_not_name_each_other_are_not_joined(tmp_path):
    run = Run(tmp_path, [0.0] * 3)
    run.one(0, "hierarchical_neighbor_allreduce", 0.1, 0.2, dst=(1, 2), src=(2,))
    run.one(1, "hierarchical_neighbor_allreduce", 0.1, 0.2, dst=(0,), src=(0,))
    run.one(2, "hierarchical_neighbor_allreduce", 0.1, 0.2, dst=(0,), src=())
    merged, events = run.merge()
    assert sorted((u - 1, v - 1) for u, v, _ in arrows_of(events)) == [(0, 1), (2, 0)]
    assert merged.unmatched == 0


def test_ranks_of_one_machine_are_put_on_its_clock_whatever_their_wall_clocks_say(tmp_path):
    # One way only, and slow: messages alone would leave half a second open.
    run = Run(tmp_path, [0.0, 0.25], clock="same", monotonic=[1000.0, 1000.0])
    for step in range(3):
        run.round("neighbor_allreduce", [(0, 1)], step, fastest=0.5, slowest=0.6)
    merged, events = run.merge()
    assert merged.clocks[1].shared
    assert merged.clocks[1].seconds == pytest.approx(0.25, abs=2e-6)
    assert merged.clocks[1].uncertainty <= 1e-6
    assert all(0.5e6 <= took <= 0.6e6 for _, _, took in arrows_of(events))


def test_a_shared_clock_that_the_messages_contradict_is_not_believed(tmp_path):
    run = Run(tmp_path, [0.0, 3.7], clock="same", monotonic=[1000.0, 1003.7])
    for step in range(5):
        run.round("neighbor_allreduce", ring(2), step)
    merged, events = run.merge()
    assert not merged.clocks[1].shared
    assert merged.clocks[1].seconds == pytest.approx(3.7, abs=80e-6)
    assert all(took >= 0 for _, _, took in arrows_of(events))


@pytest.mark.parametrize(
    ("op", "shown"),
    [
        ("neighbor_allgather", True),
        ("pair_gossip", True),
        ("hierarchical_neighbor_allreduce", True),
        ("broadcast", True),
        ("allreduce", False),
        ("allgather", False),
    ],
)
def test_arrows_are_drawn_where_they_can_be_read(op, shown, tmp_path):
    run = Run(tmp_path, [0.0] * 4)
    everyone = list(itertools.permutations(range(4), 2))
    run.round(op, everyone, 0)
    assert run.merge()[0].arrows == (12 if shown else 0)
    assert run.merge(every_message=True)[0].arrows == 12


def test_what_is_put_in_a_window_is_joined_to_the_update_that_received_it(tmp_path):
    run = Run(tmp_path, [0.0, 0.0])
    run.one(0, "win_put", 0.10, 0.11, dst=(1,))  # overwritten by the next
    run.one(0, "win_put", 0.12, 0.13, dst=(1,))
    run.one(1, "win_update", 0.20, 0.21)
    run.one(0, "win_accumulate", 0.22, 0.23, dst=(1,))
    run.one(0, "win_accumulate", 0.24, 0.25, dst=(1,))
    run.one(1, "win_update", 0.30, 0.31)
    run.one(0, "win_put", 0.40, 0.41, dst=(1,), name="other window")
    run.one(1, "win_update", 0.50, 0.51)
    run.one(0, "win_put", 0.60, 0.61, dst=(1,))  # never received
    # Another way of exchange, so that the clocks are known.
    for step in range(2):
        run.now = [START + 0.7 + step] * 2
        run.round("allreduce", ring(2), step)
    merged, events = run.merge()
    assert check(events) == []
    assert merged.unmatched == 0
    origin = min(e["ts"] for e in events if e["ph"] == "X") - 0.1e6
    joined = sorted(
        (round((a["ts"] - origin) * 1e-6, 2), round((b["ts"] - origin) * 1e-6, 2))
        for a in events
        for b in events
        if a["ph"] == "s" and b["ph"] == "f" and a["id"] == b["id"]
    )
    assert joined == [(0.13, 0.20), (0.23, 0.30), (0.25, 0.30)]


def test_a_rank_that_is_missing_is_counted_and_the_others_are_joined(tmp_path):
    run = Run(tmp_path, [0.0] * 4)
    for step in range(5):
        run.round("neighbor_allreduce", ring(4), step)
    merged = merge(run.paths()[:3], tmp_path / "all.json")
    assert merged.arrows == 5 * 4  # 0-1 and 1-2, both ways
    assert merged.unmatched == 5 * 3
    assert check_file(tmp_path / "all.json") == []


def test_a_file_cut_anywhere_counts_up_to_there(tmp_path):
    run = Run(tmp_path, [0.0, 0.0])
    for step in range(4):
        run.round("neighbor_allreduce", ring(2), step)
    path = run.paths()[1]
    whole = path.read_text()
    lines = [line.rstrip(",") for line in whole.splitlines()[1:-1]]
    begin = whole.index(lines[-2])
    for cut in range(begin, len(whole)):
        path.write_text(whole[:cut])
        source = Source(path)
        read = list(source.lines())
        assert read == lines[: len(read)]
        assert len(read) >= len(lines) - 3
        # The last newline but one is where only the bracket's line is missing.
        assert source.damage or whole[:cut].rstrip().endswith("]")
    path.write_text(whole[: begin + 40])
    merged = merge([tmp_path / "run.0.json", path], tmp_path / "all.json")
    assert [text for text in merged.damage if "run.1.json: line" in text]
    assert check_file(tmp_path / "all.json") == []


def test_what_is_no_timeline_is_refused(tmp_path):
    run = Run(tmp_path, [0.0, 0.0])
    run.round("neighbor_allreduce", ring(2), 0)
    first, second = run.paths()
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "again.json").write_text(first.read_text())
    merge([first, second], tmp_path / "all.json")
    cases = [
        ([tmp_path / "text"], "not the timeline of a rank"),
        ([tmp_path / "empty.json"], "not the timeline of a rank"),
        ([tmp_path / "all.json"], "before any merging"),
        ([tmp_path / "none.json"], "cannot read the timeline .*none.json"),
        ([first, tmp_path / "again.json"], "both of rank 0"),
        ([], "no timelines"),
    ]
    for paths, message in cases:
        with pytest.raises(ArgumentError, match=message):
            merge(paths, tmp_path / "out.json")
    with pytest.raises(ArgumentError, match="one of the timelines"):
        merge([first, second], first)
    with pytest.raises(ArgumentError, match="cannot write the merged trace"):
        merge([first, second], tmp_path / "no" / "out.json")
    assert check_file(first) == []


def test_bluefogs_files_are_put_side_by_side(tmp_path):
    for rank in range(2):
        file = TimelineFile(str(tmp_path / f"t{rank}.json"))
        t0 = START + rank
        event = OpEvent(rank, 1, 0, "allreduce", "x", t0, t0 + 0.5, 0.0, -1, 8, (), (), ())
        file.write([event, event._replace(name="y", t0=t0 + 0.6, t1=t0 + 0.7)])
    merged = merge([tmp_path / "t1.json", tmp_path / "t0.json"], tmp_path / "all.json")
    assert (merged.arrows, merged.clocks) == (0, ())
    events = json.loads((tmp_path / "all.json").read_text())["traceEvents"]
    assert check(events) == []
    names = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    assert sorted(names.values()) == [f"rank {r}: allreduce.{t}" for r in (0, 1) for t in "xy"]
    begins = sorted(e["ts"] for e in events if e.get("name") == "MPI_ALLREDUCE")
    assert begins[2] - begins[0] == pytest.approx(1e6, abs=1)


def test_the_command_merges_and_checks(tmp_path, capsys):
    run = Run(tmp_path, [0.0, 3.7])
    for step in range(4):
        run.round("neighbor_allreduce", ring(2), step)
    paths, out = [str(path) for path in run.paths()], str(tmp_path / "all.json")
    assert cli.main(["timeline", "merge", *paths, "-o", out]) == 0
    told = capsys.readouterr().out
    assert "rank 1: clock 3.70\N{NO-BREAK SPACE}s ahead, give or take" in told
    assert "8 arrows" in told
    assert cli.main(["timeline", "check", out]) == 0
    text = Path(out).read_text().replace('"ph": "f"', '"ph": "s"', 1)
    Path(out).write_text(text)
    assert cli.main(["timeline", "check", out]) == 1
    assert "2 beginnings" in capsys.readouterr().out
    assert cli.main(["timeline", "merge", out, "-o", paths[0] + ".x"]) == 1
    assert "before any merging" in capsys.readouterr().err


PROGRAM = """
import torch, ifog
ifog.init()
ifog.set_topology(ifog.ring(ifog.size()))
x = torch.full((1000,), float(ifog.rank()))
for _ in range(25):
    with ifog.timeline_context("x", "step"):
        x = ifog.neighbor_allreduce(x, name="x")
handles = [ifog.neighbor_allreduce_nonblocking(x, name=name) for name in "abc"]
for handle in reversed(handles):
    handle.wait()
ifog.allreduce(x)
"""


@pytest.mark.mpi
def test_real_ranks_give_one_arrow_for_each_edge_and_round_all_forward_in_time(tmp_path):
    words = [
        mpiexec(),
        "-n",
        "4",
        *flags(str(tmp_path), str(tmp_path)),
        sys.executable,
        "-c",
        PROGRAM,
    ]
    given = {
        **os.environ,
        **environment(4),
        "OMP_NUM_THREADS": "1",
        "IFOG_TIMELINE": f"{tmp_path}/t",
    }
    job = subprocess.Popen(
        words, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        log = job.communicate(timeout=90)[0]
    finally:
        job.kill()
        job.wait(timeout=10)
    assert job.returncode == 0, log
    paths = sorted(tmp_path.glob("t.*.json"))
    assert [path.name for path in paths] == [f"t.{rank}.json" for rank in range(4)]
    merged = merge(paths, tmp_path / "all.json")
    assert check_file(tmp_path / "all.json") == []
    arrows = arrows_of(json.loads((tmp_path / "all.json").read_text())["traceEvents"])
    assert merged.arrows == len(arrows) == 28 * len(ring(4))
    assert all(took >= 0 for _, _, took in arrows)
    assert (merged.unmatched, merged.backward, merged.damage) == (0, 0, ())
    assert [clock.shared for clock in merged.clocks] == [True] * 4
    assert all(abs(clock.seconds) < 1e-3 for clock in merged.clocks)
