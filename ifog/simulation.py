"""The loop of the simulator: steps of all runs together, and what is noted on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Both, State
from ifog.channels import Channel, Presence, Rounds, Weather, frozen
from ifog.durations import Clocks, CostModel
from ifog.links import Links
from ifog.modelled import Recorder
from ifog.rounds import Schedule, links_of
from ifog.side_by_side import SideBySide, seeded
from ifog.weights import column_stochastic, row_stochastic

__all__ = ["Group", "Mixers", "Setup", "Until", "fewer_threads", "oracle_of", "simulate"]

Ended: TypeAlias = Literal["steps", "until", "diverged"]
_SMALL = 200_000  # numbers of all agents
Figures: TypeAlias = Mapping[str, float]
Until: TypeAlias = float | Callable[[Figures], bool]


def _all_bytes(x: Tensor) -> int:
    return x[0].numel() * x.element_size()


def _say_nothing(step: int, figures: Figures) -> None:
    del step, figures


@dataclass(frozen=True)
class Setup:
    """What all runs have in common.

    Attributes:
        problem: the oracle of n agents.
        schedule: over n agents.
        start: x [n, ...].
        steps: how many.
        every: how many steps apart the curves are taken.
        until: ends a run early: a bound of the main curve, or a function of a run's last figures.
        optimum: x*, if it is known.
        weather: what happens to messages and agents.
        cost: the model of time.
        message_bytes: of one agent's message, from a tensor [n, ...] to be mixed.
        report: is told the steps done and the figures of the first run.
    """

    problem: Any
    schedule: Schedule
    start: Tensor
    steps: int
    every: int
    until: Until | None = None
    optimum: Tensor | None = None
    weather: Weather = field(default_factory=Weather)
    cost: CostModel = field(default_factory=CostModel)
    message_bytes: Callable[[Tensor], int] = _all_bytes
    report: Callable[[int, Figures], None] = _say_nothing


@dataclass
class Group:
    """What came of runs side by side; a curve has an entry [runs] for each of ``steps``."""

    steps: list[int] = field(default_factory=list)
    curves: dict[str, list[npt.NDArray[np.float64]]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)
    nbytes: list[int] = field(default_factory=list)
    state: State = None
    ended: Ended = "steps"
    recorder: Recorder | None = None

    def figures(self, run: int) -> dict[str, float]:
        """The newest values of one run."""
        return {name: float(values[-1][run]) for name, values in self.curves.items()}


class Mixers:
    """What an algorithm mixes by: one channel, or two for one that needs both kinds of weights.

    Args:
        algorithm: says what it needs.
        schedule: over n agents.
        seeds: of the runs side by side.
        weather: what happens on the way.
        device: where the tensors are.
        heard: is told of every round of the first run.

    Attributes:
        mix: the mixer.
        presence: who is there.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        schedule: Schedule,
        seeds: Sequence[int],
        *,
        weather: Weather,
        device: torch.device,
        heard: Callable[[Links | None, Sequence[Tensor]], None] | None = None,
    ) -> None:
        self.presence = Presence(links_of(schedule, 0).n, seeds, weather.churn)
        both = "two mixers" in algorithm.needs
        ways = (row_stochastic, column_stochastic) if both else (None,)
        self._channels = [
            Channel(
                Rounds(schedule, seeds, weather, self.presence, way), heard=heard, device=device
            )
            for way in ways
        ]
        self.mix: Any = Both(*self._channels) if both else self._channels[0]

    @property
    def step(self) -> int:
        """The number of the next round."""
        return self._channels[0].step

    def seek(self, step: int) -> None:
        """Make ``step`` the number of the next round."""
        for channel in self._channels:
            channel.seek(step)

    def begin(self, step: int) -> None:
        """Step ``step`` of the algorithm begins."""
        self.presence.step(step)
        for channel in self._channels:
            channel.begin()


def oracle_of(problem: Any, seeds: Sequence[int]) -> Any:
    """The oracle of runs with these seeds."""
    problems = [seeded(problem, seed) for seed in seeds]
    return problems[0] if len(problems) == 1 else SideBySide(problems)


@contextmanager
def fewer_threads(numbers: int) -> Iterator[None]:
    """One thread where a step is so short that threads would wait for each other."""
    before = torch.get_num_threads()
    if numbers < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def simulate(setup: Setup, algorithm: Algorithm, seeds: Sequence[int]) -> Group:
    """Run an algorithm with several seeds side by side."""
    with torch.no_grad(), fewer_threads(setup.start.numel() * len(seeds)):
        return _simulated(setup, algorithm, seeds)


def _simulated(setup: Setup, algorithm: Algorithm, seeds: Sequence[int]) -> Group:
    x = setup.start
    group, n = Group(recorder=Recorder(x)), len(x)
    clocks = Clocks(setup.cost, n, seeds[0])

    def heard(links: Links | None, xs: Sequence[Tensor]) -> None:
        nbytes = sum(setup.message_bytes(tensor[:n]) for tensor in xs)
        if links is None:
            clocks.reduce(nbytes)
            return
        times = clocks.exchange(links, nbytes)
        assert group.recorder is not None
        group.recorder.exchanged(links, nbytes, times)

    oracle = oracle_of(setup.problem, seeds)
    mixers = Mixers(
        algorithm, setup.schedule, seeds, weather=setup.weather, device=x.device, heard=heard
    )
    group.state = algorithm.init(x.repeat(len(seeds), *(1 for _ in x.shape[1:])))
    for step in range(setup.steps + 1):
        if step % setup.every == 0 or step == setup.steps:
            _note(setup, group, mixers.presence, step, clocks)
            if step == setup.steps or group.ended != "steps":
                break
        mixers.begin(step)
        clocks.compute(step)
        state = algorithm.step(group.state, oracle, mixers.mix)
        if mixers.presence.here is not None:
            here = torch.from_numpy(mixers.presence.here).to(x.device)
            state = frozen(state, group.state, here)
        group.state = state
        group.recorder.look(state.x[:n])  # type: ignore[union-attr] # made above
    return group


def _note(setup: Setup, group: Group, presence: Presence, step: int, clocks: Clocks) -> None:
    """Take the figures after ``step`` steps, and see whether that is enough."""
    x: Tensor = group.state.x
    runs = len(x) // len(setup.start)
    points = x.view(runs, len(setup.start), -1)
    here = None if presence.here is None else torch.from_numpy(presence.here)
    weights = points.new_ones(runs, points.shape[1])
    if here is not None:
        weights = here.view(runs, -1).to(points)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
    for name, values in _curves(setup, points, weights).items():
        group.curves.setdefault(name, []).append(values)
    group.steps.append(step)
    group.seconds.append(float(clocks.now.max()))
    group.messages.append(clocks.messages)
    group.nbytes.append(clocks.nbytes)
    group.ended = _ended(setup, group, runs)
    setup.report(step, group.figures(0))


def _curves(setup: Setup, points: Tensor, weights: Tensor) -> dict[str, npt.NDArray[np.float64]]:
    mean = torch.einsum("rn,rnd->rd", weights, points)
    found: dict[str, npt.NDArray[np.float64]] = {}
    if setup.optimum is not None:
        optimum = setup.optimum.to(points).flatten()
        size = float(optimum.norm()) or 1.0
        found["error"] = _spread(points, optimum, weights) / size
    found["consensus"] = _spread(points, mean[:, None], weights)
    rows = [part.view_as(setup.start) for part in points]
    if hasattr(setup.problem, "measures"):
        each = [setup.problem.measures(part) for part in rows]
        found |= {name: np.array([figures[name] for figures in each]) for name in each[0]}
    elif setup.optimum is None and hasattr(setup.problem, "loss"):
        at_mean = [m.view_as(setup.start[0]).expand_as(setup.start).contiguous() for m in mean]
        found["loss"] = np.array([float(setup.problem.loss(part).mean()) for part in at_mean])
    return found


def _spread(points: Tensor, center: Tensor, weights: Tensor) -> npt.NDArray[np.float64]:
    """[runs] root mean square distance of the points [runs, n, d] from the center."""
    squares = torch.linalg.vector_norm(points - center, dim=2).square()
    return np.asarray((weights * squares).sum(1).sqrt().double().cpu().numpy())


def main_curve(names: Sequence[str]) -> str:
    """Which of the curves says most."""
    return next(name for name in ("error", "loss", "consensus") if name in names)


def _ended(setup: Setup, group: Group, runs: int) -> Ended:
    main = group.curves[main_curve(list(group.curves))][-1]
    if not np.isfinite(main).any():
        return "diverged"
    if setup.until is None:
        return "steps"
    if callable(setup.until):
        enough = all(setup.until(group.figures(run)) for run in range(runs))
    else:
        enough = bool((main <= setup.until).all())
    return "until" if enough else "steps"
