"""What came of a cell: outputs, errors, and what held it up when it ended."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ifog.errors import CellError, DeadlineError
from ifog.holdups import State, of_wait
from ifog.telemetry import WaitEvent
from ifog.why import Explanation, aligned

__all__ = ["CellResult", "Output", "RankError", "at_release", "ending", "span"]

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
    if error.ename == "RankDied":
        found = re.search(r"died: ([^;]+)", error.evalue)
        return State("dead", detail=found[1].strip() if found else "")
    if error.ename in ("NoAnswer", "RankStopped"):
        return State("silent")
    if error.ename == "KeyboardInterrupt" or error.peer is not None:
        return State("computing", line=error.line, rounds=rounds)
    return State("raised", name=error.where, line=error.line, rounds=rounds, detail=error.ename)
