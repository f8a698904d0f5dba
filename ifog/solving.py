"""One call that runs an algorithm where you want it: on the ranks, or in the simulator."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import cloudpickle
import numpy as np
import torch
from torch import Tensor

from ifog import simulate
from ifog.affine import Affine
from ifog.algorithms.base import Algorithm, Both
from ifog.carriers import agent_mixer
from ifog.channels import Presence, Rounds, Weather
from ifog.context import current, is_initialized
from ifog.errors import ArgumentError
from ifog.mixing import neighbor_mixer
from ifog.ops import allgather, allreduce, watch
from ifog.rounds import Schedule
from ifog.side_by_side import require, seeded
from ifog.simulate import Trace, analysed_run, label_of, optimum_of, schedule_of
from ifog.simulation import Setup
from ifog.weights import column_stochastic, row_stochastic, uniform

__all__ = ["run_task", "solve"]

_POINTS = 200
_TASK = (
    "import ifog.solving as _ifog_solving\n"
    "_ifog_solved = _ifog_solving.run_task(_ifog_task)\n"
    "del _ifog_task, _ifog_solving"
)


def solve(
    algorithm: Algorithm,
    problem: Any,
    topology: Any = None,
    *,
    carrier: Literal["ranks", "simulate"] = "ranks",
    steps: int = 1000,
    seed: int = 0,
    every: int | None = None,
    until: float | None = None,
    label: str | None = None,
) -> Trace:
    """Run an algorithm on the ranks or in the simulator, from zeros (or the problem's start).

    On *ranks*, each hosts an even block of the agents; with as many agents as ranks the live views
    show x and its mixing. Called in a cell every rank must call it; called in the notebook, it is
    sent to the running cluster. Times are then those of a clock, bytes those that were sent. In the
    *simulator* it is ``simulate.run``, which takes more arguments. Both give the same numbers.

    Args:
        algorithm: of ``ifog.algorithms``, or your own.
        problem: the oracle of all agents, such as ``problems.least_squares(8)``.
        topology: a graph, a schedule or a name; by default, on ranks, what ``set_topology`` set.
        carrier: where to run.
        steps: how many.
        seed: of all chance, as for ``simulate.run``.
        every: how many steps apart the curves are taken; by default they have about 200 points on
            ranks, because each takes an all-reduce.
        until: ends once the error (loss, if the optimum is not known) is at most this.
        label: the name of the trace; by default the algorithm's.

    Raises:
        ArgumentError: what does not fit together, and how it would.
        NoClusterError: in a notebook without a cluster.
        CellError: a rank failed.

    Example:
        >>> import ifog
        >>> from ifog.algorithms import extra
        >>> problem = ifog.problems.quadratics(4)
        >>> trace = ifog.solve(extra(0.3), problem, "ring", carrier="simulate", steps=200)
        >>> bool(trace.error[0, -1] < 1e-9)
        True
    """
    name = label or label_of(algorithm)
    if carrier == "simulate":
        if topology is None:
            raise ArgumentError("solve: the simulator needs a topology, such as 'ring'")
        return simulate.run(
            algorithm,
            problem,
            topology,
            steps=steps,
            seed=seed,
            every=every,
            until=until,
            label=name,
        )
    if carrier != "ranks":
        raise ArgumentError(f"solve: carrier is {carrier!r}; use 'ranks' or 'simulate'")
    every = every or max(1, steps // _POINTS)
    options: dict[str, Any] = {"steps": steps, "seed": seed, "every": every, "until": until}
    found: Mapping[str, Any]
    if is_initialized():
        found = _on_this_rank(algorithm, problem, topology, **options)
    else:
        found = _on_cluster((algorithm, problem, topology, options))
    return _trace(algorithm, problem, topology, found=found, options=options, name=name)


def run_task(task: Any) -> dict[str, Any]:
    """What the notebook asked for, on this rank; every rank must call it."""
    algorithm, problem, topology, options = cloudpickle.loads(bytes(task))
    return _on_this_rank(algorithm, problem, topology, **options)


def _on_cluster(task: tuple[Any, ...]) -> Mapping[str, Any]:
    from ifog.cluster import current as current_cluster

    cluster = current_cluster()
    data = np.frombuffer(cloudpickle.dumps(task), dtype=np.uint8)
    cluster.push({"_ifog_task": data})
    cluster.run(_TASK).raise_for_error()
    found: dict[int, Mapping[str, Any]] = cluster.pull("_ifog_solved", [0])
    return found[0]


def _on_this_rank(
    algorithm: Algorithm,
    problem: Any,
    topology: Any,
    *,
    steps: int,
    seed: int,
    every: int,
    until: float | None,
) -> dict[str, Any]:
    given = _in_use() if topology is None else topology
    schedule = schedule_of(given, len(_start_of(problem)))
    mixers = _RankMixers(algorithm, schedule, seed)
    mix = mixers.mix
    mine = seeded(_part(problem, mix.agents - seed * mix.total, mix.total), seed)
    require(mine, algorithm.needs, label_of(algorithm))
    book = _Book(mixers.first, mine, optimum_of(problem, _start_of(problem)))
    context = current()
    state = algorithm.init(_start_of(mine))
    begun, ended = time.perf_counter(), "steps"
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            book.note(step, state.x, time.perf_counter() - begun)
            ended = book.ended(until)
            if ended != "steps":
                break
        if step < steps:
            sent = context.nbytes
            with torch.no_grad():
                state = algorithm.step(state, mine, mix)
            book.count(context.nbytes - sent, mixers.passed())
            watch(state.x, "x")
    return {**book.curves(), "x": allgather(state.x).cpu().numpy(), "ended": ended}


def _in_use() -> Any:
    """What ``neighbor_allreduce`` mixes by: the schedule that was set, or the graph."""
    context = current()
    if context.schedule is not None:
        return context.schedule
    return uniform(context.graph) if context.evenly else context.graph


class _RankMixers:
    """The mixer of this rank; of one agent on each rank, by operations that the live views know."""

    def __init__(self, algorithm: Algorithm, schedule: Schedule, seed: int) -> None:
        both = "two mixers" in algorithm.needs
        ways = (row_stochastic, column_stochastic) if both else (None,)
        still = Presence(0, (seed,), None)
        self._rounds = [Rounds(schedule, (seed,), Weather(), still, way) for way in ways]
        made = [self._made(rounds, seed) for rounds in self._rounds]
        self.mix: Any = Both(*made) if both else made[0]
        self.first, self._seen = made[0], 0

    @staticmethod
    def _made(rounds: Rounds, seed: int) -> Any:
        mix: Any = agent_mixer(rounds)
        mix.agents = mix.agents + seed * mix.total
        return mix if mix.total != current().size else _OneEach(rounds, mix)

    def passed(self) -> int:
        """The messages of the rounds since the last call, of all agents."""
        now = self.first.step
        rounds = range(self._seen, now)
        self._seen = now
        return sum(len(each(step).without_loops()[0]) for each in self._rounds for step in rounds)


class _OneEach:
    """One agent on each rank: averages are ``neighbor_allreduce``, the rest as of many agents."""

    def __init__(self, rounds: Rounds, many: Any) -> None:
        self.agents, self.total, self._many = many.agents, many.total, many
        kept: dict[int, Any] = {}

        def graph(step: int) -> Any:
            if rounds.period is None:  # no two rounds are the same
                return rounds(step).graph()
            step %= rounds.period
            if step not in kept:
                kept[step] = rounds(step).graph()
            return kept[step]

        self._mixer = neighbor_mixer(graph)

    @property
    def step(self) -> int:
        return self._mixer.step

    def start(self, *xs: Tensor) -> Any:
        return self._mixer.start(*xs)

    def __call__(self, *xs: Tensor) -> Any:
        return self._mixer(*xs)

    def mean(self, *xs: Tensor) -> Any:
        return self._many.mean(*xs)

    def gather(self, x: Tensor) -> Any:
        self._many.step = self._mixer.step
        self._mixer.step += 1
        return self._many.gather(x)

    def slots(self) -> Any:
        return self._many.slots()

    def swap(self, *xs: Tensor) -> Any:
        self._mixer.step += 1
        return self._many.swap(*xs)


class _Book:
    """The figures of all ranks together, the same on each."""

    def __init__(self, mix: Any, problem: Any, optimum: Tensor | None) -> None:
        self._mix, self._problem, self._optimum = mix, problem, optimum
        self._rows: list[dict[str, float]] = []
        self._nbytes = self._messages = 0

    def count(self, nbytes: int, messages: int) -> None:
        """What this rank sent in a step, and how many messages all agents did."""
        self._nbytes += nbytes
        self._messages += messages

    def note(self, step: int, x: Tensor, seconds: float) -> None:
        """Take the figures after ``step`` steps."""
        mean = self._mix.mean(x)
        figures = {"consensus": _squares(x - mean)}
        if self._optimum is not None:
            figures["error"] = _squares(x - self._optimum.to(x))
        elif hasattr(self._problem, "loss") and not hasattr(self._problem, "measures"):
            figures["loss"] = float(self._problem.loss(mean).sum())
        figures["nbytes"] = float(self._nbytes)
        total = allreduce(torch.tensor([*figures.values()], dtype=torch.float64), average=False)
        found = dict(zip(figures, total.tolist(), strict=True))
        n = self._mix.total
        row = {"steps": step, "seconds": seconds, "messages": self._messages}
        row |= {"consensus": (found["consensus"] / n) ** 0.5, "nbytes": found["nbytes"]}
        if "error" in found:
            assert self._optimum is not None
            row["error"] = (found["error"] / n) ** 0.5 / (float(self._optimum.norm()) or 1.0)
        if "loss" in found:
            row["loss"] = found["loss"] / n
        if hasattr(self._problem, "measures"):
            told = self._problem.measures(mean)  # of the mean network, the same everywhere
            row |= {name: told[name] for name in ("loss", "accuracy") if name in told}
        self._rows.append(row)

    def ended(self, until: float | None) -> str:
        """Whether that is enough; all ranks see the same figures."""
        row = self._rows[-1]
        main = row.get("error", row.get("loss", row["consensus"]))
        if not np.isfinite(main):
            return "diverged"
        return "until" if until is not None and main <= until else "steps"

    def curves(self) -> dict[str, Any]:
        """{name: [points]}."""
        return {name: np.array([row[name] for row in self._rows]) for name in self._rows[0]}


def _squares(x: Tensor) -> float:
    return float(x.double().square().sum())


def _part(problem: Any, agents: Tensor, total: int) -> Any:
    """The problem of the agents hosted here, from that of all, or from just that."""
    if hasattr(problem, "problem"):  # one that adds chance to another
        outer = copy.copy(problem)
        outer.problem = _part(problem.problem, agents, total)
        return outer
    known = len(problem.agents)
    if known == total:
        return problem.take(agents)
    if known == len(agents):
        return problem
    raise ArgumentError(
        f"solve: the graph has {total} agents, {len(agents)} of them here, but the problem is of "
        f"{known}; make it for {total}, or in a cell for those here"
    )


def _start_of(problem: Any) -> Tensor:
    inner = getattr(problem, "problem", problem)
    make: Callable[[], Tensor] = getattr(inner, "start", None) or inner.zeros
    return make()


def _trace(
    algorithm: Algorithm,
    problem: Any,
    topology: Any,
    *,
    found: Mapping[str, Any],
    options: Mapping[str, Any],
    name: str,
) -> Trace:
    curves = {key: np.array(found[key])[None] for key in found if key not in ("x", "ended")}
    times = {key: curves.pop(key)[0] for key in ("steps", "seconds", "messages", "nbytes")}
    start, x = _start_of(problem), torch.as_tensor(found["x"])
    return Trace(
        label=name,
        agents=len(x),
        runs=[{"seed": options["seed"]}],
        error=curves.pop("error", None),
        consensus=curves.pop("consensus"),
        measures=curves,
        **{**times, "steps": times["steps"].astype(np.int64)},
        states=[((0,), _Final(x))],
        ended=found["ended"],
        elapsed=float(times["seconds"][-1]),
        settings={"problem": problem, "optimum": optimum_of(problem, start)},
        make_events=list,
        analyse=lambda _: _analysed(algorithm, problem, topology, start, options),
        modelled=False,
    )


class _Final:
    """The end of a run on ranks, of which only x is kept."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


def _analysed(
    algorithm: Algorithm, problem: Any, topology: Any, start: Tensor, options: Mapping[str, Any]
) -> Affine | None:
    if topology is None or hasattr(problem, "problem"):
        return None
    schedule = schedule_of(topology, len(start))
    setup = Setup(problem, schedule, start, steps=options["steps"], every=options["every"])
    return analysed_run(setup, lambda: algorithm, {"seed": options["seed"]})
