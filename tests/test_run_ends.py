"""How programs under ``ifog run`` end: by crashes, exits, signals and a lost launcher."""

from __future__ import annotations

import re
import signal
import time

import psutil
import pytest
from programs import MPI, SECONDS, START, programs

pytestmark = pytest.mark.mpi


@pytest.fixture
def start(tmp_path):
    with programs(tmp_path) as start:
        yield start


def test_a_crash_ends_all_and_its_traceback_is_last(start):
    script = START + (
        "print('working', file=sys.stderr)\n"
        "def fail():\n    raise ValueError('mine')\n"
        "if rank == 1: fail()\n"
        "ifog.allreduce(torch.ones(3))\n"
    )
    status, _, err = start("-n", "3", "program.py", script=script).finish()
    assert status == 1
    head, _, text = err.partition("ifog: rank 1 failed:\n")
    assert head.count("working") == 3
    assert "Traceback" not in head
    assert "ranks 0,2 stopped when it did" in head
    lines = text.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith('program.py", line 8, in <module>')
    assert lines[-1] == "ValueError: mine"


def test_a_crash_ends_ranks_that_never_communicate(start):
    script = MPI + "if rank == 0: raise ValueError('mine')\nwhile True: pass\n"
    begun = time.monotonic()
    program = start("-n", "3", "--grace", "0.5", "program.py", script=script)
    status, _, err = program.finish()
    assert status == 1
    assert "ranks 1-2 did not end and were killed" in err
    assert err.endswith("ValueError: mine\n")
    assert time.monotonic() - begun < SECONDS / 2
    assert list(program.private.iterdir()) == []


@pytest.mark.parametrize(
    ("leave", "status"),
    [
        ("sys.exit(3)", 3),
        ("os._exit(4)", 4),
        ("os.kill(os.getpid(), 9)", 137),
        ("sys.exit('bad luck')", 1),
    ],
)
def test_the_status_of_the_rank_that_left_is_passed_on(start, leave, status):
    script = MPI + f"world.Barrier()\nif rank == 1: {leave}\nworld.Barrier()\n"
    found, _, err = start("-n", "3", "--grace", "0.5", "program.py", script=script).finish()
    assert found == status
    assert "Traceback" not in err
    assert ("bad luck\n" in err) == ("bad luck" in leave)


def test_a_rank_that_is_done_does_not_end_the_others(start):
    script = MPI + (
        "if rank == 0: sys.exit(0)\n"
        "if rank == 1: raise SystemExit\n"
        "time.sleep(1)\nprint('done', rank)\n"
    )
    status, out, err = start("-n", "3", "--grace", "0", "program.py", script=script).finish()
    assert (status, out, err) == (0, "done 2\n", "")


def test_an_interrupt_ends_ranks_wherever_they_are(start):
    script = START + (
        "print('ready')\nif rank == 0:\n    while True: pass\nifog.allreduce(torch.ones(3))\n"
    )
    program = start("-n", "2", "program.py", script=script)
    program.lines(2)
    program.process.send_signal(signal.SIGINT)
    status, _, err = program.finish()
    assert status == 128 + signal.SIGINT
    places = dict(re.findall(r"rank (\d) was interrupted at .*program.py:(\d)", err))
    # What was printed can be read before the rank that printed it goes on.
    assert places["0"] in "567"
    assert places["1"] in "568"
    assert list(program.private.iterdir()) == []


def test_a_request_to_end_says_where_each_rank_was(start):
    script = (
        START
        + "print('ready')\nif rank:\n    while True: pass\nifog.allreduce(x := torch.ones(3))\n"
    )
    program = start("-n", "2", "program.py", script=script)
    program.lines(2)
    program.process.send_signal(signal.SIGTERM)
    status, _, err = program.finish()
    assert status == 128 + signal.SIGTERM
    places = dict(re.findall(r"rank (\d) was ended by SIGTERM at .*program.py:(\d)\n", err))
    # What was printed can be read before the rank that printed it goes on.
    assert places["0"] in "568"
    assert places["1"] in "567"


def test_a_rank_that_leaves_without_a_word_is_named(start):
    script = START + "if rank == 1: os._exit(0)\nifog.barrier()\n"
    status, _, err = start("-n", "2", "program.py", script=script).finish()
    assert status == 1
    assert err.startswith("ifog: rank 1 ended without a word (os._exit or the like); rank 0 waited")
    assert err.endswith("program.py:6\n")


def test_a_status_that_is_true_is_one(start):
    status, _, err = start("-n", "2", "python", "-c", "import sys; sys.exit(True)").finish()
    assert status == 1
    assert "SystemExit" not in err
    assert err.endswith("ended with status 1\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_ranks_that_are_inside_mpi(start, number):
    script = MPI + "print('ready', flush=True)\nif rank: world.Recv(bytearray(1), 0)\n"
    program = start("-n", "2", "--grace", "0.5", "program.py", script=script)
    program.lines(2)
    program.process.send_signal(number)
    assert program.finish()[0] == 128 + number
    assert list(program.private.iterdir()) == []


def test_a_program_may_handle_its_signals(start):
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('told', flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )
    program = start("-n", "2", "program.py", script=script)
    program.lines(2)
    program.process.send_signal(signal.SIGUSR1)
    assert program.lines(2) == ["told\n", "told\n"]
    program.process.send_signal(signal.SIGTERM)
    assert program.finish()[0] == 7


def test_nothing_stays_when_the_launcher_is_killed(start):
    script = MPI + "print(os.getpid())\nif rank == 0:\n    while True: pass\nworld.Barrier()\n"
    program = start("-n", "3", "program.py", script=script)
    ranks = [psutil.Process(int(line)) for line in program.lines(3)]
    others = psutil.Process(program.process.pid).children(recursive=True)
    assert {rank.pid for rank in ranks} <= {process.pid for process in others}
    program.process.kill()
    _, alive = psutil.wait_procs([*ranks, *others], timeout=20)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert list(program.private.iterdir()) == []


def test_a_failing_test_session_on_one_rank_is_a_failure(start, tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "import ifog, torch\n"
        "def test_rank():\n    ifog.init()\n    assert ifog.rank() != 1\n"
        "def test_op():\n    assert ifog.allreduce(torch.ones(1)).item() == 1\n"
    )
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py")
    status, out, err = start("-n", "2", *words).finish()
    assert status == 1
    assert "1 failed, 1 passed" in out
    assert "2 passed" in out
    assert err.endswith("ifog: rank 1 ended with status 1\n")
