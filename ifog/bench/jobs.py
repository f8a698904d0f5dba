"""Programs of the benches on real ranks, started with the words that clusters start theirs with.

A job that fails, or takes longer than it may, is an error with its log; none of its processes is
left, whatever ends the bench. What cannot fit into this machine's memory is refused before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from ifog.bench.namespaces import EmulatedHosts
from ifog.errors import ArgumentError, ClusterError
from ifog.hosts import Hosts
from ifog.mpiexec import environment, flags, mpiexec
from ifog.numbers import size

__all__ = ["HERE", "measure", "most_ranks", "require_room"]

HERE = str(Path(__file__).resolve().parent.parent.parent)
_RANK_BYTES = 250e6  # a process that has imported torch
_GRACE = 5.0


def require_room(bench: str, ranks: int, buffers: float, least: int = 2) -> None:
    """Refuse numbers of ranks that have nobody to talk to, or that memory has no room for.

    Args:
        bench: the name of the bench.
        ranks: how many are asked for.
        buffers: bytes of tensors that each of them is going to hold.
        least: how many are needed.

    Raises:
        ArgumentError: too few, or too many.
    """
    if ranks < least:
        raise ArgumentError(f"bench {bench} needs at least {least} ranks; got -n {ranks}")
    most = most_ranks(buffers)
    if ranks > most:
        room = psutil.virtual_memory().available
        raise ArgumentError(
            f"bench {bench}: {ranks} ranks need about {size(ranks * (_RANK_BYTES + buffers))} of "
            f"memory, and {size(room)} are free; give -n {max(least, most)} or less, or --quick"
        )


def most_ranks(buffers: float) -> int:
    """How many ranks with ``buffers`` bytes of tensors each this machine's memory has room for."""
    return int(psutil.virtual_memory().available / (_RANK_BYTES + buffers))


def measure(
    bench: str,
    ranks: int,
    program: Sequence[str],
    *,
    seconds: float,
    folder: str = HERE,
    specification: Mapping[str, Any] | None = None,
    hosts: EmulatedHosts | None = None,
    variables: Mapping[str, str] | None = None,
) -> Any:
    """What ``program`` on ``ranks`` ranks wrote as JSON to the file its last argument names.

    Args:
        bench: the name of the bench, for messages.
        ranks: how many.
        program: the words that Python runs.
        seconds: how long it may take.
        folder: the checkout whose ifog it imports.
        specification: what it is to do, its argument before the last; ``private`` is added, a
            folder that all its ranks share and nobody else can read.
        hosts: where they run, equally many on each; by default here.
        variables: what else the ranks find in their environment.

    Raises:
        ClusterError: the job failed or took too long.
    """
    where = f"{ranks} ranks" if hosts is None else f"{ranks} ranks on {len(hosts.names)} hosts"
    with tempfile.TemporaryDirectory(prefix="ifog-") as private:
        out = Path(private) / "times.json"
        added = {
            **environment(ranks),
            **(variables or {}),
            "PYTHONPATH": str(Path(folder).resolve()),
        }
        if hosts is None:
            words = [mpiexec(), "-n", str(ranks), *flags(private, private)]
        else:
            added |= {"GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}
            words = _words(hosts, ranks, added)
        # With mpi4py's own runner an exception on one rank ends the whole job.
        words += [sys.executable, "-m", "mpi4py", *program]
        if specification is not None:
            words.append(json.dumps({**specification, "private": private}))
        with subprocess.Popen(
            [*words, str(out)],
            cwd=private,
            env={**os.environ, **(hosts.environment if hosts else {}), **added},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as job:
            try:
                log = job.communicate(timeout=seconds)[0]
            except subprocess.TimeoutExpired:
                raise ClusterError(
                    f"bench {bench}: a job of {where} took over {seconds:.0f} s and was ended; try "
                    f"--quick, fewer of them{' or a higher --rate' if hosts else ''}"
                ) from None
            finally:
                if hosts is not None and job.poll() is None:
                    hosts.close()
                _end(job)
        if job.returncode != 0 or not out.is_file():
            raise ClusterError(f"bench {bench}: a job of {where} failed:\n{log[-3000:]}")
        return json.loads(out.read_text())


def _words(hosts: EmulatedHosts, ranks: int, variables: Mapping[str, str]) -> list[str]:
    """The words that start ranks on emulated hosts."""
    slots = ranks // len(hosts.names)
    places = Hosts(tuple((name, slots) for name in hosts.names))
    words = [*hosts.on(), mpiexec(), "-n", str(ranks), *flags(one_machine=False)]
    return [*words, *places.flags(variables, hosts.network), "-x", "GLOO_SOCKET_IFNAME"]


def _end(job: subprocess.Popen[str]) -> None:
    """Kill what is left of a job, if anything is."""
    if job.poll() is not None:
        return
    try:
        family = psutil.Process(job.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    job.kill()
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=_GRACE)
