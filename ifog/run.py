"""``ifog run``: one program on every rank, its output in one place, one status at its end.

Each rank's keeper (``ifog.launched``) reports over a socket in the job's private directory, or,
from other machines, in marked lines among the errors of ``mpiexec``. When a rank has failed, the
others may still end by themselves for some seconds; then they are killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ifog import launched
from ifog.errors import ClusterStartError
from ifog.footprint import Footprint
from ifog.hosts import Hosts
from ifog.laggards import Laggards
from ifog.launched.__main__ import FORWARDED, SIGN, STALL
from ifog.mpiexec import environment, flags, mpiexec
from ifog.numbers import counted
from ifog.program import Program
from ifog.streams import Lines
from ifog.verdict import End, last_words, status_of

__all__ = ["Job", "run"]

_TICK = 0.05
_START_TIMEOUT = 60.0
_FAREWELL = 3.0  # seconds in which mpiexec ends after its ranks
_LAST_REPORT = 2.0  # seconds in which killed ranks report their ends
_CHUNK = 1 << 16
_LOST = 137  # status of a rank of which nothing was heard any more
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Job(NamedTuple):
    """What is to be run, where and how.

    Attributes:
        n: the number of ranks.
        hosts: the machines; by default this one.
        network: the network between several machines, such as ``"10.0.0.0/24"``.
        tagged: whether the rank stands before each line of output.
        grace: seconds in which the other ranks may end by themselves when one has failed.
        variables: additions to the ranks' environment.
        verbose: whether the command line of ``mpiexec`` is shown.
        stall: seconds after which a wait of a rank is spoken of; 0 for never.
    """

    program: Program
    n: int
    hosts: Hosts | None = None
    network: str | None = None
    tagged: bool = False
    grace: float = 5.0
    variables: Mapping[str, str] = {}
    verbose: bool = False
    stall: float = 10.0

    def command(self, environment: Mapping[str, str], session: str, memory: str) -> list[str]:
        """The ``mpiexec`` of this job, without the socket's address."""
        here = self.hosts is None or self.hosts.one_machine
        private = (session, memory) if here else ("", "")
        words = [mpiexec(), "-n", str(self.n), *flags(*private, one_machine=here)]
        if self.hosts is not None:
            words += self.hosts.flags(environment, self.network)
        return [*words, sys.executable, *self.program.options, str(Path(launched.__file__).parent)]


def run(job: Job) -> int:
    """Run the program on ``n`` ranks until it ends; returns the exit status.

    Raises:
        ClusterStartError: the ranks did not start.
    """
    with _Run(job) as running:
        running.start()
        running.follow()
        return running.finish()


class _Run:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.lines = Lines(_write, tagged=job.tagged)
        self.selector = selectors.DefaultSelector()
        self.pids: dict[int, int] = {}  # of programs on this machine
        self.heard: set[int] = set()
        self.laggards = Laggards(job.n, job.stall)
        self.ends: dict[int, End] = {}
        self.killed: set[int] = set()
        self.noise: list[bytes] = []  # what mpiexec itself said
        self.signals: list[int] = []
        self.interrupted: int | None = None
        self.deadline: float | None = None
        self.over_at: float | None = None
        self.footprint = Footprint()
        self.process: subprocess.Popen[bytes] | None = None
        self._handlers: dict[int, Any] = {}
        self._wakeup = socket.socketpair()

    def __enter__(self) -> _Run:
        self.footprint.guard()
        self._listen_for_signals()
        return self

    def __exit__(self, *_: object) -> None:
        self.footprint.remove()
        if self.process is not None:
            self.process.wait(timeout=_START_TIMEOUT)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._handlers:
            signal.set_wakeup_fd(-1)
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr] # all are sockets or files
        self.selector.close()
        self._wakeup[1].close()

    def start(self) -> None:
        """Start ``mpiexec``."""
        (self.footprint.home / "session").mkdir()
        address = self.footprint.home / "ranks"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(address))
        listener.listen(self.job.n)
        self._watch(listener, self._accept)
        variables = {**environment(self.job.n), **self.footprint.environment, **self.job.variables}
        variables[STALL] = str(self.job.stall)
        command = [
            *self.job.command(
                {**os.environ, **variables},
                str(self.footprint.home / "session"),
                str(self.footprint.memory),
            ),
            *(str(address), str(int(self.job.tagged)), self.job.program.kind),
            *self.job.program.words,
        ]
        if self.job.verbose:
            _write(2, f"ifog: {' '.join(command)}\n".encode())
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **variables},
            # Ctrl-C reaches the ranks through this process only.
            start_new_session=True,
        )
        self._watch(self.process.stdout, self._take_output)
        self._watch(self.process.stderr, _by_lines(self._take_error))
        self.deadline = time.monotonic() + _START_TIMEOUT

    def follow(self) -> None:
        """Carry output and signals until all is over."""
        while not self._over():
            for key, _ in self.selector.select(_TICK):
                if not key.data():
                    self.selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr] # a socket or a file
            self.lines.show_parts()
            if self.deadline is None and (line := self.laggards.line(time.time(), self.ends)):
                _write(2, line.encode())
            while self.signals:
                self._pass_on(self.signals.pop(0))
            if self.deadline is not None and time.monotonic() > self.deadline:
                self._kill()

    def finish(self) -> int:
        """Say the last words; returns the status."""
        assert self.process is not None
        for rank in range(self.job.n):
            self.lines.finish(rank)
        if len(self.heard) < self.job.n and self.interrupted is None:
            raise ClusterStartError(self._start_error())
        if self.interrupted is not None and not self.heard:
            return 128 + self.interrupted
        now = time.monotonic()
        for rank in self.heard - self.ends.keys():
            self.ends[rank] = End(_LOST, now, killed=rank in self.killed)
        _write(2, last_words(self.ends, self.interrupted).encode(errors="surrogateescape"))
        return status_of(self.ends, self.interrupted)

    def _start_error(self) -> str:
        assert self.process is not None
        found = f"{len(self.heard)} of {counted(self.job.n)} started"
        code = self.process.poll()
        how = "within a minute" if code is None else f"before mpiexec ended with status {code}"
        said = b"".join(self.noise).decode(errors="replace").strip()
        return f"{found} {how}" + (f"; it said:\n{said}" if said else "")

    def _watch(self, source: Any, take: Callable[[Any], bool]) -> None:
        os.set_blocking(source.fileno(), False)
        self.selector.register(source, selectors.EVENT_READ, lambda: take(source))

    def _accept(self, listener: socket.socket) -> bool:
        with contextlib.suppress(BlockingIOError):
            connection, _ = listener.accept()
            self._watch(connection, _Reports(self).take)
        return True

    def _take_output(self, stream: Any) -> bool:
        data: bytes | None = stream.read(_CHUNK)
        if data:
            _write(1, data)
        return data != b""

    def _take_error(self, line: bytes) -> None:
        if line.startswith(SIGN.encode()):
            with contextlib.suppress(ValueError):
                self.hear(json.loads(line[len(SIGN) :]), local=False)
        elif self.job.hosts is not None and not self.job.hosts.one_machine:
            _write(2, line)
        else:
            self.noise.append(line)

    def hear(self, message: Mapping[str, Any], *, local: bool) -> None:
        """Take in what a rank's keeper says about its program."""
        rank = message["rank"]
        if message["kind"] == "hello":
            self.heard.add(rank)
            if local:
                self.pids[rank] = message["pid"]
            if self.interrupted is None and not any(end.status for end in self.ends.values()):
                all_there = len(self.heard) == self.job.n
                self.deadline = None if all_there else time.monotonic() + _START_TIMEOUT
        elif message["kind"] == "wait":
            self.laggards.hear(rank, message["wait"])
        else:
            self.end(rank, message["status"], message["report"], silent=message["silent"])

    def end(
        self, rank: int, status: int, report: Mapping[str, Any] | None, *, silent: bool = False
    ) -> None:
        """Note that a rank has ended; ``silent``: without coming to the end of its program."""
        if rank in self.ends:
            return
        self.lines.finish(rank)
        moment = time.monotonic() if report is None else float(report["time"])
        self.ends[rank] = End(status, moment, report, rank in self.killed, silent)
        self.pids.pop(rank, None)
        if status and not self.killed:
            self._hurry(self.job.grace)

    def _hurry(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)

    def _kill(self) -> None:
        self.deadline = None
        rest = self.heard - self.ends.keys()
        self.killed |= rest
        for pid in self.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.over_at = time.monotonic() + _LAST_REPORT
        if len(self.heard) < self.job.n or rest - self.pids.keys():
            assert self.process is not None
            self.process.terminate()

    def _over(self) -> bool:
        assert self.process is not None
        moment = time.monotonic()
        gone = self.process.poll() is not None
        if self.over_at is None and (gone or len(self.ends) == self.job.n):
            self.over_at = moment + _FAREWELL
        # mpiexec ended: what its ranks still had to say is in the sockets and pipes.
        if gone and self._quiet():
            return True
        return self.over_at is not None and moment > self.over_at

    def _quiet(self) -> bool:
        # The wake-up socket and the listener are always open.
        return len(self.selector.get_map()) <= 2

    def _listen_for_signals(self) -> None:
        self._watch(self._wakeup[0], lambda source: source.recv(_CHUNK) != b"")
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread can be told of signals
        self._wakeup[1].setblocking(False)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        for name in FORWARDED:
            number = getattr(signal, name)
            if name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started by nohup
            self._handlers[number] = signal.signal(number, lambda k, _: self.signals.append(k))

    def _pass_on(self, number: int) -> None:
        ending = number in _ENDING
        if ending and (self.interrupted is not None or len(self.heard) < self.job.n):
            self.interrupted = self.interrupted or number
            self._kill()
            return
        for pid in self.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if self.heard - self.ends.keys() - self.pids.keys():
            assert self.process is not None
            self.process.send_signal(number)
        if ending:
            self.interrupted = number
            self._hurry(self.job.grace)


class _Reports:
    """What one keeper sends: frames of a stream's number, a length, and that many bytes."""

    def __init__(self, running: _Run) -> None:
        self.running = running
        self.buffer = b""
        self.rank: int | None = None

    def take(self, connection: socket.socket) -> bool:
        """Read what is there; False at the end."""
        try:
            data = connection.recv(_CHUNK)
        except BlockingIOError:
            return True
        except ConnectionError:
            data = b""
        self.buffer += data
        for stream, content in self._frames():
            if stream:
                self.running.lines.take(self.rank or 0, stream, content)
            else:
                message = json.loads(content)
                self.rank = message["rank"]
                self.running.hear(message, local=True)
        if not data and self.rank is not None:
            self.running.end(self.rank, _LOST, None)
        return data != b""

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        while len(self.buffer) >= 5:
            end = 5 + int.from_bytes(self.buffer[1:5], "big")
            if len(self.buffer) < end:
                return
            stream, content = self.buffer[0], self.buffer[5:end]
            self.buffer = self.buffer[end:]
            yield stream, content


def _by_lines(take: Callable[[bytes], None]) -> Callable[[Any], bool]:
    """Reads a stream and hands on whole lines."""
    rest = b""

    def read(stream: Any) -> bool:
        nonlocal rest
        data = stream.read(_CHUNK)
        if data is None:
            return True
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            take(line + b"\n")
        if not data and rest:
            take(rest)
        return bool(data)

    return read


def _write(stream: int, data: bytes) -> None:
    target = sys.stdout if stream == 1 else sys.stderr
    target.buffer.write(data)
    target.buffer.flush()
