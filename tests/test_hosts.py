"""Ranks on several hosts: network namespaces of this machine, with real sockets between them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from ifog import watchdog
from ifog.bench import namespaces, net
from ifog.bench.namespaces import EmulatedHosts
from ifog.errors import ArgumentError, NotAvailableError

TESTS = Path(__file__).parent
IFOG = str(Path(sys.executable).with_name("ifog"))
SECONDS = 100
OBSTACLE = namespaces.obstacle()
on_hosts = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))

START = "import ifog, os, socket, sys, torch\nifog.init()\nrank, n = ifog.rank(), ifog.size()\n"
LAWS = f"""
sys.path.insert(0, {str(TESTS)!r})
import laws_collectives, laws_gossip, laws_machines, laws_neighbors, laws_windows
modules = (laws_collectives, laws_gossip, laws_machines, laws_neighbors, laws_windows)
found = [vars(module) for module in modules]
laws = {{name: law for names in found for name, law in names.items() if name.startswith("law_")}}
del laws["law_machines_are_those_of_the_environment_or_of_the_wire"]  # the places say it
for law in laws.values():
    ifog.init()
    law()
    ifog.barrier()
if rank == 0:
    print("laws kept:", len(laws))
"""
MACHINES = """
machine = (ifog.machine_rank(), ifog.machine_size())
print("place", rank, socket.gethostname(), *machine, ifog.local_rank(), ifog.local_size())
"""


def done(command):
    """A command that has ended, with what it said."""
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def ran(hosts, slots, script, folder, **variables):
    """What ``ifog run`` of a script on all hosts returned: status, output, errors."""
    program = folder / "program.py"
    program.write_text(START + script)
    where = ",".join(f"{name}:{slots}" for name in hosts.names)
    words = [IFOG, "run", "-H", where, "--network", hosts.network, str(program)]
    process = subprocess.Popen(
        [*hosts.on(), *words],
        env={**os.environ, **hosts.environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate(timeout=SECONDS)
        pytest.fail(f"still running after {SECONDS} s: {out}\n{err}")
    return process.returncode, out, err


@pytest.fixture(scope="module")
def four_hosts():
    with EmulatedHosts(4, mbit=1000) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def two_hosts():
    with EmulatedHosts(2, mbit=1000) as hosts:
        yield hosts


def places(out):
    return sorted(line.split()[1:] for line in out.splitlines() if line.startswith("place"))


@on_hosts
@pytest.mark.hosts
@pytest.mark.timeout(SECONDS + 20)
def test_operations_keep_their_laws_between_four_hosts(four_hosts, tmp_path):
    status, out, err = ran(four_hosts, 1, MACHINES + LAWS, tmp_path)
    assert status == 0, err
    assert places(out) == [[str(r), f"host{r + 1}", str(r), "4", "0", "1"] for r in range(4)]
    assert int(re.search(r"laws kept: (\d+)", out)[1]) > 50


@on_hosts
@pytest.mark.hosts
@pytest.mark.timeout(SECONDS + 20)
def test_operations_keep_their_laws_on_two_hosts_of_two_ranks(two_hosts, tmp_path):
    status, out, err = ran(two_hosts, 2, MACHINES + LAWS, tmp_path)
    assert status == 0, err
    assert places(out) == [
        [str(r), f"host{r // 2 + 1}", str(r // 2), "2", str(r % 2), "2"] for r in range(4)
    ]
    assert int(re.search(r"laws kept: (\d+)", out)[1]) > 50


@on_hosts
@pytest.mark.hosts
@pytest.mark.timeout(SECONDS + 20)
def test_machines_that_mix_over_the_network_are_those_of_the_wire(two_hosts, tmp_path):
    script = """
x = torch.full((300_000,), float(rank + 1), dtype=torch.float64)
ifog.set_machine_topology(ifog.ring(2))
mixed = ifog.hierarchical_neighbor_allreduce(x)
local = ifog.allreduce(x, is_hierarchical_local=True)
print("sums", rank, set(mixed.tolist()), set(local.tolist()))
"""
    status, out, err = ran(two_hosts, 2, script, tmp_path)
    assert status == 0, err
    # Means of 1, 2 and of 3, 4; then the mean of both machines.
    assert sorted(out.splitlines()) == [
        "sums 0 {2.5} {1.5}",
        "sums 1 {2.5} {1.5}",
        "sums 2 {2.5} {3.5}",
        "sums 3 {2.5} {3.5}",
    ]


@on_hosts
@pytest.mark.hosts
@pytest.mark.timeout(SECONDS + 20)
def test_a_rank_killed_on_another_host_is_named_and_ends_the_others(four_hosts, tmp_path):
    script = """
import signal

ifog.barrier()
if rank == 2:
    os.kill(os.getpid(), signal.SIGKILL)
while True:
    ifog.neighbor_allreduce(torch.ones(1000))
"""
    status, _, err = ran(four_hosts, 1, script, tmp_path)
    assert status == 128 + signal.SIGKILL
    assert re.search(r"rank 2\b.*SIGKILL", err), err


@on_hosts
@pytest.mark.hosts
@pytest.mark.timeout(SECONDS + 20)
def test_a_window_reaches_a_host_whose_rank_sleeps_or_computes(two_hosts, tmp_path):
    script = """
import time
x = torch.full((1000,), float(rank + 1))
ifog.win_create(x, "w", zero_init=True)
ifog.barrier()
if rank == 1:
    time.sleep(2)
    torch.linalg.svd(torch.randn(600, 600))
else:
    before = time.monotonic()
    ifog.win_put(x, "w")
    ifog.win_accumulate(x, "w", dst_weights={1: 2.0}, require_mutex=True)
    ifog.win_get("w")
    print("took", time.monotonic() - before < 1.5)
    print("got", ifog.win_update("w", 0.0, {1: 1.0})[0].item())
ifog.barrier()
if rank == 1:
    print("has", ifog.win_update("w", 0.0, {0: 1.0})[0].item())
ifog.win_free()
"""
    status, out, err = ran(two_hosts, 1, script, tmp_path)
    assert status == 0, err
    assert sorted(out.splitlines()) == ["got 2.0", "has 3.0", "took True"]


@on_hosts
@pytest.mark.hosts
@pytest.mark.timeout(SECONDS + 20)
def test_a_mutex_on_another_host_goes_with_the_rank_that_held_it(two_hosts, tmp_path):
    script = """
import signal
x = torch.zeros(3)
ifog.win_create(x, "w", zero_init=True)
ifog.barrier()
if rank == 1:
    with ifog.win_mutex("w", ranks=[0]):
        ifog.barrier()
        os.kill(os.getpid(), signal.SIGKILL)
ifog.barrier()
try:
    with ifog.win_mutex("w", for_self=True, ranks=[1]):
        print("free again")
except ifog.IfogError as error:
    print(type(error).__name__)
"""
    _, out, err = ran(two_hosts, 1, script, tmp_path)
    assert out.splitlines() in (["free again"], ["PeerFailedError"]), err


CLUSTER = """
import os, platform, signal, sys
from ifog.cluster import Cluster
from ifog.errors import ClusterError, NotAvailableError

def total(cluster):
    code = "print(float(bf.allreduce(torch.ones(1), average=False)))"
    result = cluster.run(code, timeout=30)
    return result.status, sorted(float(output.text) for output in result.outputs)

with Cluster(hosts=sys.argv[1], network=sys.argv[2]) as cluster:
    rows = cluster.status().rows
    assert [row.host for row in rows] == ["host1", "host1", "host2", "host2"], rows
    assert total(cluster) == ("ok", [4.0] * 4)
    places = cluster.run("print(bf.rank(), bf.machine_rank(), bf.local_rank())", timeout=30)
    assert sorted(o.text for o in places.outputs) == [f"{r} {r // 2} {r % 2}\\n" for r in range(4)]

    cell = cluster.submit("while True: bf.neighbor_allreduce(torch.ones(1))")
    while not cluster.status().rows[0].state in ("running", "waiting"):
        pass
    cluster.interrupt()
    assert cell.wait(timeout=30).status != "ok"
    assert total(cluster) == ("ok", [4.0] * 4)

    cell = cluster.submit("while True: bf.neighbor_allreduce(torch.ones(1))")
    os.kill(rows[2].pid, signal.SIGKILL)
    result = cell.wait(timeout=30)
    assert result.status != "ok"
    assert "rank 2" in result.errors[2].evalue and "host2" in result.errors[2].evalue, result
    try:
        cluster.respawn()
    except NotAvailableError as error:
        assert "several hosts" in str(error)
    else:
        raise AssertionError("replaced a rank on another host")
    cluster.heal()
    assert total(cluster) == ("ok", [3.0] * 3)
print("token", os.environ["IFOG_TOKEN"])
"""


@on_hosts
@pytest.mark.hosts
@pytest.mark.timeout(SECONDS + 20)
def test_a_cluster_spans_hosts_and_survives_a_death_on_another(two_hosts, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(CLUSTER)
    ended = subprocess.run(
        [*two_hosts.on(), sys.executable, program, "host1:2,host2:2", two_hosts.network],
        env={**os.environ, **two_hosts.environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    # The daemons on the hosts end by themselves when mpiexec is gone.
    daemons = [p for p in watchdog.carriers(two_hosts.environment["IFOG_TOKEN"]) if is_daemon(p)]
    _, left = psutil.wait_procs(daemons, timeout=SECONDS)
    assert not left


CUT = """
import sys
from ifog.cluster import Cluster

with Cluster(hosts=sys.argv[1], network=sys.argv[2]) as cluster:
    cell = cluster.submit("while True: bf.neighbor_allreduce(torch.ones(1))")
    while "idle" in [row.state for row in cluster.status().rows]:
        pass
    print("running", flush=True)
    sys.stdin.readline()
    result = cell.wait(timeout=80)
    assert result.status == "error", result
    assert "rank 2" in result.errors[2].evalue and "host3" in result.errors[2].evalue, result
    cluster.heal()
    left = cluster.run("print(float(bf.allreduce(torch.ones(1), average=False)))", timeout=30)
    assert [output.text for output in left.outputs] == ["2.0\\n"] * 2, left
"""


@on_hosts
@pytest.mark.hosts
@pytest.mark.timeout(2 * SECONDS)
def test_a_cluster_goes_on_without_a_host_whose_link_is_cut(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(CUT)
    with EmulatedHosts(3) as hosts:
        cluster = subprocess.Popen(
            [*hosts.on(), sys.executable, program, "host1,host2,host3", hosts.network],
            env={**os.environ, **hosts.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        clock = threading.Timer(SECONDS, cluster.kill)
        clock.start()
        try:
            assert cluster.stdout.readline() == "running\n"
            hosts.cut("host3")
            _, err = cluster.communicate("\n", timeout=SECONDS)
        finally:
            clock.cancel()
            cluster.kill()
            cluster.wait()
    assert cluster.returncode == 0, err


def is_daemon(process):
    try:
        return process.name() == "prted"
    except psutil.Error:
        return False


@on_hosts
@pytest.mark.hosts
@pytest.mark.timeout(SECONDS + 20)
def test_the_bench_between_hosts_is_no_faster_than_its_wire():
    nbytes, mbit = 1_600_000, 80
    report = net.run(3, mbit=mbit, rounds=2, sizes=[nbytes])
    (found,) = report.sizes
    wire = nbytes * 8 / mbit  # microseconds
    # A reduction sends 2 (n - 1)/n of the tensor, a ring sends it to both neighbours.
    assert found["floor"] == {
        net.ONE_PEER: wire,
        net.MPI_ONE_PEER: wire,
        net.RING: 2 * wire,
        net.MPI_RING: 2 * wire,
        net.ALLREDUCE: pytest.approx(wire * 4 / 3),
        net.MPI_ALLREDUCE: pytest.approx(wire * 4 / 3),
        net.GLOO: pytest.approx(wire * 4 / 3),
    }
    unslowed = 2 * 262_144 * 8 / mbit  # what the token buckets of both ends held
    for name, us in found["us"].items():
        assert us >= found["floor"][name] - unslowed
    assert report.targets[0]["met"] is None  # it is about other hosts and sizes
    assert "floor" in "\n".join(report.lines())


def test_the_bench_between_hosts_needs_two_of_them_and_root(monkeypatch):
    with pytest.raises(ArgumentError, match="at least 2 hosts"):
        net.run(1)
    monkeypatch.setattr(namespaces.os, "geteuid", lambda: 1000)
    with pytest.raises(NotAvailableError, match="need root"):
        net.run(2, quick=True)
