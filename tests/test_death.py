"""Ranks that die: noticed, named, left out by the others, and replaced."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from cgroups import limited_memory

from ifog import residue, respawn, vitals, watchdog
from ifog.cluster import Cluster
from ifog.errors import ArgumentError, ClusterError, TransportError
from ifog.survival import surviving
from ifog.telemetry import DeathEvent, OpEvent
from ifog.topology import ring
from ifog.weights import matrix

DEATHS = {
    "os.kill(os.getpid(), 9)": "killed by signal 9 (SIGKILL)",
    "os.kill(os.getpid(), 11)": "killed by signal 11 (SIGSEGV)",
    "os._exit(1)": "left with exit status 1",
}
CONSENSUS = """
x = torch.tensor([float(bf.rank())], dtype=torch.float64)
for _ in range(200):
    x = bf.neighbor_allreduce(x, name="x")
"""


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        pause.wait(0.02)


def deaths(cluster: Cluster) -> dict[int, DeathEvent]:
    _, events = cluster.events.since(0)
    return {event.rank: event for event in events if isinstance(event, DeathEvent)}


def pid_of(cluster: Cluster, rank: int) -> int:
    return next(row.pid for row in cluster.status().rows if row.rank == rank)


def kill(cluster: Cluster, *ranks: int) -> None:
    """Kill idle ranks and wait until that has been noticed."""
    for rank in ranks:
        os.kill(pid_of(cluster, rank), signal.SIGKILL)
    until(lambda: {row.rank for row in cluster.status().rows if row.state == "dead"} >= {*ranks})


def agree(cluster: Cluster, mean: float, living: list[int]) -> None:
    """The living ranks come to the mean in the next cell, within five seconds."""
    begun = time.monotonic()
    cluster.run(CONSENSUS, timeout=20).raise_for_error()
    assert time.monotonic() - begun < 5.0
    values = cluster.pull("x.item()")
    assert list(values) == living
    assert np.allclose(list(values.values()), mean, rtol=0, atol=1e-9)


@pytest.fixture
def ringed(cluster: Cluster) -> Cluster:
    cluster.set_topology("ring")
    cluster.run("import os\nkept = bf.rank() + 0.5", timeout=20).raise_for_error()
    return cluster


@pytest.mark.faults
@pytest.mark.parametrize("death", DEATHS)
def test_a_death_is_noticed_and_named_and_the_others_go_on(ringed, death, tmp_path):
    note = tmp_path / "when"
    result = ringed.run(
        "import time\n"
        "if bf.rank() == 1:\n"
        f"    open({str(note)!r}, 'w').write(str(time.time()))\n"
        f"    {death}\n"
        "bf.barrier()",
        timeout=20,
    )
    assert deaths(ringed)[1].cause == DEATHS[death]
    assert deaths(ringed)[1].t - float(note.read_text()) < 2.0
    assert result.status == "error"
    assert DEATHS[death] in result.errors[1].evalue
    assert "%bf heal" in result.errors[1].evalue
    for rank in (0, 2, 3):
        assert (result.errors[rank].ename, result.errors[rank].peer) == ("PeerFailedError", 1)
    with pytest.raises(ClusterError, match=r"rank 1 .*died.*%bf heal"):
        ringed.run("1")
    told = ringed.heal()
    assert "rank 1 left out, ranks 0,2-3 go on; the links left keep their weights" in told
    agree(ringed, (0 + 2 + 3) / 3, [0, 2, 3])
    assert ringed.pull("kept") == {0: 0.5, 2: 2.5, 3: 3.5}
    assert ringed.pull("(bf.size(), bf.alive_ranks())")[3] == (4, [0, 2, 3])
    with pytest.raises(ArgumentError, match="rank 1 died; the ranks 0,2-3 live"):
        ringed.submit("1", [1])


@pytest.mark.faults
def test_a_rank_that_the_kernel_kills_for_want_of_memory_is_told_from_one_that_is_killed(ringed):
    pids = {row.rank: row.pid for row in ringed.status().rows}
    if vitals.out_of_memory_kills() is None:
        pytest.skip("/proc/vmstat does not count kills for want of memory")
    hunger = "if bf.rank() == 2:\n    hoard = []\n    while True: hoard.append(bytes(1_000_000))"
    with limited_memory(psutil.Process(pids[2]).memory_info().rss + 200_000_000) as group:
        try:
            (group / "cgroup.procs").write_text(str(pids[2]))
        except OSError as error:
            pytest.skip(f"a process cannot be moved into a group with a limit of memory: {error}")
        result = ringed.run(f"{hunger}\nbf.barrier()", timeout=60)
    assert deaths(ringed)[2].cause == "killed by signal 9 (SIGKILL) for want of memory"
    assert "SIGKILL) for want of memory; go on without with %bf heal" in result.errors[2].evalue
    assert {result.errors[rank].peer for rank in (0, 1, 3)} == {2}
    ringed.heal()
    agree(ringed, 4 / 3, [0, 1, 3])


@pytest.mark.parametrize(("before", "after", "told"), [(3, 3, ""), (3, 4, " for want of memory")])
def test_only_a_kill_counted_shortly_before_a_death_is_taken_for_its_cause(
    tmp_path, monkeypatch, before, after, told
):
    counts, clock = iter([1, before, before, after]), itertools.count(0.0, 3.0)
    monkeypatch.setattr(vitals, "out_of_memory_kills", lambda: next(counts))
    monkeypatch.setattr(vitals, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    watched = vitals.Vitals(os.getpid(), tmp_path)
    monkeypatch.setattr(watched, "_status", lambda: signal.SIGKILL)
    assert watched.alive()
    assert watched.alive()
    assert watched.cause() == f"killed by signal 9 (SIGKILL){told}"
    watched.close()


def test_where_the_kernel_does_not_count_a_kill_may_be_for_want_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(vitals, "out_of_memory_kills", lambda: None)
    watched = vitals.Vitals(os.getpid(), tmp_path)
    monkeypatch.setattr(watched, "_status", lambda: signal.SIGKILL)
    assert watched.cause() == "killed by signal 9 (SIGKILL), perhaps for want of memory"
    monkeypatch.setattr(watched, "_status", lambda: None)
    assert watched.cause() == ""
    watched.close()


@pytest.mark.faults
def test_an_exit_in_a_cell_ends_the_cell_only(ringed):
    result = ringed.run("import sys\nif bf.rank() == 1: sys.exit(3)\nbf.barrier()", timeout=20)
    assert result.errors[1].ename == "SystemExit"
    assert [row.state for row in ringed.status().rows] == ["idle"] * 4
    agree(ringed, 1.5, [0, 1, 2, 3])


@pytest.mark.faults
def test_a_death_while_nothing_runs_is_noticed_too(ringed):
    begun = time.time()
    os.kill(pid_of(ringed, 3), signal.SIGKILL)
    until(lambda: 3 in deaths(ringed) and deaths(ringed)[3].t > begun, 2.0)


@pytest.mark.faults
def test_a_stopped_rank_ends_the_cell_and_comes_back_when_it_goes_on(ringed):
    pid = pid_of(ringed, 2)
    cell = ringed.submit("import time\nbf.barrier()\ntime.sleep(1)\nbf.barrier()")
    until(lambda: any(isinstance(e, OpEvent) and e.op == "barrier" for e in recent(ringed)))
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        result = cell.wait(20)
        assert time.monotonic() - begun < 3.0
        assert result.errors[2].ename == "RankStopped"
        assert f"rank 2 is stopped by a signal; let it go on with kill -CONT {pid}" in str(
            result.errors[2].evalue
        )
        assert [row.state for row in ringed.status().rows] == ["idle", "idle", "stopped", "idle"]
        with pytest.raises(ClusterError, match="rank 2 is stopped"):
            ringed.run("1")
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: not ringed.status().trouble)
    agree(ringed, 1.5, [0, 1, 2, 3])


def recent(cluster: Cluster) -> list[object]:
    cursor, _ = cluster.events.since(0)
    return cluster.events.since(max(0, cursor - 50))[1]


@pytest.mark.faults
def test_healing_kills_a_stopped_rank_and_several_deaths_follow_each_other(ringed):
    os.kill(pid_of(ringed, 0), signal.SIGSTOP)
    until(lambda: ringed.status().rows[0].state == "stopped")
    assert "rank 0 did not answer and had to be killed" in ringed.heal()
    agree(ringed, 2.0, [1, 2, 3])
    kill(ringed, 1, 3)
    ringed.heal()
    agree(ringed, 2.0, [2])
    assert ringed.pull("kept") == {2: 2.5}


@pytest.mark.faults
def test_a_controller_that_dies_is_noticed_and_a_restart_helps(ringed):
    token = ringed._line.token
    controller = [
        process
        for process in watchdog.carriers(token)
        if any("ipcontroller" in word or "controller" in word for word in process.cmdline())
    ]
    cell = ringed.submit("bf.barrier() if bf.rank() else __import__('time').sleep(5)")
    sockets = residue.descriptors()["anon_inode:[eventfd]"]
    begun = time.monotonic()
    for process in controller:
        process.kill()
    result = cell.wait(20)
    assert time.monotonic() - begun < 2.0
    assert {error.ename for error in result.errors.values()} == {"Unreachable"}
    told = r"the controller ended \(killed by signal 9 \(SIGKILL\)\).*%bf restart"
    assert re.search(told, result.errors[0].evalue)
    assert re.search(told, ringed.status().trouble)
    for ask in (ringed.heal, ringed.respawn, ringed.interrupt, lambda: ringed.pull("kept")):
        with pytest.raises(ClusterError, match=told):
            ask()
    ringed.restart()
    assert watchdog.carriers(token) == []
    agree(ringed, 1.5, [0, 1, 2, 3])
    # Each of ZeroMQ's sockets has one, also when it was closed with messages nobody takes.
    assert residue.descriptors()["anon_inode:[eventfd]"] == sockets


@pytest.mark.faults
def test_a_cell_may_say_that_the_others_go_on_by_themselves(ringed):
    ringed.run("bf.on_failure('heal')", timeout=10).raise_for_error()
    result = ringed.run("if bf.rank() == 0: os.kill(os.getpid(), 9)\nbf.barrier()", timeout=20)
    assert result.errors[0].ename == "RankDied"
    assert result.errors[0].evalue.endswith(
        "the others go on without it, %bf respawn has all ranks again"
    )
    agree(ringed, 2.0, [1, 2, 3])


@pytest.mark.faults
def test_a_loop_goes_on_in_the_same_cell_and_all_operations_are_among_the_living(ringed):
    loop = """
from ifog.errors import PeerFailedError
x, k = torch.tensor([float(bf.rank())], dtype=torch.float64), 0
while k < 100:
    if k == 10 and bf.rank() == 3: os.kill(os.getpid(), 9)
    try:
        x = bf.neighbor_allreduce(x, name="x")
        k += 1
    except PeerFailedError:
        k = back = bf.heal(k)
        total = bf.allreduce(x, average=False).item()
window = bf.Window(torch.tensor([float(bf.rank())], dtype=torch.float64), "w")
window.put(window.tensor).wait()
bf.barrier()
mixed = window.update().item()
bf.barrier()
window.free()
big = bf.allreduce(torch.full((30_000,), float(bf.rank())))
"""
    result = ringed.run(loop, timeout=30)
    assert set(result.errors) == {3}
    back = ringed.pull("back")
    assert len(set(back.values())) == 1
    assert 8 <= back[0] <= 10
    total = ringed.pull("total")[0]
    assert np.allclose(list(ringed.pull("x.item()").values()), total / 3, rtol=0, atol=1e-9)
    expected = matrix(surviving(ring(4), [0, 1, 2]).graph) @ np.arange(4.0)
    assert np.allclose(list(ringed.pull("mixed").values()), expected[:3])
    assert set(ringed.pull("big.mean().item()").values()) == {1.0}
    agree(ringed, 1.0, [0, 1, 2])


@pytest.mark.faults
def test_a_rank_comes_back_in_place_with_what_a_neighbour_holds(ringed):
    ringed.run(
        """
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def forward(self, x): return self.layer(x)
model = Net()
opt = torch.optim.Adam(model.parameters(), lr=0.1)
model(torch.ones(2)).sum().backward()
opt.step()
""",
        timeout=20,
    ).raise_for_error()
    kill(ringed, 1)
    told = ringed.respawn(["model", "opt", "nothing"])
    assert told.startswith("rank 1 is back in the living world; model, opt: rank 1 from rank 0")
    assert "nothing could not be brought (there is none)" in told
    agree(ringed, 1.5, [0, 1, 2, 3])
    assert ringed.pull("kept", [0, 2, 3]) == {0: 0.5, 2: 2.5, 3: 3.5}
    assert ringed.pull("'kept' in globals()", [1]) == {1: False}
    weights = ringed.pull("model.layer.weight")
    assert np.array_equal(weights[1], weights[0])
    assert not np.array_equal(weights[1], weights[2])
    same = "opt.param_groups[0]['params'][0] is model.layer.weight and len(opt.state) == 2"
    assert set(ringed.pull(same).values()) == {True}
    ringed.run("raise ValueError if bf.rank() == 1 else bf.barrier()", timeout=20)
    agree(ringed, 1.5, [0, 1, 2, 3])


@pytest.mark.faults
def test_a_neighbour_that_takes_its_time_does_not_hinder_a_respawn_in_place(ringed):
    ringed.run(
        "import time, ifog.newcomer as newcomer\nreal = newcomer.giver\n"
        "def giver(rank):\n    time.sleep(1)\n    return real(rank)\n"
        "newcomer.giver = giver",
        timeout=20,
    ).raise_for_error()
    kill(ringed, 2)
    assert ringed.respawn().startswith("rank 2 is back in the living world")
    ringed.run("newcomer.giver = real", [0, 1, 3], timeout=20).raise_for_error()
    agree(ringed, 1.5, [0, 1, 2, 3])


@pytest.mark.faults
def test_the_status_answers_while_a_rank_is_replaced(ringed, monkeypatch):
    wait, seen = respawn._await, []

    def look(condition: Callable[[], bool], otherwise: str) -> None:
        with ThreadPoolExecutor(1) as elsewhere:
            seen.append(elsewhere.submit(ringed.status).result(timeout=10))
        wait(condition, otherwise)

    monkeypatch.setattr(respawn, "_await", look)
    kill(ringed, 1)
    told: list[str] = []
    ringed.respawn(["kept"], told.append)
    assert told == ["starting rank 1 in the living world"]
    assert len(seen) == 2
    for status in seen:
        assert [row.state for row in status.rows] == ["idle", "starting", "idle", "idle"]
        assert status.trouble.startswith("respawning: ")
    assert not ringed.status().trouble


@pytest.mark.faults
def test_newcomers_can_die_and_several_ranks_come_back(ringed):
    kill(ringed, 2)
    assert "rank 2 is back" in ringed.respawn()
    kill(ringed, 2, 0)
    assert "ranks 0,2 are back in the living world" in ringed.respawn(["kept"])
    agree(ringed, 1.5, [0, 1, 2, 3])
    assert ringed.pull("kept") == {0: 1.5, 1: 1.5, 2: 1.5, 3: 3.5}
    assert ringed.respawn() == "all ranks live"


@pytest.mark.faults
def test_where_no_rank_can_be_added_a_new_world_gets_the_variables(ringed, monkeypatch):
    def refuse(*_: object) -> str:
        raise TransportError("MPI cannot start a process")

    monkeypatch.setattr(respawn, "in_place", refuse)
    ringed.run("values = (i for i in range(3))\ndef double(x): return 2 * kept", timeout=10)
    kill(ringed, 3)
    token = ringed._line.token
    told = ringed.respawn(["kept"])
    assert "not in place (MPI cannot start a process): 4 fresh ranks have the variables" in told
    assert "values could not be brought (generator: " in told
    assert watchdog.carriers(token) == []
    agree(ringed, 1.5, [0, 1, 2, 3])
    assert ringed.pull("kept") == {0: 0.5, 1: 1.5, 2: 2.5, 3: 0.5}
    assert ringed.pull("double(0)", [0, 2]) == {0: 1.0, 2: 5.0}


@pytest.fixture
def sealed(four_ranks: Cluster) -> Iterator[Cluster]:
    four_ranks.stop()  # a process has one cluster at a time
    with Cluster(2, sealed=True) as cluster:
        yield cluster


@pytest.mark.faults
def test_a_sealed_cluster_listens_nowhere_and_is_not_joined_in_place(sealed):
    sealed.run(
        "kept = bf.allreduce(torch.ones(100_000)).sum().item()", timeout=20
    ).raise_for_error()
    for row in sealed.status().rows:
        connections = psutil.Process(row.pid).net_connections()
        assert [c.laddr for c in connections if c.status == psutil.CONN_LISTEN] == []
    kill(sealed, 0)
    told = sealed.respawn()
    assert "not in place (a sealed cluster lets no new process in): 2 fresh ranks" in told
    assert sealed.sealed
    assert sealed.pull("kept", [1]) == {1: 100_000.0}
    agree(sealed, 0.5, [0, 1])
