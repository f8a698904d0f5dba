"""What came of simulated runs: their curves, their figures, and their events."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ifog.affine import Affine
from ifog.numbers import count, duration, number, size
from ifog.spectrum import contraction_rate
from ifog.telemetry import Event

__all__ = ["Trace"]

Curves = npt.NDArray[np.float64]
_TAIL = 0.2  # of a curve: where it has come to rest if it has


@dataclass(eq=False)
class Trace:
    """Runs of one algorithm, side by side, from the same start on the same problem.

    A trace is also an event source: ``Dashboard(trace)`` shows its first run, with modelled times.

    Attributes:
        label: what it is called in tables and pictures.
        agents: how many there are.
        runs: what distinguishes the runs: the seed and the parameters of the sweep.
        steps: [points] at which the curves were taken.
        error: [runs, points] root mean square over agents of ``|x_i - x*|``, over ``|x*|`` unless
            that is 0; None where the optimum is not known.
        consensus: [runs, points] root mean square over agents of ``|x_i - mean|``.
        measures: other curves [runs, points] of the problem's own: loss, accuracy.
        seconds: [points] modelled time of the slowest agent, first run.
        messages: [points] sent by all agents together, first run.
        nbytes: [points] the same in bytes.
        states: (which runs, their State at the end, one after the other along axis 0).
        ended: why: "steps", "until" or "diverged".
        elapsed: seconds that computing it took.
        settings: how it was run, by the names of the arguments of ``simulate.run``.
    """

    label: str
    agents: int
    runs: Sequence[Mapping[str, Any]]
    steps: npt.NDArray[np.int64]
    error: Curves | None
    consensus: Curves
    measures: Mapping[str, Curves]
    seconds: Curves
    messages: Curves
    nbytes: Curves
    states: Sequence[tuple[Sequence[int], Any]]
    ended: Literal["steps", "until", "diverged"]
    elapsed: float
    settings: Mapping[str, Any] = field(repr=False)
    make_events: Callable[[], list[Event]] = field(repr=False)
    analyse: Callable[[int], Affine | None] = field(repr=False)
    modelled: bool = True  # no clock was read
    _predictions: dict[int, Affine | None] = field(default_factory=dict, repr=False)

    @property
    def x(self) -> Tensor:
        """What agents have at the end: [agents, ...], or [runs, agents, ...] of several."""
        found: dict[int, Tensor] = {}
        for places, state in self.states:
            parts = state.x.view(len(places), self.agents, *state.x.shape[1:])
            found |= dict(zip(places, parts, strict=True))
        return found[0] if len(found) == 1 else torch.stack([found[r] for r in sorted(found)])

    @property
    def state(self) -> Any:
        """The State at the end of the only run, or of the first ones, along axis 0."""
        return self.states[0][1]

    @property
    def main(self) -> Curves:
        """The curves that matter most: error where it is known, else loss, else consensus."""
        if self.error is not None:
            return self.error
        return self.measures.get("loss", self.consensus)

    def prediction(self, run: int = 0) -> Affine | None:
        """What linear algebra says of a run: its rate and where it ends; None if unknown.

        Of algorithms whose step is affine, on small problems whose gradient is, over a graph that
        repeats.
        """
        if run not in self._predictions:
            self._predictions[run] = self.analyse(run)
        return self._predictions[run]

    def predicted_floor(self, run: int = 0) -> float | None:
        """The error at the predicted fixed point; None where there is none, or no optimum."""
        predicted, optimum = self.prediction(run), self.settings["optimum"]
        if predicted is None or predicted.fixed is None or optimum is None:
            return None
        target = optimum.to(predicted.fixed)
        apart = (predicted.fixed - target).flatten(1).norm(dim=1)
        return float(apart.square().mean().sqrt() / (target.norm() or 1.0))

    def rate(self, run: int = 0) -> float | None:
        """The factor on the error per step, measured where a run's curve nears its end.

        Of local steps, which go up and down, that of what the curve stays below. None where it has
        come to rest at a bias.
        """
        curve = self.main[run][np.isfinite(self.main[run])]
        if self.floor(run) is not None or len(curve) < 2:
            return None
        if curve[-1] < curve[0]:
            curve = np.maximum.accumulate(curve[::-1])[::-1]
        bottom = 10 * float(curve[curve > 0].min(initial=np.inf))
        deep = 10 * bottom < curve.max()  # what is below may be rounding
        end = int(np.argmax(curve <= bottom)) + 1 if deep else len(curve)
        return contraction_rate(self.steps[:end].tolist(), curve[:end].tolist(), 0.0)

    def floor(self, run: int = 0) -> float | None:
        """Where the curve of a run has come to rest; None while it moves or where it reached 0.

        The median of its last fifth, if that fifth does not fall by more than a tenth.
        """
        curve = self.main[run]
        tail = curve[-max(math.ceil(_TAIL * len(curve)), 3) :]
        middle = float(np.median(tail))
        if len(curve) < 10 or not np.isfinite(tail).all() or middle < 1e-12 * np.nanmax(curve):
            return None
        half = len(tail) // 2
        falls = float(np.median(tail[-half:]) / np.median(tail[:half]))
        return middle if falls > 0.9 else None

    def since(self, cursor: int) -> tuple[int, list[Event]]:
        """The new cursor and the events of the first run after ``cursor``."""
        return len(self._events), self._events[cursor:]

    @cached_property
    def _events(self) -> list[Event]:
        return self.make_events()

    def run_label(self, run: int) -> str:
        """What distinguishes a run from the others, in words."""
        varies = [
            key for key in self.runs[run] if len({repr(other[key]) for other in self.runs}) > 1
        ]
        return ", ".join(f"{key}={self.runs[run][key]}" for key in varies)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each run, as ``pandas.DataFrame`` takes it."""
        ends = {"consensus": self.consensus[:, -1]}
        if self.error is not None:
            ends = {"error": self.error[:, -1], **ends}
        ends |= {name: curve[:, -1] for name, curve in self.measures.items()}
        return [
            {**dict(run), **{name: float(values[r]) for name, values in ends.items()}}
            for r, run in enumerate(self.runs)
        ]

    def __str__(self) -> str:
        words = {"until": ", as far as asked", "diverged": ", diverged", "steps": ""}
        head = (
            f"{self.label}: {count(self.agents)} agents, {count(int(self.steps[-1]))} steps"
            f"{words[self.ended]}; {duration(float(self.seconds[-1]))}"
            f"{' modelled' if self.modelled else ''}, {size(float(self.nbytes[-1]))} in "
            f"{count(int(self.messages[-1]))} messages"
            + (f"; computed in {duration(self.elapsed)}" if self.modelled else "")
        )
        lines = [head]
        for r, row in enumerate(self.rows()):
            ends = (f"{k} {number(v)}" for k, v in row.items() if k not in self.runs[r])
            name = self.run_label(r)
            lines.append(f"  {name + ': ' if name else ''}{', '.join(ends)}")
        return "\n".join(lines)

    __repr__ = __str__
