"""From glances at watched tensors to the consensus error over rounds, beside its prediction.

Ranks may look at different rounds; only rounds that every rank of the cell reported count. A cell
whose tensors start where the last cell left them goes on with its curve; any other cell that
watches something starts a new run.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ifog.batches import belonging
from ifog.folds import Ranks, thinned
from ifog.glances import Glance, Watched
from ifog.numbers import number, percent
from ifog.rows import Plan, Rows
from ifog.spectrum import POINTS, Prediction, contraction_rate, strays
from ifog.telemetry import CellStart, Event, OpEvent, WatchEvent

__all__ = ["Consensus", "Curve", "fold_consensus", "view_consensus"]

_SHOWN = 8  # curves sent to the browser, which draws four of them at once
_MAIN, _THIN = 400, 160  # points sent of the first curve, and of any other or a rank's
_NOTHING = 1e-290
_TIMES = "\N{MULTIPLICATION SIGN}"
_LINES = 16  # ranks drawn one by one; beyond, a band and the median


Logs = tuple[float | None, float | None, tuple[float | None, ...]]  # error, drift, each rank's


def _size(samples: np.ndarray) -> float:
    """What a drift of the mean is compared with; the mean itself may be zero."""
    largest = float(np.linalg.norm(samples, axis=1).max(initial=0.0))
    size = max(float(np.linalg.norm(samples.mean(axis=0))), 0.01 * largest, 1e-300)
    return size if math.isfinite(size) else 1.0


@dataclass
class Curve:
    """One tensor's errors; ``scale`` is the size of the stacked tensor at the start."""

    name: str
    mean: np.ndarray
    scale: float
    rounding: float
    size: float
    rounds: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    distances: list[np.ndarray] = field(default_factory=list)
    drifts: list[float] = field(default_factory=list)
    logs: list[Logs] = field(default_factory=list)
    last: np.ndarray | None = None

    def add(self, offset: int, glance: Glance) -> None:
        """Append a round; every second point is dropped when there are too many."""
        if self.size < _NOTHING:  # all ranks began at zero
            self.size = _size(glance.samples)
        with np.errstate(all="ignore"):
            drift = float(np.linalg.norm(glance.samples.mean(axis=0) - self.mean)) / self.size
            error = float(np.linalg.norm(glance.distances))
        self.rounds.append(offset + glance.step)
        self.errors.append(error)
        self.distances.append(glance.distances)
        self.drifts.append(drift)
        self.logs.append((_log(error), _log(drift), tuple(map(_log, glance.distances.tolist()))))
        self.last = glance.samples
        if len(self.rounds) > POINTS:
            columns: tuple[list[Any], ...]
            columns = (self.rounds, self.errors, self.distances, self.drifts, self.logs)
            for values in columns:
                del values[1:-1:2]


def _curve(glance: Glance) -> Curve:
    mean = glance.samples.mean(axis=0)
    scale = float(glance.grow * np.linalg.norm(glance.samples))
    rounding = 1e-15 if glance.eps < 1e-12 else 1e-7 if glance.eps < 1e-5 else glance.eps
    size = _size(glance.samples)
    if not math.isfinite(scale * size):
        scale = size = 1.0
    return Curve(glance.name, mean, scale or 1.0, rounding, size)


@dataclass
class Consensus:
    """A run: the curves by name, and the prediction by name of the mixed tensor."""

    ranks: Ranks = field(default_factory=Ranks)
    watched: Watched = field(default_factory=Watched)
    rows: Rows = field(default_factory=Rows)
    curves: dict[str, Curve] = field(default_factory=dict)
    members: tuple[int, ...] = ()
    mixed: dict[int, Any] = field(default_factory=dict)  # the plans of the last rounds
    seen: dict[int, np.ndarray] = field(default_factory=dict)  # the first tensor's last glances
    eps: float = 1.0
    stepped: bool = False  # whether something other than mixing moves it
    predictions: dict[str, Prediction] = field(default_factory=dict)
    early: list[tuple[str, int, Any]] = field(default_factory=list)
    offset: int = 0  # rounds before the newest cell of the run
    cell: int = 0  # the newest cell of the run
    decided: bool = True  # whether this cell is known to go on or to start anew


def fold_consensus(state: Consensus, events: Iterable[Event]) -> Consensus:
    """Follow watched tensors and the matrices that mixed them."""
    seq = state.ranks.seq
    for event in belonging(state.ranks, events):
        if type(event) is list:
            for op, plan in state.rows.join(event, state.ranks.members):
                _mix(state, op, plan)
        elif isinstance(event, CellStart):
            if state.ranks.seq != seq:
                seq = state.ranks.seq
                state.rows.clear()
                state.watched.clear()
                state.early.clear()
                state.mixed.clear()
                state.seen.clear()
                state.decided = False
        elif isinstance(event, WatchEvent):
            glance = state.watched.put(event, state.ranks.members)
            if glance is not None:
                _glance(state, glance)
    return state


def _mix(state: Consensus, event: OpEvent, plan: Plan) -> None:
    if event.name == state.watched.first or len(state.predictions) == 1:
        state.mixed[event.step] = plan
        _compare(state, event.step)
    if state.decided:
        _follow(state, event.name, event.step, plan)
    elif len(state.early) < 4 * POINTS:
        state.early.append((event.name, event.step, plan))


def _follow(state: Consensus, name: str, step: int, plan: Any) -> None:
    prediction = state.predictions.get(name)
    if prediction is None:
        prediction = state.predictions[name] = Prediction()
    prediction.follow(state.offset + step, plan, state.ranks.members)


def _glance(state: Consensus, glance: Glance) -> None:
    if not state.decided:
        _decide(state, glance)
    if glance.name == state.watched.first:
        state.seen[glance.step], state.eps = glance.samples, glance.eps
        _compare(state, glance.step - 1)
    curve = state.curves.get(glance.name)
    if curve is None or (curve.last is not None and curve.last.shape != glance.samples.shape):
        curve = state.curves[glance.name] = _curve(glance)
    if not curve.rounds or state.offset + glance.step > curve.rounds[-1]:
        curve.add(state.offset, glance)


def _compare(state: Consensus, step: int) -> None:
    """Note whether round ``step`` left most ranks with anything but W times what they had."""
    before, after, plan = state.seen.get(step), state.seen.get(step + 1), state.mixed.get(step)
    for table in (state.seen, state.mixed):
        while table and (old := next(iter(table))) < step - 3:
            del table[old]
    if state.stepped or before is None or after is None or plan is None:
        return
    if before.shape == after.shape and len(plan) == len(before) == len(state.watched.members):
        slack = 1e3 * state.eps * float(np.abs(before).max(initial=0.0))
        odd = strays(plan, state.watched.members, before, after, slack)
        state.stepped = 2 * len(odd) >= len(plan)


def _decide(state: Consensus, glance: Glance) -> None:
    """The first glance of a cell: does it begin where the last cell ended?"""
    curve = state.curves.get(glance.name)
    before = curve.last if curve and state.members == state.watched.members else None
    if (
        curve is not None
        and before is not None
        and glance.step == 0
        and before.shape == glance.samples.shape
        and np.linalg.norm(before - glance.samples) <= 1e-9 * np.linalg.norm(before)
    ):
        state.offset = curve.rounds[-1]
    else:
        state.curves.clear()
        state.predictions.clear()
        state.offset, state.stepped = 0, False
    state.members = state.watched.members
    state.cell = state.ranks.seq or 0
    state.decided = True
    for name, step, plan in state.early:
        _follow(state, name, step, plan)
    state.early.clear()


def _prediction(state: Consensus, name: str) -> Prediction | None:
    """The prediction for a tensor: of its own name, or the only one there is."""
    prediction = state.predictions.get(name)
    if prediction is None and len(state.predictions) == 1:
        prediction = next(iter(state.predictions.values()))
    return prediction if prediction is not None and prediction.done else None


def _is_pure(curve: Curve, prediction: Prediction) -> bool:
    """Whether the errors stay below what mixing alone allows, as they do without gradients."""
    slack = 1.5 if prediction.normal or not prediction.constant else 100.0
    floor = 100 * curve.rounding * curve.scale
    bounds = np.interp(curve.rounds, prediction.rounds, prediction.factors) * curve.errors[0]
    errors = np.array(curve.errors)
    return bool(np.all(~(errors > slack * bounds + floor) | (np.array(curve.rounds) == 0)))


def _log(value: float) -> float | None:
    """A decimal logarithm for the browser; -400 stands for an exact zero, None for no number."""
    if not math.isfinite(value):
        return None
    return round(math.log10(value), 4) if value > 0 else -400.0


def view_consensus(state: Consensus, now: float) -> dict[str, Any]:  # noqa: ARG001 - a view's form
    """Curves as decimal logarithms over rounds, with the key figure and the mean's drift."""
    curves = [curve for curve in state.curves.values() if curve.rounds]
    if not curves:
        return {"n": state.ranks.n, "empty": True, "say": "Nothing watched."}
    main = curves[0]
    prediction = _prediction(state, main.name)
    pure = prediction is not None and not prediction.broken and not state.stepped
    pure = pure and prediction is not None and _is_pure(main, prediction)
    floor = main.rounding * main.scale
    kept = main.drifts[-1] <= 100 * main.rounding
    moved = pure and not kept  # gradients may move the mean, mixing may not
    key, short = _key(main, prediction, pure, floor, state.offset)
    drift = number(main.drifts[-1], 2)
    mean = f"the mean moved by {_share(main.drifts[-1])}" if moved else "steps move the mean"
    mean = "mean kept" if kept else mean
    top = round(math.log10(floor))
    view = {
        "n": state.ranks.n,
        "empty": False,
        "ranks": list(state.members),
        "curves": [_line(curve, _THIN if k else _MAIN) for k, curve in enumerate(curves[:_SHOWN])],
        "key": mean if moved else key,
        "alarm": moved,
        "hint": f"{key}{_near(prediction, len(state.members))}",
        "round": main.rounds[-1],
        "begun": [state.offset, f"cell {state.cell}"] if state.offset else None,
        "band": [top - 2, top],
        "drift": {
            "text": drift if kept or moved else "by steps",
            "moved": moved,
            "kept": kept,
            "rounding": round(math.log10(main.rounding)),
        },
        "prediction": _predicted(main, prediction)
        if pure and prediction and len(state.members) > 1
        else None,
        "say": f"Error {number(main.errors[-1])} after {_count(state, main)}, {short}; {mean}.",
    }
    return view | _spread(main)


def _count(state: Consensus, curve: Curve) -> str:
    """The rounds of the run, and of its newest cell when it goes over several."""
    rounds = curve.rounds[-1]
    part = f" ({rounds - state.offset} in cell {state.cell})" if state.offset else ""
    return f"{rounds} rounds{part}"


def _since(
    rounds: Sequence[int], values: Sequence[float], begun: int
) -> tuple[Sequence[int], Sequence[float]]:
    """The part of a curve from round ``begun`` on."""
    first = bisect_left(rounds, begun)
    return rounds[first:], values[first:]


def _share(drift: float) -> str:
    if not math.isfinite(drift):
        return "more than a number can say"
    return percent(drift) if drift >= 0.1 else f"{number(100 * drift, 2)}\N{NO-BREAK SPACE}%"


def _near(prediction: Prediction | None, n: int) -> str:
    """With how many ranks one effectively averages, while all rounds use one matrix."""
    if prediction is None or prediction.near is None or not prediction.constant:
        return ""
    return f"; {number(prediction.near)} effective neighbours of {n}"


def _line(curve: Curve, most: int) -> dict[str, Any]:
    pick = thinned(len(curve.rounds), most)
    return {
        "name": curve.name,
        "value": number(curve.errors[-1]),
        "rounds": [curve.rounds[i] for i in pick],
        "errors": [curve.logs[i][0] for i in pick],
        "drifts": [curve.logs[i][1] for i in pick],
    }


def _spread(curve: Curve) -> dict[str, Any]:
    """All ranks' distances, one line each or as a band, with their own rounds."""
    pick = thinned(len(curve.rounds), _THIN)
    rounds = [curve.rounds[i] for i in pick]
    if len(curve.distances[-1]) <= _LINES:
        lines = zip(*(curve.logs[i][2] for i in pick), strict=True)
        return {"at": rounds, "lines": [list(line) for line in lines], "spread": None}
    table = np.array([curve.distances[i] for i in pick])  # [rounds, ranks]
    edges = (table.min(axis=1), np.median(table, axis=1), table.max(axis=1))
    return {"at": rounds, "lines": [], "spread": [[*map(_log, edge.tolist())] for edge in edges]}


def _predicted(curve: Curve, prediction: Prediction) -> dict[str, Any]:
    pick = thinned(bisect_right(prediction.rounds, curve.rounds[-1]), _THIN)
    values = [curve.errors[0] * prediction.factors[i] for i in pick]
    return {"rounds": [prediction.rounds[i] for i in pick], "errors": [*map(_log, values)]}


def _key(
    curve: Curve, prediction: Prediction | None, pure: bool, floor: float, begun: int
) -> tuple[str, str]:
    """The key figure of the rounds from ``begun`` on, and the same for the sentence."""
    if len(curve.distances[-1]) == 1:
        return "one rank", "one rank alone"
    measured = contraction_rate(*_since(curve.rounds, curve.errors, begun), 10 * floor)
    factor = "" if measured is None else f"{_TIMES} {_rate(measured)}"
    short = "" if measured is None else f"factor {_rate(measured)}"
    if prediction is None or prediction.broken:
        return f"{factor} per round" if factor else "", short or "no prediction"
    if pure and prediction.exact_after is not None:
        rounds = prediction.exact_after
        text = f"exact after {rounds} round{'s' if rounds > 1 else ''}"
        return text, text
    if prediction.rate is not None:
        expected = prediction.rate
    else:
        bounds = [curve.errors[0] * f for f in prediction.factors]
        expected = contraction_rate(*_since(prediction.rounds, bounds, begun), 10 * floor) or 0.0
    words = f"predicted {_rate(expected)}" if pure else f"mixing alone {_rate(expected)}"
    if not factor:
        return words, words
    return (f"{factor}, {words}" if pure else f"{factor} per round; {words}"), f"{short}, {words}"


def _rate(value: float) -> str:
    """A factor near 1 with three digits after the point: ``0.500``, ``0.995``."""
    return number(value) if value < 1e-3 else f"{value:.3f}"
