"""Neural problems: a network for every agent, each with its own share of the data.

x is [n, p], all parameters of a network in a row. Agents are independent, so the gradient of the
sum of their losses holds the gradient of each in its row; one backward pass serves all.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

from ifog.algorithms.draws import integers, keys
from ifog.errors import ArgumentError
from ifog.problems import digits_shard

__all__ = ["Classifiers", "Skew", "classifiers", "deal", "digits"]

Skew = Literal["none", "label", "dirichlet"]
_TESTED = 16  # agents whose own networks are tested


class Classifiers:
    """One network for each agent; f_i is the mean cross entropy over the samples of agent i.

    Args:
        network: one of them; its parameters are where all agents start.
        inputs: [samples, ...] of all agents together.
        labels: [samples] int64.
        shares: [n, most] int64, the samples of each agent, repeated to fill the row.
        test: inputs and labels that all agents are tested on.
        batch: how many samples a gradient takes; None for all.
        seed: of the batches; call k of agent i draws from (seed, i, k), with replacement.

    Attributes:
        agents: [n] int64, their numbers.
        step: the number of the next call.

    Raises:
        ArgumentError: the network has buffers, as BatchNorm does, which agents would share.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        shares: Tensor,
        *,
        test: tuple[Tensor, Tensor] | None = None,
        batch: int | None = None,
        seed: int = 0,
    ) -> None:
        if [*network.buffers()]:
            raise ArgumentError(
                "a network with buffers, such as those of BatchNorm, cannot be simulated side by "
                "side; use GroupNorm or LayerNorm, or train on ranks"
            )
        self.network, self.inputs, self.labels, self.shares = network, inputs, labels, shares
        self.test, self.batch, self.seed = test, batch, seed
        self.agents = torch.arange(len(shares))
        self.step = 0
        self._shapes = {name: p.shape for name, p in network.named_parameters()}

    @property
    def size(self) -> int:
        """p, the number of parameters of a network."""
        return sum(math.prod(shape) for shape in self._shapes.values())

    def start(self) -> Tensor:
        """[n, p] the parameters of ``network`` for every agent."""
        flat = torch.cat([p.detach().reshape(-1) for p in self.network.parameters()])
        return flat.expand(len(self.shares), -1).clone()

    def __call__(self, x: Tensor) -> Tensor:
        """[n, p] the gradients of the next batches."""
        chosen = self._chosen(x.device)
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            losses = self._losses(point, self.inputs[chosen], self.labels[chosen])
            (gradient,) = torch.autograd.grad(losses.sum(), point)
        return gradient

    def loss(self, x: Tensor) -> Tensor:
        """[n] the values of f_i over all of its samples."""
        return self._losses(x, self.inputs[self.shares], self.labels[self.shares])

    def measures(self, x: Tensor) -> Mapping[str, float]:
        """Loss and accuracy of the mean network on the test data, and the worst agent's accuracy.

        The last looks at 16 agents, evenly spread.
        """
        if self.test is None:
            return {"loss": float(self.loss(x).mean())}
        few = torch.linspace(0, len(x) - 1, min(_TESTED, len(x)), device=x.device).long()
        rows = torch.cat([x.mean(0, keepdim=True), x[few]])
        inputs, labels = self.test
        with torch.no_grad():
            answers = self._answers(rows, inputs.expand(len(rows), *inputs.shape))
            right = (answers.argmax(-1) == labels).double().mean(1)
            return {
                "loss": float(cross_entropy(answers[0], labels)),
                "accuracy": float(right[0]),
                "worst": float(right[1:].min()),
            }

    def to(self, *, dtype: torch.dtype | None, device: torch.device) -> Classifiers:
        """The same with its tensors elsewhere, its real numbers as ``dtype``."""
        mine = copy.copy(self)
        mine.network = copy.deepcopy(self.network).to(device, dtype)
        mine.inputs = self.inputs.to(device, dtype)
        mine.labels, mine.shares = self.labels.to(device), self.shares.to(device)
        if self.test is not None:
            mine.test = self.test[0].to(device, dtype), self.test[1].to(device)
        return mine

    def take(self, agents: Tensor) -> Classifiers:
        """The problem of some of the agents."""
        mine = copy.copy(self)
        mine.network = copy.deepcopy(self.network)  # calls of it in other threads change it
        mine.shares, mine.agents = self.shares[agents], self.agents[agents]
        return mine

    def _chosen(self, device: torch.device) -> Tensor:
        """[n, batch] samples of each agent for this call."""
        key, self.step = keys(self.seed, self.agents, self.step), self.step + 1
        if self.batch is None:
            return self.shares
        places = integers(key, self.shares.shape[1], self.batch).to(device)
        return self.shares.gather(1, places)

    def _losses(self, x: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        answers = self._answers(x, inputs)
        each = cross_entropy(answers.flatten(0, 1), labels.flatten(), reduction="none")
        return each.view(labels.shape).mean(1)

    def _answers(self, x: Tensor, inputs: Tensor) -> Tensor:
        """[n, samples, classes] what the network of row i says to ``inputs[i]``."""
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        parts = zip(self._shapes.items(), torch.split(x, sizes, dim=1), strict=True)
        parameters = {name: part.view(len(x), *shape) for (name, shape), part in parts}

        def one(parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
            answer: Tensor = functional_call(self.network, parameters, (inputs,))
            return answer

        answers: Tensor = vmap(one)(parameters, inputs)
        return answers


def classifiers(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    agents: int,
    *,
    skew: Skew = "none",
    alpha: float = 0.1,
    test: tuple[Tensor, Tensor] | None = None,
    batch: int | None = 16,
    seed: int = 0,
) -> Classifiers:
    """A problem of ``agents`` networks, among which the samples are dealt by ``deal``.

    Args:
        network: one of them, without buffers.
        inputs: [samples, ...].
        labels: [samples] int64.
        agents: n.
        skew: how the data differ from agent to agent, as of ``deal``.
        alpha: of "dirichlet".
        test: inputs and labels for ``measures``.
        batch: samples of a gradient; None for all of an agent's.
        seed: of dealing and batches.
    """
    dealt = deal(labels.numpy(), agents, skew=skew, alpha=alpha, seed=seed)
    most = max(map(len, dealt))
    rows = np.stack([np.resize(share, most) for share in dealt])  # repeated to fill the row
    shares = torch.from_numpy(rows.astype(np.int64))
    return Classifiers(network, inputs, labels, shares, test=test, batch=batch, seed=seed)


def digits(
    agents: int,
    *,
    skew: Skew = "none",
    alpha: float = 0.1,
    hidden: int = 32,
    batch: int | None = 16,
    seed: int = 0,
) -> Classifiers:
    """A classifier of the handwritten digits of scikit-learn for every agent.

    A fifth of the 1797 images is for testing; the others are dealt out, each to as many agents as
    there are more agents than images. One hidden layer of ``hidden`` tanh units, 10 answers.

    Args:
        agents: n.
        skew: "none", "label" or "dirichlet", as of ``deal``.
        alpha: of "dirichlet": 0.1 is very uneven, 100 nearly even.
        hidden: units.
        batch: images of a gradient; None for all of an agent's.
        seed: of split, dealing, first parameters and batches.

    Example:
        >>> problem = digits(20, skew="dirichlet")
        >>> problem.start().shape
        torch.Size([20, 2410])
    """
    data = digits_shard(0, 1, skew="none", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10))
    with torch.no_grad():
        for p in network.parameters():
            width = 1 / math.sqrt(p.shape[-1] if p.ndim > 1 else hidden)
            p.copy_((2 * torch.rand(p.shape, generator=generator) - 1) * width)
    test = data.test_x, data.test_y
    return classifiers(
        network, data.x, data.y, agents, skew=skew, alpha=alpha, test=test, batch=batch, seed=seed
    )


def deal(
    labels: npt.NDArray[np.integer],
    agents: int,
    *,
    skew: Skew = "none",
    alpha: float = 0.1,
    seed: int = 0,
) -> list[npt.NDArray[np.int64]]:
    """Which samples each agent has; nobody has none.

    "none": at random, evenly. "label": sorted by label first, so that each agent sees few labels.
    "dirichlet": of each label agents get shares drawn from a Dirichlet distribution with parameter
    ``alpha`` (Hsu, Qi, Brown 2019, arXiv:1909.06335); whoever gets nothing takes one sample from
    the agent that has most.

    Args:
        labels: [samples].
        agents: n; if there are fewer samples, they are used several times.
        skew: which of the three.
        alpha: of the third.
        seed: of the draws.

    Raises:
        ArgumentError: no such skew, or ``alpha`` is not positive.
    """
    random = np.random.default_rng(seed)
    times = -(-agents // len(labels))
    samples = np.concatenate([random.permutation(len(labels)) for _ in range(times)])
    if skew == "none":
        return [np.sort(share) for share in np.array_split(samples, agents)]
    if skew == "label":
        ordered = samples[np.argsort(labels[samples], kind="stable")]
        return [np.sort(share) for share in np.array_split(ordered, agents)]
    if skew != "dirichlet":
        raise ArgumentError(f"deal: skew is {skew!r}; use 'none', 'label' or 'dirichlet'")
    if not alpha > 0:
        raise ArgumentError(f"deal: alpha is {alpha}; it must be positive")
    shares: list[list[int]] = [[] for _ in range(agents)]
    for label in np.unique(labels):
        mine = samples[labels[samples] == label]
        bounds = np.cumsum(random.dirichlet(np.full(agents, alpha)))[:-1]
        parts = np.split(mine, np.rint(bounds * len(mine)).astype(int))
        shares = [share + part.tolist() for share, part in zip(shares, parts, strict=True)]
    for share in shares:
        if not share:
            share.append(max(shares, key=len).pop())
    return [np.sort(np.array(share, dtype=np.int64)) for share in shares]
