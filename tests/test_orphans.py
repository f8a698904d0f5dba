"""Nothing stays behind: no process and no file, however the notebook's kernel ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ifog import watchdog

KERNEL = """
import json, sys
import ifog.connecting
from ifog.cluster import Cluster

class Told(ifog.connecting.Job):
    def __init__(self, n, **options):
        super().__init__(n, **options)
        print(json.dumps([self.token, str(self._home), str(self._memory)]), flush=True)

ifog.connecting.Job = Told
cluster = Cluster(2).start(lambda text: print(text, flush=True))
"""
RUNS = (
    KERNEL
    + """
cluster.push({"x": 1})
assert "torch" not in sys.modules, "the notebook side imported torch"
cell = cluster.submit("bf.barrier()\\nprint('in the cell', flush=True)\\nwhile True: pass")
cell.wait(60, on_tick=lambda: print(*[o.text for o in cell.outputs], flush=True))
"""
)
STOPS = (
    KERNEL
    + """
pulled = cluster.pull("torch.ones(2).requires_grad_()")
assert "torch" not in sys.modules, "pulling tensors imported torch"
result = cluster.run("import subprocess; subprocess.Popen(['sleep', '600'])")
assert result.status == "ok", result
before = [row.pid for row in cluster.status().rows]
cluster.stop()
cluster.stop()
print(json.dumps(before), flush=True)
print("started again", cluster.start().pull("bf.size()"), flush=True)
"""
)

DIES = (
    KERNEL
    + """
import os, threading, time
from ifog import respawn

def kill(rank):
    os.kill(next(row.pid for row in cluster.status().rows if row.rank == rank), 9)
    deadline = time.monotonic() + 10
    while all(row.state != "dead" for row in cluster.status().rows):
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)

kill(1)
print(cluster.heal(), flush=True)
cluster.run("w = bf.Window(torch.ones(1000), 'w')", timeout=20).raise_for_error()
print(cluster.respawn(), flush=True)
cluster.run("w = bf.Window(torch.ones(1000), 'v'); bf.allreduce(torch.ones(10 ** 6))", timeout=20)
"""
)
AROUND = """
kill(0)
def refuse(*_):
    raise respawn.ClusterError("no")
respawn.in_place = refuse
print(cluster.respawn(), flush=True)
"""


class Kernel:
    """A process of its own that runs a script with a cluster."""

    def __init__(self, script: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with self.process.stdout as lines:
            for text in lines:
                with self._news:
                    self.lines.append(text.strip())
                    self._news.notify_all()

    def said(self, text: str, timeout: float = 90.0) -> str:
        with self._news:
            found = self._news.wait_for(lambda: [s for s in self.lines if text in s], timeout)
        assert found, f"the kernel never said {text!r}: {self.lines[-20:]}"
        return found[-1]

    def traces(self) -> list[tuple[str, Path, Path]]:
        """Token and private directories of every attempt to start."""
        told = [json.loads(text) for text in list(self.lines) if text.startswith('["')]
        return [(token, Path(home), Path(memory)) for token, home, memory in told]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)


@pytest.fixture
def kernel() -> Iterator[Callable[[str], Kernel]]:
    started: list[Kernel] = []

    def start(script: str) -> Kernel:
        started.append(Kernel(script))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.kill()
        for token, home, memory in each.traces():
            watchdog.reap(token, (str(home), str(memory)))


def guards(token: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if token in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def left(kernel: Kernel) -> list[object]:
    remains: list[object] = []
    for token, home, memory in kernel.traces():
        remains += [*watchdog.carriers(token), *guards(token)]
        remains += [path for path in (home, memory) if path.exists()]
    return remains


def gone_within(kernel: Kernel, seconds: float) -> list[object]:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while (remains := left(kernel)) and time.monotonic() < deadline:
        pause.wait(0.1)
    return remains


@pytest.mark.faults
def test_a_killed_kernel_leaves_nothing(kernel):
    running = kernel(RUNS)
    running.said("in the cell")
    (token, home, memory) = running.traces()[0]
    assert len(watchdog.carriers(token)) >= 4  # controller, mpiexec, two ranks
    assert home.exists()
    assert memory.exists()
    running.kill()
    assert gone_within(running, 10.0) == []


@pytest.mark.faults
@pytest.mark.parametrize("moment", ["starting 2 ranks", "the controller is up"])
def test_a_kernel_killed_while_starting_leaves_nothing(kernel, moment):
    running = kernel(KERNEL)
    running.said(moment)
    running.kill()
    assert gone_within(running, 10.0) == []


@pytest.mark.faults
def test_stop_leaves_nothing_and_the_cluster_can_start_again(kernel):
    running = kernel(STOPS)
    again = running.said("started again")
    assert again == "started again {0: 2, 1: 2}"
    first, second = running.traces()
    pids = json.loads(next(text for text in running.lines if text[:1] == "[" and text[1] != '"'))
    assert len(pids) == 2
    assert watchdog.carriers(first[0]) == guards(first[0]) == []
    assert not first[1].exists()
    assert not first[2].exists()
    assert running.process.wait(timeout=30) == 0, running.lines
    assert gone_within(running, 10.0) == []
    assert second[0] != first[0]


@pytest.mark.faults
def test_deaths_and_both_ways_of_respawn_leave_nothing(kernel):
    before = unowned()
    running = kernel(DIES + AROUND)
    running.said("rank 1 is back in the living world")
    running.said("not in place (no): 2 fresh ranks have the variables")
    assert running.process.wait(timeout=30) == 0, running.lines
    assert gone_within(running, 10.0) == []
    assert unowned() <= before


@pytest.mark.faults
def test_a_kernel_killed_after_a_respawn_leaves_nothing(kernel):
    before = unowned()
    running = kernel(DIES + "print('waiting', flush=True)\nthreading.Event().wait(60)")
    running.said("waiting")
    running.kill()
    assert gone_within(running, 10.0) == []
    assert unowned() <= before


def unowned() -> set[str]:
    """Files in the places for shared memory and temporary ones that no living process maps."""
    mapped = set()
    for process in psutil.process_iter():
        try:
            mapped |= {entry.path for entry in process.memory_maps()}
        except psutil.Error:
            continue
    found = {*Path("/dev/shm").glob("*/sm_segment.*"), *Path("/dev/shm").glob("sem.*")}
    return {str(path) for path in found} - mapped


@pytest.mark.faults
def test_a_kernel_that_raises_leaves_nothing(kernel):
    running = kernel(KERNEL + "raise SystemExit(5)")
    assert running.process.wait(timeout=90) == 5
    running.said("ranks are ready")
    assert gone_within(running, 10.0) == []


def test_reaping_kills_children_that_inherited_the_token(tmp_path):
    token = f"test-{os.getpid()}-{time.monotonic_ns()}"
    script = "import subprocess; subprocess.run(['sleep', '600'])"
    child = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, watchdog.TOKEN: token}
    )
    folder = tmp_path / "private"
    folder.mkdir()
    deadline = time.monotonic() + 20
    while len(watchdog.carriers(token)) < 2 and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    assert watchdog.reap(token, (str(folder),)) == []
    child.wait(timeout=10)
    assert watchdog.carriers(token) == []
    assert not folder.exists()
