"""From events to who holds up whom: what every rank does at the moment of a stall, and its picture.

A stall is a wait past one second. While it lasts it is shown as it is; when it has ended by itself
it is kept for a few seconds; when it was ended by an error, a death or an interrupt it is kept, as
it was then, until the next cell starts. ``ifog.why`` says what the cause is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ifog.batches import Run, belonging
from ifog.numbers import count, counted, duration, floored, named, rank_ranges
from ifog.ranks import STALL, Ranks, operate
from ifog.telemetry import CellEnd, CellStart, Event, WaitEvent
from ifog.waitgraph import columns, cycle, steps
from ifog.why import Explanation, State, explain, of_wait, operation

__all__ = ["Moment", "Waits", "explained", "fold_waits", "missing", "moment", "view_waits"]

KEPT = 5.0  # seconds for which a stall that ended by itself is shown
_SILENCE = 2.0  # seconds by which a waiting rank's last report is older than the newest of others
_GLANCE = 0.2  # seconds between two notes of what all ranks did during a stall
_MOST = 12  # ranks drawn in a column
_COLUMNS = 8
_GROUPS = 8  # groups of ranks in the text
_NUMBERS = ("one", "two", "three", "four", "five", "six")
_LOOKS = {
    "waiting": "waiting",
    "raised": "gone",
    "dead": "gone",
    "silent": "silent",
    "finished": "hollow",
    "outside": "hollow",
    "interrupted": "hollow",
}
_WORDS = {
    "raised": "raised",
    "dead": "died",
    "silent": "no answer",
    "finished": "finished",
    "outside": "not in cell",
    "interrupted": "interrupted",
    "starting": "not begun",
    "elsewhere": "other cell",
    "moving": "receiving",
}


class Moment(NamedTuple):
    """What every rank did at ``t``; ``over`` when the waits have ended since."""

    t: float
    states: dict[int, State]
    over: bool


@dataclass
class Waits:
    """What the ranks do, and the last stall that ended by itself, with the time of its end."""

    ranks: Ranks = field(default_factory=lambda: Ranks(averages=False))
    operations: int = 0
    stall: Moment | None = None
    past: Moment | None = None


def fold_waits(state: Waits, events: Iterable[Event]) -> Waits:
    """Follow what every rank does, and note what it did during a stall."""
    ranks, seq = state.ranks, state.ranks.seq
    for event in belonging(ranks, events):
        if type(event) is list:
            state.operations += len(event)
            _operate(state, event)
        elif isinstance(event, CellStart) and ranks.seq != seq:
            seq = ranks.seq
            state.operations, state.stall, state.past = 0, None, None
        elif isinstance(event, WaitEvent) and event.t - event.since > STALL:
            _note(state, event.t)
    return state


def _operate(state: Waits, run: Run) -> None:
    wait = state.ranks.waits.get(run[0].rank)
    if wait is None:
        operate(state.ranks, run)
        return
    for event in run:
        operate(state.ranks, [event])
        if wait is not None and event.rank not in state.ranks.waits:
            _go_on(state, wait, event.t1)
            wait = None


def _note(state: Waits, t: float) -> None:
    if state.stall is None or t - state.stall.t > _GLANCE:
        state.stall = Moment(t, _doing(state.ranks), over=True)


def _go_on(state: Waits, wait: WaitEvent, t: float) -> None:
    """Keep what held up a rank until ``t``, unless it is the stall that is kept already."""
    noted = None if state.stall is None else state.stall.states.get(wait.rank)
    if state.stall is None or noted is None or noted.since != wait.since or t - wait.since <= STALL:
        return
    if state.past is None or wait.since > state.past.t:
        state.past = state.stall._replace(t=t)


def _doing(ranks: Ranks) -> dict[int, State]:
    """What every rank of the cell does now, or did when the cell was stopped."""
    stop = _stopped(ranks)
    alone = sum(end.status == "interrupted" for end in ranks.ends.values()) == 1
    states: dict[int, State] = {}
    for rank in sorted({*ranks.members, *ranks.gone}):
        end = ranks.ends.get(rank)
        if rank in ranks.gone:
            states[rank] = State("dead", detail=ranks.gone[rank].cause)
        elif end is not None:
            states[rank] = _ended(ranks, end, stop, alone=alone)
        elif rank in ranks.among:
            states[rank] = _running(ranks, rank)
    return states


def _running(ranks: Ranks, rank: int) -> State:
    wait = ranks.waits.get(rank)
    rounds = ranks.rounds.get(rank, 0)
    if wait is not None:
        if ranks.last - wait.t > _SILENCE:
            return State("silent", since=wait.t, rounds=rounds)
        return of_wait(wait)._replace(rounds=rounds)
    if ranks.cell.get(rank) != ranks.seq:
        return State("starting")
    return State("computing", since=ranks.busy_until.get(rank, 0.0), rounds=rounds)


def _ended(ranks: Ranks, end: CellEnd, stop: float | None, *, alone: bool) -> State:
    error = end.error or {}
    peer, line = error.get("peer"), error.get("line")
    if end.rank in ranks.freed:
        return of_wait(ranks.freed[end.rank])._replace(rounds=end.rounds)
    if end.status == "error":
        if peer is None:
            what, where = str(error.get("ename", "")), str(error.get("where", ""))
            return State("raised", end.t, name=where, line=line, rounds=end.rounds, detail=what)
        # It was set free before it had waited long enough to report whom it waited for.
        return State("waiting", since=end.t, peers=(peer,), line=line, rounds=end.rounds)
    if end.status == "ok" and (stop is None or end.t <= stop):
        return State("finished", since=end.t, rounds=end.rounds)
    # Others were stopped with it, so what it did until then is what held them up.
    kind = "interrupted" if end.status == "interrupted" and alone else "computing"
    return State(kind, since=ranks.busy_until.get(end.rank, 0.0), rounds=end.rounds)


def _stopped(ranks: Ranks) -> float | None:
    """When the cell was stopped by an error, a death or an interrupt; None if it was not."""
    times = [end.t for end in ranks.ends.values() if end.status != "ok"]
    times += [ranks.gone[r].t for r in ranks.members if r in ranks.gone]
    return min(times, default=None)


def moment(ranks: Ranks, now: float) -> Moment | None:
    """The stall of the newest cell: as it is, or as it was when the cell was stopped."""
    stop = _stopped(ranks)
    t = max(now, ranks.last) if ranks.waits or stop is None else stop
    waits = [*ranks.waits.values(), *ranks.freed.values()]
    long = any(max(t, wait.t) - wait.since > STALL for wait in waits)
    failed = any(end.status == "error" for end in ranks.ends.values())
    # An interrupt finds ranks in waits that are too short to mean anything.
    if not long and not failed and (ranks.live or ranks.gone.keys().isdisjoint(ranks.members)):
        return None
    return Moment(t, _doing(ranks), over=stop is not None and not ranks.waits)


def explained(seen: Moment) -> Explanation | None:
    """The cause of the waits, None where nobody waits."""
    return explain(seen.states, seen.t, over=seen.over)


def missing(seen: Moment, cause: Explanation) -> list[tuple[int, int]]:
    """The edges (u, v) over which v expects what u, a cause, has not sent."""
    return [(u, v) for v, u in _red(seen, cause)]


def _needs(seen: Moment) -> dict[int, tuple[int, ...]]:
    return {rank: s.peers for rank, s in seen.states.items() if s.kind == "waiting"}


def _ring(seen: Moment, cause: Explanation) -> tuple[int, ...]:
    if cause.kind not in ("cycle", "diverged"):
        return ()
    return cycle({rank: peers for rank, peers in _needs(seen).items() if rank in cause.causes})


def _red(seen: Moment, cause: Explanation) -> list[tuple[int, int]]:
    ring = _ring(seen, cause)
    if ring:
        return list(zip(ring, (*ring[1:], ring[0]), strict=True))
    return [(rank, peer) for rank, peer in cause.edges if peer in cause.causes]


def view_waits(state: Waits, now: float) -> dict[str, Any]:
    """The sentence, the columns or the ring to draw, and what to say of it."""
    seen = moment(state.ranks, now)
    past = state.past
    if seen is None and past is not None and now - past.t < KEPT:
        seen = past
    cause = None if seen is None else explained(seen)
    if seen is None or cause is None:
        return _nothing(state)
    needs = _needs(seen)
    ring = _ring(seen, cause)
    layers = columns(cause.causes, needs)
    sentence = _ended_well(seen, cause) if seen is past else cause.sentence
    red = () if seen is past else cause.causes  # what is over shouts no more
    view = {
        "n": state.ranks.n,
        "empty": False,
        "moves": seen is past,
        "kind": cause.kind,
        "key": "over" if seen is past else "at the moment of release" if seen.over else "",
        "sentence": sentence,
        "ring": _ring_view(seen, ring, cause) if ring else None,
        "columns": [] if ring else _columns_view(layers, seen),
        "arrows": [] if ring else _arrows(layers, needs, red),
        "rows": _rows(seen, cause),
    }
    return view | {"say": _say(sentence, ring, layers, needs)}


def _nothing(state: Waits) -> dict[str, Any]:
    live = state.ranks.live
    # While more come, a number that only changes now and then, so that the picture may rest.
    many = floored(state.operations) if live else state.operations
    words = f"{'over ' * (many < state.operations)}{count(many)} operations"
    done = f"{words}, {count(state.ranks.lost)} events lost" if state.operations else ""
    return {"n": state.ranks.n, "empty": True, "key": done, "say": "Nothing waits."}


def _ended_well(seen: Moment, cause: Explanation) -> str:
    since = min(seen.states[rank].since for rank in cause.held)
    waited = f"{counted(len(cause.held))} waited for {named(cause.causes)}"
    return f"{waited}, until it went on after {duration(seen.t - since)}."


def _columns_view(layers: list[list[int]], seen: Moment) -> list[dict[str, Any]]:
    cause, waits = ("causes", "waits for them") if layers[0][1:] else ("cause", "waits for it")
    names = [cause, waits, *(f"through {number}" for number in _NUMBERS)]
    view: list[dict[str, Any]] = [
        {
            "name": name,
            "nodes": [_node(rank, seen) for rank in layer[:_MOST]],
            "more": layer[_MOST:],
        }
        for name, layer in zip(names, layers, strict=False)
    ]
    view[-1]["more"] += [rank for layer in layers[_COLUMNS:] for rank in layer]
    return view


def _node(rank: int, seen: Moment) -> dict[str, Any]:
    state = seen.states.get(rank, State("outside"))
    look = "moving" if state.moving else _LOOKS.get(state.kind, "computing")
    label = place(state) if look == "waiting" else _WORDS.get(look, _WORDS.get(state.kind, ""))
    return {"rank": rank, "look": look, "label": label, "tip": _tip(rank, state, seen.t)}


def place(state: State) -> str:
    """Where a rank waits: ``neighbor_allreduce('x'), line 4``."""
    line = "" if state.line is None else f"line {state.line}"
    return ", ".join(part for part in (operation(state), line) if part)


def _tip(rank: int, state: State, now: float) -> str:
    if state.kind != "waiting":
        return f"rank {rank}, {_WORDS.get(state.kind, state.kind)} {state.detail}".rstrip()
    whom = ", ".join(map(str, state.peers[:_MOST]))
    lines = [f"rank {rank} waits for {whom}", place(state)]
    if now - state.since > 0:
        lines.append(f"for {duration(now - state.since)}")
    return "\n".join(line for line in lines if line)


def _arrows(
    layers: list[list[int]], needs: Mapping[int, tuple[int, ...]], red: Collection[int]
) -> list[list[int]]:
    """[who waits, for whom, 1 if that is red], between ranks that are drawn."""
    drawn = [layer[:_MOST] for layer in layers[:_COLUMNS]]
    return [[rank, peer, int(peer in red)] for rank, peer in steps(drawn, needs)]


def _ring_view(seen: Moment, ring: tuple[int, ...], cause: Explanation) -> dict[str, Any]:
    places = [_in_cell(seen.states[rank]) for rank in ring]
    alike = max(map(places.count, places)) > 1
    lines = [
        [f"{rank} \N{RIGHTWARDS ARROW} {peer}", where, alike and places.count(where) == 1]
        for (rank, peer), where in zip(_red(seen, cause), places, strict=True)
    ]
    others = len({*cause.held, *cause.causes} - set(ring))
    return {
        "nodes": [_node(rank, seen) for rank in ring],
        "lines": lines[:_MOST],
        "more": max(len(lines) - _MOST, 0),
        "others": f"{others} more rank{_of(others)} for these" if others else "",
    }


def _of(ranks: int) -> str:
    return " waits" if ranks == 1 else "s wait"


def _in_cell(state: State) -> str:
    line = "" if state.line is None else f", cell line {state.line}"
    return f"{operation(state)}{line}"


def _rows(seen: Moment, cause: Explanation) -> list[list[str]]:
    """A table: rank, what it does, for whom, where, and for how long."""
    first = {*cause.causes}
    order = sorted(seen.states, key=lambda r: (r not in first, r))
    rows = []
    for rank in order:
        state = seen.states[rank]
        waits = state.kind == "waiting"
        whom = ", ".join(map(str, state.peers)) if waits else ""
        long = duration(max(seen.t - state.since, 0.0)) if waits else ""
        kind = state.kind + (f" {state.detail}" if state.detail else "")
        rows.append([str(rank), kind, whom, place(state) if waits else "", long])
    return rows


def _say(
    sentence: str,
    ring: tuple[int, ...],
    layers: list[list[int]],
    needs: Mapping[int, tuple[int, ...]],
) -> str:
    """The sentence, then who waits for whom, such as ``4, 5 wait for 3; 0 for 5``."""
    if ring:
        way = ", ".join(f"{u} for {v}" for u, v in zip(ring, (*ring[1:], ring[0]), strict=True))
        return f"{sentence} {way}."
    groups: dict[int, list[int]] = {}
    for rank, peer in steps(layers, needs):
        groups.setdefault(peer, []).append(rank)
    told = [f"{rank_ranges(ranks)} for {peer}" for peer, ranks in groups.items()]
    if told:
        many = len(next(iter(groups.values()))) > 1
        told[0] = told[0].replace(" ", " wait " if many else " waits ", 1)
    rest = [f"{len(told) - _GROUPS} more groups"] if len(told) > _GROUPS else []
    return f"{sentence} {'; '.join(told[:_GROUPS] + rest)}."
