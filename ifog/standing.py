"""A cluster for notebooks that bring their own ipyparallel client, found by a profile's name.

The files that ``ipyparallel.Client(profile=...)`` looks for are links into the job's private
directory, so that they lead nowhere as soon as the cluster is gone, however it ended.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from ifog import watchdog
from ifog.connecting import connect
from ifog.errors import ClusterError, IfogError, PeerFailedError
from ifog.line import Line
from ifog.telemetry import EventLog

__all__ = ["PIDS", "Record", "Standing", "profile_folder", "stop"]

PIDS = "engine_pids.json"
_LINKS = {"ipcontroller-client.json": "client", "ipcontroller-engine.json": "engine"}
_PULSE = 0.25  # seconds between two looks at the ranks
_ANSWER_TIMEOUT = 1.0
_HEAL_TIMEOUT = 12.0  # longer than the ranks' own
_STOP_TIMEOUT = 30.0
_PAUSE = 0.05


def profile_folder(profile: str) -> Path:
    """The folder of an IPython profile, which need not exist."""
    from IPython.paths import get_ipython_dir

    return Path(get_ipython_dir()) / f"profile_{profile}"


class Record(NamedTuple):
    """What a cluster leaves in its profile about the process that started it."""

    pid: int
    created: float
    token: str

    @classmethod
    def read(cls, profile: str) -> Record | None:
        """The record of a profile, or None where there is none that can be understood."""
        try:
            fields = json.loads(_record_file(profile).read_text())
            return cls(int(fields["pid"]), float(fields["created"]), str(fields["token"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def process(self) -> psutil.Process | None:
        """The process itself, while it lives and its number has not passed to another."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1.0
        except psutil.Error:
            return None
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None

    def ended(self, timeout: float) -> bool:
        """Wait until the process has ended, be it that its parent has not noticed yet."""
        pause, deadline = threading.Event(), time.monotonic() + timeout
        while self.process() is not None:
            if time.monotonic() > deadline:
                return False
            pause.wait(_PAUSE)
        return True


def _record_file(profile: str) -> Path:
    return profile_folder(profile) / "pid" / "ifog.json"


def stop(profile: str) -> bool:
    """End the cluster of a profile; returns whether there was one.

    Raises:
        ClusterError: it does not end.
    """
    record = Record.read(profile)
    if record is None:
        return False
    process = record.process()
    if process is not None:
        process.terminate()
        if not record.ended(_STOP_TIMEOUT):
            process.kill()
    left = watchdog.reap(record.token, (), _STOP_TIMEOUT)
    _withdraw(profile, record)
    if left:
        raise ClusterError(f"these processes could not be killed: {left}; end them by hand")
    return process is not None


def _withdraw(profile: str, record: Record) -> None:
    """Remove what ``record``'s cluster published, unless another has published since."""
    if Record.read(profile) != record:
        return
    security = profile_folder(profile) / "security"
    for name in _LINKS:
        if (security / name).is_symlink():
            (security / name).unlink()
    (security / PIDS).unlink(missing_ok=True)
    _record_file(profile).unlink(missing_ok=True)


class Standing:
    """``n`` ranks for the clients of a profile; also a context manager, which stops them.

    Args:
        n: the number of ranks.
        profile: the IPython profile whose name clients give.
    """

    def __init__(self, n: int, profile: str = "bluefog") -> None:
        self.n = n
        self.profile = profile
        self._line: Line | None = None
        self._record: Record | None = None
        self._healing: dict[int, Any] = {}
        self._told_dead: set[int] = set()
        self._closing = threading.Event()

    def __enter__(self) -> Standing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, tell: Callable[[str], None], *, replace: bool = False) -> None:
        """Start the ranks and wait until a client can use them.

        Args:
            tell: is given a line about each thing that happens.
            replace: end a cluster of the same profile that is running.

        Raises:
            ClusterError: the profile is in use.
            ClusterStartError: the ranks did not come up.
        """
        self._require_free()
        if not replace:
            self._require_none()
        if stop(self.profile):
            tell(f"ended the earlier cluster of profile {self.profile!r}")
        self._line = connect(self.n, EventLog(), tell, module="ifog.px", foreign=True)
        self._publish(self._line)

    def _require_free(self) -> None:
        path = profile_folder(self.profile) / "pid" / "ipcontroller.pid"
        try:
            pid = int(path.read_text())
        except (OSError, ValueError):
            return
        if psutil.pid_exists(pid):
            raise ClusterError(
                f"profile {self.profile!r} is in use by a controller that ifog did not start "
                f"(process {pid}); stop it, or choose another profile with --profile"
            )

    def _require_none(self) -> None:
        record = Record.read(self.profile)
        if record is not None and record.process() is not None:
            option = "" if self.profile == "bluefog" else f" --profile {self.profile}"
            raise ClusterError(
                f"ranks of profile {self.profile!r} are running already (started by process "
                f"{record.pid}); end them with: ifog bluefog stop{option}, or start with "
                "--replace, which ends them and loses their variables"
            )

    def _publish(self, line: Line) -> None:
        folder = profile_folder(self.profile)
        for name in ("pid", "security"):
            (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        me = psutil.Process()
        self._record = Record(me.pid, me.create_time(), line.token)
        _write_private(_record_file(self.profile), self._record._asdict())
        pids = {str(rank): about["pid"] for rank, about in sorted(line.about.items())}
        _write_private(folder / "security" / PIDS, pids)
        for name, kind in _LINKS.items():
            link = folder / "security" / name
            link.unlink(missing_ok=True)
            link.symlink_to(line.connection_files[kind])

    def keep(self, tell: Callable[[str], None]) -> None:
        """Look after the ranks until ``end`` is called.

        Raises:
            ClusterError: no rank can be reached any more.
        """
        line = self._line
        assert line is not None
        while not self._closing.wait(_PULSE):
            line.look()
            if line.broken:
                raise ClusterError(line.broken)
            for rank in line.dead.keys() - self._told_dead:
                tell(f"{line.dead[rank]}; the others go on, but start afresh to have all again")
                self._told_dead.add(rank)
            if not line.dead:
                self._heal(line, tell)

    def _heal(self, line: Line, tell: Callable[[str], None]) -> None:
        if not self._healing:
            states = line.ask(range(self.n), "state", _ANSWER_TIMEOUT)
            wounded = [rank for rank, state in states.items() if state["wounded"]]
            if not wounded:
                return
            epochs = {state["epoch"] for state in states.values()}
            # Ranks that heal at the beginning of a cell do not answer requests, but wait for these.
            free = [s["initialized"] and (s["meeting"] or not s["busy"]) for s in states.values()]
            if len(free) < self.n or not all(free) or len(epochs) > 1:
                return
            idle = [rank for rank, state in states.items() if not state["busy"]]
            try:
                # After an error an engine drops requests for a moment, and healing needs all.
                line.gather({r: line.apply(r, "ready") for r in idle}, _ANSWER_TIMEOUT, "looking")
            except IfogError:
                return
            # A rank that has healed by then, because a cell came first, leaves it at that.
            self._healing = {rank: line.apply(rank, "heal", *epochs) for rank in idle}
        try:
            line.gather(self._healing, _HEAL_TIMEOUT, "making all ranks ready again")
        except PeerFailedError:
            pass  # a cell failed as soon as it could
        except IfogError as error:
            tell(str(error))
            if not all(future.done() for future in self._healing.values()):
                return
        self._healing = {}

    def end(self) -> None:
        """Make ``keep`` return; safe in a signal handler."""
        self._closing.set()

    def close(self) -> None:
        """End the ranks and remove what was published."""
        record, self._record = self._record, None
        if record is not None:
            _withdraw(self.profile, record)
        line, self._line = self._line, None
        if line is not None:
            line.stop()


def _write_private(path: Path, content: Any) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
