"""Programs that say ``import bluefog.torch as bf``, run as they are on real MPI ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(300)]
SECONDS = 240
IFOG = str(Path(sys.executable).with_name("ifog"))
PROGRAMS = Path(__file__).with_name("bluefog")


def run(program, n, folder):
    """What ``n`` ranks print that run the program with ``import bluefog`` served by ifog."""
    job = subprocess.Popen(
        [IFOG, "run", "-n", str(n), "--as-bluefog", str(program)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        told = job.communicate(timeout=SECONDS)[0]
    except subprocess.TimeoutExpired:
        for process in [*psutil.Process(job.pid).children(recursive=True), job]:
            process.kill()
        pytest.fail(f"{program.name} on {n} ranks took over {SECONDS} s:\n{job.communicate()[0]}")
    assert job.returncode == 0, told
    return told


@pytest.mark.parametrize(
    ("program", "n"),
    [
        *(("operations.py", n) for n in (1, 3, 4)),
        *(("windows.py", n) for n in (1, 3, 4)),
        *(("hierarchical.py", n) for n in (4, 6)),
        *(("training.py", n) for n in (1, 4)),
        ("examples.py", 4),
    ],
)
def test_unittest_files_of_bluefogs_users_pass(program, n, tmp_path):
    told = run(PROGRAMS / program, n, tmp_path)
    assert told.splitlines().count("OK") == n, told


def test_a_script_without_init_of_ifog_prints_what_bluefog_would(tmp_path):
    script = tmp_path / "hello.py"
    script.write_text(
        "import torch\n"
        "import bluefog.torch as bf\n"
        "from bluefog.common import topology_util\n"
        "bf.init(topology_fn=topology_util.RingGraph)\n"
        "x = bf.neighbor_allreduce(torch.ones(2) * bf.rank())\n"
        "print('rank', bf.rank(), 'of', bf.size(), x.tolist(), flush=True)\n"
    )
    told = run(script, 3, tmp_path).splitlines()
    assert sorted(told) == [f"rank {r} of 3 [1.0, 1.0]" for r in range(3)]


def test_cells_use_the_rank_they_run_on_and_go_on_after_an_error(cluster):
    begin = "import ifog.bluefog\nifog.bluefog.install()\nimport bluefog.torch as fog\nfog.init()"
    cluster.run(begin, timeout=20).raise_for_error()
    assert cluster.pull("(fog.rank(), fog.size())") == {r: (r, 4) for r in range(4)}
    code = (
        "handle = fog.neighbor_allreduce_nonblocking(torch.ones(2), name='x')\n"
        "if fog.rank() == 1: raise KeyError('mine')\n"
        "fog.barrier()"
    )
    for _ in range(2):  # the name is free in the next cell
        errors = cluster.run(code, timeout=20).errors
        assert errors[1].ename == "KeyError"
        assert {errors[r].ename for r in (0, 2, 3)} == {"PeerFailedError"}
    end = "y = fog.neighbor_allreduce(torch.ones(2), name='x').tolist()\nfog.shutdown()"
    cluster.run(end, timeout=20).raise_for_error()
    assert cluster.pull("(y, fog.size())") == dict.fromkeys(range(4), ([1.0, 1.0], 4))
