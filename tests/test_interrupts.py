"""Cells that do not end by themselves: interrupts, timeouts, lost and dead ranks, what follows."""

from __future__ import annotations

import os
import signal
import time

import pytest
from cells import begun, come_back, wait_for_deaths, wait_until

from ifog.errors import CellError, ClusterError, DeadlineError
from ifog.telemetry import WaitEvent

LOOPS = {
    "an op that waits": "bf.barrier() if bf.rank() != 0 else threading.Event().wait(60)",
    "posted averages that wait": (
        "posted = [bf.neighbor_allreduce_nonblocking(torch.ones(3)) for _ in range(5 * bf.rank())]"
        "\n[h.wait() for h in posted] if posted else threading.Event().wait(60)"
    ),
    "a loop of posted averages": (
        "post = bf.neighbor_allreduce_nonblocking\n"
        "while True: [h.wait() for h in [post(torch.ones(3)) for _ in range(50)]]"
    ),
    "a torch loop": "x = torch.ones(200, 200)\nwhile True: x = (x @ x).clamp(0, 1)",
    "pure Python": "while True: pass",
}


@pytest.mark.faults
@pytest.mark.parametrize("what", LOOPS)
def test_an_interrupt_ends_it_and_the_next_cell_works(cluster, what):
    cluster.run("import threading\nkept = bf.rank()", timeout=10).raise_for_error()
    cell = cluster.submit(LOOPS[what])
    begin = []

    def when_begun() -> bool:
        if begun(cluster, cell) and not begin:
            begin.append(time.monotonic())
        return bool(begin)

    result = wait_until(cell, when_begun)
    assert time.monotonic() - begin[0] < 3.0
    assert result.status == "interrupted"
    assert "KeyboardInterrupt" in {error.ename for error in result.errors.values()}
    assert cluster.run("bf.barrier()", timeout=10).status == "ok"
    assert cluster.pull("kept") == {0: 0, 1: 1, 2: 2, 3: 3}


@pytest.mark.faults
def test_a_keyboard_interrupt_while_waiting_interrupts_the_ranks(cluster):
    cell = cluster.submit("while True: pass")
    pressed = []

    def press_once() -> None:
        if begun(cluster, cell) and not pressed:
            pressed.append(True)
            raise KeyboardInterrupt

    assert cell.wait(20, on_tick=press_once).status == "interrupted"
    assert cluster.run("bf.barrier()", timeout=10).status == "ok"


@pytest.mark.faults
def test_an_interrupt_sent_at_once_still_reaches_the_cell(cluster):
    cell = cluster.submit("while True: pass")
    cell.interrupt()
    assert cell.wait(10).status == "interrupted"


@pytest.mark.faults
def test_a_timeout_returns_in_time_and_tells_who_waited_for_whom(cluster):
    begin = time.monotonic()
    result = cluster.run("while bf.rank() == 3: pass\nbf.broadcast(torch.ones(1), 3)", timeout=1.5)
    assert time.monotonic() - begin < 3.5
    assert result.status == "timeout"
    assert "was computing" in result.errors[3].evalue
    assert result.errors[3].line == 1
    assert "for rank 3 in broadcast" in result.errors[0].evalue
    with pytest.raises(DeadlineError, match=r"\[3\].*was computing"):
        result.raise_for_error()
    assert cluster.run("bf.barrier()", timeout=10).status == "ok"


@pytest.mark.faults
def test_a_rank_that_cannot_be_interrupted_does_not_hold_up_the_result(cluster):
    stubborn = (
        "import time\n"
        "if bf.rank() == 1:\n"
        "    end = time.monotonic() + 6\n"
        "    while time.monotonic() < end:\n"
        "        try:\n"
        "            while time.monotonic() < end: pass\n"
        "        except KeyboardInterrupt: pass\n"
    )
    begin = time.monotonic()
    result = cluster.run(stubborn, timeout=0.5)
    assert time.monotonic() - begin < 2.5
    assert (result.status, result.errors[1].ename) == ("timeout", "NoAnswer")
    come_back(cluster)
    assert cluster.run("bf.barrier()", timeout=20).status == "ok"


@pytest.mark.faults
def test_ranks_that_do_not_come_back_refuse_everything_at_once(cluster):
    cell = cluster.submit(
        "import threading, time\n"
        "end = time.monotonic() + 12\n"
        "while time.monotonic() < end:\n"
        "    try: threading.Event().wait(0.5)\n"
        "    except KeyboardInterrupt: pass\n",
        [0, 2],
    )
    presses = []

    def press() -> None:
        if begun(cluster, cell) and len(presses) < 3:
            presses.append(True)
            raise KeyboardInterrupt

    assert {error.ename for error in cell.wait(20, press).errors.values()} == {"NoAnswer"}
    begin = time.monotonic()
    states = [row.state for row in cluster.status().rows]
    away = f"busy in cell {cell.seq}, does not answer"
    assert states == [away, "idle", away, "idle"]
    refused = rf"ranks 0,2 have not come back from cell {cell.seq}, .*%bf restart"
    for call in (
        lambda: cluster.pull("1"),
        lambda: cluster.push({"x": 1}),
        lambda: cluster.submit("1"),
        lambda: cluster.set_topology("ring"),
    ):
        with pytest.raises(ClusterError, match=refused):
            call()
    assert cluster.pull("bf.rank()", [1, 3]) == {1: 1, 3: 3}
    assert time.monotonic() - begin < 4.0
    come_back(cluster)
    assert cluster.pull("bf.rank()") == {0: 0, 1: 1, 2: 2, 3: 3}
    assert cluster.run("bf.barrier()", timeout=20).status == "ok"


@pytest.mark.faults
def test_a_pull_waits_for_the_running_cell_but_not_for_ranks_that_are_given_up(cluster):
    cell = cluster.submit("import threading\nthreading.Event().wait(1)\nlate = 5", [0])
    assert cluster.pull("late", [0]) == {0: 5}
    cell.wait(10).raise_for_error()
    cell = cluster.submit(
        "import time\n"
        "end = time.monotonic() + 4\n"
        "while time.monotonic() < end:\n"
        "    try: time.sleep(0.5)\n"
        "    except KeyboardInterrupt: pass\n",
        [0],
        timeout=0.5,
    )
    with pytest.raises(ClusterError, match="rank 0 has not come back"):
        cluster.pull("late", [0])
    come_back(cluster)


@pytest.mark.faults
def test_ranks_report_what_they_wait_for_while_they_wait(cluster):
    cursor, _ = cluster.events.since(0)
    cell = cluster.submit("while bf.rank() == 0: pass\nbf.barrier()")

    def waiting() -> bool:
        _, events = cluster.events.since(cursor)
        return {e.rank for e in events if isinstance(e, WaitEvent)} == {1, 2, 3}

    states = []

    def look() -> bool:
        if waiting() and not states:
            states.extend(row.state for row in cluster.status().rows)
        return bool(states)

    wait_until(cell, look)
    assert states == ["running", "waiting", "waiting", "waiting"]


@pytest.mark.faults
def test_an_interrupt_while_an_error_is_handled_is_told_once_and_later_errors_too(cluster):
    # It comes while IPython handles an error, or while the handler that it calls is at work; what
    # comes there by chance is caused here by a handler that raises.
    late = "def late(*_, **__): raise KeyboardInterrupt\n"
    result = cluster.run(f"{late}get_ipython().CustomTB = late\n1 / 0", timeout=20)
    assert (result.status, result.outputs) == ("interrupted", ())
    engine = "__import__('ifog.engine').engine._engine"
    cluster.run(f"{late}{engine}._shield = late\n1 / 0", timeout=20)
    cluster.run(f"del {engine}._shield", timeout=20).raise_for_error()
    result = cluster.run("1 / 0", timeout=20)
    assert (result.status, result.outputs) == ("error", ())
    assert {error.ename for error in result.errors.values()} == {"ZeroDivisionError"}


@pytest.mark.faults
@pytest.mark.parametrize("death", ["os._exit(3)", "os.kill(os.getpid(), 9)"])
def test_a_dead_rank_ends_the_cell_and_asks_for_a_restart(cluster, death):
    cluster.run("kept = bf.rank()", timeout=10).raise_for_error()
    begin = time.monotonic()
    result = cluster.run(f"import os\nif bf.rank() == 1: {death}\nbf.barrier()", timeout=20)
    assert time.monotonic() - begin < 5.0
    assert (result.status, result.errors[1].ename) == ("error", "RankDied")
    with pytest.raises(CellError, match=r"rank 1 .*died.*%bf restart"):
        result.raise_for_error()
    assert [row.state for row in cluster.status().rows] == ["idle", "dead", "idle", "idle"]
    assert cluster.pull("kept") == {0: 0, 2: 2, 3: 3}
    with pytest.raises(ClusterError, match="%bf restart"):
        cluster.run("1")
    if "kill" in death:
        for row in cluster.status().rows:
            if row.state != "dead":
                os.kill(row.pid, signal.SIGKILL)
        wait_for_deaths(cluster)
        with pytest.raises(ClusterError, match=r"pulling kept: .*died.*%bf restart"):
            cluster.pull("kept")
        cluster.restart()
        assert cluster.pull("bf.rank()") == {0: 0, 1: 1, 2: 2, 3: 3}
