"""The laws that every algorithm keeps, checked by running it.

They are what makes one algorithm the same on one rank an agent, on many agents a rank and in a
simulator. Each check breaks when the law is broken and says what to change.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Both, Neighbors, Slots, State, Under, iterate
from ifog.algorithms.draws import keys, normal, uniform
from ifog.errors import LawError
from ifog.mixing import Round
from ifog.problems import LeastSquares, Quadratics, least_squares

__all__ = [
    "Conserved",
    "Oracle",
    "check_axis",
    "check_conservation",
    "check_exactness",
    "check_innocence",
    "check_locality",
    "check_oracle",
    "difference",
    "laws_problem",
]

Conserved: TypeAlias = Callable[[State], Tensor]  # a State -> what no step may change
Oracle: TypeAlias = Callable[[Tensor], Any]  # the agents' numbers -> their gradient oracle
_STEPS = 7


class Alone:
    """A mixer in which nobody meets anybody: every result is a multiple of what was given.

    Not the thing itself: a mixer that changes nothing hides errors, because what an algorithm
    takes away from what was mixed then cancels.
    """

    def __init__(self, agents: Tensor, total: int, factor: float = 0.3) -> None:
        self.agents, self.total = agents, total
        self._factor = factor

    def start(self, *xs: Tensor) -> Under:
        results = [self._factor * x for x in xs]
        return Round((), lambda _: results[0] if len(results) == 1 else tuple(results))

    def __call__(self, *xs: Tensor) -> Any:
        return self.start(*xs).wait()

    mean = swap = __call__

    def gather(self, x: Tensor) -> Neighbors:
        weights, own = torch.full((2, len(x), 1), 0.5).to(x)
        return Neighbors(self._factor * x[:, None], weights, own[:, 0])

    def slots(self) -> Slots:
        ids = (self.agents[:, None] + 1) % self.total
        weights = torch.full(ids.shape, 0.5, dtype=torch.float64)
        return Slots(ids, weights, weights[:, 0])


class _Watched:
    """An oracle that notes at which points it was asked."""

    def __init__(self, oracle: Any) -> None:
        self._oracle = oracle
        self.points: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.points.append(x)
        gradients: Tensor = self._oracle(x)
        return gradients

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)


def laws_problem(shape: Sequence[int], samples: bool) -> Oracle:
    """Problems of agents that differ in curvature and optimum, from the agents' numbers."""
    if samples:
        return lambda agents: least_squares(agents, dimension=shape[0], samples=5)

    def quadratics_of(agents: Tensor) -> Quadratics:
        key = keys(0, agents, 0)
        return Quadratics(0.5 + uniform(key, *shape), normal(keys(1, agents, 0), *shape), agents)

    return quadratics_of


def check_axis(algorithm: Algorithm, oracle: Oracle, shape: Sequence[int]) -> None:
    """Every tensor of the State has the agents as axis 0, and steps change no State.

    Raises:
        LawError: naming the field.
    """
    agents = torch.arange(5)
    x = _start(agents, shape)
    before, mix = x.clone(), _alone(algorithm, agents, 5)
    state = algorithm.init(x)
    if getattr(state, "_fields", ("",))[0] != "x" or not isinstance(state, tuple):
        raise LawError(
            f"axis: init gives a {type(state).__name__}; a State is a NamedTuple whose first field "
            "is x, the point at which the next gradient is taken"
        )
    for _ in range(3):
        kept = [(name, value, value.clone()) for name, value in _tensors(state)]
        for name, value, _copy in kept:
            if value.ndim == 0 or len(value) != 5:
                raise LawError(
                    f"axis: {name} has shape {tuple(value.shape)}, but axis 0 of every tensor of "
                    "the State must be the 5 agents hosted here; one number for each agent is "
                    "[n, 1, ...], a step counter a plain int"
                )
        state = algorithm.step(state, oracle(agents), mix)
        changed = [name for name, value, copy in kept if not _same(value, copy)]
        if changed or not torch.equal(x, before):
            raise LawError(
                f"axis: step changed {changed[0] if changed else 'the starting point'} of the "
                "State it was given; return a new State, and use in-place operations such as "
                "sub_ on tensors only that step has made itself"
            )


def check_oracle(algorithm: Algorithm, oracle: Oracle, shape: Sequence[int]) -> None:
    """The gradient is asked for once a step (or never, by pure averaging), at ``state.x``.

    Raises:
        LawError: saying how often, or that it was elsewhere.
    """
    agents = torch.arange(5)
    mix, state = _alone(algorithm, agents, 5), algorithm.init(_start(agents, shape))
    counts = set()
    for _ in range(_STEPS):
        watched, x = _Watched(oracle(agents)), state.x
        state = algorithm.step(state, watched, mix)
        counts.add(len(watched.points))
        if any(not _same(point, x) for point in watched.points):
            raise LawError(
                "single oracle: step asked for a gradient at another point than state.x; make "
                "that point the x of the State, which is where loss.backward() will have been"
            )
    if len(counts) > 1 or max(counts) > 1:
        raise LawError(
            f"single oracle: step asked for {sorted(counts)} gradients, but one a step is what "
            "loss.backward() before optimizer.step() can give; keep what a later step needs in "
            "the State, and count steps there"
        )


def check_locality(
    algorithm: Algorithm, oracle: Oracle, shape: Sequence[int], tolerance: float
) -> None:
    """Where nobody meets anybody, a step of many agents is the steps of each by itself.

    Raises:
        LawError: naming the field that differs, and by how much.
    """
    agents, total = torch.tensor([2, 3, 7, 11]), 16
    x = _start(agents, shape)
    together = algorithm.init(x)
    each = [algorithm.init(x[i : i + 1]) for i in range(len(agents))]
    for _ in range(_STEPS):
        together = algorithm.step(together, oracle(agents), _alone(algorithm, agents, total))
        for i, state in enumerate(each):
            one = agents[i : i + 1]
            each[i] = algorithm.step(state, oracle(one), _alone(algorithm, one, total))
        for i, state in enumerate(each):
            for (name, whole), (_, part) in zip(_tensors(together), _tensors(state), strict=True):
                gap = difference(whole[i : i + 1], part)
                if not gap <= tolerance:
                    raise LawError(
                        f"locality: {name} of an agent differs by {gap:.2g} when others are hosted "
                        "beside it; something reduces over axis 0, such as a norm, a top-k or a "
                        "sum of the whole tensor, or draws without the agent's number: use "
                        "per_agent(function), and keys(seed, mix.agents, k) for chance"
                    )


def check_innocence(algorithm: Algorithm, oracle: Oracle, shape: Sequence[int]) -> None:
    """Steps draw from no generator that others use, and the same start gives the same end.

    Raises:
        LawError: naming the generator.
    """
    agents, ends = torch.arange(5), []
    for _ in range(2):
        before = _global_generators()
        state = algorithm.init(_start(agents, shape))
        for _ in range(_STEPS):
            state = algorithm.step(state, oracle(agents), _alone(algorithm, agents, 5))
        ends.append(state)
        after = _global_generators()
        for library in before:
            if before[library] != after[library]:
                raise LawError(
                    f"innocence: step draws from the global generator of {library}, so ranks and "
                    "simulator draw different numbers; use uniform(keys(seed, mix.agents, k), ...) "
                    "of ifog.algorithms.draws"
                )
    for (name, one), (_, other) in zip(_tensors(ends[0]), _tensors(ends[1]), strict=True):
        if not _same(one, other):
            raise LawError(
                f"innocence: the same start gave another {name} the second time; keep everything "
                "that steps remember in the State, nothing in the algorithm"
            )


def check_conservation(
    algorithm: Algorithm, mix: Any, shape: Sequence[int], conserved: Conserved
) -> None:
    """Without gradients, what is conserved stays.

    Raises:
        LawError: saying by how much it moved.
    """
    agents = torch.arange(mix.total)
    nothing = torch.zeros(mix.total, *shape, dtype=torch.float64)
    still: Any = Quadratics(nothing, nothing, agents)
    if "samples" in algorithm.needs:
        still = LeastSquares(nothing[:, None], nothing[:, :1], agents)
    state = algorithm.init(_start(agents, shape))
    kept = conserved(state)
    for step in range(3 * _STEPS):
        state = algorithm.step(state, still, mix)
        gap = difference(conserved(state), kept)
        if not gap < 1e-10:
            raise LawError(
                f"conservation: with zero gradients the sum over agents moved by {gap:.2g} in "
                f"step {step}, but averaging must keep it; check that the weights of what is "
                "added and taken away sum to zero (W - I), or pass conserved=None if the "
                "algorithm does not mean to keep it"
            )


def check_exactness(
    algorithm: Algorithm, oracle: Oracle, mix: Any, shape: Sequence[int], steps: int
) -> None:
    """The algorithm ends at the optimum, and having arrived it stays.

    Raises:
        LawError: saying how far away it is, or how far it went away.
    """
    agents = torch.arange(mix.total)
    problem, x = oracle(agents), _start(agents, shape)
    state = iterate(algorithm, x, problem, mix, steps)
    gaps = []
    for _ in range(_STEPS):
        gaps.append(difference(state.x, problem.optimum().expand_as(state.x)))
        state = algorithm.step(state, problem, mix)
    if not max(gaps) < 1e-8:
        raise LawError(
            f"fixed point: after {steps} steps the agents are {max(gaps):.2g} from the optimum; "
            "an exact algorithm has no other resting place. Smaller steps help if it is on its "
            "way or oscillates; otherwise it has a bias, and exact=True is not true"
        )


def difference(one: Tensor, other: Tensor) -> float:
    """The largest difference of two tensors, relative to what is large in them, and absolute."""
    if one.shape != other.shape:
        return float("inf")
    if not one.numel():
        return 0.0
    scale = max(1.0, float(one.detach().abs().max()))
    return float((one - other).detach().abs().max()) / scale


def _global_generators() -> dict[str, Any]:
    """The states of the generators that must stay as they are."""
    return {
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": repr(np.random.get_state()),  # noqa: NPY002 - the old one is the global one
        "random": random.getstate(),
    }


def _start(agents: Tensor, shape: Sequence[int]) -> Tensor:
    return normal(keys(2, agents, 0), *shape)


def _alone(algorithm: Algorithm, agents: Tensor, total: int) -> Any:
    mix = Alone(agents, total)
    return Both(mix, Alone(agents, total, 0.4)) if "two mixers" in algorithm.needs else mix


class _Field(NamedTuple):
    name: str
    value: Tensor


def _tensors(state: Any, name: str = "state") -> Iterator[_Field]:
    """The tensors of a State, with what they are called."""
    if isinstance(state, Tensor):
        yield _Field(name, state)
    elif isinstance(state, tuple):
        fields = getattr(state, "_fields", range(len(state)))
        for field, value in zip(fields, state, strict=True):
            yield from _tensors(value, f"{name}.{field}")


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or torch.equal(one, other)
