"""Every way in which ranks can get stuck, on real ranks: the cell returns, the next one works."""

from __future__ import annotations

import threading
import time

import pytest
from cells import begun

from ifog.errors import CellError, DeadlineError

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SETUP = """
import threading, time
kept = torch.full((3,), float(bf.rank()))
x = torch.ones(4) * bf.rank()
me, n = bf.rank(), bf.size()
"""
CHECK = """
y = kept.clone()
for _ in range(40):
    y = bf.neighbor_allreduce(y, name="check")
assert torch.allclose(y, torch.full((3,), 1.5)) and (kept == bf.rank()).all(), (y, kept)
"""
# What ranks do, which status the cell has, who holds up whom, and what is said of it.
HOPELESS = {
    "a rank skips an operation": (
        "if me != 2:\n    bf.neighbor_allreduce(x, name='x')",
        "absent",
        r"Rank 2 had finished this cell; 2 ranks were waiting",
    ),
    "a rank skips one round of many": (
        "for k in range(5):\n    if (me, k) != (1, 3):\n        bf.neighbor_allreduce(x, name='x')",
        "absent",
        r"Rank 1 had finished this cell",
    ),
    "different operations": (
        "if me == 0:\n    bf.allreduce(x)\nelse:\n    bf.barrier()",
        "diverged",
        r"Rank 0 in allreduce, ranks 1-3 in barrier: they waited for one another",
    ),
    "different names": (
        "bf.allreduce(x, name='a' if me == 0 else 'b')",
        "diverged",
        r"Rank 0 in allreduce\('a'\), ranks 1-3 in allreduce\('b'\)",
    ),
    "a missing edge": (
        "to = [] if me == 1 else [(me + 1) % n]\n"
        "bf.neighbor_allreduce(x, self_weight=0.5, src_weights={(me - 1) % n: 0.5},\n"
        "                      dst_weights=to, enable_topo_check=False)",
        "absent",
        r"waited for 1, round 1 +cell line 2, neighbor_allreduce",
    ),
    "a cycle of waits": (
        "bf.pair_gossip(x, (me + 1) % n)",
        "cycle",
        r"Ranks 0-3 waited for one another, which could not end by itself",
    ),
    "a window that one rank does not create": (
        "if me != 3:\n    bf.win_create(x, 'w')",
        "absent",
        r"Rank 3 had finished this cell",
    ),
    "mutexes taken in a ring": (
        "bf.win_create(x, 'm')\n"
        "with bf.win_mutex('m', ranks=[(me + 1) % n]):\n"
        "    bf.barrier()\n"
        "    with bf.win_mutex('m', for_self=True, ranks=[(me - 1) % n]):\n"
        "        pass\n",
        "cycle",
        r"win_mutex\('m'\)",
    ),
}
RAISING = {
    "a rank raises while others wait": (
        "if me == 3:\n    raise ValueError('no luck')\nbf.neighbor_allreduce(x)",
        r"\[3\] ValueError: no luck \(line 2\)",
    ),
    "different shapes": ("bf.allreduce(torch.ones(2 + (me == 1)))", r"MismatchError.*shape \(3,\)"),
    "different dtypes": (
        "bf.neighbor_allreduce(x.double() if me == 1 else x)",
        r"MismatchError.*float64",
    ),
    "a mutex held by a rank that raised": (
        "bf.win_create(x, 'w')\n"
        "held = bf.win_mutex('w', ranks=[0])\n"
        "if me == 1:\n    held.__enter__()\n"
        "bf.barrier()\n"
        "if me == 1:\n    raise ValueError('holding')\n"
        "if me == 0:\n    bf.win_update('w', require_mutex=True)",
        r"\[1\] ValueError: holding",
    ),
    "an error in a handle that nobody waited for": (
        "handle = bf.allreduce_nonblocking(torch.ones(2 + (me == 1)), name='h')\nbf.barrier()",
        r"MismatchError.*(?s:.*)whose handle was not waited for",
    ),
}
ENDLESS = {
    "a Python loop": "if me == 1:\n    while True: pass\nbf.barrier()",
    "a sleep in C": "if me == 1:\n    time.sleep(60)\nbf.barrier()",
    "an operation": "if me == 1:\n    threading.Event().wait(60)\nbf.barrier()",
}


@pytest.fixture
def ranks(cluster):
    cluster.run(SETUP, timeout=20).raise_for_error()
    yield cluster
    begin = time.monotonic()
    cluster.run(CHECK, timeout=10).raise_for_error()
    assert time.monotonic() - begin < 5.0
    cluster.run("bf.win_free()", timeout=10).raise_for_error()


@pytest.mark.parametrize("what", HOPELESS)
def test_a_hopeless_stall_ends_by_itself_and_is_explained(ranks, what):
    code, kind, sentence = HOPELESS[what]
    begin = time.monotonic()
    result = ranks.run(code, timeout=30)
    assert time.monotonic() - begin < 10.0
    assert (result.status, result.why and result.why.kind) == ("stalled", kind)
    with pytest.raises(CellError, match=sentence):
        result.raise_for_error()


@pytest.mark.parametrize("what", RAISING)
def test_an_error_on_one_rank_frees_the_others_at_once(ranks, what):
    code, message = RAISING[what]
    begin = time.monotonic()
    result = ranks.run(code, timeout=30)
    assert time.monotonic() - begin < 5.0
    assert result.status == "error"
    with pytest.raises(CellError, match=message):
        result.raise_for_error()


def test_a_mutex_held_by_a_rank_that_raised_is_free_in_the_next_cell(ranks):
    ranks.run("bf.win_create(x, 'w')", timeout=10).raise_for_error()
    holding = "held = bf.win_mutex('w', ranks=[0])\nif me == 1:\n    held.__enter__()\n    1 / 0"
    assert ranks.run(holding, timeout=10).status == "error"
    ranks.run("bf.win_update('w', require_mutex=True)", timeout=10).raise_for_error()
    ranks.run("del held", timeout=10).raise_for_error()
    ranks.run("with bf.win_mutex('w'): bf.barrier()", timeout=10).raise_for_error()


def test_an_operation_that_needs_a_rank_outside_of_the_cell_is_refused(ranks):
    result = ranks.run("bf.neighbor_allreduce(x)", [0, 1], timeout=20)
    with pytest.raises(CellError, match=r"ParticipationError.*needs rank \d.*run %%bf on all"):
        result.raise_for_error()


@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize("what", ENDLESS)
def test_an_interrupt_ends_what_does_not_end(ranks, what, presses):
    cell = ranks.submit(ENDLESS[what])
    pressed: list[float] = []

    def press() -> None:
        if begun(ranks, cell) and len(pressed) < presses:
            pressed.append(time.monotonic())
            raise KeyboardInterrupt

    result = cell.wait(20, on_tick=press)
    assert time.monotonic() - pressed[0] < 4.0
    assert result.status == "interrupted"
    assert {error.ename for error in result.errors.values()} <= {
        "KeyboardInterrupt",
        "PeerFailedError",
    }


def test_an_interrupt_ends_a_receive_in_c_and_says_what_it_cost(ranks):
    cell = ranks.submit(
        "import numpy\nfrom mpi4py import MPI\nif me == 1:\n"
        "    MPI.COMM_WORLD.Recv(numpy.zeros(1), source=0, tag=77)\nbf.barrier()"
    )
    pressed: list[float] = []

    def press() -> None:
        if begun(ranks, cell) and not pressed:
            pressed.append(time.monotonic())
            raise KeyboardInterrupt

    try:
        result = cell.wait(20, on_tick=press)
        assert time.monotonic() - pressed[0] < 4.0
        assert result.status == "interrupted"
        assert "COMM_WORLD was revoked" in result.errors[1].evalue
        ranks.run(CHECK, timeout=10).raise_for_error()
    finally:
        ranks.restart()
        ranks.run(SETUP, timeout=20).raise_for_error()


def test_a_straggler_is_named_while_it_computes_and_never_stopped(ranks):
    cell = ranks.submit("if me == 1:\n    threading.Event().wait(4)\nbf.barrier()")
    begin, found = time.monotonic(), []

    def look() -> None:
        if cell.stall is not None and not found:
            found.append((time.monotonic() - begin, cell.stall))

    assert cell.wait(20, on_tick=look).status == "ok"
    after, stall = found[0]
    assert after < 3.5
    assert (stall.kind, stall.causes, stall.hopeless) == ("straggler", (1,), False)
    assert stall.short == "3 ranks wait for rank 1, still computing"


def test_ranks_that_only_compute_give_no_alarm(ranks):
    found = []
    cell = ranks.submit("threading.Event().wait(2.5)\nbf.barrier()")
    assert cell.wait(20, on_tick=lambda: found.append(cell.stall)).status == "ok"
    assert set(found) == {None}


def test_why_can_be_asked_at_any_time(ranks):
    cell = ranks.submit("if me == 2:\n    threading.Event().wait(60)\nbf.barrier()")
    deadline = time.monotonic() + 20
    while (why := cell.why()) is None or len(why.held) < 3:
        assert time.monotonic() < deadline
        threading.Event().wait(0.1)
    assert (why.kind, why.causes, why.held) == ("straggler", (2,), (0, 1, 3))
    assert why.rows[-1].place == "cell line 3, barrier"
    ranks.interrupt([2])
    result = cell.wait(10)
    assert result.status == "interrupted"
    assert {rank for rank, e in result.errors.items() if e.ename == "KeyboardInterrupt"} == {2}


def test_a_timeout_returns_within_two_seconds_with_who_waited_for_whom(ranks):
    begin = time.monotonic()
    result = ranks.run("if me == 1:\n    while True: pass\nbf.barrier()", timeout=1.0)
    assert time.monotonic() - begin < 3.0
    assert result.status == "timeout"
    assert result.why is not None
    assert (result.why.kind, result.why.causes, result.why.held) == ("straggler", (1,), (0, 2, 3))


def test_no_operation_waits_longer_than_it_is_told_to(ranks):
    ranks.run("bf.set_timeout(1.0)", timeout=10).raise_for_error()
    try:
        begin = time.monotonic()
        result = ranks.run("if me == 1:\n    while True: pass\nbf.barrier()", timeout=30)
        assert time.monotonic() - begin < 3.0
        assert result.status == "timeout"
        with pytest.raises(DeadlineError, match=r"barrier has waited 1\.\d s for rank 1, longer"):
            result.raise_for_error()
    finally:
        ranks.run("bf.set_timeout(None)", timeout=10).raise_for_error()


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_time_that_is_none_is_refused(ranks, seconds):
    result = ranks.run(f"bf.set_timeout(float('{seconds}'))", timeout=10)
    with pytest.raises(CellError, match="give seconds above 0"):
        result.raise_for_error()
