"""Waiting for what ranks answer to requests outside of cells, and saying why some do not.

Nothing here waits for a rank without looking whether it still lives. Requests in which ranks wait
for one another can get stuck as cells can: then it is said who waits for whom, and where that
cannot end by itself, the ranks are released.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ipyparallel.error import RemoteError

from ifog import errors
from ifog.errors import ClusterError
from ifog.holdups import State, of_wait
from ifog.numbers import named
from ifog.results import span
from ifog.stalls import PATIENCE
from ifog.telemetry import WaitEvent, decode, now
from ifog.why import Explanation, aligned, explain

if TYPE_CHECKING:
    from ifog.line import Line

__all__ = ["Waiting", "gather"]

_TICK = 0.1
_OUTPUT_TIMEOUT = 1.0
_ASK_EVERY = 0.4
_ASK_TIMEOUT = 1.0
_CERTAIN = 1.0  # seconds for which a hopeless table must not change
_STOPPED_FOR = 1.0  # seconds after which a stopped rank is not waited for any more
_RELEASED_IN = 2.0  # seconds that ranks have to leave what they wait in


class Waiting(NamedTuple):
    """How to wait for answers.

    Attributes:
        busy: whether a rank does something else first, which does not count as time; may raise.
        release: ends the waits of these ranks with an error that names the cause.
        explained: whether the ranks can say whom they wait for.
    """

    busy: Callable[[int], bool] | None = None
    release: Callable[[Sequence[int], str], None] | None = None
    explained: bool = False


def gather(
    line: Line,
    futures: Mapping[int, Any],
    timeout: float,
    task: str,
    way: Waiting,
) -> dict[int, Any]:
    """The results of all futures.

    Args:
        line: to the ranks.
        futures: rank -> what it will answer.
        timeout: seconds in which the ranks must answer.
        task: what this is for, in errors.
        way: how to wait.

    Raises:
        IfogError: of the class that the first failing rank raised, else ``ClusterError``; also when
            a rank dies, is stopped, does not answer in time, or waits for what cannot come.
    """
    watch = _Watch(line, futures)
    try:
        _await(line, watch, timeout, task, way)
    except BaseException as error:
        if way.release is None or not (pending := watch.pending()):
            raise
        failed = watch.failed()  # without those that fail by being released
        way.release(pending, f"{task} was given up")
        limit = time.monotonic() + _RELEASED_IN
        for rank in pending:
            futures[rank].wait(max(0.0, limit - time.monotonic()))
        if failed and isinstance(error, ClusterError):
            raise _local_error(failed, task) from None
        raise
    for future in futures.values():
        future.output.wait(_OUTPUT_TIMEOUT)  # events of the request may come after its reply
    if failed := watch.failed():
        raise _local_error(failed, task)
    return {rank: future.result() for rank, future in futures.items()}


def _await(line: Line, watch: _Watch, timeout: float, task: str, way: Waiting) -> None:
    deadline = time.monotonic() + timeout
    while pending := watch.pending():
        if watch.futures[pending[0]].wait(_TICK):
            continue
        line.look()
        if lost := line.broken or next((line.dead[r] for r in pending if r in line.dead), ""):
            raise ClusterError(f"{task}: {lost}; run %bf restart")
        moment = time.monotonic()
        if any(moment - line.stopped.get(rank, math.inf) > _STOPPED_FOR for rank in pending):
            raise ClusterError(f"{task}: {line.trouble({})}")
        if way.busy is not None and any(way.busy(rank) for rank in pending):
            deadline = time.monotonic() + timeout
            continue
        if way.explained and watch.hopeless(pending):
            raise ClusterError(f"{task}: {watch.told()}")
        if time.monotonic() > deadline:
            who = f"{named(pending)} did not answer within {timeout:g} s"
            advice = "if they still compute, wait or interrupt them, else run %bf restart"
            raise ClusterError("\n".join(filter(None, [f"{task}: {who}; {advice}", watch.told()])))


class _Watch:
    """Asks from time to time what the ranks do instead of answering."""

    def __init__(self, line: Line, futures: Mapping[int, Any]) -> None:
        self.futures = futures
        self._line = line
        self._ask_at = time.monotonic() + PATIENCE
        self._found: Explanation | None = None
        self._same: tuple[Any, ...] = ()
        self._same_since = 0.0

    def pending(self) -> list[int]:
        """The ranks that have not answered."""
        return [rank for rank, future in self.futures.items() if not future.done()]

    def failed(self) -> dict[int, Any]:
        """The errors of those that have."""
        results = {rank: f.result() for rank, f in self.futures.items() if f.done()}
        return {rank: r for rank, r in results.items() if isinstance(r, RemoteError)}

    def hopeless(self, pending: Sequence[int]) -> bool:
        """Whether the ranks wait, for sure, for what cannot come any more."""
        moment = time.monotonic()
        if moment < self._ask_at:
            return False
        states = self._states(pending)
        self._ask_at = time.monotonic() + _ASK_EVERY
        self._found = explain(states, now())
        stuck = () if self._found is None else self._found.stuck
        same = tuple((rank, states[rank]._replace(since=0.0)) for rank in stuck)
        if same != self._same:
            self._same, self._same_since = same, moment
        return bool(same) and moment - self._same_since >= _CERTAIN

    def told(self) -> str:
        """Who waits for whom, as it was found last; "" where nobody does."""
        if self._found is None:
            return ""
        rows = [row._replace(did=_outside(row.did)) for row in self._found.rows]
        return "\n".join([_outside(self._found.sentence), *aligned(rows)])

    def _states(self, pending: Sequence[int]) -> dict[int, State]:
        asked = now()
        answers = self._line.ask(self._line.living, "waiting", _ASK_TIMEOUT)
        failed = self.failed()
        states: dict[int, State] = {rank: State("dead") for rank in self._line.dead}
        for rank in self._line.living:
            answer = answers.get(rank)
            if rank in pending:
                states[rank] = State("silent", asked) if answer is None else _doing(answer)
            elif rank in failed:
                states[rank] = State("raised", detail=str(failed[rank].ename))
            elif rank in self.futures:
                states[rank] = State("finished")
            elif answer is None or answer.get("cell") is not None:
                states[rank] = State("elsewhere")
        return states


def _doing(answer: Mapping[str, Any]) -> State:
    event = decode(answer["event"]) if answer.get("event") else None
    return of_wait(event) if isinstance(event, WaitEvent) else State("computing")


def _outside(text: str) -> str:
    return text.replace("this cell", "this request")


def _local_error(failed: Mapping[int, Any], task: str) -> Exception:
    """The error of the first rank that was not merely stopped by another one's."""
    primary = {r: e for r, e in failed.items() if e.ename != "PeerFailedError"} or failed
    error = next(iter(primary.values()))
    alike = [r for r, e in primary.items() if (e.ename, e.evalue) == (error.ename, error.evalue)]
    kind = getattr(errors, str(error.ename), None)
    if isinstance(kind, type) and issubclass(kind, errors.IfogError):
        return kind(str(error.evalue))
    return ClusterError(f"{task}: [{span(alike)}] {error.ename}: {error.evalue}")
