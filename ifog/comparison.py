"""Several runs in one picture: what is drawn, and the words beside it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ifog.errors import ArgumentError
from ifog.numbers import number

if TYPE_CHECKING:
    from ifog.simulated import Trace

__all__ = ["Against", "Line", "compare", "lines_of"]

Against = Literal["steps", "seconds", "messages", "nbytes"]
_LEAST = 1e-16  # what is drawn of curves that reach 0
_SINGLY = 6  # runs of a trace drawn one by one; beyond, the median and a band


class Line(NamedTuple):
    """One line of the picture.

    Attributes:
        x: [points] what it is drawn against.
        y: [points] positive.
        kind: "measured", "predicted" rate, or the "floor" that a bias sets.
        group: number of the trace, which has one colour.
        text: at the line's end; "" where there is none.
        band: the least and the largest of many runs, [points] each.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    kind: Literal["measured", "predicted", "floor"]
    group: int
    text: str
    band: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None


def compare(
    traces: Sequence[Trace] | Trace,
    *,
    against: Against = "steps",
    theory: bool = True,
    theme: Literal["light", "dark"] = "light",
) -> Any:
    """The curves of several traces in one interactive Plotly figure.

    Solid: the error as measured (loss or consensus, where the optimum is not known). Dashed: the
    rate that linear algebra predicts. Dotted: the floor at which a bias leaves it. The last two are
    there for affine algorithms on small problems; see ``Trace.prediction``.

    Args:
        traces: of ``simulate.run`` or ``solve``.
        against: steps, modelled seconds, messages or bytes sent.
        theory: draw predictions too; finding them takes seconds.
        theme: of the colours.

    Returns:
        A ``plotly.graph_objects.FigureWidget``.

    Raises:
        ArgumentError: no traces, or nothing to draw them against.

    Example:
        >>> from ifog import problems, simulate
        >>> from ifog.algorithms import dgd, diging
        >>> problem = problems.quadratics(4)
        >>> made = (dgd(0.1), diging(0.1))
        >>> runs = [simulate.run(method, problem, "ring", steps=200) for method in made]
        >>> [line.kind for line in lines_of(runs)]
        ['measured', 'floor', 'measured', 'predicted']
    """
    several = [*traces] if isinstance(traces, Sequence) else [traces]
    lines = lines_of(several, against=against, theory=theory)
    measures = {_measure(trace) for trace in several}
    name = measures.pop() if len(measures) == 1 else "error"
    widgets: Any = importlib.import_module("ifog.widgets.comparison")
    return widgets.figure(lines, measure=name, against=against, theme=theme)


def lines_of(
    traces: Sequence[Trace], *, against: Against = "steps", theory: bool = True
) -> list[Line]:
    """What ``compare`` draws."""
    if not traces:
        raise ArgumentError("compare needs at least one trace, as simulate.run gives it")
    if against not in ("steps", "seconds", "messages", "nbytes"):
        raise ArgumentError(
            f"compare: against is {against!r}; use 'steps', 'seconds', 'messages' or 'nbytes'"
        )
    found: list[Line] = []
    for group, trace in enumerate(traces):
        x = np.asarray(getattr(trace, against), dtype=np.float64)
        if len(trace.runs) > _SINGLY:
            found.append(_crowd(trace, x, group))
            continue
        for run in range(len(trace.runs)):
            found += _run(trace, x, group, run, theory=theory)
    return found


def _run(
    trace: Trace, x: npt.NDArray[np.float64], group: int, run: int, *, theory: bool
) -> list[Line]:
    curve = _drawn(trace.main[run])
    rate, predicted = trace.rate(run), trace.prediction(run) if theory else None
    words = " ".join(part for part in (trace.label, trace.run_label(run)) if part)
    words += f"  {number(float(curve[-1]))}"
    lines = []
    floor = trace.predicted_floor(run) if theory else None
    if floor is not None and floor > 1e-9 and trace.error is not None:
        lines.append(Line(x[[0, -1]], np.array([floor, floor]), "floor", group, ""))
        words += f", floor {number(floor)}"
    elif predicted is not None and 0 < predicted.rate < 1 and trace.error is not None:
        lines.append(Line(*_slope(trace, x, curve, predicted.rate), "predicted", group, ""))
        if rate is not None:
            words += f", \N{MULTIPLICATION SIGN} {rate:.3f} a step, predicted {predicted.rate:.3f}"
    elif rate is not None and rate < 1:
        words += f", \N{MULTIPLICATION SIGN} {rate:.3f} a step"
    return [Line(x, curve, "measured", group, words), *lines]


def _crowd(trace: Trace, x: npt.NDArray[np.float64], group: int) -> Line:
    with np.errstate(invalid="ignore"):
        low, middle, high = (
            _drawn(part) for part in np.nanquantile(trace.main, [0, 0.5, 1], axis=0)
        )
    words = f"{trace.label}, {len(trace.runs)} runs  {number(float(middle[-1]))}"
    return Line(x, middle, "measured", group, words, (low, high))


def _slope(
    trace: Trace, x: npt.NDArray[np.float64], curve: npt.NDArray[np.float64], rate: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A line of the predicted rate through the middle of what the curve falls."""
    low, high = float(np.nanmin(curve)), float(np.nanmax(curve))
    middle = int(np.argmax(curve <= np.sqrt(low * high)))
    steps = trace.steps - trace.steps[middle]
    with np.errstate(over="ignore"):
        line = curve[middle] * np.exp(np.log(rate) * steps)
    shown = (line >= low) & (line <= high * 3)
    return x[shown], line[shown]


def _drawn(curve: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Without zeros, which have no logarithm."""
    return np.where(curve > _LEAST, curve, np.where(np.isnan(curve), np.nan, _LEAST))


def _measure(trace: Trace) -> str:
    if trace.error is not None:
        return "error"
    return "loss" if "loss" in trace.measures else "consensus"
