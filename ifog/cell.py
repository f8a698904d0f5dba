"""A cell on the ranks, from the sending to the result, as seen by the notebook.

A cell is over when every rank has reported its end by an event, not when the replies are there,
because a reply can overtake what was printed before it. A rank that died, that answered without
reporting, or that cannot be stopped is accounted for by an error instead, so a cell always ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ifog.errors import CellError, DeadlineError
from ifog.telemetry import CellEnd, CellStart, Event, WaitEvent

__all__ = ["Cell", "CellResult", "Output", "RankError", "span"]

_TICK = 0.1
_REPLY_GRACE = 1.0  # seconds the end of a cell may come after its reply
_REVOKE_AFTER = 0.7  # seconds between an interrupt and the revocation of waits inside MPI
_GIVE_UP_AFTER = 1.5  # seconds after a deadline at which the ranks are left to themselves
_RESULT_DUE = 1.9  # seconds after a deadline at which the result must be there
_WAIT_NEWS = 0.6  # seconds after which a rank that reports no wait is computing again
_MOST_TEXT = 4_000_000  # characters kept of what one rank prints in one cell
_PRIMARY = 5  # errors named in one message


def span(ranks: Iterable[int]) -> str:
    """Ranks as short text: ``[0, 1, 2, 5]`` is ``"0-2,5"``."""
    parts: list[list[int]] = []
    for rank in sorted(ranks):
        if parts and rank == parts[-1][-1] + 1:
            parts[-1].append(rank)
        else:
            parts.append([rank])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


class Output(NamedTuple):
    """Something a rank showed: ``kind`` is "stdout", "stderr", "result" or "display".

    ``data`` is the mime bundle of a result or display, {} for streams; ``text`` its plain text.
    """

    rank: int
    kind: str
    text: str
    data: dict[str, Any]


class RankError(NamedTuple):
    """Why a rank did not end its cell well; ``peer`` is the rank that made it stop, if another."""

    ename: str
    evalue: str
    line: int | None
    where: str
    peer: int | None
    traceback: str


@dataclass(frozen=True)
class CellResult:
    """What came of a cell.

    ``status`` is "ok", "error", "interrupted" or "timeout"; ``rounds`` the most mixing rounds of a
    rank; ``nbytes`` what all ranks sent; ``wait`` the mean share of the time they were blocked.
    """

    seq: int
    ranks: tuple[int, ...]
    seconds: float
    rounds: int
    nbytes: int
    wait: float
    status: str
    errors: dict[int, RankError]
    outputs: tuple[Output, ...]

    def raise_for_error(self) -> None:
        """Do nothing if all ranks ended well.

        Raises:
            DeadlineError: the cell was stopped by its timeout.
            CellError: a rank raised or was interrupted; the message names ranks and messages.
        """
        if self.status == "ok":
            return
        released = [rank for rank, error in self.errors.items() if error.peer is not None]
        primary = {r: e for r, e in self.errors.items() if r not in released} or self.errors
        texts = _grouped(primary)
        if len(texts) > _PRIMARY:
            texts[_PRIMARY:] = [f"and {len(texts) - _PRIMARY} more errors"]
        if released and len(primary) < len(self.errors):
            word = "rank" if len(released) == 1 else "ranks"
            texts.append(f"{word} {span(released)} stopped because of it")
        kind = DeadlineError if self.status == "timeout" else CellError
        raise kind("\n".join(texts) or f"cell {self.seq} was {self.status}")


def _grouped(errors: dict[int, RankError]) -> list[str]:
    ranks_of: dict[tuple[str, str, int | None], list[int]] = {}
    for rank, error in errors.items():
        ranks_of.setdefault((error.ename, error.evalue, error.line), []).append(rank)
    return [
        f"[{span(ranks)}] {ename}{': ' if evalue else ''}{evalue}"
        + ("" if line is None else f" (line {line})")
        for (ename, evalue, line), ranks in ranks_of.items()
    ]


class Control(Protocol):
    """What a running cell asks of its cluster; none of it blocks."""

    def send_interrupt(self, ranks: Sequence[int], seq: int) -> None:
        """Interrupt the ranks if they run cell ``seq``."""

    def send_revoke(self, ranks: Sequence[int], cause: str) -> None:
        """Make waits on these ranks end with an error."""

    def nudge(self) -> None:
        """Look at the cells now."""


class Cell:
    """A running cell. ``outputs`` only grows; reading it by index is safe from any thread."""

    def __init__(
        self, seq: int, ranks: tuple[int, ...], control: Control, timeout: float | None = None
    ) -> None:
        self.seq = seq
        self.ranks = ranks
        self.started = time.time()
        self.outputs: list[Output] = []
        self.timeout = timeout
        self._control = control
        self._begun = time.monotonic()
        self._deadline = None if timeout is None else self._begun + timeout
        self._starts: dict[int, CellStart] = {}
        self._ends: dict[int, CellEnd] = {}
        self._faults: dict[int, RankError] = {}
        self._replied: dict[int, float] = {}
        self._waits: dict[int, WaitEvent] = {}
        self._printed: dict[int, int] = {}
        self._stopped: str | None = None  # "interrupted" or "timeout"
        self._stopped_at = 0.0
        self._wall = 0.0
        self._revoked = False
        self._lock = threading.RLock()
        self._finished = threading.Event()
        self._result: CellResult | None = None

    def done(self) -> bool:
        """Whether the result is there."""
        return self._finished.is_set()

    def wait(
        self, timeout: float | None = None, on_tick: Callable[[], None] | None = None
    ) -> CellResult:
        """The result, once all ranks are through.

        A keyboard interrupt in the waiting thread interrupts the ranks, a second one also ends
        waits inside MPI, a third one leaves the ranks to themselves.

        Args:
            timeout: seconds from now after which the ranks are stopped.
            on_tick: called in this thread about every 0.1 s.
        """
        if timeout is not None:
            limit = time.monotonic() + timeout
            with self._lock:
                self.timeout = timeout
                self._deadline = limit if self._deadline is None else min(limit, self._deadline)
        presses = 0
        while True:
            try:
                ended = self._finished.wait(_TICK)
                if on_tick is not None:
                    on_tick()
                if ended:
                    break
            except KeyboardInterrupt:
                presses += 1
                self._pressed(presses)
        assert self._result is not None
        return self._result

    def _pressed(self, presses: int) -> None:
        self.interrupt()
        if presses >= 2:
            self._revoke("interrupted")
        if presses >= 3:
            self._give_up()

    def interrupt(self) -> None:
        """Raise ``KeyboardInterrupt`` in the cell on every rank that still runs it."""
        self._stop("interrupted")

    def _stop(self, why: str) -> None:
        with self._lock:
            if self._stopped is None:
                self._stopped, self._stopped_at = why, time.monotonic()
                self._wall = time.time()
        self._control.send_interrupt(self.missing(), self.seq)
        self._control.nudge()

    def _revoke(self, cause: str) -> None:
        self._revoked = True
        self._control.send_revoke(self.missing(), cause)
        self._control.send_interrupt(self.missing(), self.seq)

    def missing(self) -> list[int]:
        """The ranks that are neither through nor given up."""
        with self._lock:
            return [r for r in self.ranks if r not in self._ends and r not in self._faults]

    def unstoppable(self) -> list[int]:
        """The ranks that were given up and have not reported their end since."""
        with self._lock:
            given_up = [r for r, error in self._faults.items() if error.ename == "NoAnswer"]
            return [rank for rank in given_up if rank not in self._ends]

    def take_output(self, rank: int, kind: str, text: str, data: dict[str, Any]) -> None:
        """Keep what a rank showed, up to a limit of plain text."""
        printed = self._printed.get(rank, 0)
        if printed > _MOST_TEXT:
            return
        self._printed[rank] = printed + len(text)
        if printed + len(text) > _MOST_TEXT:
            kind, data = "stderr", {}
            text = f"[ifog: rank {rank} printed over {_MOST_TEXT:,} characters; the rest is lost]\n"
        self.outputs.append(Output(rank, kind, text, data))

    def take_events(self, events: Sequence[Event]) -> None:
        """Note which ranks have begun, are waiting, or are through."""
        for event in events:
            if isinstance(event, WaitEvent):
                self._waits[event.rank] = event
            elif isinstance(event, CellStart):
                self._starts[event.rank] = event
                if self._stopped is not None:  # the interrupt came before the cell did
                    self._control.send_interrupt([event.rank], self.seq)
            elif isinstance(event, CellEnd) and event.seq == self.seq:
                with self._lock:
                    self._ends[event.rank] = event
                self._control.nudge()

    def take_reply(self, rank: int) -> None:
        """The rank's reply is here; the end of the cell should have been before it."""
        self._replied[rank] = time.monotonic()

    def lose(self, rank: int, ename: str, evalue: str) -> None:
        """Account for a rank that will not report: it died, or nothing can be sent to it."""
        with self._lock:
            if rank not in self.ranks or rank in self._ends or rank in self._faults:
                return
            self._faults[rank] = RankError(ename, evalue, None, "", None, f"{ename}: {evalue}")
        if not self._revoked:
            self._revoke(f"{ename}: {evalue}")

    def step(self) -> bool:
        """Enforce deadlines and notice missing reports; whether every rank is accounted for."""
        moment = time.monotonic()
        if self._stopped is None and self._deadline is not None and moment > self._deadline:
            self._stop("timeout")
        since = moment - self._stopped_at
        if self._stopped is not None:
            if since > _REVOKE_AFTER and not self._revoked and self.missing():
                self._revoke("stopped")
            if self._stopped == "timeout" and since > _GIVE_UP_AFTER:
                self._give_up()
        for rank in self.missing():
            if moment - self._replied.get(rank, moment) > _REPLY_GRACE:
                self.lose(rank, "NoReport", "answered without reporting the end of the cell")
        return not self.missing()

    def _give_up(self) -> None:
        for rank in self.missing():
            text = f"{self._activity(rank)} and could not be stopped; run %bf restart"
            self.lose(rank, "NoAnswer", text)
        self._control.nudge()

    def _activity(self, rank: int) -> str:
        wait = self._waits.get(rank)
        if rank not in self._starts:
            return "had not begun the cell"
        if wait is None or self._wall - wait.t > _WAIT_NEWS:
            return "was computing"
        peers = f"rank {wait.peers[0]}" if len(wait.peers) == 1 else f"ranks {span(wait.peers)}"
        what = f"{wait.op} {wait.name!r}" if wait.name else wait.op
        seconds = max(0.0, self._wall - wait.since)
        return f"waited {seconds:.1f} s for {peers} in {what}, round {wait.step}"

    def troubled(self) -> bool:
        """Whether the communicator has to be healed after this cell."""
        bad_end = any(end.status != "ok" for end in self._ends.values())
        return bad_end or bool(self._faults) or self._revoked

    def healing_time(self, most: float) -> float:
        """The seconds that healing may take before the result is due."""
        if self._stopped != "timeout":
            return most
        return max(0.3, self._stopped_at + _RESULT_DUE - time.monotonic())

    def finish(self) -> None:
        """Make the result from what is known and let the waiting thread go."""
        if self._finished.is_set():
            return
        ends = self._ends.values()
        begin = min((start.t for start in self._starts.values()), default=self.started)
        finish = max((end.t for end in ends), default=time.time())
        seconds = time.monotonic() - self._begun if self._faults else max(0.0, finish - begin)
        share = [min(1.0, end.wait / seconds) for end in ends] if seconds > 0 else []
        self._result = CellResult(
            seq=self.seq,
            ranks=self.ranks,
            seconds=seconds,
            rounds=max((end.rounds for end in ends), default=0),
            nbytes=sum(end.nbytes for end in ends),
            wait=sum(share) / len(share) if share else 0.0,
            status=self._status(),
            errors=self._errors(),
            outputs=tuple(self.outputs),
        )
        self._finished.set()

    def _status(self) -> str:
        if not self.troubled() or not self._errors():
            return "ok"
        if self._stopped is not None:
            return self._stopped
        ends = self._ends.values()
        stopped = any(end.status == "interrupted" for end in ends)
        raised = self._faults or any(
            end.status == "error" and (end.error or {}).get("peer") is None for end in ends
        )
        return "interrupted" if stopped and not raised else "error"

    def _errors(self) -> dict[int, RankError]:
        errors = dict(self._faults)
        for rank, end in self._ends.items():
            if end.error is not None:
                errors[rank] = self._told(rank, RankError(**end.error))
        return dict(sorted(errors.items()))

    def _told(self, rank: int, error: RankError) -> RankError:
        stopped = error.ename == "KeyboardInterrupt" or error.peer is not None
        if self._stopped != "timeout" or not stopped:
            return error
        text = f"{self._activity(rank)} when the time of {self.timeout:g} s was over"
        return error._replace(ename="DeadlineError", evalue=text, peer=None)
