"""The report below a cell that was stopped: what, who, where, and what is true now.

Twelve lines at most, however many ranks there are; tracebacks are folded beneath. Cells in which
nobody waited for anybody need none: their errors explain themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple, Protocol

from ifog.magics.failures import Failure, failures
from ifog.magics.look import STYLE
from ifog.magics.render import folded
from ifog.numbers import count, duration, rank_ranges
from ifog.why import Explanation, aligned, listed, spelled

__all__ = ["Report", "Stopped", "report_html", "report_of", "report_text"]

_LINES = 8  # of the table
_LONG = 1.0  # seconds of waiting that are worth a word
_DETAIL = 200  # characters of a message
_VALUES = 4  # rounds that are told apart
_LOST = ("RankDied", "RankStopped", "NoAnswer")  # errors about ranks, not of theirs


class Stopped(Protocol):
    """What is read of a cell that was stopped."""

    @property
    def seconds(self) -> float: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def errors(self) -> Mapping[int, Any]: ...  # noqa: D102
    @property
    def finished(self) -> Mapping[int, int]: ...  # noqa: D102
    @property
    def why(self) -> Explanation | None: ...  # noqa: D102


class Report(NamedTuple):
    """The parts of a report.

    Attributes:
        headline: what happened.
        lines: who did what, each with whether it is a mere detail of the line above.
        ending: what is true now, and what to do next.
        failures: the errors whose tracebacks belong to it.
        trouble: whether something is wrong, as opposed to asked for.
    """

    headline: str
    lines: tuple[tuple[str, bool], ...]
    ending: str
    failures: tuple[Failure, ...]
    trouble: bool


def report_of(outcome: Stopped) -> Report | None:
    """The report of a cell, or None where its errors say all there is."""
    asked = outcome.status in ("interrupted", "timeout")
    if outcome.status == "ok" or (outcome.why is None and not asked):
        return None
    own = {r: e for r, e in outcome.errors.items() if e.peer is None and not _in_table(e, outcome)}
    found = [] if outcome.status == "timeout" else failures(own)
    return Report(
        headline=_headline(outcome),
        lines=tuple(_lines(outcome, found)),
        ending=_ending(outcome),
        failures=tuple(found),
        trouble=outcome.status != "interrupted",
    )


def _in_table(error: Any, outcome: Stopped) -> bool:
    """Whether the rows and the ending say all that the error does: it has no traceback."""
    return outcome.why is not None and error.ename in _LOST


def _headline(outcome: Stopped) -> str:
    begun = list(outcome.finished.values())
    where = f" in round {count(min(begun) + 1)}" if any(begun) else ""
    what = f"Stopped{where}"
    if outcome.status == "interrupted":
        what = f"Interrupted{where}"
    elif outcome.status == "timeout":
        what = f"Stopped{where} after {duration(outcome.seconds)}"
    if outcome.why is None:
        return f"{what}."
    sentence = outcome.why.sentence
    return f"{what}: {sentence[0].lower()}{sentence[1:]}"


def _lines(outcome: Stopped, found: Sequence[Failure]) -> list[tuple[str, bool]]:
    if outcome.why is None:
        return []
    rows = outcome.why.rows
    lines = aligned(rows)
    told: list[tuple[str, bool]] = []
    for row, line in zip(rows, lines, strict=True):
        told.append((line, False))
        column = line.index(row.did)
        mine = [failure for failure in found if set(failure.ranks) & set(row.ranks)]
        if row.distance == 0 and mine:
            message = mine[0].headline.partition("\n")[0]
            told.append((f"{'':<{column}}{message[:_DETAIL]}", True))
    if len(told) > _LINES:
        cut = told[_LINES - 1 :]
        told[_LINES - 1 :] = [(f"and {len(cut)} more lines of this kind", True)]
    return told


def _ending(outcome: Stopped) -> str:
    parts = [_rounds(outcome.finished)]
    if outcome.why is not None and outcome.why.waited > _LONG:
        parts.append(outcome.why.longest)
    lost = {r: e for r, e in outcome.errors.items() if e.ename in _LOST}
    if lost:
        advice = next(iter(lost.values())).evalue.partition("; ")[2]
        parts.append(f"The variables of all but {spelled(list(lost))} are intact: {advice}.")
    else:
        parts.append("All variables are intact; run the next cell.")
    notes = {e.evalue for e in outcome.errors.values() if e.ename == "KeyboardInterrupt"} - {""}
    return " ".join([*filter(None, parts), *sorted(notes)])


def _rounds(finished: Mapping[int, int]) -> str:
    """The last finished round of every rank: ``11 on 3 4 5 7, 12 on 0 1 6``."""
    by_round: dict[int, list[int]] = {}
    for rank, rounds in sorted(finished.items()):
        by_round.setdefault(rounds, []).append(rank)
    if not any(by_round):
        return ""
    if len(by_round) == 1:
        return f"Last finished round: {count(next(iter(by_round)))}."
    if len(by_round) > _VALUES:
        ends = [min(by_round), max(by_round)]
        told = " to ".join(f"{count(k)} on {listed(by_round[k])}" for k in ends)
        return f"Last finished round: {told}."
    told = ", ".join(f"{count(k)} on {listed(ranks)}" for k, ranks in sorted(by_round.items()))
    return f"Last finished round: {told}."


def report_text(report: Report) -> str:
    """The report as plain text, with the tracebacks of different errors below it."""
    lines = [report.headline, *_spaced([line for line, _ in report.lines]), report.ending]
    for failure in report.failures:
        lines += ["", f"[{rank_ranges(failure.ranks)}] {failure.headline}", failure.traceback]
    return "\n".join(lines)


def _spaced(lines: Sequence[str]) -> list[str]:
    return ["", *lines, ""] if lines else []


def report_html(report: Report) -> str:
    """The report as HTML; tracebacks unfold by a click."""
    red = ' class="ifog-cell-error"' if report.trouble else ' class="ifog-cell-strong"'
    rows = [f"<div{red}>{escape(report.headline)}</div>"]
    table = [
        f'<div class="{"ifog-cell-muted" if detail else ""}">{escape(line)}</div>'
        for line, detail in report.lines
    ]
    rows += [f'<div class="ifog-cell-report">{"".join(table)}</div>'] if table else []
    rows += [
        folded(
            f"{spelled(failure.ranks)}: message and traceback folded, click to open",
            f"{failure.headline}\n{failure.traceback}",
        )
        for failure in report.failures
    ]
    rows.append(f"<div>{escape(report.ending)}</div>")
    return f'{STYLE}<div class="ifog-cell ifog-cell-out">{"".join(rows)}</div>'
