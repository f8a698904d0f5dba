"""From the matrices that were used to their eigenvalues: how fast W mixes, alone or in its period.

Until a round has been made it is the declared graph that is shown. A schedule is shown as the
product of the rounds of its period, once the period has been seen twice.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ifog.batches import belonging
from ifog.numbers import counted, number
from ifog.ranks import Ranks
from ifog.rows import Plan, Rows
from ifog.spectrum import matrix_of_rows, neighbors_of
from ifog.telemetry import CellStart, Event, GraphEvent, OpEvent

__all__ = ["Modes", "fold_modes", "view_modes"]

_PERIOD = 32  # rounds of the longest schedule that is recognised
_EIGEN = 512  # ranks up to which all eigenvalues are computed
_DRAWN = 64  # ranks up to which links can be edited
_TURNS = 300  # of the iteration for the second eigenvalue
_EXACT = 1e-12
_SAME = 1e-6  # eigenvalues closer than this are one point


@dataclass
class Modes:
    """The declared graph, the plans of the last rounds, and what was computed of them."""

    ranks: Ranks = field(default_factory=Ranks)
    rows: Rows = field(default_factory=Rows)
    declared: GraphEvent | None = None
    plans: dict[tuple[str, str], deque[Plan]] = field(default_factory=dict)
    newest: tuple[str, str] | None = None
    known: dict[Any, dict[str, Any]] = field(default_factory=dict)


def fold_modes(state: Modes, events: Iterable[Event]) -> Modes:
    """Follow the declared graph and the rows that each round used."""
    seq = state.ranks.seq
    for event in belonging(state.ranks, events):
        if type(event) is list:
            for op, plan in state.rows.join(event, state.ranks.members):
                _mix(state, op, plan)
        elif isinstance(event, GraphEvent):
            state.declared = event
            _forget(state)
        elif isinstance(event, CellStart) and state.ranks.seq != seq:
            seq = state.ranks.seq
            _forget(state)
    return state


def _forget(state: Modes) -> None:
    state.rows.clear()
    state.plans.clear()
    state.newest = None


def _mix(state: Modes, event: OpEvent, plan: Plan) -> None:
    key = (event.op, event.name)
    plans = state.plans.get(key)
    if plans is None:
        plans = state.plans[key] = deque(maxlen=2 * _PERIOD)
    plans.append(plan)
    state.newest = key


def _period(plans: deque[Plan]) -> int:
    """The rounds after which the last plans repeat; 0 if they do not."""
    if not plans:
        return 0
    last = list(plans)
    if len(last) < 4:  # a schedule may only have begun
        return int(all(plan == last[0] for plan in last))
    for period in range(1, len(last) // 2 + 1):
        if last[-period:] == last[-2 * period : -period]:
            return period
    return 0


def view_modes(state: Modes, now: float) -> dict[str, Any]:  # noqa: ARG001 - a view's form
    """Eigenvalues as [real, imaginary, multiplicity], the gap, and the links for editing."""
    declared = state.declared
    plans = state.plans.get(state.newest) if state.newest else None
    period = _period(plans) if plans else 0
    if plans and period:
        key: Any = tuple(list(plans)[-period:])
        members = state.ranks.members
    elif declared is not None and not plans:
        key, members = declared.edges, tuple(range(declared.n))
    else:
        say = "The graph changes without a period." if plans else "No matrix yet."
        changing = ["No period found", "the links change from round to round"] if plans else None
        return {"n": state.ranks.n, "empty": True, "why": changing, "say": say}
    if (key, members) not in state.known:
        while len(state.known) > 7:
            del state.known[next(iter(state.known))]
        rounds = key if plans else (_rows_of(declared),)
        label = declared.label if declared is not None else "custom"
        state.known[key, members] = _picture(rounds, members, label)
    return state.known[key, members]


def _rows_of(declared: GraphEvent | None) -> Plan:
    assert declared is not None
    own = {v: weight for u, v, weight in declared.edges if u == v}
    rows: dict[int, list[tuple[int, float]]] = {v: [] for v in range(declared.n)}
    for u, v, weight in declared.edges:
        if u != v:
            rows[v].append((u, weight))
    return tuple(
        (tuple(u for u, _ in row), (own.get(v, 0.0), *(weight for _, weight in row)))
        for v, row in rows.items()
    )


def _picture(rounds: tuple[Plan, ...], members: tuple[int, ...], label: str) -> dict[str, Any]:
    n, period = len(members), len(rounds)
    links = {
        (source, rank)
        for plan in rounds
        for rank, (sources, _) in zip(members, plan, strict=True)
        for source in sources
    }
    messages = sum(len(sources) for plan in rounds for sources, _ in plan) / period
    title = f"product of {period} rounds" if period > 1 else f"{label} graph"
    view: dict[str, Any] = {
        "n": n,
        "empty": False,
        "title": f"{title}, {counted(n)}",
        "period": period,
        "label": label,
        "messages": round(messages, 1),
        "points": [],
        "weights": [],
    }
    if n > _EIGEN:
        rate, finite = _second_by_iteration(rounds, members), False
        near = None
    else:
        matrices = [matrix_of_rows(plan, members) for plan in rounds]
        product = matrices[0]
        for matrix in matrices[1:]:
            product = matrix @ product
        values = np.linalg.eigvals(product)
        view["points"] = _points(values)
        rate = float(np.sort(np.abs(values))[-2]) if n > 1 else 0.0
        finite = n > 1 and bool(np.abs(product - 1.0 / n).max() < _EXACT)
        near = neighbors_of(product)
        if n <= _DRAWN and period == 1:
            view["weights"] = [
                [
                    members.index(u),
                    members.index(v),
                    float(matrices[0][members.index(v)][members.index(u)]),
                ]
                for u, v in sorted(links)
            ]
    return view | _words(n, period, rate, finite, near)


def _points(values: np.ndarray) -> list[list[float]]:
    """Eigenvalues that are the same joined into one point, the largest first."""
    points: list[list[float]] = []
    for value in sorted(values, key=lambda z: (-abs(z), z.real, z.imag)):
        # Defective eigenvalues come scattered by the root of the rounding.
        for point in points:
            if abs(complex(point[0], point[1]) - value) < max(_SAME, 3e-3 * (abs(value) < 3e-3)):
                point[2] += 1
                break
        else:
            points.append([round(float(value.real), 6), round(float(value.imag), 6), 1])
    return points


def _second_by_iteration(rounds: tuple[Plan, ...], members: tuple[int, ...]) -> float:
    """|lambda_2| of the product of the rounds, by the power method on disagreement."""
    place = {rank: index for index, rank in enumerate(members)}
    steps = []
    for plan in rounds:
        to = np.array([i for i, (sources, _) in enumerate(plan) for _ in sources], dtype=int)
        come = np.array([place[u] for sources, _ in plan for u in sources], dtype=int)
        factor = np.array([w for _, weights in plan for w in weights[1:]])
        steps.append((to, come, factor, np.array([weights[0] for _, weights in plan])))
    x = np.random.default_rng(0).standard_normal(len(members))
    grown = []
    for _ in range(_TURNS):
        x -= x.mean()
        size = float(np.linalg.norm(x)) or 1.0
        x /= size
        grown.append(size)
        for to, come, factor, own in steps:
            x = own * x + np.bincount(to, factor * x[come], len(members))
    # A complex pair makes the factors swing; their geometric mean does not.
    return float(np.exp(np.mean(np.log(np.maximum(grown[_TURNS // 2 :], 1e-300)))))


def _words(n: int, period: int, rate: float, finite: bool, near: float | None) -> dict[str, Any]:
    """The key figure and two lines below it."""
    rate = 0.0 if rate < _EXACT else rate
    rounds = f"{period} rounds" if period > 1 else "1 round"
    gap = max(1.0 - rate, 0.0)
    half = math.log(0.5) / math.log(rate) * period if 0 < rate < 1 - 1e-12 else math.inf
    if finite:
        head = f"finite time: exact after {rounds}"
        under = "all other eigenvalues are 0"
    elif math.isinf(half):
        head = f"gap 1 \N{MINUS SIGN} |λ\N{SUBSCRIPT TWO}| = {number(gap)}"
        under = "disagreement never vanishes" if rate >= 1 - 1e-12 else "one round is enough"
    else:
        head = f"gap 1 \N{MINUS SIGN} |λ\N{SUBSCRIPT TWO}| = {number(gap)}"
        under = f"half-life of disagreement {number(half)} rounds"
    lines = [under] + ([f"{number(near)} effective neighbours of {n}"] if near is not None else [])
    if finite:
        say = f"{n} ranks, exact after {rounds}."
    elif math.isinf(half):
        say = f"{n} ranks, gap {number(gap)}: {under}."
    else:
        say = f"{n} ranks, gap {number(gap)}: disagreement halves every {number(half)} rounds."
    return {
        "rate": rate,
        "gap": number(gap),
        "finite": finite,
        "head": head,
        "lines": lines,
        "say": say,
    }
