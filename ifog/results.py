"""What came of a cell: outputs, errors, and what held it up when it ended."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ifog.errors import CellError, DeadlineError
from ifog.holdups import State, of_wait
from ifog.telemetry import CellEnd, WaitEvent
from ifog.why import Explanation, aligned

__all__ = [
    "CellResult",
    "Output",
    "RankError",
    "at_deadline",
    "at_release",
    "broken_off",
    "ending",
    "is_short",
    "rank_error",
    "span",
]

_PRIMARY = 5  # errors named in one message
_SILENT = {"RankStopped": "stopped by a signal", "NoAnswer": "", "Unreachable": ""}
_SHORT = 0.5  # seconds; what waited less when it was interrupted did not wait for anybody


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
    """Why a rank did not end its cell well; ``peer`` is the rank that made it stop, if another.

    ``wait`` is what it was waiting in when the error came.
    """

    ename: str
    evalue: str
    line: int | None
    where: str
    peer: int | None
    traceback: str
    wait: WaitEvent | None = None


@dataclass(frozen=True)
class CellResult:
    """What came of a cell.

    ``status`` is "ok", "error", "stalled" (ranks waited for what could not happen any more),
    "interrupted" or "timeout"; ``rounds`` the most mixing rounds of a rank, ``finished`` those of
    each rank; ``nbytes`` what all ranks sent; ``wait`` the mean share of the time they were
    blocked; ``why`` says who held up whom at the end, where ranks had to be released.
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
    finished: Mapping[int, int] = field(default_factory=dict)
    why: Explanation | None = None

    def raise_for_error(self) -> None:
        """Do nothing if all ranks ended well.

        Raises:
            DeadlineError: the cell was stopped by its timeout, or an operation by ``set_timeout``.
            CellError: a rank raised or was interrupted, or the ranks were stuck; the message names
                ranks and messages.
        """
        if self.status == "ok":
            return
        if self.status == "stalled" and self.why is not None:
            raise CellError("\n".join([self.why.sentence, *aligned(self.why.rows)]))
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


def broken_off(
    seq: int,
    ranks: tuple[int, ...],
    seconds: float,
    outputs: tuple[Output, ...],
    error: Exception,
) -> CellResult:
    """The result of a cell that the notebook's side failed to look after."""
    text = f"{error}; this is an error of ifog itself, the ranks may still run the cell"
    trace = "".join(traceback.format_exception(error))
    told = RankError(type(error).__name__, text, None, "", None, trace)
    errors = dict.fromkeys(ranks, told)
    return CellResult(seq, ranks, seconds, 0, 0, 0.0, "error", errors, outputs)


def _grouped(errors: dict[int, RankError]) -> list[str]:
    ranks_of: dict[tuple[str, str, int | None], list[int]] = {}
    for rank, error in errors.items():
        ranks_of.setdefault((error.ename, error.evalue, error.line), []).append(rank)
    return [
        f"[{span(ranks)}] {ename}{': ' if evalue else ''}{evalue}"
        + ("" if line is None else f" (line {line})")
        for (ename, evalue, line), ranks in ranks_of.items()
    ]


def at_release(states: Mapping[int, State]) -> dict[int, State]:
    """The waits of ranks that were released at about the same time, without those about to end.

    A peer that was ahead in the same operation had sent its message, which was under way; so had
    one in the same round of it that waited as well.
    """
    found = dict(states)
    for rank, state in states.items():
        ahead = {peer for peer in state.peers if _had_sent(states.get(peer), state, rank)}
        left = tuple(peer for peer in state.peers if peer not in ahead)
        if ahead:
            found[rank] = state._replace(peers=left or state.peers, moving=not left)
    return found


def _had_sent(peer: State | None, state: State, rank: int) -> bool:
    if peer is None or peer.kind != "waiting" or (peer.op, peer.name) != (state.op, state.name):
        return False
    together = rank in peer.peers or state.op.startswith("neighbor_")
    return peer.step > state.step or (peer.step == state.step and together)


def ending(error: RankError | None, rounds: int = 0) -> State:
    """What a rank was doing when it ended its cell so."""
    if error is None:
        return State("finished", rounds=rounds)
    if error.wait is not None:
        return of_wait(error.wait)._replace(line=error.line, rounds=rounds)
    if error.ename in _SILENT:
        return State("silent", detail=_SILENT[error.ename])
    if error.ename == "RankDied":
        found = re.search(r"died: ([^;]+)", error.evalue)
        return State("dead", detail=found[1].strip() if found else "")
    if error.ename == "KeyboardInterrupt" or error.peer is not None:
        return State("computing", line=error.line, rounds=rounds)
    return State("raised", name=error.where, line=error.line, rounds=rounds, detail=error.ename)


def rank_error(end: CellEnd) -> RankError | None:
    """The error that a rank's end reports, if it does."""
    if end.error is None:
        return None
    wait = end.error.get("wait")
    return RankError(**{**end.error, "wait": wait and WaitEvent(*wait)})


def is_short(end: CellEnd | None) -> bool:
    """Whether a rank had waited for a moment only when its cell ended so."""
    error = None if end is None else rank_error(end)
    wait = None if error is None else error.wait
    return wait is not None and wait.t - wait.since < _SHORT


def at_deadline(error: RankError, timeout: float) -> RankError:
    """After a timeout, what a rank was doing, in place of how it was stopped."""
    if error.ename != "KeyboardInterrupt" and error.peer is None:
        return error
    text = f"{_activity(error)} when the time of {timeout:g} s was over"
    return error._replace(ename="DeadlineError", evalue=text, peer=None)


def left_out(error: RankError) -> RankError:
    """The death of a rank without which the others go on already."""
    what, _, _ = error.evalue.partition("; ")
    told = f"{what}; the others go on without it, %bf respawn has all ranks again"
    return error._replace(evalue=told, traceback=f"{error.ename}: {told}")


def _activity(error: RankError) -> str:
    """What a rank was doing when it was stopped: ``waited 2.0 s for rank 3 in barrier``."""
    wait = error.wait
    if wait is None or wait.t - wait.since < _SHORT:
        return "was computing"
    peers = f"rank {wait.peers[0]}" if len(wait.peers) == 1 else f"ranks {span(wait.peers)}"
    what = f"{wait.op} {wait.name!r}" if wait.name else wait.op
    return f"waited {wait.t - wait.since:.1f} s for {peers} in {what}, round {wait.step + 1}"
