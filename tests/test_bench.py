"""The benches: what their reports say of given times, their arguments, and that they run."""

from __future__ import annotations

import contextlib
import json
import subprocess
import uuid
from pathlib import Path

import psutil
import pytest
import torch
from fakes import given

from ifog import cli
from ifog.bench import cell, devices, fusion, jobs, ops, overlap, versions
from ifog.bench.contestants import (
    ADDS,
    ALLREDUCE,
    BY_HAND,
    COPIES,
    COPY,
    FLAT,
    GLOO,
    LIST,
    MPI_SEND,
    OURS,
    PACKED,
    POSTED,
    REUSED,
    UNCHECKED,
)
from ifog.bench.ratios import label, medians, ratio, table, target, target_lines
from ifog.errors import ArgumentError, ClusterError

MB = 1 << 20


def test_ratios_are_taken_round_by_round():
    # The medians of both are 2, and yet one is twice the other in every round but the last.
    found = ratio([2.0, 4.0, 1.0], [1.0, 2.0, 4.0])
    assert found["median"] == 2.0
    assert found["low"] == pytest.approx((0.25 + 2.0) / 2)
    assert found["high"] == 2.0


def test_one_round_is_its_own_quartiles():
    assert ratio([3.0], [2.0]) == {"median": 1.5, "low": 1.5, "high": 1.5}


def test_medians_are_microseconds():
    assert medians({"x": [3e-6, 1e-6, 2e-6]}) == {"x": pytest.approx(2.0)}


@pytest.mark.parametrize(
    ("aim", "measured", "met"),
    [
        ("at least", 2.0, True),
        ("at least", 1.9, False),
        ("at most", 2.0, True),
        ("at most", 2.1, False),
    ],
)
def test_a_target_is_met_on_its_own_side(aim, measured, met):
    row = target("work", "other", aim, 2.0, {"median": measured, "low": 0.0, "high": 9.0})
    assert row["met"] is met
    assert ("missed" in target_lines([row])[1]) is not met


def test_a_target_without_a_measurement_says_so():
    row = target("work", "other", "at most", 2.0)
    assert row["met"] is None
    assert target_lines([row])[1].endswith("not measured")


def test_sizes_are_powers_of_1024():
    shown = [label(n).replace("\N{NO-BREAK SPACE}", " ") for n in (4, 1024, 65536, 100 * MB)]
    assert shown == ["4 B", "1 KB", "64 KB", "100 MB"]


def test_columns_of_a_table_line_up():
    assert table([["a", "10"], ["long", "7"]]) == ["a     10", "long   7"]


def case(operation, nbytes, degree, **times):
    names = {"ours": OURS, "reused": REUSED, "unchecked": UNCHECKED, "adds": ADDS}
    names |= {"gloo": GLOO, "copy": COPY}
    found = {names[name]: [value] * 3 for name, value in times.items()}
    return {"operation": operation, "bytes": nbytes, "degree": degree, "times": found}


def test_the_floor_is_the_traffic_at_the_rate_of_the_copies(monkeypatch):
    # A copy moves 2 N: two neighbours need (2 + 2) N where shared, (2 + 4) N where published.
    given(monkeypatch, ops, [[case("ring", 16 * MB, 2, ours=12.0, adds=30.0, copy=4.0)]])
    report = ops.run(4, scaling=())
    us = report.cases[0]["us"]
    assert us["floor, tensor shared"] == pytest.approx(8e6)
    assert us["floor, tensor published"] == pytest.approx(12e6)


def test_targets_are_judged_by_the_ratios_of_their_case(monkeypatch):
    ring = case("ring", 16 * MB, 2, ours=12.0, reused=12.0, adds=30.0, gloo=60.0, copy=4.0)
    one_peer = case("one-peer", 16 * MB, 1, ours=9.0, reused=10.0, adds=30.0, gloo=39.0, copy=4.0)
    put = case("win_put", 1 * MB, 1, ours=3.0, copy=2.0)
    given(monkeypatch, ops, [[ring, one_peer, put]])
    report = ops.run(4, scaling=())
    found = {
        (row["work"].replace("\N{NO-BREAK SPACE}", " "), row["against"]): row
        for row in report.targets
    }
    faster = found["ring 16 MB", ADDS]
    assert (faster["measured"]["median"], faster["met"]) == (2.5, True)
    near = found["ring 16 MB", "floor, tensor published"]
    assert (near["measured"]["median"], near["met"]) == (1.0, True)
    far = found["ring 16 MB, result reused", "floor, tensor shared"]
    assert (far["measured"]["median"], far["met"]) == (1.5, False)
    rival = found["one-peer 16 MB, result reused", GLOO]
    assert (rival["measured"]["median"], rival["met"]) == (pytest.approx(3.9), False)
    slow = found["win_put 1 MB", COPY]
    assert (slow["measured"]["median"], slow["met"]) == (1.5, False)
    assert found["ring 100 MB", ADDS]["measured"] is None


def test_more_ranks_are_compared_by_their_share_of_a_core(monkeypatch):
    monkeypatch.setattr(ops, "cores", lambda: 2)
    monkeypatch.setattr(ops, "most_ranks", lambda _: 8)
    small, large = 1 << 16, 16 * MB
    scaling = [
        [case("one-peer", small, 1, unchecked=1.0), case("one-peer", large, 1, unchecked=1.0)],
        [case("one-peer", small, 1, unchecked=4.0), case("one-peer", large, 1, unchecked=8.0)],
    ]
    first = [case("ring", 4, 2, ours=1.0, copy=1.0)]
    asked = given(monkeypatch, ops, [first, *scaling, *scaling])
    report = ops.run(4, scaling=(2, 8))
    assert asked == [4, 2, 8, 2, 8]
    # Eight ranks on two cores have a quarter of a core each.
    assert [scale["growth"][8]["median"] for scale in report.scaling] == [1.0, 2.0]
    assert [row["met"] for row in report.targets[-2:]] == [True, False]


def test_a_report_of_ops_shows_each_contestant_and_is_json(monkeypatch):
    given(monkeypatch, ops, [[case("ring", 4, 2, ours=1e-6, adds=3e-6, copy=1e-6)]])
    report = ops.run(4, scaling=())
    text = "\n".join(report.lines())
    assert f"{ADDS}" in text
    assert "3 (3.00)" in text
    assert json.loads(json.dumps(report._asdict()))["cases"][0]["ratio"][ADDS]["median"] == (
        pytest.approx(3.0)
    )


def test_the_list_of_a_resnet50_has_its_161_parameters():
    counts = fusion.resnet50()
    assert (len(counts), sum(counts)) == (161, 25_557_032)


@pytest.mark.parametrize("takes_lists", [True, False])
def test_fusion_tells_whether_lists_are_taken(monkeypatch, takes_lists):
    times = {OURS: [10.0] * 3, POSTED: [5.0] * 3, COPY: [1.0] * 3}
    if takes_lists:
        times[LIST] = [2.0] * 3
    found = {"title": fusion.SMALL, "tensors": 160, "bytes": 160 * 4096, "times": times}
    given(monkeypatch, fusion, [[found]])
    report = fusion.run(4, quick=True)
    assert report.takes_lists is takes_lists
    assert ("not available" in "\n".join(report.lines())) is not takes_lists
    posted, listed = report.targets
    assert (posted["measured"]["median"], posted["met"]) == (2.0, False)
    assert listed["met"] is (True if takes_lists else None)
    # Two neighbours and a copy to begin with: 6 N, a copy moves 2 N.
    assert report.lists[0]["us"]["floor, tensors published"] == pytest.approx(3e6)
    json.dumps(report._asdict())


def test_devices_are_compared_with_copies_by_hand(monkeypatch):
    times = {OURS: [2.0, 4.0, 6.0], BY_HAND: [6.0, 8.0, 9.0], COPIES: [1.0, 1.0, 3.0]}
    found = {"device": "H100", "way": "pinned", "sizes": [{"bytes": 1 << 20, "times": times}]}
    given(monkeypatch, devices, [found])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    report = devices.run(4, quick=True)
    (each,) = report.sizes
    assert each["us"][OURS] == 4e6
    assert [each["ratio"][name]["median"] for name in (BY_HAND, COPIES)] == [2.0, 0.5]
    assert "4 ranks, H100; ring, float32; pinned" in report.lines()[0]
    json.dumps(report._asdict())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ArgumentError, match="no CUDA device"):
        devices.run(4, quick=True)


@pytest.mark.mpi
def test_devices_times_every_way():
    report = devices.run(2, rounds=2, sizes=(64, 100_000), kind="cpu")
    assert [each["bytes"] for each in report.sizes] == [64, 100_000]
    assert all(us > 0 for each in report.sizes for us in each["us"].values())
    assert set(report.sizes[0]["us"]) == {OURS, BY_HAND, COPIES}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("n", [2, 4])
def test_devices_times_every_way_on_a_device(n):
    report = devices.run(n, rounds=2, sizes=(64, 100_000))
    assert report.way.startswith(("NCCL", "pinned host memory", "copied through host memory"))


def test_overlap_can_gain_no_more_than_the_shorter_of_the_two(monkeypatch):
    times = {
        overlap.COMPUTE: [3.0] * 3,
        overlap.ALONE: [2.0] * 3,
        overlap.SEQUENTIAL: [5.0] * 3,
        overlap.BESIDE: [4.0] * 3,
        overlap.ASKED: [5.0] * 3,
    }
    given(monkeypatch, overlap, [{"times": times, "products": 7}])
    report = overlap.run(2, quick=True)
    assert [gain["median"] for gain in report.gain.values()] == [1.25, 1.0, pytest.approx(5 / 3)]
    assert "overlap gains 1.25, 1.00 where one asks; 1.67 would be all" in report.lines()[-1]
    json.dumps(report._asdict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ops", "-n", "1"), "bench ops needs at least 2 ranks; got -n 1"),
        (("fusion", "-n", "1"), "bench fusion needs at least 2 ranks; got -n 1"),
        (("overlap", "-n", "1"), "bench overlap needs at least 2 ranks; got -n 1"),
        (("ops", "-n", "1000000"), "bench ops: 1000000 ranks need about"),
        (("fusion", "-n", "1000000"), "bench fusion: 1000000 ranks need about"),
        (("overlap", "-n", "1000000"), "bench overlap: 1000000 ranks need about"),
        (("cell", "-n", "1000000"), "bench cell: 1000000 ranks need about"),
        (("ops", "--against", "/"), "there is no ifog in '/'"),
        (("cell", "--against", "."), "--against goes with ops"),
        (("guard", "--quick"), "bench guard has no quick form"),
        (("ops", "--against", ".", "--quick"), "bench ops has no quick form here"),
    ],
)
def test_what_a_bench_cannot_do_is_one_line_and_status_1(capsys, arguments, message):
    assert cli.main(["bench", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_one_pair_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "ops", "--pairs", "1"])
    assert "have no spread" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["overlap"], {"rounds": None, "quick": False}),
        (["overlap", "--quick", "--pairs", "5"], {"rounds": 5, "quick": True}),
    ],
)
def test_options_reach_the_bench_and_json_is_alone_on_standard_output(
    monkeypatch, capsys, words, expected
):
    given_options = {}

    def run(ranks, **options):
        given_options.update(options, ranks=ranks)
        gain = {"median": 1.0, "low": 1.0, "high": 1.0}
        names = (overlap.BESIDE, overlap.ASKED, "floor: the longer of the two alone")
        return overlap.OverlapReport(3, 2, 4, 8, 5, {}, dict.fromkeys(names, gain))

    monkeypatch.setattr(overlap, "run", run)
    assert cli.main(["bench", *words, "-n", "3", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["products"] == 8
    assert "overlap gains 1.00" in err
    assert given_options == {**expected, "ranks": 3}


def test_against_runs_the_comparison_of_checkouts(monkeypatch, capsys):
    given(monkeypatch, versions, [{"barrier": [2.0, 4.0]}, {"barrier": [1.0, 2.0]}] * 4)
    root = str(Path(__file__).parent.parent)
    assert cli.main(["bench", "ops", "--against", root, "--pairs", "2", "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    # The first pair begins with the other checkout, the second with this one.
    assert report["us"] == {"barrier": pytest.approx(2.25)}
    assert report["ratio"] == {"barrier": pytest.approx(1.0)}
    assert (report["pairs"], report["against"]) == (2, root)


def test_too_many_ranks_are_told_how_many_fit(monkeypatch):
    memory = psutil.virtual_memory()._replace(available=int(5e9))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert jobs.most_ranks(750e6) == 5
    jobs.require_room("ops", 5, 750e6)
    with pytest.raises(ArgumentError, match="give -n 5 or less"):
        jobs.require_room("ops", 6, 750e6)


@pytest.mark.mpi
def test_a_job_that_fails_is_an_error_with_its_log():
    program = ["-c", "from mpi4py import MPI\nif MPI.COMM_WORLD.rank: raise ValueError('lr is 0')"]
    with pytest.raises(ClusterError, match=r"(?s)a job of 2 ranks failed:.*ValueError: lr is 0"):
        jobs.measure("ops", 2, program, seconds=60)


@pytest.mark.mpi
def test_a_job_that_writes_nothing_is_an_error():
    with pytest.raises(ClusterError, match="a job of 1 ranks failed"):
        jobs.measure("ops", 1, ["-c", "pass"], seconds=60)


@pytest.mark.mpi
def test_a_job_that_takes_too_long_is_ended_with_all_its_ranks(monkeypatch, tmp_path):
    communicate = subprocess.Popen.communicate

    def until_all_hang(self, timeout=None):
        for _ in range(300):
            if len(list(tmp_path.iterdir())) == 2:
                break
            try:
                communicate(self, timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
        raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", until_all_hang)
    program = (
        "import os, pathlib, threading\n"
        f"pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()\nthreading.Event().wait(300)"
    )
    with pytest.raises(ClusterError, match="took over 7 s and was ended"):
        jobs.measure("ops", 2, ["-c", program], seconds=7)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2
    assert not any(map(psutil.pid_exists, pids))


@pytest.mark.mpi
def test_ops_times_every_contestant_of_every_operation():
    report = ops.run(3, rounds=2, sizes=(4, 1 << 16), scaling=())
    found = {(case["operation"], case["bytes"]): case for case in report.cases}
    assert set(found) == {(name, n) for name in ops.OPERATIONS for n in (4, 1 << 16)}
    floors = {"floor, tensor shared", "floor, tensor published"}
    everybody = {OURS, ALLREDUCE, GLOO, COPY} | floors
    for (operation, _), case in found.items():
        names = {
            "ring": everybody | {REUSED, ADDS},
            "exponential": everybody | {REUSED, ADDS},
            "one-peer": everybody | {REUSED, UNCHECKED, ADDS},
            "allreduce": everybody,
            "win_put": {OURS, MPI_SEND, COPY},
        }[operation]
        assert set(case["us"]) == names
        assert case["rounds"] == 2
        assert min(case["us"].values()) > 0
    assert [found[name, 4]["degree"] for name in ops.OPERATIONS] == [2, 2, 1, 1, 1]


@pytest.mark.mpi
def test_fusion_times_every_way(capsys):
    report = fusion.run(2, rounds=2, lists={"two tensors": (3, 5)})
    (listed,) = report.lists
    assert (listed["tensors"], listed["bytes"], listed["rounds"]) == (2, 32, 2)
    expected = {OURS, POSTED, FLAT, ADDS, PACKED, COPY, "floor, tensors published"}
    assert set(listed["us"]) == expected | ({LIST} if report.takes_lists else set())
    assert min(listed["us"].values()) > 0


@pytest.mark.mpi
def test_overlap_times_every_order():
    report = overlap.run(2, rounds=2, nbytes=4096)
    assert report.rounds == 2
    assert report.products >= 8
    assert min(report.us.values()) > 0


def marked(mark):
    """The processes of this machine that have inherited this environment variable."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in process.environ():
                found.append(process)
    return found


@pytest.mark.mpi
@pytest.mark.notebook
@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_cell_times_empty_cells_and_leaves_no_process(monkeypatch):
    mark = f"IFOG_TEST_{uuid.uuid4().hex}"
    monkeypatch.setenv(mark, "1")
    report = cell.run(2, rounds=2)
    assert [(each["ranks"], each["rounds"]) for each in report.cells] == [(1, 2), (2, 2)]
    for each in report.cells:
        assert set(each["us"]) == {cell.BF, cell.PX, cell.KERNEL}
        assert min(each["us"].values()) > 0
    assert "2 ranks" in report.lines()[1]
    assert marked(mark) == []
