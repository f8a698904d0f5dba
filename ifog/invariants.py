"""From events to the laws that a run must keep: whether they hold, and where they broke first.

Some can be read off what ranks send anyway: rows and columns of W, the mean of a tensor that is
only mixed, numbers that are none. Others the user's code names by ``check_sums`` and
``check_copies``. A law that broke stays broken until the next cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ifog.batches import Run, belonging
from ifog.folds import Gather
from ifog.glances import Glance, Watched
from ifog.numbers import floored, named, number
from ifog.ranks import Ranks, is_mixing
from ifog.rows import Plan, Rows
from ifog.spectrum import Row, matrix_of_rows, strays
from ifog.telemetry import CellStart, Event, LawEvent, LogEvent, OpEvent, WatchEvent

__all__ = ["Invariants", "Law", "fold_invariants", "view_invariants"]

_SUMS = 1e-10  # by which sums of weights may differ from 1
_BEHIND = 64  # rounds kept until all that belongs to them has come
_ROWS, _COLUMNS, _NUMBERS = "rows of W sum to 1", "columns of W sum to 1", "no NaN or infinity"


@dataclass
class Law:
    """A law: its worst residual so far and its round, and how it broke, if it did."""

    name: str
    line: str
    tolerance: float
    worst: float = 0.0
    at: int = 0
    rounds: int = 0
    broken: str = ""
    void: str = ""  # why it does not apply

    def check(self, residual: float, step: int, where: str) -> None:
        """Take the residual after round ``step``; ``where`` says on which rank, if it broke."""
        self.rounds = max(self.rounds, step)
        if self.broken:
            return
        if not residual <= self.worst:
            self.worst, self.at = residual, step
        if not residual <= self.tolerance:
            self.broken = f"broke at round {step}{where}"


@dataclass
class Invariants:
    """The laws of the newest cell, and what is needed to check the next round."""

    ranks: Ranks = field(default_factory=Ranks)
    laws: dict[str, Law] = field(default_factory=dict)
    watched: Watched = field(default_factory=Watched)
    joint: Rows = field(default_factory=Rows)
    parts: Gather[LawEvent] = field(default_factory=Gather)
    rows: dict[int, tuple[float, ...]] = field(default_factory=dict)
    plans: dict[tuple[str, int], tuple[Row, ...]] = field(default_factory=dict)  # by name and step
    column: str = ""  # which column of W does not sum to 1
    glances: dict[tuple[str, int], Glance] = field(default_factory=dict)
    start: dict[str, np.ndarray] = field(default_factory=dict)  # each tensor's first mean
    scales: dict[str, float] = field(default_factory=dict)
    sums: dict[str, dict[int, LawEvent]] = field(default_factory=dict)  # the last round of each law
    copies: dict[tuple[str, int, int], LawEvent] = field(default_factory=dict)

    def law(self, name: str, line: str, tolerance: float) -> Law:
        """The law of this name."""
        found = self.laws.get(name)
        if found is None:
            found = self.laws[name] = Law(name, line, tolerance)
        return found


def fold_invariants(state: Invariants, events: Iterable[Event]) -> Invariants:
    """Check every round that is complete."""
    seq = state.ranks.seq
    for event in belonging(state.ranks, events):
        if type(event) is list:
            _rows(state, event)
            for op, plan in state.joint.join(event, state.ranks.members):
                _mix(state, op, plan)
        elif isinstance(event, WatchEvent):
            _finite(state, event.rank, event.step, event.name, event.norm)
            _glance(state, event)
        elif isinstance(event, LawEvent):
            _told(state, event)
        elif isinstance(event, LogEvent):
            for name, value in event.values:
                _finite(state, event.rank, event.round, name, value)
        elif isinstance(event, CellStart) and state.ranks.seq != seq:
            seq = state.ranks.seq
            fresh = Invariants(ranks=state.ranks)
            vars(state).update(vars(fresh))
    return state


def _trim(table: dict[Any, Any], most: int = _BEHIND) -> None:
    while len(table) > most:
        del table[next(iter(table))]


def _finite(state: Invariants, rank: int, step: int, name: str, value: float) -> None:
    law = state.law(_NUMBERS, "", 0.0)
    names = law.line.split(", ") if law.line else []
    if name not in names and len(names) < 6:
        law.line = ", ".join([*names, name])
    bad = 0.0 if math.isfinite(value) else math.inf
    law.check(bad, step, f" on rank {rank}: {name}")


def _rows(state: Invariants, run: Run) -> None:
    rank = run[0].rank
    last = state.rows.get(rank)
    for event in run:
        weights = event[12]
        if weights == last or len(weights) != len(event[11]) + 1 or not is_mixing(event[3]):
            continue
        last = state.rows[rank] = weights
        law = state.law(_ROWS, "every round, all ranks", _SUMS)
        total = sum(weights)
        law.check(abs(total - 1.0), event.step, f" on rank {rank}: {number(total)}")


def _mix(state: Invariants, event: OpEvent, plan: Plan) -> None:
    state.laws[_ROWS].rounds = event.step
    if plan not in state.plans.values():
        _columns(state, plan, event.step)
    elif _COLUMNS in state.laws:
        state.laws[_COLUMNS].rounds = event.step
    state.plans[event.name, event.step] = plan
    _trim(state.plans)
    _kept(state, event.name, event.step)


def _columns(state: Invariants, plan: tuple[Row, ...], step: int) -> None:
    members = state.ranks.members
    sums = dict.fromkeys(members, 0.0)
    for rank, (sources, weights) in zip(members, plan, strict=True):
        sums[rank] += weights[0]
        for source, weight in zip(sources, weights[1:], strict=True):
            sums[source] = sums.get(source, 0.0) + weight
    worst = max(sums, key=lambda rank: abs(sums[rank] - 1.0))
    state.column = f"column {worst}: {number(sums[worst])}"
    law = state.law(_COLUMNS, "so the mean is kept", _SUMS)
    law.check(abs(sums[worst] - 1.0), step, f", {state.column}")


def _glance(state: Invariants, event: WatchEvent) -> None:
    glance = state.watched.put(event, state.ranks.members)
    if glance is None:
        return
    state.start.setdefault(glance.name, glance.samples.mean(axis=0))
    largest = float(np.abs(glance.samples).max(initial=0.0))
    state.scales[glance.name] = max(state.scales.get(glance.name, 1e-300), largest)
    state.glances[glance.name, glance.step] = glance
    _trim(state.glances)
    # Its operation is told after it, so the round is complete with whichever comes last.
    _kept(state, glance.name, glance.step - 1)


def _tolerance(eps: float) -> float:
    """What rounding may do over a long run, far below what a fault does."""
    return float(eps ** (2 / 3))


def _kept(state: Invariants, name: str, step: int) -> None:
    """Check the mean of a tensor that round ``step`` mixed, if nothing else changed it."""
    before = state.glances.get((name, step))
    after = state.glances.get((name, step + 1))
    plan = state.plans.get((name, step))
    if before is None or after is None or plan is None:
        return
    rows = {len(before.samples), len(after.samples), len(plan), len(state.ranks.members)}
    if len(rows) > 1 or before.samples.shape != after.samples.shape:
        return
    law = state.law(f"mean of {name} is kept", "only mixing changes it", _tolerance(after.eps))
    scale = state.scales[name]
    members = state.ranks.members
    odd = strays(plan, members, before.samples, after.samples, law.tolerance * scale)
    with np.errstate(all="ignore"):
        drift = float(np.abs(after.samples.mean(axis=0) - state.start[name]).max() / scale)
    if 2 * len(odd) >= len(members):
        law.void = law.void or "steps between the rounds move it"
    elif not law.void:
        where = f" on {named(odd)}" if odd else f", {state.column}"
        law.check(drift, step + 1, where)


def _told(state: Invariants, event: LawEvent) -> None:
    if event.owner >= 0:
        _copy(state, event)
        return
    found = state.parts.put(event.law, event.step, event.rank, event, len(state.ranks.members))
    if found is None or len({len(part.left) for part in found.values()}) > 1:
        return
    left, right = _stacked(found)
    law = state.law(event.law, "sums over all ranks", _tolerance(event.eps))
    with np.errstate(all="ignore"):
        size = max(float(np.abs(side).sum(axis=0).max(initial=0.0)) for side in (left, right))
        scale = max(state.scales.get(event.law, 1e-300), size if math.isfinite(size) else 0.0)
        residual = float(np.abs(left.sum(axis=0) - right.sum(axis=0)).max() / scale)
    state.scales[event.law] = scale
    where = ""
    if not residual <= law.tolerance and not law.broken:
        where = _culprits(state, event.law, event.step, found, law.tolerance * scale)
        columns = state.laws.get(_COLUMNS)
        if not where and columns is not None and columns.broken:
            where = f", {state.column}"
    law.check(residual, event.step, where)
    state.sums[event.law] = found


def _stacked(found: dict[int, LawEvent]) -> tuple[np.ndarray, np.ndarray]:
    parts = [found[rank] for rank in sorted(found)]
    return np.array([part.left for part in parts]), np.array([part.right for part in parts])


def _culprits(
    state: Invariants, law: str, step: int, found: dict[int, LawEvent], slack: float
) -> str:
    """The ranks whose part does not follow from the last round, where that can be told.

    A part may be mixed before what is new is added, or after; in the right one of both forms only
    the ranks that did something else stand out.
    """
    before = state.sums.get(law)
    plans = [plan for (_, done), plan in state.plans.items() if done == step - 1]
    if before is None or not plans or not sorted(before) == sorted(found) == [*state.ranks.members]:
        return ""
    if next(iter(before.values())).step != step - 1:
        return ""
    W = matrix_of_rows(plans[-1], state.ranks.members)
    (old, had), (new, has) = _stacked(before), _stacked(found)
    if old.shape != new.shape:
        return ""
    for follows in (W @ old + has - had, W @ (old + has - had)):
        off = np.abs(new - follows).max(axis=1)
        odd = [r for r, o in zip(sorted(found), off, strict=True) if not o <= slack]
        if 0 < 2 * len(odd) < len(off):
            return f" on {named(odd)}"
    return ""


def _copy(state: Invariants, event: LawEvent) -> None:
    law = state.law(event.law, "all ranks hold the same", _tolerance(event.eps))
    key = (event.law, event.owner, event.step)
    first = state.copies.setdefault(key, event)
    if event.rank == event.owner:
        state.copies[key] = event
    _trim(state.copies, 16 * _BEHIND)
    if first is event or len(first.left) != len(event.left):
        return
    here, there = np.array(event.left), np.array(first.left)
    with np.errstate(all="ignore"):
        scale = max(float(np.abs(there).max()), float(np.abs(here).max()), 1e-300)
        residual = float(np.abs(here - there).max() / scale)
    # The owner knows its own; of two others nobody can tell who is right.
    wrong = [rank for rank in (first.rank, event.rank) if rank != event.owner]
    law.check(residual, event.step, f" on {named(wrong)}, of what rank {event.owner} has")


def view_invariants(state: Invariants, now: float) -> dict[str, Any]:  # noqa: ARG001 - a view's form
    """One row a law: its lamp, its name, one line, its worst residual; broken ones first."""
    laws = [law for law in state.laws.values() if law.rounds or law.broken or law.name != _NUMBERS]
    if not laws:
        return {"n": state.ranks.n, "empty": True, "say": "No law to check."}
    order = [_ROWS, _COLUMNS]
    laws.sort(key=lambda law: order.index(law.name) if law.name in order else len(order))
    live = state.ranks.live
    rows = [_row_of(law, _void(state, law), live=live) for law in laws]
    rows.sort(key=lambda row: ("broken", "ok", "void").index(row["lamp"]))
    if not any(row["own"] for row in rows):
        rows.append(
            {
                "name": "your own laws",
                "line": "bf.check_sums(…), bf.check_copies(…)",
                "value": "",
                "lamp": "void",
                "tip": "such as tracking, push-sum mass, equal copies",
            }
        )
    broken = sum(row["lamp"] == "broken" for row in rows)
    holding = sum(row["lamp"] == "ok" for row in rows)
    return {
        "n": state.ranks.n,
        "empty": False,
        "cell": state.ranks.seq,
        "key": f"{broken} broken" if broken else f"{holding} of {holding}",
        "broken": broken,
        "rows": rows,
        "say": _say([law for law in laws if not _void(state, law)], holding, broken),
    }


def _void(state: Invariants, law: Law) -> str:
    """Why a law does not apply: push-sum needs no rows that sum to 1, if its mass is checked."""
    columns = state.laws.get(_COLUMNS)
    if law.name == _ROWS and law.broken and columns is not None and not columns.broken:
        checked = any("mass" in name or "push" in name for name in state.laws)
        return "not needed: push-sum divides by the mass" if checked else law.void
    return law.void


def _row_of(law: Law, void: str, *, live: bool) -> dict[str, Any]:
    lamp = "void" if void else "broken" if law.broken else "ok"
    line = void or law.broken or law.line
    value = "" if void else "not finite" if math.isinf(law.worst) else number(law.worst, 2)
    if law.name == _NUMBERS and lamp == "ok":
        value = ""
    # A number that only changes now and then while more rounds come: the picture may rest.
    tip = f"checked up to round {floored(law.rounds) if live else law.rounds}"
    if value:
        tip += f"\nworst {value}, round {law.at}\ntolerance {number(law.tolerance, 2)}"
    own = law.name not in (_ROWS, _COLUMNS, _NUMBERS) and not law.name.startswith("mean of ")
    return {"name": law.name, "line": line, "value": value, "lamp": lamp, "tip": tip, "own": own}


def _say(laws: Sequence[Law], holding: int, broken: int) -> str:
    if broken:
        told = [f"{law.name} {law.broken}" for law in laws if law.broken]
        return f"{broken} broken: {'; '.join(told)}."
    residuals = [law for law in laws if math.isfinite(law.worst)]
    worst = max(residuals, key=lambda law: law.worst, default=None)
    tail = f"; worst residual {number(worst.worst, 2)}, {worst.name}" if worst else ""
    return f"{holding} of {holding} laws hold{tail}."
