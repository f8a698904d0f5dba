"""``ifog bluefog start``: notebooks written for BlueFog find their engines and can free them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import ipyparallel
import nbformat
import psutil
import pytest
from ipyparallel.error import CompositeError
from nbclient import NotebookClient

from ifog import standing
from ifog.bluefog.run.interactive_run import interrupt_hanged_processes
from ifog.commands.arguments import with_bluefog
from ifog.errors import ClusterError

SECONDS = 90
IFOG = str(Path(sys.executable).with_name("ifog"))
BEGIN = (
    "import bluefog.torch as bf, torch\nbf.init()\nx = torch.tensor([float(bf.rank())]).double()"
)


class Started:
    """``ifog bluefog start`` in a process of its own."""

    def __init__(self, n, home, profile="bluefog", *options):
        self.security = home / f"profile_{profile}" / "security"
        self.process = subprocess.Popen(
            [IFOG, "bluefog", "start", "-np", str(n), "--profile", profile, *options],
            env={**os.environ, "IPYTHONDIR": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self.ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self.ready.wait(SECONDS), self.lines

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if "ends the ranks" in line:
                self.ready.set()
        self.ready.set()

    def engines(self):
        pids = json.loads((self.security / "engine_pids.json").read_text())
        return {int(rank): psutil.Process(pid) for rank, pid in pids.items()}

    def wait(self):
        status = self.process.wait(timeout=SECONDS)
        self._reader.join(timeout=SECONDS)
        self.process.stdout.close()
        return status

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.wait()


def gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=20)
    return [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("ipython")


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(home))


@pytest.fixture(scope="module")
def four(home):
    started = Started(4, home)
    yield started
    started.kill()


@pytest.fixture
def engines(four):
    client = ipyparallel.Client(profile="bluefog", timeout=SECONDS)
    view = client[:]
    view.execute(BEGIN, block=True)
    yield view
    client.close()


@pytest.mark.mpi
def test_a_fresh_client_gets_the_outputs_of_what_it_asks_at_once(four):
    for _ in range(15):
        client = ipyparallel.Client(profile="bluefog", timeout=SECONDS)
        try:
            asked = client[:].execute("1", block=False)
            asked.wait(SECONDS)
            assert asked.wait_for_output(10)
        finally:
            client.close()


@pytest.mark.mpi
def test_engines_are_the_ranks_and_reach_consensus(engines):
    assert engines.client.ids == [0, 1, 2, 3]
    engines.execute("rank = bf.rank()", block=True)
    assert engines.pull("rank", block=True) == [0, 1, 2, 3]
    engines.push({"rounds": 40}, block=True)
    engines.execute("for _ in range(rounds): x = bf.neighbor_allreduce(x)", block=True)
    assert [x.item() for x in engines.pull("x", block=True)] == pytest.approx([1.5] * 4, abs=1e-12)


@pytest.mark.mpi
def test_engines_that_answer_are_left_alone(engines):
    assert interrupt_hanged_processes() == []


@pytest.mark.mpi
def test_engines_that_hang_in_an_operation_are_freed_and_can_go_on(four, engines):
    before = four.engines()
    engines.execute("kept = bf.rank() + 10", block=True)
    hung = engines.execute("if bf.rank() != 2: bf.allreduce(x)", block=False)
    assert interrupt_hanged_processes() == [0, 1, 3]
    with pytest.raises(CompositeError, match="KeyboardInterrupt"):
        hung.get(timeout=SECONDS)
    assert engines.pull("kept", block=True) == [10, 11, 12, 13]
    engines.execute("total = bf.allreduce(x, average=False)", block=True)
    assert [total.item() for total in engines.pull("total", block=True)] == [6.0] * 4
    assert four.engines() == before
    me = psutil.Process().children(recursive=True)
    assert [p for p in me if "interactive_run" in " ".join(p.cmdline())] == []


@pytest.mark.mpi
def test_engines_that_compute_for_ever_are_freed(engines):
    hung = engines.execute("if bf.rank() == 1:\n    while True: pass", block=False)
    assert interrupt_hanged_processes() == [1]
    with pytest.raises(CompositeError, match="KeyboardInterrupt"):
        hung.get(timeout=SECONDS)


@pytest.mark.mpi
def test_an_error_on_one_rank_wakes_the_others_and_operations_work_again(engines):
    code = "if bf.rank() == 1: raise ValueError('mine')\nbf.allreduce(x)"
    failed = engines.execute(code, block=False)
    with pytest.raises(CompositeError) as caught:
        failed.get(timeout=SECONDS)
    kinds = [name for name, *_ in caught.value.elist]
    assert sorted(kinds) == ["PeerFailedError"] * 3 + ["ValueError"]
    assert interrupt_hanged_processes() == []  # returns when all ranks are ready again
    engines.execute("total = bf.allreduce(x, average=False).item()", block=True)
    assert engines.pull("total", block=True) == [6.0] * 4


@pytest.mark.mpi
def test_cells_sent_at_once_after_an_error_start_clean(engines):
    fail = "if bf.rank() == 1: raise KeyError('mine')\nbf.allreduce(x)"
    for cell in (fail, fail, "if bf.rank() == 1: raise KeyError('mine')", fail):
        with pytest.raises(CompositeError) as caught:
            engines.execute(cell, block=False).get(timeout=SECONDS)
        kinds = {name for name, *_ in caught.value.elist}
        assert "KeyError" in kinds
        code = "total = bf.allreduce(x, average=False).item()"
        if cell != fail:
            engines.execute(code, block=False).get(timeout=SECONDS)
            assert engines.pull("total", block=True) == [6.0] * 4
    engines.execute(code, block=False).get(timeout=SECONDS)
    assert engines.pull("total", block=True) == [6.0] * 4


@pytest.mark.mpi
def test_after_an_error_a_cell_on_some_ranks_runs_and_the_rest_heal_beside_it(engines):
    with pytest.raises(CompositeError):
        engines.execute("if bf.rank() == 1: raise KeyError('mine')", block=False).get(SECONDS)
    some = engines.client[[0, 2]]
    some.execute("seen = bf.rank()", block=False).get(timeout=SECONDS)
    waiting = some.execute("total = bf.allreduce(x, average=False).item()", block=False)
    rest = engines.client[[1, 3]]
    rest.execute("total = bf.allreduce(x, average=False).item()", block=False).get(SECONDS)
    waiting.get(timeout=SECONDS)
    assert engines.pull("total", block=True) == [6.0] * 4


@pytest.mark.mpi
def test_a_client_may_send_signals(engines):
    running = engines.execute("while True: pass", block=False)
    running.wait(0.5)
    engines.client.send_signal("SIGINT", block=True)
    with pytest.raises(CompositeError, match="KeyboardInterrupt"):
        running.get(timeout=SECONDS)
    assert interrupt_hanged_processes() == []


@pytest.mark.mpi
@pytest.mark.notebook
def test_a_notebook_with_px_cells_runs_unchanged(four, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", with_bluefog({})["PYTHONPATH"])
    cells = [
        "import ipyparallel as ipp\nrc = ipp.Client(profile='bluefog')\nrc.activate()\n"
        "from bluefog.run.interactive_run import interrupt_hanged_processes",
        "%%px\nimport torch\nimport bluefog.torch as bf\n"
        "from bluefog.common import topology_util\n"
        "bf.init()\nx = torch.ones(2).double() * bf.rank()",
        "%%px\nbf.set_topology(topology_util.RingGraph(bf.size()))\n"
        "for _ in range(100): x = bf.neighbor_allreduce(x)\nprint(round(x[0].item(), 9))",
        "%%px --noblock\nif bf.rank() == 0: bf.barrier()",
        "print(interrupt_hanged_processes())",
        "%px y = bf.allreduce(x)\nprint(rc[:]['y'][3][0].item())",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3").execute()
    shown = [output.data["text/plain"] for output in notebook.cells[2].outputs]
    assert sorted(shown) == [f"[stdout:{rank}] 1.5\n" for rank in range(4)]
    texts = ["".join(o.get("text", "") for o in cell.outputs) for cell in notebook.cells]
    assert texts[4] == "[0]\n"
    assert float(texts[5]) == pytest.approx(1.5, abs=1e-9)


@pytest.mark.mpi
def test_stop_ends_all_and_says_when_there_is_nothing(four, capfd):
    engines = list(four.engines().values())
    token = standing.Record.read("bluefog").token
    stop = [IFOG, "bluefog", "stop"]
    assert subprocess.run(stop, timeout=SECONDS, check=False).returncode == 0
    assert four.wait() == 0
    assert gone(engines)
    assert standing.watchdog.carriers(token) == []
    assert list(four.security.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="ifog bluefog start"):
        interrupt_hanged_processes()
    assert subprocess.run(stop, timeout=SECONDS, check=False).returncode == 1
    assert "no ranks of profile 'bluefog' are running" in capfd.readouterr().err


@pytest.mark.mpi
def test_killed_or_replaced_it_leaves_nothing(home):
    first = Started(1, home, "other")
    try:
        engines = list(first.engines().values())
        again = [IFOG, "bluefog", "start", "-np", "1", "--profile", "other"]
        refused = subprocess.run(
            again, capture_output=True, timeout=SECONDS, check=False, text=True
        )
        assert refused.returncode == 1
        assert f"process {first.process.pid}" in refused.stderr
        assert "ifog bluefog stop --profile other" in refused.stderr
        assert "--replace" in refused.stderr
        assert first.process.poll() is None
        second = Started(1, home, "other", "--replace")
        try:
            assert any("ended the earlier cluster" in line for line in second.lines)
            assert first.wait() == 0
            assert any("told to end by" in line for line in first.lines)
            assert gone(engines)
            engines = list(second.engines().values())
            second.process.send_signal(signal.SIGKILL)
            second.wait()
            assert gone(engines)
            with pytest.raises(FileNotFoundError, match="no cluster of profile 'other'"):
                interrupt_hanged_processes("other")
            assert standing.stop("other") is False
            assert list(second.security.iterdir()) == []
        finally:
            second.kill()
    finally:
        first.kill()


def test_without_a_cluster_the_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"engine_pids\.json is not there"):
        interrupt_hanged_processes("none")


def test_the_process_of_somebody_else_is_not_ended(home):
    """A number that has passed to another process is no reason to kill it."""
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        record = standing.Record(other.pid, time.time() - 10_000, "0" * 32)
        path = home / "profile_stale" / "pid" / "ifog.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record._asdict()))
        assert standing.stop("stale") is False
        assert other.poll() is None
        assert not path.exists()
    finally:
        other.kill()
        other.communicate()


def test_a_profile_in_use_by_another_controller_is_refused(home):
    path = home / "profile_theirs" / "pid" / "ipcontroller.pid"
    path.parent.mkdir(parents=True)
    path.write_text(str(os.getpid()))
    with pytest.raises(ClusterError, match=re.escape(f"process {os.getpid()}")):
        standing.Standing(1, "theirs").start(print)
