"""The laws of operations on thread ranks, and the same laws on real MPI ranks."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import torch
from laws import LAWS, ON_DEVICES

import ifog
from ifog.errors import IfogError, NotInitializedError, PeerFailedError
from ifog.mpiexec import environment, flags, mpiexec
from ifog.testing import run_ranks
from ifog.transport.local import LocalHub

LAWS_FILE = Path(__file__).with_name("laws.py")
SIZES = (1, 2, 3, 4, 5, 8)
RANKS_PER_MACHINE = {4: 2, 5: 2, 8: 4}  # in MPI jobs of these sizes; in the others the real ones
MPI_SECONDS = 200  # for all laws on one number of ranks, where others use the machine as well


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("law", LAWS)
def test_on_threads(law, n):
    run_ranks(n, LAWS[law])


@pytest.fixture(scope="session")
def mpi_verdicts(tmp_path_factory):
    """{law: traceback} of one MPI job for each size and wire, started when first asked for."""
    verdicts = {}

    def of(n, wire):
        if (n, wire) not in verdicts:
            folder = tmp_path_factory.mktemp("laws")
            path = folder / str(n)
            # What a killed job leaves behind then goes with the other files of the test.
            options = flags(str(folder), str(folder))
            machines = RANKS_PER_MACHINE.get(n)
            told = {"BLUEFOG_NODES_PER_MACHINE": str(machines)} if machines else {}
            way = [wire] if wire in ("own", "shared", "cuda") else []
            told |= {"IFOG_SHARED_MEMORY": "0"} if wire == "messages" else {}
            job = subprocess.Popen(
                [mpiexec(), "-n", str(n), *options, sys.executable, LAWS_FILE, path, *way],
                env={**os.environ, **environment(n), "OMP_NUM_THREADS": "1", **told},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            try:
                log = job.communicate(timeout=MPI_SECONDS)[0]
            except subprocess.TimeoutExpired:
                for process in [*psutil.Process(job.pid).children(recursive=True), job]:
                    process.kill()
                log = job.communicate()[0]
                pytest.fail(f"the laws on {n} MPI ranks took over {MPI_SECONDS} s:\n{log}")
            failed = {}
            for rank in range(n):
                verdict = path.with_name(f"{path.name}.{rank}")
                assert verdict.is_file(), f"rank {rank} of {n} did not finish:\n{log[-4000:]}"
                for law, text in json.loads(verdict.read_text()).items():
                    failed[law] = f"rank {rank} of {n}:\n{text}"
            verdicts[n, wire] = failed
        return verdicts[n, wire]

    return of


@pytest.mark.mpi
@pytest.mark.timeout(MPI_SECONDS + 20)
@pytest.mark.parametrize(("n", "wire"), [*((n, "memory") for n in SIZES), (3, "messages")])
@pytest.mark.parametrize("law", LAWS)
def test_on_mpi(law, n, wire, mpi_verdicts):
    failure = mpi_verdicts(n, wire).get(law)
    assert failure is None, failure


@pytest.mark.mpi
@pytest.mark.timeout(MPI_SECONDS + 20)
@pytest.mark.parametrize(("n", "which"), [(4, "own"), (2, "shared")])
@pytest.mark.parametrize("law", LAWS)
def test_on_pretended_devices(law, n, which, mpi_verdicts):
    failure = mpi_verdicts(n, which).get(law)
    assert failure is None, failure


@pytest.mark.gpu
@pytest.mark.timeout(MPI_SECONDS + 20)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("law", ON_DEVICES)
def test_on_devices(law, n, mpi_verdicts):
    failure = mpi_verdicts(n, "cuda").get(law)
    assert failure is None, failure


def test_a_rank_that_raises_stops_the_others():
    def work():
        if ifog.rank() == 2:
            raise KeyError("mine")
        ifog.barrier()

    with pytest.raises(KeyError, match="mine"):
        run_ranks(4, work)


def test_a_rank_that_never_comes_is_named():
    def work():
        if ifog.rank():
            ifog.barrier()

    with pytest.raises((IfogError, PeerFailedError), match="did not return"):
        run_ranks(3, work, timeout=0.5)


def test_operations_before_init_say_what_to_call():
    with pytest.raises(NotInitializedError, match=r"ifog\.init\(\)"):
        ifog.rank()


class _Switch:
    """Garbage whose finalizer lets other threads run in the middle of whatever made it be found."""

    def __init__(self):
        self.me = self

    def __del__(self):
        threading.Event().wait(1e-5)


def test_two_ends_of_an_edge_share_one_mailbox_whatever_the_garbage_collector_does():
    hub, both = LocalHub(2), threading.Barrier(2, timeout=10)
    found = {0: [], 1: []}

    def work(end):
        for tag in range(200):
            both.wait()
            _Switch()
            found[end].append(hub.box((1, 0, tag)))

    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        threads = [threading.Thread(target=work, args=(end,), daemon=True) for end in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        gc.set_threshold(*before)
    assert len(found[0]) == len(found[1]) == 200
    assert all(a is b for a, b in zip(found[0], found[1], strict=True))
