"""Ten thousand agents in one process: the algorithms of the ranks, in a simulator.

The same twenty lines that run on MPI ranks run here on all agents at once; a run with seed 0 gives
what ranks would compute. Time is modelled, and so are lost and late messages and agents that come
and go.
"""

from __future__ import annotations

import os

# Large tensors on huge pages are several times as fast to make; torch looks once, at its first one.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from ifog.affine import Affine, analysed
from ifog.algorithms.base import Algorithm
from ifog.channels import Churn, Weather
from ifog.compression import Codec
from ifog.durations import CostModel
from ifog.errors import ArgumentError
from ifog.links import Links, as_links
from ifog.progress import Progress
from ifog.rounds import Drawn, Periodic, Schedule, constant, links_of, mean_graph
from ifog.schedules import named
from ifog.side_by_side import moved, require
from ifog.simulated import Trace
from ifog.simulation import Group, Mixers, Setup, Until, fewer_threads, oracle_of, simulate
from ifog.sweeps import batches, parameters
from ifog.telemetry import Event, now

__all__ = [
    "Churn",
    "CostModel",
    "Trace",
    "analysed_run",
    "label_of",
    "optimum_of",
    "run",
    "schedule_of",
]

_POINTS = 500  # of a curve, if nothing else is asked
_HESSIANS = 2e8  # numbers that finding an optimum may take
_ANALYSED = 1500  # numbers of all agents up to which linear algebra is asked


def run(
    algorithm: Algorithm | Callable[..., Algorithm],
    problem: Any,
    schedule: Schedule | nx.DiGraph | Links | str,
    *,
    agents: int | None = None,
    steps: int = 1000,
    seed: int | Sequence[int] = 0,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    start: Tensor | None = None,
    every: int | None = None,
    until: Until | None = None,
    optimum: Tensor | bool = True,
    loss: float = 0.0,
    delay: int = 0,
    churn: Churn | float | None = None,
    cost: CostModel | None = None,
    codec: Codec | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: bool | None = None,
    label: str | None = None,
) -> Trace:
    """Run an algorithm on simulated agents.

    Several seeds, and all combinations of a ``sweep``, run side by side. Chance belongs to the
    seed: it moves what stochastic problems, compressors, random schedules, losses, delays and churn
    draw; graphs drawn once (``random_regular``) and data have seeds of their own.

    Args:
        algorithm: of ``ifog.algorithms``, or your own; with a ``sweep``, what makes it from those
            parameters.
        problem: the gradient oracle of n agents, [n, ...] -> [n, ...], such as
            ``ifog.problems.least_squares(n)``. Its ``zeros()`` (or ``start``), ``optimum()``,
            ``loss`` and ``measures`` are used where it has them.
        schedule: a graph, as digraph or arrays (``ifog.random_regular.links(n)``), a schedule, or
            the name of one: ``"exponential"``, ``"one-peer"``.
        agents: n; needed only where neither problem nor schedule tells.
        steps: how many.
        seed: one, or several.
        sweep: {parameter: values}.
        start: x [n, ...], or [...] for all agents; by default zeros.
        every: how many steps apart the curves are taken; by default they have about 500 points.
        until: ends early: once all runs' error (loss, if the optimum is not known) is at most this,
            or this function of {curve: newest value} is true for all runs.
        optimum: x*; True asks the problem, False leaves errors unknown.
        loss: the probability with which a message is lost; the receiver then uses its own value
            (the sender keeps it, where only columns of W sum to 1).
        delay: the largest delay of a link in rounds; each has its own, drawn from 0 on.
        churn: agents that leave and come back: the probability of leaving in a step, or a
            ``Churn``. Who is away does nothing, and its neighbours keep its weight.
        cost: the model of time.
        codec: by which messages are counted in bytes; what they contain is the algorithm's affair.
        dtype: of everything; by default the problem's.
        device: of everything; by default a GPU if there is one.
        progress: a line that says how far it is; by default for runs of more than two seconds that
            are watched.
        label: the name of the trace; by default the algorithm's.

    Raises:
        ArgumentError: what does not fit together, and how it would.

    Example:
        >>> from ifog import problems, simulate
        >>> from ifog.algorithms import gradient_tracking
        >>> problem = problems.quadratics(50)
        >>> trace = simulate.run(gradient_tracking(0.3), problem, "one-peer", steps=300)
        >>> bool(trace.error[0, -1] < 1e-9)
        True
    """
    begun = time.perf_counter()
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    chosen = schedule_of(schedule, agents if agents is not None else _agents_of(problem))
    problem = moved(problem, dtype, device)
    n = links_of(chosen, 0).n
    x = _start(problem, start, n=n, agents=agents, dtype=dtype, device=device)
    seeds = [seed] if isinstance(seed, int) else list(seed)
    runs = parameters(sweep or {}, seeds)
    name = label or label_of(algorithm)
    shown = Progress(name, steps, progress)
    weather = Weather(loss, delay, Churn(churn) if isinstance(churn, float) else churn)
    weather.check()
    setup = Setup(
        problem=problem,
        schedule=chosen,
        start=x,
        steps=steps,
        every=every or max(1, steps // _POINTS),
        until=until,
        optimum=optimum_of(problem, x, optimum),
        weather=weather,
        cost=cost or CostModel(),
        report=shown,
        **({} if codec is None else {"message_bytes": codec.nbytes}),
    )
    make = _maker(algorithm, sweep)
    try:
        groups = _groups(setup, make, runs, name)
    finally:
        shown.close()
    return Trace(
        label=name,
        agents=n,
        runs=runs,
        **_joined(groups, len(runs)),
        settings={"problem": problem, "schedule": chosen, "optimum": setup.optimum},
        elapsed=time.perf_counter() - begun,
        make_events=lambda: _events(groups, chosen),
        analyse=lambda place: analysed_run(setup, make, runs[place]),
    )


Done = tuple[Sequence[int], Group]


def _maker(
    algorithm: Algorithm | Callable[..., Algorithm], sweep: Mapping[str, Sequence[Any]] | None
) -> Callable[..., Algorithm]:
    if isinstance(algorithm, Algorithm) and not sweep:
        made = algorithm
        return lambda: made
    if not isinstance(algorithm, Algorithm) and sweep:
        return algorithm
    raise ArgumentError(
        "simulate: a sweep needs what makes the algorithm from its parameters, and without one it "
        "must be made: diging with sweep={'lr': [0.1, 0.05]}, or diging(0.1)"
    )


def _groups(
    setup: Setup, make: Callable[..., Algorithm], runs: Sequence[Mapping[str, Any]], name: str
) -> list[Done]:
    alike = all(run.keys() == {"seed"} for run in runs)
    for together in (True, False):
        try:
            found = batches(make, runs, setup.start, together=together)
            require(setup.problem, found[0].algorithm.needs, name)
            return [(each.places, simulate(setup, each.algorithm, each.seeds)) for each in found]
        except (TypeError, RuntimeError, ArgumentError):
            # Some algorithms take plain numbers only; then each set of parameters runs by itself.
            if alike or not together:
                raise
    raise AssertionError("the second attempt returns or raises")


def _joined(groups: Sequence[Done], runs: int) -> dict[str, Any]:
    """The curves of all runs as arrays; runs that ended early are filled up with nan."""
    longest = max((group for _, group in groups), key=lambda group: len(group.steps))
    curves = {}
    for key in longest.curves:
        curves[key] = np.full((runs, len(longest.steps)), np.nan)
        for places, group in groups:
            curves[key][list(places), : len(group.steps)] = np.array(group.curves[key]).T
    first = next(group for places, group in groups if 0 in places)
    times = {
        key: np.array(getattr(first, key), dtype=np.float64)
        for key in ("seconds", "messages", "nbytes")
    }
    ends = {group.ended for _, group in groups}
    return {
        "steps": np.array(longest.steps),
        "error": curves.pop("error", None),
        "consensus": curves.pop("consensus"),
        "measures": curves,
        **times,
        "states": [(places, group.state) for places, group in groups],
        "ended": ends.pop() if len(ends) == 1 else "steps",
    }


def _events(groups: Sequence[Done], schedule: Schedule) -> list[Event]:
    first = next(group for places, group in groups if 0 in places)
    assert first.recorder is not None
    return first.recorder.events(as_links(mean_graph(schedule, rounds=16)), now())


def analysed_run(
    setup: Setup, make: Callable[..., Algorithm], run: Mapping[str, Any]
) -> Affine | None:
    """What linear algebra says of one run, if its graph repeats and nothing is left to chance."""
    period = getattr(setup.schedule, "period", None)
    chance = hasattr(setup.problem, "seed") or setup.weather != Weather()
    if period is None or chance or setup.start.numel() > _ANALYSED:
        return None
    algorithm = make(**{key: value for key, value in run.items() if key != "seed"})
    x = setup.start.double().cpu()
    problem = moved(setup.problem, torch.float64, x.device)

    def at(count: int) -> tuple[Any, Mixers]:
        seeds = [int(run["seed"])] * count
        mixers = Mixers(algorithm, setup.schedule, seeds, weather=Weather(), device=x.device)
        return oracle_of(problem, seeds), mixers

    with torch.no_grad(), fewer_threads(x.numel()):
        return analysed(algorithm, x, at, period)


def schedule_of(given: Any, agents: int | None) -> Periodic | Drawn | Schedule:
    """The schedule that a graph, its name or a schedule stands for.

    Raises:
        ArgumentError: it is none of these, or a name without a number of agents.
    """
    if isinstance(given, str):
        if agents is None:
            raise ArgumentError(
                f"simulate: a graph called {given!r} of how many agents? Say agents=..."
            )
        return named(given, agents)
    if isinstance(given, nx.Graph | Links):
        return constant(given)
    if not callable(given):
        raise ArgumentError(
            f"simulate: a {type(given).__name__} is no graph and no schedule; pass for example "
            "'exponential', ifog.ring(n) or ifog.random_regular.links(n)"
        )
    schedule: Schedule = given
    return schedule


def _agents_of(problem: Any) -> int | None:
    known = getattr(problem, "agents", None)
    inner = getattr(problem, "problem", None)
    return len(known) if known is not None else None if inner is None else _agents_of(inner)


def _start(
    problem: Any,
    start: Tensor | None,
    *,
    n: int,
    agents: int | None,
    dtype: torch.dtype | None,
    device: torch.device,
) -> Tensor:
    for what, found in (("problem", _agents_of(problem)), ("argument", agents)):
        if found is not None and found != n:
            raise ArgumentError(
                f"simulate: the graph has {n} agents, but by the {what} there are {found}; make "
                "them for the same number"
            )
    if start is None:
        make = getattr(problem, "start", None) or getattr(problem, "zeros", None)
        inner = getattr(problem, "problem", None)
        if make is None and inner is not None:
            return _start(inner, None, n=n, agents=None, dtype=dtype, device=device)
        if make is None:
            raise ArgumentError(
                f"simulate: where do agents start? A {type(problem).__name__} has no zeros(); pass "
                "start, a tensor [agents, ...]"
            )
        start = make()
    start = torch.as_tensor(start).to(device, dtype)
    if not start.is_floating_point():
        raise ArgumentError(f"simulate: start holds {start.dtype}; use floating-point numbers")
    if not start.ndim or len(start) != n:
        start = start.expand(n, *start.shape)
    return start.contiguous() if start.ndim > 1 else start[:, None].contiguous()


def optimum_of(problem: Any, x: Tensor, given: Tensor | bool = True) -> Tensor | None:
    """x*, as given or as the problem finds it; None where that would take too much."""
    if isinstance(given, Tensor):
        return given
    inner = getattr(problem, "problem", problem)
    if not given or not hasattr(inner, "optimum"):
        return None
    if hasattr(type(inner), "normal_form") and x.numel() * x[0].numel() > _HESSIANS:
        return None  # it would take a matrix for every agent
    found: Tensor = inner.optimum()
    return found if bool(torch.isfinite(found).all()) else None


def label_of(algorithm: Any) -> str:
    """What made the algorithm: of ``diging.<locals>.step`` it is ``diging``."""
    step = algorithm.step if isinstance(algorithm, Algorithm) else algorithm
    return str(getattr(step, "__qualname__", type(step).__name__)).split(".", maxsplit=1)[0]
