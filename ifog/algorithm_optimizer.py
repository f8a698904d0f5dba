"""Any algorithm of ``ifog.algorithms`` as a torch optimizer: each rank is one agent.

The parameters are the agent's vector, and ``loss.backward()`` before ``step()`` is the one gradient
that an algorithm may ask for in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Both, State
from ifog.context import current
from ifog.errors import ArgumentError
from ifog.flat import Layout
from ifog.mixing import Mixer, Mixing
from ifog.ops import allreduce
from ifog.optim_arguments import named
from ifog.parameters import require_same

__all__ = ["AlgorithmOptimizer"]

_WHAT = "AlgorithmOptimizer"


class AlgorithmOptimizer(torch.optim.Optimizer):
    """A decentralized algorithm that trains a model, with one agent on each rank.

    Parameters that require a gradient are the agent's x, [1, number of entries]; only ``step`` may
    change them. Begin from equal parameters on all ranks unless the algorithm does not need that:
    ``ifog.broadcast_parameters(model.state_dict())``. Every rank must construct it, and step as
    often as the others.

    Args:
        params: parameters of one dtype and device, or groups of them.
        algorithm: such as ``ifog.algorithms.gradient_tracking(0.1)``; see ``scheduled`` for
            parameters that change.
        mix: a mixer of the ranks, such as ``neighbor_mixer(one_peer(size()))``; one made by
            ``agent_mixer(graph)`` where the algorithm asks for more than averages; ``Both`` of two
            where it needs two.

    Attributes:
        algorithm: the algorithm.
        state: of torch; empty.
        agent: the algorithm's State.

    Raises:
        ArgumentError: parameters that cannot be one vector, an algorithm that needs what a model
            does not give, or a mixer that does not fit.
        MismatchError: the ranks' parameters differ in number, shape or dtype; on every rank.

    Example:
        >>> import torch, ifog
        >>> ifog.init()
        >>> model = torch.nn.Linear(3, 1)
        >>> mix = ifog.neighbor_mixer(ifog.ring(ifog.size()))
        >>> method = ifog.algorithms.gradient_tracking(0.1)
        >>> optimizer = ifog.AlgorithmOptimizer(model.parameters(), method, mix)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self, params: Iterable[Any], algorithm: Algorithm, mix: Mixer | Both | Any
    ) -> None:
        super().__init__(params, {})
        _require_possible(algorithm)
        trained = [(x, name) for x, name in named(self) if x.requires_grad]
        self._tensors = [x for x, _ in trained]
        layout = Layout(self._tensors, [name for _, name in trained])
        _require_one_kind(layout)
        require_same(_WHAT, layout.describe())
        self.algorithm = algorithm
        self.mix = mix
        self._mixer = _as_agent(mix, algorithm)
        self.agent: State = algorithm.init(self._values())
        self._versions = self._now()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step of the algorithm; every rank must call it.

        Args:
            closure: evaluates the loss and its gradients anew; for algorithms that ask for more
                than one gradient in a step, or for one at another point.

        Returns:
            What the closure returned first.

        Raises:
            ArgumentError: something else changed the parameters, or the algorithm asked for a
                gradient that only a closure can give.
            PeerFailedError: another rank failed meanwhile.
        """
        if self._versions != self._now():
            raise ArgumentError(
                f"{_WHAT}: something other than step() changed the parameters, of which the "
                "algorithm keeps track; make a new optimizer after changing them, or load its state"
            )
        oracle = _Oracle(self, closure)
        self.agent = self.algorithm.step(self.agent, oracle, self._mixer)
        self._install(self.agent.x)
        return oracle.loss

    def state_dict(self) -> dict[str, Any]:
        """The algorithm's State as plain tuples, and how many rounds were mixed."""
        own = {"agent": _plain(self.agent), "rounds": [mix.step for mix in self._mixers()]}
        return {**super().state_dict(), "decentralized": own}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a state; the parameters become those of it.

        Raises:
            ArgumentError: it is not the state of such an optimizer with this algorithm.
        """
        own = state_dict.get("decentralized", {})
        if "agent" not in own:
            raise ArgumentError(
                f"{_WHAT}: this is not the state of such an optimizer; load it into the one that "
                "saved it"
            )
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "decentralized"})
        self.agent = _restored(self.algorithm.init(self._values()), own["agent"])
        for mix, rounds in zip(self._mixers(), own["rounds"], strict=True):
            mix.step = rounds
        self._install(self.agent.x)

    def _mixers(self) -> list[Any]:
        mixers = list(self.mix) if isinstance(self.mix, Both) else [self.mix]
        return [mix for mix in mixers if hasattr(mix, "step")]

    def _values(self) -> Tensor:
        return torch.cat([x.detach().reshape(-1) for x in self._tensors])[None]

    def _install(self, x: Tensor) -> None:
        sizes = [tensor.numel() for tensor in self._tensors]
        for tensor, part in zip(self._tensors, torch.split(x[0], sizes), strict=True):
            tensor.copy_(part.view_as(tensor))
        self._versions = self._now()

    def _gradients(self) -> Tensor:
        return torch.cat(
            [
                torch.zeros_like(x).view(-1) if x.grad is None else x.grad.detach().reshape(-1)
                for x in self._tensors
            ]
        )[None]

    def _now(self) -> list[int]:
        return [x._version for x in self._tensors]


class _Oracle:
    """The gradients that backward has left, or those that a closure computes."""

    def __init__(self, optimizer: AlgorithmOptimizer, closure: Callable[[], Any] | None) -> None:
        self._optimizer, self._closure = optimizer, closure
        self._at, self._asked = optimizer.agent.x, False  # where the parameters are
        self.loss: Any = None

    def __call__(self, x: Tensor) -> Tensor:
        there = x is self._at or torch.equal(x, self._at)
        if self._closure is None and (self._asked or not there):
            raise ArgumentError(
                f"{_WHAT}: the algorithm asks for "
                + ("a second gradient" if there else "a gradient at another point")
                + " in a step, but backward() has left one only; pass step(closure), with a "
                "closure that calls zero_grad() and backward() and returns the loss"
            )
        if self._closure is not None:
            if not there:
                self._optimizer._install(x)
                self._at = x
            with torch.enable_grad():
                loss = self._closure()
            self.loss = loss if not self._asked else self.loss
        self._asked = True
        return self._optimizer._gradients()


class _OneAgent:
    """A mixer of ranks as an algorithm sees it: the rank is the only agent here."""

    def __init__(self, mix: Mixer) -> None:
        context = current()
        self.agents, self.total = torch.tensor([context.rank]), context.size
        self._mix = mix

    def start(self, *xs: Tensor) -> Mixing:
        return self._mix.start(*xs)

    def __call__(self, *xs: Tensor) -> Any:
        return self._mix(*xs)

    def mean(self, *xs: Tensor) -> Any:
        means = tuple(allreduce(x) for x in xs)
        return means[0] if len(means) == 1 else means


def _as_agent(mix: Any, algorithm: Algorithm) -> Any:
    """The mixer as the algorithm sees it."""
    two = "two mixers" in algorithm.needs
    if two is not isinstance(mix, Both):
        needed = "Both(pull, push) of two mixers" if two else "one mixer"
        raise ArgumentError(f"{_WHAT}: the algorithm needs {needed}, got {type(mix).__name__}")
    if isinstance(mix, Both):
        return Both(*(_as_agent(each, algorithm._replace(needs=())) for each in mix))
    if not isinstance(mix, Mixer):
        raise ArgumentError(
            f"{_WHAT}: mix is a {type(mix).__name__}; pass a mixer, such as "
            "ifog.neighbor_mixer(ifog.ring(ifog.size()))"
        )
    if not hasattr(mix, "agents"):
        if {"edges", "neighbors"} & set(algorithm.needs):
            raise ArgumentError(
                f"{_WHAT}: the algorithm looks at its neighbours one by one, which "
                f"{type(mix).__name__} cannot; pass ifog.agent_mixer(graph)"
            )
        return _OneAgent(mix)
    if len(mix.agents) != 1:
        raise ArgumentError(
            f"{_WHAT}: the mixer has {len(mix.agents)} agents on this rank, but a model is one; "
            f"use a graph of {current().size} nodes, one for each rank"
        )
    return mix


def _require_possible(algorithm: Algorithm) -> None:
    if not isinstance(algorithm, Algorithm):
        raise ArgumentError(
            f"{_WHAT}: algorithm is a {type(algorithm).__name__}; pass one such as "
            "ifog.algorithms.gradient_tracking(0.1)"
        )
    lacking = {
        "prox": "minimises the loss itself (prox) instead of taking its gradient",
        "samples": "takes gradients of single samples again and again",
        "matrices": "works on one matrix and not on a vector of all parameters",
    }
    for need, told in lacking.items():
        if need in algorithm.needs:
            raise ArgumentError(
                f"{_WHAT}: this algorithm {told}, which backward() of a model cannot give; use "
                "another one (see ifog.algorithms.catalog())"
            )


def _require_one_kind(layout: Layout) -> None:
    if not layout.tensors:
        raise ArgumentError(f"{_WHAT}: no parameter requires a gradient")
    if len(layout.kinds) > 1:
        kinds = ", ".join(f"{dtype} on {device}" for device, dtype in layout.kinds)
        raise ArgumentError(
            f"{_WHAT}: the parameters are {kinds}; an agent has one vector, so convert them to one "
            "dtype on one device, such as model.float()"
        )


def _plain(state: Any) -> Any:
    """A State as tuples, which ``torch.load`` takes without knowing its class."""
    return tuple(_plain(value) for value in state) if isinstance(state, tuple) else state


def _restored(like: Any, plain: Any) -> Any:
    """The State of the form of ``like`` with these values."""
    if not isinstance(plain, tuple) or not hasattr(like, "_fields"):
        return plain
    if len(like) != len(plain):
        raise ArgumentError(
            f"{_WHAT}: the state has {len(plain)} fields, but {type(like).__name__} has "
            f"{len(like)}; load it with the algorithm that saved it"
        )
    return type(like)(*(_restored(*pair) for pair in zip(like, plain, strict=True)))
