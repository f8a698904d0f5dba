"""How tensors of devices travel: what is chosen, what goes where, and what ends what goes wrong.

This machine's processor plays the devices, gloo the part of NCCL.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from programs import programs

from ifog.status import ClusterStatus, RankStatus
from ifog.transport.cuda import Choice, Pins, Place, choose
from ifog.transport.loans import Pool

TESTS = str(Path(__file__).parent)
mpi, faults = pytest.mark.mpi, pytest.mark.faults

START = """
import json, os, sys, threading, time, torch
sys.path.insert(0, TESTS)
import pretend
rank, out = int(os.environ["OMPI_COMM_WORLD_RANK"]), {}
number = sys.argv[1] if sys.argv[1] != "own" else str(rank)
device = pretend.install(number, **json.loads(sys.argv[2]))
import ifog
import ifog.devices
from ifog.context import current
from ifog.errors import *
from ifog.transport.group import Group
ifog.init()
n, context = ifog.size(), current()
ifog.set_topology("complete")
started, exchange = [], Group._exchange
def counted(self, sends, receives):
    started.append(sorted(sends))
    exchange(self, sends, receives)
Group._exchange = counted
def averaged(k=1.0, numel=5_000):
    y = ifog.neighbor_allreduce(torch.arange(numel).double() * (rank + k))
    return torch.equal(y, torch.arange(numel).double() * ((n - 1) / 2 + k))
def until_chosen():
    for _ in range(1000):
        assert averaged()
        done = context.devices.settled
        if all(ifog.allgather(torch.tensor([done]))):
            return
        time.sleep(0.01)
"""
END = """
print(json.dumps([rank, out]), flush=True)
ifog.barrier()
os._exit(0)  # whatever hangs inside of gloo goes with it
"""


@pytest.fixture
def told(tmp_path):
    """Run a script on MPI ranks with pretended devices; gives what each of them said."""
    with programs(tmp_path) as run:

        def of(n, script, *, number="own", **how):
            text = START.replace("TESTS", repr(TESTS)) + script + END
            (tmp_path / "program.py").write_text(text)
            program = run("-n", str(n), "program.py", number, json.dumps(how))
            code, out, err = program.finish()
            assert code == 0, err[-3000:]
            return [said for _, said in sorted(map(json.loads, out.splitlines()))]

        yield of


def places(*numbers, lacks=""):
    return {r: Place(number, "H100", lacks, "") for r, number in enumerate(numbers)}


def test_the_way_depends_on_who_shares_what():
    assert str(choose(places("a", "b"))) == "NCCL, a device for each rank"
    shared = choose(places("a", "b", "b", "b"))
    assert shared == Choice("pinned", "3 ranks share H100")
    assert str(shared) == "pinned host memory: 3 ranks share H100"
    assert str(choose(places("a"))) == "pinned host memory: there is one rank"
    lacking = places("a", "b") | {2: Place("c", "H100", "no NCCL", "")}
    assert choose(lacking) == Choice("pinned", "rank 2: no NCCL")
    unknown = places("", "", lacks="devices have no numbers")
    assert choose(unknown) == Choice("pinned", "rank 0: devices have no numbers")


def test_memory_that_cannot_be_pinned_matters_only_where_it_is_used():
    refused = Place("b", "H100", "", "CUDA error 801")
    assert choose(places("a") | {1: refused}).way == "nccl"
    found = choose(places("b") | {1: refused})
    assert found.way == "host"
    assert str(found) == (
        "copied through host memory: 2 ranks share H100, and rank 1 cannot pin memory "
        "(CUDA error 801)"
    )


def test_status_says_how_tensors_of_devices_travel():
    def said(devices, device):
        row = RankStatus(0, 7, "here", device, 1, "shared memory", "idle")
        return repr(ClusterStatus(1, True, "", (row,), devices=devices)).splitlines()[2:]

    assert said("", "cpu") == []
    assert said("", "cuda:0") == ["device tensors: none used so far"]
    assert said("NCCL, a device for each rank", "cuda:0") == [
        "device tensors: NCCL, a device for each rank"
    ]


class Driver:
    def __init__(self, error=None):
        self.error, self.pinned = error, []

    def pin(self, memory, _device):
        if self.error:
            raise RuntimeError(self.error)
        self.pinned.append(memory.ctypes.data)

    def unpin(self, memory):
        self.pinned.remove(memory.ctypes.data)


def test_each_memory_is_pinned_once_and_let_go_of(monkeypatch):
    driver, pool = Driver(), Pool(1, fixed=True)
    monkeypatch.setattr("ifog.transport.cuda.driver", driver)
    pins, rooms = Pins(), [pool.room(5000), pool.room(1 << 27)]
    for room in (*rooms, rooms[0][100:200]):
        pins.pin(pool.around(room), torch.device("cpu"))
    pins.pin(None, torch.device("cpu"))
    assert len(driver.pinned) == len(set(driver.pinned)) == 2
    starts = [pool.around(room).ctypes.data for room in rooms]
    assert driver.pinned == starts
    pins.release()
    assert not driver.pinned


def test_memory_that_was_refused_is_not_let_go_of(monkeypatch):
    driver, pool = Driver("CUDA error 801"), Pool(1, fixed=True)
    monkeypatch.setattr("ifog.transport.cuda.driver", driver)
    pins = Pins()
    pins.pin(pool.around(pool.room(5000)), torch.device("cpu"))
    assert pins.obstacle == "CUDA error 801"
    pins.release()  # raises if it unpins what is not pinned


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory files here")
def test_pages_that_a_device_may_know_stay_where_they_are():
    for fixed, kept in ((True, 7), (False, 0)):
        pool = Pool(1, fixed=fixed)
        room = pool.room(2 << 20)
        room[:] = 7
        segment, place = pool.around(room), room.ctypes.data - pool.around(room).ctypes.data
        del room
        pool.room(3 << 20)  # another size: what is free loses its pages
        assert segment[place] == kept


@mpi
@pytest.mark.parametrize("n", [2, 4])
def test_tensors_go_from_device_to_device_where_each_rank_has_its_own(n, told):
    script = """
until_chosen()
before = len(started)
out["right"] = [averaged(k, numel) for k in range(5) for numel in (1, 5_000, 100_000)]
out["steps"] = len(started) - before
x = torch.arange(6.0).view(2, 3) + rank
out["list"] = [y.tolist() for y in ifog.neighbor_allreduce([x, x.bfloat16()[:1]], name="xs")]
left = ifog.neighbor_allreduce(
    x, self_weight=0.5, src_weights={(rank - 1) % n: 0.25}, dst_weights={(rank + 1) % n: 2.0}
)
out["ring"] = (left - (0.5 * x + 0.5 * (x - rank + (rank - 1) % n))).abs().max().item()
out["why"] = context.devices.describe()
"""
    for said in told(n, script):
        assert said["why"] == "NCCL, a device for each rank"
        assert all(said["right"])
        assert said["steps"] == 15
        mean = torch.arange(6.0).view(2, 3) + (n - 1) / 2
        assert said["list"] == [mean.tolist(), mean[:1].tolist()]
        assert said["ring"] == 0


@mpi
@pytest.mark.parametrize("n", [2, 4])
def test_tensors_go_through_pinned_memory_where_ranks_share_a_device(n, told):
    script = """
until_chosen()
out["right"] = [averaged(k, numel) for k in range(5) for numel in (1, 5_000, 100_000)]
# A row of own memory, and one of each neighbour's that was read where it is.
out["pinned"] = len(device.pinned)
out["steps"], out["why"] = len(started), context.devices.describe()
context.devices.close()
out["left"] = len(device.pinned)
"""
    for said in told(n, script, number="one"):
        assert said["why"] == f"pinned host memory: {n} ranks share Pretended"
        assert all(said["right"])
        assert (said["pinned"], said["left"], said["steps"]) == (n, 0, 0)


@mpi
def test_where_memory_cannot_be_pinned_it_is_copied_and_said(told):
    script = """
until_chosen()
out["right"], out["why"] = averaged(), context.devices.describe()
"""
    for said in told(2, script, number="one", refuses="CUDA error 801"):
        assert said["right"]
        assert said["why"] == (
            "copied through host memory: 2 ranks share Pretended, and rank 0 cannot pin memory "
            "(CUDA error 801)"
        )


@mpi
def test_ranks_that_are_to_listen_on_no_socket_make_no_group(told):
    script = """
os.environ["OMPI_MCA_btl"] = "self,sm"  # what %bf start --sealed gives to Open MPI
until_chosen()
out["why"] = context.devices.describe()
"""
    for said in told(2, script):
        assert said["why"] == "pinned host memory: rank 0: the ranks are to listen on no socket"


@mpi
def test_where_the_group_cannot_be_made_pinned_memory_is_used_and_said(told):
    script = """
device.breaks = rank == 1
ifog.devices._MAKE_SECONDS = 1.0
until_chosen()
out["right"], out["why"] = averaged(), context.devices.describe()
"""
    for said in told(3, script):
        assert said["right"]
        assert said["why"] == "pinned host memory: NCCL does not start (rank 1: no such luck)"


@mpi
def test_averages_in_opposite_orders_never_cross_on_the_devices(told):
    script = """
until_chosen()
names, right, before = ["a", "b", "c"], [], len(started)
for k in range(60):
    order = names if rank % 2 else names[::-1]
    handles = {}
    for name in order:
        x = torch.full((2_000,), float(rank + 100 * k + 10_000 * ord(name))).double()
        handles[name] = ifog.neighbor_allreduce_nonblocking(x, name=name)
    for name in order if k % 2 else order[::-1]:
        mean = (n - 1) / 2 + 100 * k + 10_000 * ord(name)
        right.append(bool((handles[name].wait() == mean).all()))
out["right"], out["steps"] = all(right), len(started) - before
"""
    for said in told(4, script):
        assert said["right"]
        assert 0 < said["steps"] < 180  # while one offer is open, the others take the other way


@mpi
def test_a_mismatch_is_told_before_anything_goes_to_a_device(told):
    script = """
until_chosen()
before = len(started)
for x in (torch.ones(3 + rank), torch.ones(3, dtype=(torch.float32, torch.float64)[rank])):
    try:
        ifog.neighbor_allreduce(x)
    except MismatchError as error:
        out[str(len(out))] = str(error)
device.takes = lambda x: rank == 1
try:
    ifog.neighbor_allreduce(torch.ones(3))
except MismatchError as error:
    out["apart"] = str(error)
out["steps"] = len(started) - before
"""
    for said in told(2, script):
        assert "shape (3,)" in said["0"]
        assert "shape (4,)" in said["0"]
        assert "float64" in said["1"]
        assert "rank 1 is on a device, that of rank 0 in host memory" in said["apart"]
        assert said["steps"] == 0


@faults
@pytest.mark.parametrize("cause", ["error", "interrupt"])
def test_a_transfer_whose_peer_never_comes_ends_and_the_next_average_works(cause, told):
    script = """
import signal
until_chosen()
first, hanging = context.devices.group, threading.Event()
def never(self, sends, receives):
    hanging.set()
    time.sleep(3600)
if rank == 1:
    Group._exchange = never
handle = ifog.neighbor_allreduce_nonblocking(torch.ones(100_000))
try:
    if rank == 1:
        while not hanging.is_set():
            ifog.poll(handle)
        if CAUSE == "error":
            raise KeyError("mine")
        signal.raise_signal(signal.SIGINT)
    handle.wait()
except BaseException as error:
    out["error"] = type(error).__name__
    context.abort(f"{type(error).__name__}")
Group._exchange = counted
context.heal()
until_chosen()
before = len(started)
out["right"] = [averaged(k) for k in range(5)]
out["steps"], out["why"] = len(started) - before, context.devices.describe()
out["anew"] = context.devices.group is not first
"""
    given = {"error": "KeyError", "interrupt": "KeyboardInterrupt"}[cause]
    found = told(3, script.replace("CAUSE", repr(cause)))
    assert [said["error"] for said in found] == ["PeerFailedError", given, "PeerFailedError"]
    for said in found:
        assert all(said["right"])
        assert said["anew"]
        assert said["steps"] == 5
        assert said["why"] == "NCCL, a device for each rank"


CELLS = """
import sys, time
sys.path.insert(0, TESTS)
import pretend
from ifog.context import current
from ifog.transport.group import Group
pretend.install(str(bf.rank()))
current().transport.equipped = True  # as when the ranks had started with these devices
started, exchange = [], Group._exchange
def counted(self, sends, receives):
    started.append(sorted(sends))
    exchange(self, sends, receives)
Group._exchange = counted
def average():
    return bf.neighbor_allreduce(torch.full((5_000,), float(bf.rank())).double())[0].item()
def until_settled():
    for _ in range(1000):
        average()
        if all(bf.allgather(torch.tensor([current().devices.settled]))):
            break
        time.sleep(0.01)
bf.set_topology("complete")
until_settled()
"""
DYING = """
import os, signal
group, last = current().devices.group, started[-1]
while True:
    average()
    if bf.rank() == 2:
        Group._exchange = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
AFTER = """
until_settled()
before = len(started)
found = [average(), len(started) - before, current().devices.group is not group, started[-1]]
"""


@faults
def test_when_a_rank_dies_in_a_transfer_the_others_go_on_with_a_group_of_their_own(cluster):
    cluster.run(CELLS.replace("TESTS", repr(TESTS)), timeout=60).raise_for_error()
    assert "device tensors: NCCL, a device for each rank" in repr(cluster.status())
    result = cluster.run(DYING, timeout=30)
    assert {result.errors[rank].ename for rank in (0, 1, 3)} == {"PeerFailedError"}
    cluster.heal()
    cluster.run(AFTER, timeout=60).raise_for_error()
    for rank, found in cluster.pull("found").items():
        others = sorted({0, 1, 3} - {rank})
        # Each of four counted a quarter; the share of the dead one is now the rank's own.
        assert found == [rank / 2 + sum(others) / 4, 1, True, others]
    assert "device tensors: NCCL, a device for each rank" in repr(cluster.status())
    cluster.restart()  # the next test finds ranks without such devices
