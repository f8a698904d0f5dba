"""A cell on the ranks, from the sending to the result, as seen by the notebook.

A cell is over when every rank has reported its end by an event, not when the replies are there,
because a reply can overtake what was printed before it. A rank that died, that answered without
reporting, or that cannot be stopped is accounted for by an error instead, so a cell always ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from ifog import results
from ifog.holdups import State
from ifog.numbers import named
from ifog.presses import Presses
from ifog.results import CellResult, Output, RankError, span
from ifog.stalls import PATIENCE, Stalls, answered, table
from ifog.status import WAYS_OUT
from ifog.telemetry import CellEnd, CellStart, Event, WaitEvent, now
from ifog.why import Explanation, explain

__all__ = ["Cell", "CellResult", "Output", "RankError", "span"]

_TICK = 0.1
_ALIVE = ("NoAnswer", "RankStopped")  # faults of ranks that may still end the cell
_REPLY_GRACE = 1.0  # seconds the end of a cell may come after its reply
_REVOKE_AFTER = 0.3  # seconds between an interrupt and the revocation of waits inside MPI
_DEEP_AFTER = 0.6  # and that of MPI's world, where the user's own code waits
_GIVE_UP_AFTER = 1.5  # seconds after a deadline at which the ranks are left to themselves
_RESULT_DUE = 1.9  # seconds after a deadline at which the result must be there
_LATE = 1.0  # seconds after an interrupt at which a rank that still runs is spoken of
_PRESSES = 3  # as many interrupts leave the ranks to themselves
_MOST_TEXT = 4_000_000  # characters kept of what one rank prints in one cell


class Control(Protocol):
    """What a running cell asks of its cluster; none of it blocks."""

    def send_interrupt(self, ranks: Sequence[int], seq: int) -> None:
        """Interrupt the ranks if they run cell ``seq``."""

    def send_revoke(
        self, ranks: Sequence[int], seq: int, cause: str, *, deep: bool = False
    ) -> None:
        """Make waits in cell ``seq`` end with an error; ``deep``: also in the user's own MPI."""

    def ask(self, ranks: Sequence[int], what: str) -> Mapping[int, Any]:
        """Futures of the answers of these ranks' control threads."""

    def busy_elsewhere(self, seq: int) -> Collection[int]:
        """The ranks that run another cell than ``seq``."""

    def nudge(self) -> None:
        """Look at the cells now."""


class Cell:
    """A running cell. ``outputs`` only grows; reading it by index is safe from any thread.

    Attributes:
        pressed: whether a keyboard interrupt came during ``wait``, even if too late for the ranks.
    """

    def __init__(
        self,
        seq: int,
        ranks: tuple[int, ...],
        control: Control,
        timeout: float | None = None,
        stall: float = PATIENCE,
    ) -> None:
        self.seq = seq
        self.ranks = ranks
        self.started = time.time()
        self.outputs: list[Output] = []
        self.timeout = timeout
        self.pressed = False
        self._control = control
        self._begun = time.monotonic()
        self._deadline = None if timeout is None else self._begun + timeout
        self._starts: dict[int, CellStart] = {}
        self._ends: dict[int, CellEnd] = {}
        self._faults: dict[int, RankError] = {}
        self._replied: dict[int, float] = {}
        self._busy_until: dict[int, float] = {}
        self._printed: dict[int, int] = {}
        self._stalls = Stalls(stall, lambda missing: control.ask(missing, "waiting"))
        self._stopped: str | None = None  # "interrupted", "timeout" or "stalled"
        self._stopped_at = 0.0
        self._to_stop: tuple[int, ...] = ()
        self._interrupts = 0
        self._revoked = 0  # 1: ifog's own waits, 2: the user's too
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
        waits inside MPI, a third one leaves the ranks to themselves, a fourth one is raised.

        Args:
            timeout: seconds from now after which the ranks are stopped.
            on_tick: called in this thread about every 0.1 s.
        """
        if timeout is not None:
            limit = time.monotonic() + timeout
            with self._lock:
                self.timeout = timeout
                self._deadline = limit if self._deadline is None else min(limit, self._deadline)
        handled = 0
        with Presses() as presses:
            while True:
                ended = self._finished.wait(_TICK)
                try:
                    if on_tick is not None:
                        on_tick()
                except KeyboardInterrupt:
                    presses.count += 1
                if ended:
                    break
                while handled < presses.count:
                    handled += 1
                    self._pressed(handled)
        self.pressed = presses.count > 0
        assert self._result is not None
        return self._result

    def _pressed(self, presses: int) -> None:
        if presses > _PRESSES:
            raise KeyboardInterrupt("the ranks were left to themselves; run %bf restart")
        self.interrupt()

    def interrupt(self, ranks: Sequence[int] | None = None) -> None:
        """Raise ``KeyboardInterrupt`` on every rank of ``ranks`` that still runs the cell.

        Called again it also ends waits inside MPI, and then it leaves these ranks to themselves.
        """
        self._interrupts += 1
        chosen = self.ranks if ranks is None else ranks
        self._stop("interrupted", chosen)
        if self._interrupts >= 2:
            self._revoke("interrupted", deep=True)
        if self._interrupts >= _PRESSES:
            self._give_up([rank for rank in self.missing() if rank in chosen])

    @property
    def stopping(self) -> str:
        """Which ranks do not stop although they were told to, and what helps; else ""."""
        late = self._unstopped()
        left = _PRESSES - self._interrupts
        asked = self._stopped is not None and self._interrupts > 0
        if not late or not asked or time.monotonic() - self._stopped_at < _LATE:
            return ""
        does, them = ("does", "it") if len(late) == 1 else ("do", "them")
        more = "one more interrupt leaves" if left == 1 else "two more interrupts leave"
        return f"{named(late)} {does} not stop; {more} {them} behind"

    def _stop(self, why: str, ranks: Sequence[int]) -> None:
        with self._lock:
            if self._stopped in (None, "stalled"):
                self._stopped_at = time.monotonic()
            self._stopped = self._stopped or why
            self._to_stop = tuple({*self._to_stop, *ranks})
        self._control.send_interrupt(self._unstopped(), self.seq)
        self._control.nudge()

    def _unstopped(self) -> list[int]:
        return [rank for rank in self.missing() if rank in self._to_stop]

    def _revoke(self, cause: str, *, deep: bool = False) -> None:
        self._revoked = max(self._revoked, 2 if deep else 1)
        self._control.send_revoke(self.missing(), self.seq, cause, deep=deep)
        self._control.send_interrupt(self._unstopped(), self.seq)

    @property
    def stall(self) -> Explanation | None:
        """Who holds up whom, once a rank has waited longer than a moment."""
        return self._stalls.final or self._stalls.found

    def why(self, timeout: float = 1.0) -> Explanation | None:
        """Who holds up whom at this moment; None where nobody waits.

        Args:
            timeout: seconds after which a rank counts as one that does not answer.
        """
        asked, missing = now(), self.missing()
        futures = self._control.ask(missing, "waiting")
        deadline = time.monotonic() + timeout
        for future in futures.values():
            future.wait(max(0.0, deadline - time.monotonic()))
        return explain(table(answered(futures), missing, self._known(), asked), now())

    def _known(self) -> dict[int, State]:
        """What is known of the ranks without asking them."""
        states = {rank: State("elsewhere") for rank in self._control.busy_elsewhere(self.seq)}
        with self._lock:
            for rank in self.ranks:
                error = self._faults.get(rank)
                if rank in self._ends:
                    end = self._ends[rank]
                    states[rank] = results.ending(results.rank_error(end), end.rounds)
                elif error is not None:
                    states[rank] = results.ending(error)
                elif rank in self._starts:
                    since = self._busy_until.get(rank, self._starts[rank].t)
                    states[rank] = State("computing", since)
                else:
                    states[rank] = State("starting")
        return states

    def missing(self) -> list[int]:
        """The ranks that are neither through nor given up."""
        with self._lock:
            return [r for r in self.ranks if r not in self._ends and r not in self._faults]

    def unstoppable(self) -> list[int]:
        """The ranks that were given up and have not reported their end since."""
        with self._lock:
            given_up = [r for r, error in self._faults.items() if error.ename in _ALIVE]
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
                self._stalls.heard(event)
            elif isinstance(event, CellStart):
                self._starts[event.rank] = event
                if event.rank in self._to_stop:  # the interrupt came before the cell did
                    self._control.send_interrupt([event.rank], self.seq)
            elif isinstance(event, CellEnd) and event.seq == self.seq:
                with self._lock:
                    self._ends[event.rank] = event
                if (event.error or {}).get("ename") == "DeadlineError":
                    self._stop("timeout", self.ranks)
                self._control.nudge()

    def keep_busy(self, rank: int, until: float | None) -> None:
        """The rank's last operation ended at ``until``, as far as is known."""
        if until is not None:
            self._busy_until[rank] = until

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
        """Enforce deadlines, notice stalls and missing reports; whether all are accounted for."""
        moment = time.monotonic()
        if self._stopped in (None, "stalled") and self._deadline and moment > self._deadline:
            self._stop("timeout", self.ranks)
        since = moment - self._stopped_at
        if unstopped := self._unstopped():
            if since > _REVOKE_AFTER and self._revoked < 1:
                self._revoke("stopped")
            if since > _DEEP_AFTER and self._revoked < 2:
                self._revoke("stopped", deep=True)
            if self._stopped == "timeout" and since > _GIVE_UP_AFTER:
                self._give_up(unstopped)
        for rank in self.missing():
            if moment - self._replied.get(rank, moment) > _REPLY_GRACE:
                self.lose(rank, "NoReport", "answered without reporting the end of the cell")
        if self._stopped is None:
            self._look_for_stalls()
        return not self.missing()

    def _look_for_stalls(self) -> None:
        self._stalls.look(self.missing(), self._known())
        if self._stalls.final is not None:
            self._stopped, self._stopped_at = "stalled", time.monotonic()
            self._revoke(self._stalls.final.short)

    def _give_up(self, ranks: Sequence[int]) -> None:
        states = self._known()
        for rank in ranks:
            what = "did not answer" if states[rank].kind == "starting" else "was computing"
            self.lose(rank, "NoAnswer", f"{what} and could not be stopped; {WAYS_OUT}")
        self._control.nudge()

    def left(self) -> dict[int, str]:
        """The ranks that are through, and why, while the cell has failed on any."""
        with self._lock:
            ends = dict(self._ends) if self.troubled() else {}
        return {rank: str((end.error or {}).get("ename", "finished")) for rank, end in ends.items()}

    def troubled(self) -> bool:
        """Whether the communicator has to be healed after this cell."""
        bad_end = any(end.status != "ok" for end in self._ends.values())
        return bad_end or bool(self._faults) or self._revoked > 0

    def healing_time(self, most: float) -> float:
        """The seconds that healing may take before the result is due."""
        if self._stopped != "timeout":
            return most
        return max(0.3, self._stopped_at + _RESULT_DUE - time.monotonic())

    def finish(self, gone: Collection[int] = ()) -> None:
        """Make the result and let the waiting thread go; the others go on without ``gone``."""
        if self._finished.is_set():
            return
        for rank in self._faults.keys() & set(gone):
            self._faults[rank] = results.left_out(self._faults[rank])
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
            finished={end.rank: end.rounds for end in ends},
            why=self._why(),
        )
        self._finished.set()

    def break_off(self, error: Exception) -> None:
        """End the cell because the notebook's side failed to look after it."""
        if self._finished.is_set():
            return
        seconds, shown = time.monotonic() - self._begun, tuple(self.outputs)
        self._result = results.broken_off(self.seq, self.ranks, seconds, shown, error)
        self._finished.set()

    def _why(self) -> Explanation | None:
        """Who held up whom when the ranks were released."""
        if self._stalls.final is not None or not self._errors():
            return self._stalls.final
        states = self._known()
        if self._stopped is not None:
            states |= {
                r: State("computing")
                for r, s in states.items()
                if results.is_short(self._ends.get(r))
            }
        end = max((end.t for end in self._ends.values()), default=now())
        return explain(results.at_release(states), end, over=True)

    def _status(self) -> str:
        if not self.troubled() or not self._errors():
            return "ok"
        ends = self._ends.values()
        raised = self._faults or any(
            end.status == "error" and (end.error or {}).get("peer") is None for end in ends
        )
        if self._stopped is not None:
            return "error" if self._stopped == "stalled" and raised else self._stopped
        stopped = any(end.status == "interrupted" for end in ends)
        return "interrupted" if stopped and not raised else "error"

    def _errors(self) -> dict[int, RankError]:
        errors = dict(self._faults)
        for rank, end in self._ends.items():
            error = results.rank_error(end)
            if error is not None:
                errors[rank] = self._told(error)
        return dict(sorted(errors.items()))

    def _told(self, error: RankError) -> RankError:
        late = self._stopped == "timeout" and self.timeout is not None
        return results.at_deadline(error, self.timeout or 0.0) if late else error
