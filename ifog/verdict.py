"""How a program of several ranks ended: the status to pass on, and the last words about it.

The rank that failed first decides. Ranks that were only released from waiting for it, or ended
because it had ended, are told of in one line; its own traceback comes last of all.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ifog.numbers import named

__all__ = ["End", "last_words", "status_of"]

_INTERRUPTED = 130


class End(NamedTuple):
    """How one rank ended.

    Attributes:
        status: as shells count it, 128 + k for signal k.
        time: when, on the clock of ``time.monotonic``.
        report: what a Python program said about its error, if it did.
        killed: whether it was ended from outside because another rank failed.
        silent: whether it left with status 0, but not by coming to the end of its program.
    """

    status: int
    time: float
    report: Mapping[str, Any] | None = None
    killed: bool = False
    silent: bool = False

    @property
    def released(self) -> bool:
        """Whether it failed only because another rank did."""
        return self.killed or bool(self.report and self.report["peer"])

    @property
    def cause(self) -> str:
        """Why it ended, in one line."""
        if self.report is not None:
            return str(self.report["cause"])
        if self.status > 128:
            return f"killed by {_signal_name(self.status - 128)}"
        return f"status {self.status}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _first(ends: Mapping[int, End]) -> int | None:
    failed = [(end.released, end.time, rank) for rank, end in ends.items() if end.status]
    return min(failed)[2] if failed else None


def status_of(ends: Mapping[int, End], interrupted: int | None = None) -> int:
    """The status of the whole: that of the rank that failed first, 0 when none did.

    Args:
        ends: rank -> how it ended.
        interrupted: the signal by which the whole was asked to end, if it was.
    """
    first = _first(ends)
    if first is None:
        return 0
    if interrupted is not None and all(end.released for end in ends.values() if end.status):
        return 128 + interrupted
    return ends[first].status


def last_words(ends: Mapping[int, End], interrupted: int | None = None) -> str:
    """What is printed after all output; "" when every rank ended well.

    Args:
        ends: rank -> how it ended.
        interrupted: the signal by which the whole was asked to end, if it was.
    """
    first = _first(ends)
    if first is None:
        return ""
    failed = {rank: end for rank, end in sorted(ends.items()) if end.status}
    if all(end.status == _INTERRUPTED and end.report for end in failed.values()):
        return "".join(_interrupted(rank, end) for rank, end in failed.items())
    if interrupted is not None and all(
        end.killed or (end.status == 128 + interrupted and not (end.report or {}).get("text"))
        for end in failed.values()
    ):
        return _ended(failed, _signal_name(interrupted))
    silent = [rank for rank, end in sorted(ends.items()) if end.silent]
    if silent and interrupted is None and all(end.released for end in failed.values()):
        return _left(silent, failed)
    others = {rank: end for rank, end in failed.items() if rank != first}
    return "".join(_others(others, ends[first])) + _of_first(first, ends[first])


def _ended(failed: Mapping[int, End], by: str) -> str:
    places: dict[str, list[int]] = {}
    for rank, end in failed.items():
        places.setdefault(str((end.report or {}).get("where", "")), []).append(rank)
    return "".join(
        f"ifog: {named(ranks)} {_were(ranks)} ended by {by}{f' at {place}' if place else ''}\n"
        for place, ranks in places.items()
    )


def _left(silent: list[int], failed: Mapping[int, End]) -> str:
    """Ranks that just left while others waited for them."""
    waiting = [rank for rank, end in failed.items() if not end.killed]
    places = {str((failed[rank].report or {}).get("where", "")) for rank in waiting}
    place = places.pop() if len(places) == 1 else ""
    many = len(silent) > 1
    waited = f"; {named(waiting)} waited for {'them' if many else 'it'}" if waiting else ""
    killed = [rank for rank in failed if rank not in waiting]
    return (
        f"ifog: {named(silent)} ended without a word (os._exit or the like){waited}"
        f"{f' at {place}' if place else ''}\n"
        + (f"ifog: {named(killed)} did not end and {_were(killed)} killed\n" if killed else "")
    )


def _interrupted(rank: int, end: End) -> str:
    place = (end.report or {})["where"]
    return f"ifog: rank {rank} was interrupted{f' at {place}' if place else ''}\n"


def _others(others: Mapping[int, End], first: End) -> list[str]:
    killed = [rank for rank, end in others.items() if end.killed]
    waiting = [rank for rank, end in others.items() if end.released and not end.killed]
    alike = [rank for rank, end in others.items() if not end.released and end.cause == first.cause]
    said = [*killed, *waiting, *alike]
    lines = [f"rank {r}: {end.cause}" for r, end in others.items() if r not in said]
    if alike:
        lines.append(f"{named(alike)} ended with the same: {first.cause}")
    if waiting:
        lines.append(f"{named(waiting)} stopped when it did")
    if killed:
        lines.append(f"{named(killed)} did not end and {_were(killed)} killed")
    return [f"ifog: {line}\n" for line in lines]


def _were(ranks: Collection[int]) -> str:
    return "was" if len(ranks) == 1 else "were"


def _of_first(rank: int, end: End) -> str:
    text = str(end.report["text"]) if end.report is not None else ""
    if text:
        return f"ifog: rank {rank} failed:\n{text}{'' if text.endswith(chr(10)) else chr(10)}"
    how = end.cause if end.status > 128 else f"ended with status {end.status}"
    return f"ifog: rank {rank} {'was ' if end.status > 128 else ''}{how}\n"
