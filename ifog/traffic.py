"""From events to the graph as it is used: edges, weights, bytes, and who is far from the mean.

Declared edges come from ``GraphEvent``; what a round really used comes from the operations
themselves, so a schedule that changes the graph every round is shown as it runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ifog.batches import Run, alike, belonging
from ifog.folds import Gather, Rounds, listing
from ifog.glances import Watched
from ifog.numbers import number
from ifog.ranks import Ranks, fate, operate, rank_state
from ifog.telemetry import CellStart, Event, GraphEvent, OpEvent, WatchEvent
from ifog.waits import explained, missing, moment

__all__ = ["DRAWN", "Traffic", "fold_traffic", "view_traffic"]

DRAWN = 64  # ranks above which the graph is a matrix, not a drawing
_BINS = 128  # rows and columns of that matrix
_PARTS = 24  # of the histogram below it
_PLANS = 64  # rounds after which an edge that was not used again is forgotten
_DECADES = 6  # colours span at least so many decades below the start

Edge = tuple[int, int]


@dataclass
class Traffic:
    """The declared graph, the rounds of the newest cell, and the distances to the mean."""

    ranks: Ranks = field(default_factory=Ranks)
    watched: Watched = field(default_factory=Watched)
    gather: Gather[OpEvent] = field(default_factory=Gather)
    declared: dict[Edge, float] = field(default_factory=dict)
    label: str = ""
    now_used: dict[int, OpEvent] = field(default_factory=dict)
    plans: dict[Any, tuple[int, int]] = field(default_factory=dict)  # done then, and its round
    older: dict[Edge, int] = field(default_factory=dict)  # the last round of plans forgotten
    done: int = 0
    sent: dict[tuple[int, tuple[int, ...]], float] = field(default_factory=dict)
    distances: np.ndarray | None = None
    domain: tuple[int, int] | None = None


def fold_traffic(state: Traffic, events: Iterable[Event]) -> Traffic:
    """Follow graph, rounds and watched tensors."""
    seq = state.ranks.seq
    for event in belonging(state.ranks, events):
        if type(event) is list:
            operate(state.ranks, event)
            _send(state, event)
        elif isinstance(event, GraphEvent):
            state.label = event.label
            state.declared = {(u, v): weight for u, v, weight in event.edges}
            state.now_used = {}
            _forget(state)
        elif isinstance(event, CellStart):
            if state.ranks.seq != seq:
                seq = state.ranks.seq
                _restart(state)
        elif isinstance(event, WatchEvent):
            _glance(state, event)
    return state


def _send(state: Traffic, run: Run) -> None:
    for event, nbytes, _ in alike(run):
        key = (event.rank, event.dst)
        state.sent[key] = state.sent.get(key, 0.0) + nbytes
    for event, ops in state.gather.join(run, len(state.ranks.members)):
        _mix(state, event, ops)


def _restart(state: Traffic) -> None:
    state.gather.clear()
    state.watched.clear()
    _forget(state)
    state.sent.clear()
    state.done = 0
    state.now_used = {}
    state.domain = None


def _forget(state: Traffic) -> None:
    state.plans.clear()
    state.older.clear()


def _mix(state: Traffic, event: OpEvent, ops: Rounds) -> None:
    state.now_used = ops
    state.done += 1
    plan = tuple([ops[rank].src for rank in state.ranks.members])
    state.plans[plan] = (state.done, event.step + 1)
    if len(state.plans) > 1:
        for old in [p for p, (last, _) in state.plans.items() if last < state.done - _PLANS]:
            _note(state, state.older, old)
            del state.plans[old]


def _note(state: Traffic, rounds: dict[Edge, int], plan: Any) -> None:
    """Write down the last round of the edges of a plan."""
    last = state.plans[plan][1]
    for rank, sources in zip(state.ranks.members, plan, strict=False):
        for source in sources:
            rounds[source, rank] = max(rounds.get((source, rank), 0), last)


def _lasts(state: Traffic) -> dict[Edge, int]:
    """The last round of the cell in which an edge carried something."""
    rounds = dict(state.older)
    for plan in state.plans:
        _note(state, rounds, plan)
    return rounds


def _glance(state: Traffic, event: WatchEvent) -> None:
    glance = state.watched.put(event, state.ranks.members)
    if glance is None or glance.name != state.watched.first:
        return
    state.distances = glance.distances
    finite = glance.distances[np.isfinite(glance.distances) & (glance.distances > 0)]
    if not finite.size:
        return
    decade = math.log10(float(finite.max()))
    if state.domain is None:
        top = math.ceil(decade)
        state.domain = (top - _DECADES, top)
    low, top = state.domain
    while decade < low and low > top - 18:
        low -= 3
    state.domain = (low, max(top, math.ceil(decade)))


def _used(state: Traffic) -> dict[Edge, float]:
    used: dict[Edge, float] = {}
    for rank, op in state.now_used.items():
        weights = op.weights[1:] or (0.0,) * len(op.src)
        used.update({(u, rank): w for u, w in zip(op.src, weights, strict=False) if u != rank})
    return used


def _idle(state: Traffic) -> dict[Edge, float]:
    edges = {edge: weight for edge, weight in state.declared.items() if edge[0] != edge[1]}
    for plan in state.plans:
        for rank, sources in zip(state.ranks.members, plan, strict=False):
            for u in sources:
                edges.setdefault((u, rank), 0.0)
    return edges


def _self_weights(state: Traffic) -> list[float]:
    weights = []
    for rank in range(state.ranks.n):
        op = state.now_used.get(rank)
        row = op.weights if op else ()
        weights.append(round(row[0] if row else state.declared.get((rank, rank), 0.0), 6))
    return weights


def _bytes(state: Traffic) -> tuple[list[float], list[float]]:
    out, come = [0.0] * state.ranks.n, [0.0] * state.ranks.n
    for (rank, dst), nbytes in state.sent.items():
        out[rank] += nbytes
        for receiver in dst:
            come[receiver] += nbytes / len(dst)
    return out, come


def _messages(state: Traffic) -> list[float]:
    """Bytes of one message of each rank in the round shown."""
    sizes = [0.0] * state.ranks.n
    for rank, op in state.now_used.items():
        sizes[rank] = op.nbytes / max(len(op.dst), 1)
    return sizes


def _matrix(n: int, edges: Iterable[Edge]) -> str:
    """The matrix of a large graph in bins, rows send: a hexadecimal digit a bin.

    It says how many edges are in the bin, from 0 to 15 for the most that are in any.
    """
    ends = np.array(list(edges), dtype=np.int64).reshape(-1, 2) * _BINS // max(n, _BINS)
    counts = np.bincount(ends[:, 0] * _BINS + ends[:, 1], minlength=_BINS**2)
    levels = -(-15 * counts // max(int(counts.max()), 1))  # what is there is never shown as nothing
    return np.frombuffer(b"0123456789abcdef", dtype=np.uint8)[levels].tobytes().decode()


def view_traffic(state: Traffic, now: float) -> dict[str, Any]:
    """Nodes and edges to draw.

    ``edges`` are [u, v, weight, 1 if used in the round shown], ``last`` the last round in which
    each of them carried something, 0 if it did not in this cell.
    """
    ranks, used = state.ranks, _used(state)
    if not state.declared and not used:
        return {"n": ranks.n, "empty": True, "say": "No topology set."}
    idle = _idle(state)
    states = [rank_state(ranks, rank, now) for rank in range(ranks.n)]
    view: dict[str, Any] = {
        "n": ranks.n,
        "empty": False,
        "label": state.label,
        "live": ranks.live,
        "round": ranks.round,
        "domain": list(state.domain) if state.domain else None,
        "say": _sentence(state, states, len(used) or len(idle)),
    }
    if ranks.n > DRAWN:
        view |= {"bins": min(_BINS, ranks.n), "declared": _matrix(ranks.n, idle)}
        return view | {"used": _matrix(ranks.n, used), "histogram": _histogram(state)}
    awaited = _mark_stall(ranks, states, now)
    out, come = _bytes(state)
    edges = [[u, v, round(w, 6), 1] for (u, v), w in used.items()]
    edges += [[u, v, round(w, 6), 0] for (u, v), w in idle.items() if (u, v) not in used]
    edges.sort()
    lasts = _lasts(state)
    return view | {
        "states": states,
        "fates": {str(rank): text for rank in range(ranks.n) if (text := fate(ranks, rank))},
        "missing": awaited,
        "selves": _self_weights(state),
        "out": out,
        "in": come,
        "message": _messages(state),
        "distances": _distances(state),
        "edges": edges,
        "last": [lasts.get((int(u), int(v)), 0) for u, v, *_ in edges],
    }


def _histogram(state: Traffic) -> list[Any] | None:
    """[lowest decade, highest decade, ranks in each part of it] of the distances to the mean."""
    if state.distances is None or state.domain is None:
        return None
    known = state.distances[np.isfinite(state.distances) & (state.distances > 0)]
    if not known.size:
        return None
    logs = np.log10(known)
    low = int(np.floor(logs.min()))
    high = max(int(np.ceil(logs.max())), low + 1)
    counts, _ = np.histogram(logs, bins=_PARTS, range=(low, high))
    return [low, high, counts.tolist()]


def _mark_stall(ranks: Ranks, states: list[str], now: float) -> list[Edge]:
    """The edges over which something is missing; released ranks get the state they had."""
    seen = moment(ranks, now)
    cause = None if seen is None else explained(seen)
    if seen is None or cause is None:
        return []
    for rank in cause.held if seen.over else ():
        if states[rank] == "finished":
            states[rank] = "waiting"
    return missing(seen, cause)


def _distances(state: Traffic) -> list[float | None]:
    """Distance of each rank to the mean, None where none is known; -1 stands for not finite."""
    values: list[float | None] = [None] * state.ranks.n
    if state.distances is not None and len(state.distances) == len(state.watched.members):
        for rank, value in zip(state.watched.members, state.distances, strict=True):
            finite = math.isfinite(value)
            values[rank] = float(f"{value:.4g}") if finite else -1.0
    return values


def _sentence(state: Traffic, states: list[str], used: int) -> str:
    ranks = state.ranks
    parts = [f"{ranks.n} ranks, {state.label or 'changing graph'}", f"round {ranks.round}"]
    parts.append(f"{used} edges in use")
    waiting = [r for r, s in enumerate(states) if s in ("waiting", "stalled")]
    if waiting:
        parts.append(f"{listing(waiting)} wait")
    known = [(d, r) for r, d in enumerate(_distances(state)) if d is not None]
    if known:
        distance, rank = max(known)
        parts.append(f"farthest: rank {rank}, {number(distance)}")
    return "; ".join(parts) + "."
