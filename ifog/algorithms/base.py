"""What an algorithm is, and all that it sees of the world: a gradient oracle and a mixer.

Axis 0 of every tensor is the agents hosted here: one on a rank of MPI, all of them in a simulator,
or any number between. An algorithm never asks how many agents there are elsewhere, which graph
joins them or what a rank is, so the same twenty lines run everywhere. Per-agent reductions go
through ``per_agent``, per-agent chance through ``ifog.algorithms.draws``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

__all__ = [
    "Algorithm",
    "Both",
    "Compressor",
    "Grad",
    "Mix",
    "Need",
    "Neighbors",
    "Prox",
    "Rate",
    "Samples",
    "Scheduled",
    "Slots",
    "State",
    "Under",
    "column",
    "descend",
    "iterate",
    "per_agent",
    "scheduled",
]

State: TypeAlias = Any  # a NamedTuple whose first field is x, the point of the next gradient
Rate: TypeAlias = float | Tensor  # a tensor that broadcasts over [n, ...] where agents differ in it
Need = Literal["prox", "samples", "two mixers", "mean", "neighbors", "edges", "matrices"]


class Under(Protocol):
    """A round under way."""

    def wait(self) -> Any:
        """What the round gives, once it is there."""

    def done(self) -> bool:
        """Whether it is there; never blocks."""


class Slots(NamedTuple):
    """Whom the agents hosted here hear: neighbour s of agent i is in slot [i, s], ascending.

    Agents with fewer neighbours than others have slots left over: id -1 and weight 0.
    """

    ids: Tensor  # [n, degree] int64, numbers of the neighbours among all agents
    weights: Tensor  # [n, degree] W[i, neighbour]
    own: Tensor  # [n] W[i, i]


class Neighbors(NamedTuple):
    """What the agents hosted here got from their neighbours, by slot."""

    values: Tensor  # [n, degree, ...] the neighbours' tensors; zeros in slots left over
    weights: Tensor  # [n, degree]
    own: Tensor  # [n]


class Mix(Protocol):
    """The mixer as algorithms see it; a call is one round of the schedule.

    Attributes:
        agents: [n] int64, the numbers of the agents hosted here among all of them, ascending.
        total: how many agents there are in all.
    """

    agents: Tensor
    total: int

    def start(self, *xs: Tensor) -> Under:
        """Start ``W x`` of every tensor; all travel in one message per edge."""

    def __call__(self, *xs: Tensor) -> Any:
        """``start(*xs).wait()``: [n, ...] for one tensor, a tuple for several."""

    def mean(self, *xs: Tensor) -> Any:
        """The mean over all agents, in every row: an all-reduce, not a round on the graph."""

    def gather(self, x: Tensor) -> Neighbors:
        """What the neighbours of this round have, for rules that are no weighted average."""

    def slots(self) -> Slots:
        """The neighbours; for graphs that do not change."""

    def swap(self, *xs: Tensor) -> Any:
        """What the neighbours say to each agent, from what each says to its neighbours.

        Each x [n, degree, ...] -> [n, degree, ...]: ``swap(x)[i, s] = x[j, t]`` where j is in slot
        s of i and i is in slot t of j. For undirected graphs that do not change.
        """


class Both(NamedTuple):
    """Two mixers over the same links, for algorithms that need both kinds of weights."""

    pull: Mix  # row-stochastic: averages
    push: Mix  # column-stochastic: shares out, so that sums stay

    @property
    def agents(self) -> Tensor:
        """The agents hosted here."""
        return self.pull.agents

    @property
    def total(self) -> int:
        """How many agents there are in all."""
        return self.pull.total


class Grad(Protocol):
    """The local, perhaps stochastic, gradients."""

    def __call__(self, x: Tensor) -> Tensor:
        """[n, ...] -> [n, ...]: row i is a gradient of f_i at row i."""


class Prox(Grad, Protocol):
    """An oracle that minimises as well."""

    def prox(self, v: Tensor, c: float) -> Tensor:
        """Row i is ``argmin over x of f_i(x) + (c/2) |x - v_i|^2``."""


class Samples(Grad, Protocol):
    """An oracle that knows its samples: f_i is the mean of f_i1 ... f_im."""

    def each(self, x: Tensor) -> Tensor:
        """[n, ...] -> [n, m, ...]: the gradients of all samples."""

    def some(self, x: Tensor, which: Tensor) -> Tensor:
        """[n, ...], [n, batch] -> [n, ...]: the mean gradient of samples ``which`` of each."""


class Compressor(Protocol):
    """Replaces each agent's tensor by one that takes fewer bytes.

    Attributes:
        unbiased: whether the expectation of what comes out is what went in.
    """

    unbiased: bool

    def __call__(self, x: Tensor, agents: Tensor, step: int) -> Tensor:
        """[n, ...] -> [n, ...]; what is drawn depends on the agent and the step only."""


class Algorithm(NamedTuple):
    """A decentralized algorithm.

    ``step`` calls the oracle once, first, at ``state.x``, unless ``needs`` says otherwise, and
    returns a new State; it never changes the old one.

    Attributes:
        init: x [n, ...], the starting points -> the State, whose first field is x.
        step: (state, grad, mix) -> the next State.
        needs: what it asks for beyond a gradient and one mixer.
    """

    init: Callable[[Tensor], State]
    step: Callable[[State, Any, Any], State]
    needs: tuple[Need, ...] = ()


class Scheduled(NamedTuple):
    """The State of an algorithm whose parameters change."""

    x: Tensor  # [n, ...] query point
    state: State
    k: int


def scheduled(make: Callable[[int], Algorithm]) -> Algorithm:
    """An algorithm whose parameters depend on the step k = 0, 1, 2, ...

    Example:
        >>> from ifog.algorithms import dgd
        >>> vanishing = scheduled(lambda k: dgd(1.0 / (k + 10)))
        >>> vanishing.init(torch.zeros(4, 2)).k
        0
    """
    first = make(0)

    def init(x: Tensor) -> Scheduled:
        return Scheduled(x, first.init(x), 0)

    def step(s: Scheduled, grad: Grad, mix: Any) -> Scheduled:
        state = make(s.k).step(s.state, grad, mix)
        return Scheduled(state.x, state, s.k + 1)

    return Algorithm(init, step, first.needs)


def iterate(algorithm: Algorithm, x: Tensor, grad: Grad, mix: Any, steps: int) -> State:
    """The State after ``steps`` steps from x [n, ...].

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import extra
        >>> from ifog.problems import quadratics
        >>> problem = quadratics(8)
        >>> state = iterate(extra(0.1), problem.zeros(), problem, MatrixMixer(ring(8)), 400)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True
    """
    state = algorithm.init(x)
    for _ in range(steps):
        state = algorithm.step(state, grad, mix)
    return state


def descend(x: Tensor, g: Tensor, lr: Rate) -> Tensor:
    """``x - lr g``, in one pass over memory where lr is a number."""
    return x - lr * g if isinstance(lr, Tensor) else torch.sub(x, g, alpha=lr)


def per_agent(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of one agent's tensors, for all agents at once: it cannot mix them up.

    Example:
        >>> per_agent(torch.linalg.vector_norm)(torch.tensor([[3.0, 4.0], [0.0, 2.0]])).tolist()
        [5.0, 2.0]
    """
    return torch.vmap(function)


def column(values: Tensor, like: Tensor) -> Tensor:
    """[n] numbers, shaped to multiply a tensor [n, ...]."""
    return values.to(like.dtype).view(-1, *(1 for _ in like.shape[1:]))
