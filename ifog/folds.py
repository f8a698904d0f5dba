"""From events to what the panels show: what every rank does, and where the time goes.

A fold takes the state so far and a few events and returns the state after them; a view turns a
state and the time of day into the JSON a panel draws. Neither reads a clock nor touches a widget,
and how the events are cut into batches does not matter, so a live run, a file and a test are the
same thing. A fold owns the state it is given and may update it in place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Any, Generic, TypeVar

import numpy as np

from ifog.batches import Run, belonging
from ifog.numbers import count, number, percent, size
from ifog.ranks import Ranks, is_mixing, operate, rank_state, track
from ifog.telemetry import Event, GraphEvent, LogEvent, OpEvent

__all__ = [
    "LANES",
    "Gather",
    "Ranks",
    "Status",
    "Throughput",
    "evenly",
    "fold_status",
    "fold_throughput",
    "is_mixing",
    "listing",
    "rank_state",
    "thinned",
    "track",
    "view_status",
    "view_throughput",
]

_WINDOW = 2.0  # seconds over which rates are averaged
LANES = 64  # ranks drawn side by side
_SUMS = 6  # columns of the sums of Throughput
_PENDING = 4096  # unfinished steps kept of one name

T = TypeVar("T")
Rounds = dict[int, OpEvent]  # one operation of each rank


def listing(ranks: Sequence[int], most: int = 4) -> str:
    """A few ranks in words: ``2 and 4``, ``0, 1, 2, 3 and 9 more``."""
    if len(ranks) > most:
        return f"{', '.join(map(str, ranks[:most]))} and {len(ranks) - most} more"
    *head, last = map(str, ranks)
    return f"{', '.join(head)} and {last}" if head else last


def evenly(ranks: Sequence[int]) -> Sequence[int]:
    """At most ``LANES`` of the ranks, evenly spread: more cannot be told apart side by side."""
    step = -(-len(ranks) // LANES)
    return ranks[::step] if step > 1 else ranks


def thinned(length: int, most: int) -> list[int]:
    """Indices of at most ``most`` points, which stay the same ones as long as possible."""
    stride = 1
    while (length - 1) // stride + 2 > most:
        stride *= 2
    picked = list(range(0, length, stride))
    return picked if (length - 1) % stride == 0 else [*picked, length - 1]


class Gather(Generic[T]):
    """Collects one item a rank under (key, step) until every rank of the cell has given its own.

    Every rank reports its steps in order, so a complete step ends the wait for all earlier ones.
    """

    def __init__(self) -> None:
        self._pending: dict[Any, dict[int, dict[int, T]]] = {}

    def clear(self) -> None:
        """Forget what has been collected."""
        self._pending.clear()

    def put(self, key: Any, step: int, rank: int, item: T, ranks: int) -> dict[int, T] | None:
        """Add an item; the items by rank if it was the last of ``ranks``."""
        steps = self._pending.get(key)
        if steps is None:
            steps = self._pending[key] = {}
        items = steps.get(step)
        if items is None:
            items = steps[step] = {}
        items[rank] = item
        if len(items) < ranks:
            if len(steps) > _PENDING:
                del steps[next(iter(steps))]
            return None
        _drop(steps, step)
        return items

    def join(self: Gather[OpEvent], run: Run, ranks: int) -> Iterator[tuple[OpEvent, Rounds]]:
        """Put the rounds of a run; those that it completes, each with the operations by rank."""
        # What ``put`` does, for all operations of a rank at once.
        op = name = None
        mixes, steps, rank = False, {}, run[0].rank
        for event in run:
            if event[3] != op or event[4] != name:
                op, name = event[3], event[4]
                mixes = is_mixing(op)
                steps = self._pending.setdefault((op, name), {}) if mixes else {}
            if not mixes:
                continue
            step = event[2]
            items = steps.get(step)
            if items is None:
                items = steps[step] = {}
            items[rank] = event
            if len(items) >= ranks:
                _drop(steps, step)
                yield event, items
            elif len(steps) > _PENDING:
                del steps[next(iter(steps))]


def _drop(steps: dict[int, Any], last: int) -> None:
    """Forget the steps up to the last one that is complete, which are the first ones as a rule."""
    for step in [s for s in steps if s <= last]:
        del steps[step]


def _states(ranks: Ranks, now: float) -> list[str]:
    return [rank_state(ranks, rank, now) for rank in range(ranks.n)]


@dataclass
class Status:
    """The line above the panels."""

    ranks: Ranks = field(default_factory=Ranks)
    label: str = ""
    events: int = 0


def fold_status(state: Status, events: Sequence[Event]) -> Status:
    """Follow cells, ranks and the name of the graph."""
    state.events += len(events)
    for event in belonging(state.ranks, events):
        if type(event) is list:
            operate(state.ranks, event)
        elif isinstance(event, GraphEvent):
            state.label = event.label
    return state


def view_status(state: Status, now: float) -> dict[str, Any]:
    """Run, graph, rank states, round, seconds, and what was lost."""
    ranks = state.ranks
    pill = "idle" if ranks.seq is None else "live" if ranks.live else "ended"
    elapsed = max((now if ranks.live else ranks.last) - ranks.started, 0.0) if ranks.members else 0
    states = _states(ranks, now)
    share = ranks.lost / max(state.events + ranks.lost, 1)
    lost = f"{count(ranks.lost)} events lost, {number(100 * share, 1)}\N{NO-BREAK SPACE}%"
    stuck = [r for r, s in enumerate(states) if s in ("waiting", "stalled")]
    say = f"{ranks.n} ranks, {pill}, round {ranks.round}"
    return {
        "n": ranks.n,
        "cell": ranks.seq,
        "label": state.label,
        "states": states if ranks.n <= LANES else [],
        "counts": "" if ranks.n <= LANES else _counts(states),
        "round": ranks.round,
        "elapsed": round(elapsed, 3),
        "pill": pill,
        "lost": lost if ranks.lost else "",
        "say": f"{say}; {listing(stuck)} wait." if stuck else f"{say}.",
    }


def _counts(states: Sequence[str]) -> str:
    return ", ".join(f"{count(many)} {state}" for state, many in Counter(states).items())


@dataclass
class Throughput:
    """Seconds, bytes and rounds of each rank, in quarter seconds for the rates, and before them.

    Columns of the sums: compute, transfer, wait, bytes, rounds, samples.
    """

    ranks: Ranks = field(default_factory=lambda: Ranks(averages=False))
    total: dict[int, list[float]] = field(default_factory=dict)
    slices: dict[int, dict[int, list[float]]] = field(default_factory=dict)


def fold_throughput(state: Throughput, events: Iterable[Event]) -> Throughput:
    """Add up where each operation's time went."""
    ranks, seq = state.ranks, state.ranks.seq
    for event in belonging(ranks, events):
        if type(event) is list:
            _spend(state, event)
            operate(ranks, event)
        elif isinstance(event, LogEvent):
            samples = sum(value for name, value in event.values if name == "samples")
            if samples > 0:
                _sums(state, event.rank, event.t)[5] += samples
        elif ranks.seq != seq:
            seq = ranks.seq
            state.total.clear()
            state.slices.clear()
    return state


def _spend(state: Throughput, run: Run) -> None:
    """Add a rank's operations, before its ``Ranks`` know of them."""
    # Each once, so it is written for speed.
    rank, quarter = run[0].rank, -1
    sums: list[float] = []
    before = state.ranks.busy_until.get(rank, 0.0)  # when its last one had ended, 0 if none had
    rounds = state.ranks.rounds.get(rank, 0)
    for event in run:
        t0, t1, wait = event[5], event[6], event[7]
        if int(4 * t1) != quarter:
            quarter = int(4 * t1)
            sums = _sums(state, rank, t1)
        begun = t0 if t0 > before else before
        if t1 > begun:
            wait = min(wait, t1 - begun)
            sums[1] += t1 - begun - wait
            sums[2] += wait
        if before and t0 > before:
            sums[0] += t0 - before
        sums[3] += event[9]
        if event[2] >= rounds and is_mixing(event[3]):
            sums[4] += event[2] + 1 - rounds
            rounds = event[2] + 1
        before = max(before, t1)


def _sums(state: Throughput, rank: int, t: float) -> list[float]:
    """The sums of a rank in the quarter second of ``t``; those that are old join the total."""
    quarter = int(4 * t)
    table = state.slices.get(quarter)
    if table is None:
        table = state.slices[quarter] = {}
        if len(state.slices) > 8 * _WINDOW:
            newest = max(state.slices)
            for old in [q for q in state.slices if q < newest - 5 * _WINDOW]:
                _merge(state.total, state.slices.pop(old))
    sums = table.get(rank)
    if sums is None:
        sums = table[rank] = [0.0] * _SUMS
    return sums


def _merge(into: dict[int, list[float]], table: dict[int, list[float]]) -> None:
    for rank, spent in table.items():
        sums = into.get(rank)
        into[rank] = [*spent] if sums is None else list(map(add, sums, spent))


def _whole(state: Throughput) -> dict[int, list[float]]:
    """The sums of the whole cell."""
    whole = dict(state.total)
    for table in state.slices.values():
        _merge(whole, table)
    return whole


def _recent(state: Throughput, now: float) -> tuple[np.ndarray, float]:
    """Sums [members, 6] and their span: the last seconds while live, else the whole cell.

    Fewer than two rounds in the last seconds tell nothing about where the time goes; then the
    whole cell is taken, with what every rank is doing at present.
    """
    ranks = state.ranks
    zero = [0.0] * _SUMS
    now = ranks.clock(now)
    span = max(now - ranks.started, 1e-9)
    whole = _whole(state)
    sums = np.array([whole.get(rank, zero) for rank in ranks.members]).reshape(-1, _SUMS)
    if ranks.live and span > _WINDOW:
        first = int(4 * now) - int(4 * _WINDOW)
        late = [table for quarter, table in state.slices.items() if quarter >= first]
        recent = [np.array([table.get(rank, zero) for rank in ranks.members]) for table in late]
        if recent and np.sum(recent, axis=0)[:, 4].min() >= 2:
            return np.sum(recent, axis=0), max(now - first / 4, 1e-9)
    for row, rank in enumerate(ranks.members if ranks.live else ()):
        wait = ranks.waits.get(rank)
        if wait is not None:
            sums[row, 2] += max(now - wait.since, 0.0)
        elif rank not in ranks.ended:
            sums[row, 0] += max(now - ranks.busy_until.get(rank, now), 0.0)
    return sums, span


def _rates(state: Throughput, sums: np.ndarray, span: float, now: float) -> np.ndarray:
    """Bytes, rounds and samples a second, [members, 3]; zero once a brisk run stands still."""
    newest = (max(state.slices, default=0) + 1) / 4
    still = state.ranks.live and now - newest > _WINDOW
    rates = sums[:, 3:] / span
    return rates * (0.0 if still and rates[:, 1].mean() > 2 / _WINDOW else 1.0)


def view_throughput(state: Throughput, now: float) -> dict[str, Any]:
    """Rates, and per rank the shares of compute, transfer and wait; empty before two rounds."""
    ranks = state.ranks
    if ranks.round < 2:
        return {"n": ranks.n, "empty": True, "say": "No rounds yet."}
    sums, span = _recent(state, now)
    spent = sums[:, :3]
    shares = spent / np.maximum(spent.sum(axis=1, keepdims=True), 1e-12)
    busy = 1.0 - shares[:, 2]
    compute = spent[:, 0]
    slowest = int(np.argmax(compute))
    loss = 1.0 - float(compute.mean()) / max(float(compute[slowest]), 1e-12)
    rates = _rates(state, sums, span, now)
    rate, sent = float(rates[:, 1].mean()), float(rates[:, 0].sum())
    learned = any(row[5] for row in _whole(state).values())
    named = ranks.members[slowest]
    rows = evenly(range(len(ranks.members)))
    busiest = ranks.members[int(np.argmax(busy))]
    waited = percent(float(1 - busy.mean()))
    return {
        "n": ranks.n,
        "empty": False,
        "live": ranks.live,
        "ranks": [ranks.members[i] for i in rows],
        "figures": [
            [number(rate), "rounds/s"],
            [f"{size(sent)}/s", "sent"],
            [number(float(rates[:, 2].sum())), "samples/s"] if learned else [waited, "waiting"],
        ],
        "shares": [[round(float(x), 3) for x in shares[i]] for i in rows],
        "busiest": busiest,
        "rates": [[number(rounds), f"{size(nbytes)}/s"] for nbytes, rounds, _ in rates[list(rows)]],
        "loss": f"straggler loss {percent(loss)}" if len(compute) > 1 else "",
        "culprit": f"rank {named} computes longest" if len(compute) > 1 and loss >= 0.05 else "",
        "slowest": [ranks.members[i] for i in np.argsort(-compute)[:5]],
        "say": f"{number(rate)} rounds/s; ranks wait {waited} on average; "
        f"rank {busiest} waits least.",
    }
