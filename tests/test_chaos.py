"""Faults, planted and random: what they must not do, and that the tools that inject them do."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time

import pytest
import torch

import ifog
from ifog import mischief, residue, sabotage
from ifog.chaos import ChaosReport
from ifog.context import current
from ifog.errors import ArgumentError, ClusterError, IfogError, PeerFailedError
from ifog.testing import run_ranks


def test_a_delayed_rank_begins_its_operations_late_and_the_results_are_the_same():
    def work():
        if ifog.rank() == 1:
            sabotage.delay(0.1)
        begun = time.monotonic()
        mean = float(ifog.allreduce(torch.tensor([float(ifog.rank())])))
        took = time.monotonic() - begun
        sabotage.off()
        return mean, took

    results = run_ranks(3, work)
    assert [mean for mean, _ in results] == [1.0] * 3
    assert all(took > 0.09 for _, took in results)


def test_a_delay_ends_when_the_cell_is_stopped():
    def work():
        if ifog.rank() == 0:
            sabotage.delay(600)
            with pytest.raises(PeerFailedError):
                ifog.barrier()
        else:
            current().abort("enough")
        return True

    assert run_ranks(2, work, timeout=10) == [True, True]


def test_a_dropped_edge_delivers_nothing_and_the_others_all():
    def work():
        r, n = ifog.rank(), ifog.size()
        current().begin_cell(1, range(n))
        if r == 0:
            sabotage.drop(1)
        handle = ifog.neighbor_allgather_nonblocking(torch.tensor([r]))
        if r == 1:
            # Everybody else is through once they say so; rank 1 alone still lacks something.
            deadline = time.monotonic() + 0.5
            while time.monotonic() < deadline:
                assert not handle.done()
            assert handle.peers == (0,)
            current().abort("seen")
            return "seen"
        try:
            return handle.wait().tolist()
        except PeerFailedError:
            return n

    results = run_ranks(3, work)
    assert results[1] == "seen"


def test_turned_off_an_edge_delivers_again():
    def work():
        current().begin_cell(1, range(2))
        if ifog.rank() == 0:
            sabotage.drop(1)
            sabotage.off()
        return float(ifog.allreduce(torch.tensor([float(ifog.rank())])))

    assert run_ranks(2, work) == [0.5, 0.5]


def test_wrong_faults_are_refused():
    def work():
        for call in (
            lambda: sabotage.delay(-1),
            lambda: sabotage.drop(2),
            lambda: sabotage.drop(ifog.rank()),
        ):
            with pytest.raises(ArgumentError):
                call()

    run_ranks(2, work)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_windows_that_only_some_ranks_have_are_gone_after_healing(n):
    def work():
        x = torch.ones(2) * ifog.rank()
        ifog.win_create(x, "whole", zero_init=True)
        ifog.win_create(x, "part", zero_init=True)
        if n > 1 and ifog.rank() == n - 1:
            current().windows["part"].abandon()
        current().heal()
        left = ifog.get_current_created_window_names()
        ifog.win_free()
        ifog.win_create(x, "part", zero_init=True)
        return left

    assert run_ranks(n, work) == [["part", "whole"] if n == 1 else ["whole"]] * n


def test_what_stays_open_is_counted_by_kind(tmp_path):
    before = residue.descriptors()
    assert residue.left_open(before) == []
    here, there = socket.socketpair()
    with here, there, (tmp_path / "file").open("w"):
        assert residue.left_open(before) == [
            f"1 open in the client: {tmp_path / 'file'}",
            "2 open in the client: socket",
        ]
    assert residue.left_open(before) == []


def report(**changes):
    fields = {"hung": [], "wrong": [], "leaked": [], **changes}
    return ChaosReport(
        1, 4, 60.0, {"kill": 2, "raise": 3}, 5, **fields, healed=1, respawned=0, restarted=1,
        longest=(1.5, "kill"),
    )  # fmt: skip


def test_a_report_fails_exactly_when_something_hung_was_wrong_or_leaked():
    assert not report().failed
    for field in ("hung", "wrong", "leaked"):
        bad = report(**{field: ["kill: what happened"]})
        assert bad.failed
        assert f"{field}: kill: what happened" in bad.lines()
    assert report().lines()[0].startswith("5 injected in ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "0"], "no number of minutes"),
        (["--minutes", "x"], "no number of minutes"),
        (["-n", "1"], "at least -n 2"),
    ],
)
def test_wrong_arguments_start_no_ranks(words, message):
    done = ifog_command("chaos", *words, timeout=60)
    assert done.returncode != 0
    assert message in done.stderr


def ifog_command(*words, timeout):
    code = "import sys; from ifog.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_short_chaos_leaves_nothing_hung_wrong_or_behind():
    done = ifog_command("chaos", "--minutes", "0.5", "--seed", "4", "-n", "3", timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hung 0, wrong 0, leaked 0; longest" in done.stdout
    injected = int(done.stdout.splitlines()[-3].split()[0])
    assert injected >= 3


@pytest.mark.faults
def test_windows_of_a_cell_that_failed_while_making_them_block_nothing(cluster):
    fault = mischief.FAULTS["mutex held by who raised"][1]
    for turn in range(3):
        scene = mischief.Scene(cluster, (0, 1, 2, 3), random.Random(turn))
        assert fault(scene) == ""
        assert len(set(map(tuple, cluster.pull(f"{WINDOWS}()").values()))) == 1
    cluster.run("bf.win_free()", timeout=10).raise_for_error()
    cluster.set_topology("ring")


@pytest.fixture
def bf(cluster):
    """Runs a line of ``%bf`` over the session's cluster."""
    from fakes import RecordingScreen
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    from ifog.magics.bf import BfMagics

    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell(config=config)
    BfMagics(shell, RecordingScreen()).register()
    return lambda line: shell.run_line_magic("bf", line)


@pytest.mark.faults
def test_single_faults_for_teaching_come_and_go(cluster, bf, capsys):
    bf("chaos delay 1 200ms")
    said = capsys.readouterr().out.replace(NBSP, " ")
    assert said.startswith("rank 1: every operation begins 0.200 s late")
    result = cluster.run("bf.barrier()\nbf.barrier()", timeout=20)
    assert result.status == "ok"
    assert result.seconds > 0.39
    bf("chaos off")
    bf("chaos drop 0->1")
    for _ in range(2):
        result = cluster.run("bf.neighbor_allreduce(torch.ones(2))", timeout=5)
        assert result.status != "ok"
    bf("chaos off")
    cluster.run("y = bf.neighbor_allreduce(torch.ones(2))", timeout=10).raise_for_error()
    for wrong in ("delay 1 soon", "drop 0", "kill", "", "burn 2", "off now", "drop 0->9"):
        with pytest.raises(IfogError):
            bf(f"chaos {wrong}")
    bf("chaos kill 2")
    deadline = time.monotonic() + 10
    while cluster.status().rows[2].state != "dead":
        assert time.monotonic() < deadline
    with pytest.raises(ClusterError, match="dead already"):
        bf("chaos kill 2")


NBSP = "\N{NO-BREAK SPACE}"
WINDOWS = "bf.get_current_created_window_names"


@pytest.mark.faults
def test_a_fault_that_is_not_noticed_is_reported_as_wrong(cluster):
    quiet = mischief._cell("x + 1", mischief._ENDED)
    said = quiet(mischief.Scene(cluster, (0, 1, 2, 3), random.Random(0)))
    assert said.startswith("ended 'ok' instead of error or interrupted")


@pytest.mark.faults
def test_a_rank_that_was_lost_in_a_cell_and_replaced_is_not_lost_any_more(cluster):
    deaf = (
        "import signal\nif bf.rank() == 1:\n    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "    while True: pass"
    )
    result = cluster.run(deaf, timeout=0.5)
    assert result.errors[1].ename == "NoAnswer"
    cluster.respawn()
    assert cluster.status().trouble == ""
    assert cluster.run("bf.barrier()", timeout=20).status == "ok"
    assert cluster.pull("bf.rank()") == {0: 0, 1: 1, 2: 2, 3: 3}
