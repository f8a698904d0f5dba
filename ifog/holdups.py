"""From events to who holds up whom: what every rank does at the moment of a stall, and its picture.

A stall is a wait past one second. While it lasts it is shown as it is; when it has ended by itself
it is kept for a few seconds; when it was ended by an error, a death or an interrupt it is kept, as
it was then, until the next cell starts. ``ifog.why`` says what the cause is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ifog.numbers import count, duration
from ifog.ranks import STALL, Ranks, track
from ifog.telemetry import CellEnd, CellStart, Event, OpEvent, WaitEvent
from ifog.waitgraph import columns, cycle, steps
from ifog.why import Explanation, State, explain, of_wait, operation

__all__ = ["Moment", "Waits", "fold_waits", "missing", "moment", "view_waits"]

KEPT = 5.0  # seconds for which a stall that ended by itself is shown
_SILENCE = 2.0  # seconds by which a waiting rank's last report is older than the newest of others
_GLANCE = 0.2  # seconds between two notes of what all ranks did during a stall
_MOST = 12  # ranks drawn in a column
_COLUMNS = 6
_GROUPS = 8  # groups of ranks in the text
_THROUGH = ("cause", "waits for it", "through one", "through two", "through three")
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
}


class Moment(NamedTuple):
    """What every rank did at ``t``; ``over`` when the waits have ended since."""

    t: float
    states: dict[int, State]
    over: bool


@dataclass
class Waits:
    """What the ranks do, and the last stall that ended by itself, with the time of its end."""

    ranks: Ranks = field(default_factory=Ranks)
    operations: int = 0
    stall: Moment | None = None
    past: Moment | None = None


def fold_waits(state: Waits, events: Iterable[Event]) -> Waits:
    """Follow what every rank does, and note what it did during a stall."""
    for event in events:
        ranks = state.ranks
        seq, wait = ranks.seq, ranks.waits.get(event.rank)
        if not track(ranks, event):
            continue
        if isinstance(event, CellStart) and ranks.seq != seq:
            state.operations, state.stall, state.past = 0, None, None
        elif isinstance(event, OpEvent):
            state.operations += 1
            if wait is not None and event.rank not in ranks.waits:
                _go_on(state, wait, event.t1)
        elif isinstance(event, WaitEvent) and event.t - event.since > STALL:
            if state.stall is None or event.t - state.stall.t > _GLANCE:
                state.stall = Moment(event.t, _doing(ranks), over=True)
    return state


def _go_on(state: Waits, wait: WaitEvent, t: float) -> None:
    """Keep what held up a rank until ``t``, unless it is the stall that is kept already."""
    known = state.stall is not None and wait.rank in state.stall.states
    if state.stall is None or not known or t - wait.since <= STALL or wait.since > state.stall.t:
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
        elif rank in ranks.members:
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
            name = str(error.get("ename", ""))
            return State("raised", since=end.t, line=line, rounds=end.rounds, detail=name)
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
    if stop is not None and not ranks.waits:
        failed = any(end.status == "error" for end in ranks.ends.values()) or ranks.gone
        long = any(stop - wait.since > STALL for wait in ranks.freed.values())
        # An interrupt finds ranks in waits that are too short to mean anything.
        return Moment(stop, _doing(ranks), over=True) if failed or long else None
    late = max((max(now, wait.t) - wait.since for wait in ranks.waits.values()), default=0.0)
    if late <= STALL and stop is None:
        return None
    return Moment(max(now, ranks.last), _doing(ranks), over=False)


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
    cause = None if seen is None else explain(seen.states, seen.t, over=seen.over)
    if seen is None or cause is None:
        return _nothing(state)
    needs = _needs(seen)
    ring = _ring(seen, cause)
    layers = columns(cause.causes, needs, _COLUMNS)
    view = {
        "n": state.ranks.n,
        "empty": False,
        "moves": seen is past,
        "kind": cause.kind,
        "key": _key(seen, past),
        "sentence": cause.sentence,
        "ring": _ring_view(seen, ring, cause) if ring else None,
        "columns": [] if ring else _columns_view(layers, seen),
        "arrows": [] if ring else _arrows(layers, needs, cause),
        "rows": _rows(seen, cause),
    }
    return view | {"say": _say(cause, ring, layers, needs)}


def _nothing(state: Waits) -> dict[str, Any]:
    lost = f", {count(state.ranks.lost)} events lost"
    done = f"{count(state.operations)} operations{lost}" if state.operations else ""
    return {"n": state.ranks.n, "empty": True, "key": done, "say": "Nothing waits."}


def _key(seen: Moment, past: Moment | None) -> str:
    if seen is past:
        since = min(s.since for s in seen.states.values() if s.kind == "waiting")
        return f"over after {duration(seen.t - since)}"
    return "at the moment of release" if seen.over else ""


def _columns_view(layers: list[list[int]], seen: Moment) -> list[dict[str, Any]]:
    many = len(layers[0]) > 1
    view = []
    for index, layer in enumerate(layers):
        name = _THROUGH[index] if index < len(_THROUGH) else "through four or more"
        if many and index < 2:
            name = ("causes", "waits for them")[index]
        nodes = [_node(rank, seen) for rank in layer[:_MOST]]
        view.append({"name": name, "nodes": nodes, "more": layer[_MOST:]})
    return view


def _node(rank: int, seen: Moment) -> dict[str, Any]:
    state = seen.states.get(rank, State("outside"))
    look = _LOOKS.get(state.kind, "computing")
    label = place(state) if state.kind == "waiting" else _WORDS.get(state.kind, "")
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
    layers: list[list[int]], needs: Mapping[int, tuple[int, ...]], cause: Explanation
) -> list[list[int]]:
    """[who waits, for whom, 1 if for a cause], between ranks that are drawn."""
    drawn = [layer[:_MOST] for layer in layers]
    return [[rank, peer, int(peer in cause.causes)] for rank, peer in steps(drawn, needs)]


def _ring_view(seen: Moment, ring: tuple[int, ...], cause: Explanation) -> dict[str, Any]:
    places = [_in_cell(seen.states[rank]) for rank in ring]
    usual = max(set(places), key=places.count)
    lines = [
        [f"{rank} \N{RIGHTWARDS ARROW} {peer}", where, where != usual]
        for (rank, peer), where in zip(_red(seen, cause), places, strict=True)
    ]
    others = len({*cause.held, *cause.causes} - set(ring))
    return {
        "nodes": [_node(rank, seen) for rank in ring],
        "lines": lines[:_MOST],
        "more": max(len(lines) - _MOST, 0),
        "others": f"{others} more rank{'s' * (others != 1)} wait for these" if others else "",
    }


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
    cause: Explanation,
    ring: tuple[int, ...],
    layers: list[list[int]],
    needs: Mapping[int, tuple[int, ...]],
) -> str:
    """The sentence, then who waits for whom: ``4, 5 and 7 wait for 3; 0 and 1 for 7.``"""
    if ring:
        way = ", ".join(f"{u} for {v}" for u, v in zip(ring, (*ring[1:], ring[0]), strict=True))
        return f"{cause.sentence} {way}."
    groups: dict[tuple[int, ...], list[int]] = {}
    for rank, peer in steps(layers, needs):
        groups.setdefault((peer,), []).append(rank)
    told = [
        f"{', '.join(map(str, ranks))}{'' if k else ' wait' if len(ranks) > 1 else ' waits'} "
        f"for {', '.join(map(str, peers))}"
        for k, (peers, ranks) in enumerate(groups.items())
    ]
    rest = [f"{len(told) - _GROUPS} more groups"] if len(told) > _GROUPS else []
    return f"{cause.sentence} {'; '.join(told[:_GROUPS] + rest)}."
