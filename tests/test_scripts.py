"""The scripts of the tutorials run on real ranks and show what they are there to show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(200)]
SECONDS = 180
IFOG = str(Path(sys.executable).with_name("ifog"))
SCRIPTS = Path(__file__).resolve().parent.parent / "tutorials" / "scripts"


def test_digits_are_learned_by_every_method_in_one_epoch(tmp_path):
    job = subprocess.Popen(
        [IFOG, "run", "-n", "4", str(SCRIPTS / "train_digits.py"), "--epochs", "1"],
        cwd=tmp_path,
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
        pytest.fail(f"still running after {SECONDS} s:\n{job.communicate()[0]}")
    assert job.returncode == 0, told
    lines = [line.split() for line in told.splitlines() if "%" in line]
    averaged = {line[0]: float(line[1].rstrip("%")) for line in lines}
    assert set(averaged) == {
        "one-peer", "one-peer-awc", "static", "push-sum", "all-reduce", "alone"
    }  # fmt: skip
    # Ten digits: guessing gets a tenth. The asynchronous method depends on the machine's mood.
    assert all(share > 60 for name, share in averaged.items() if name != "push-sum"), told
    assert averaged["push-sum"] > 30, told
