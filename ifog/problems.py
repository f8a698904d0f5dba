"""Data for the algorithms, split over ranks or agents as decentralized learning meets it.

Whoever hosts an agent computes its share from its number and a seed, so nothing is sent and all
agree. Nothing is downloaded: scikit-learn ships the digits. The problems are gradient oracles of
many agents at once: called with x [n, d] they give [n, d], row i the gradient of f_i at row i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ifog.algorithms.draws import keys, normal
from ifog.errors import ArgumentError

__all__ = [
    "LeastSquares",
    "Logistic",
    "Quadratics",
    "Shard",
    "digits_shard",
    "least_squares",
    "logistic",
    "quadratics",
    "reference_problem",
]

_TEST_SHARE = 0.2


class Shard(NamedTuple):
    """One rank's training data, and the test data that all ranks share."""

    x: Tensor  # [m, features] float32, standardised
    y: Tensor  # [m] int64
    test_x: Tensor  # [t, features] float32, the same on all ranks
    test_y: Tensor  # [t] int64


def digits_shard(
    rank: int, size: int, *, skew: Literal["label", "none"] = "label", seed: int = 0
) -> Shard:
    """The share of ``rank`` in the 1797 handwritten digits (8 x 8 pixels) of scikit-learn.

    A fifth is held out for testing; pixels are scaled to mean 0 and variance 1 over the training
    data of all ranks.

    Args:
        rank: whose share.
        size: over how many ranks the training data are split, evenly.
        skew: "label" sorts by digit first, so each rank sees only about ``10 / size + 1`` of the
            digits; "none" deals them out at random.
        seed: of the split into training and test, and of the dealing.

    Raises:
        ArgumentError: no such rank or skew, or more ranks than training images.
    """
    from sklearn.datasets import load_digits

    if not 0 <= rank < size:
        raise ArgumentError(f"digits_shard: rank is {rank}, but the ranks are 0..{size - 1}")
    if skew not in ("label", "none"):
        raise ArgumentError(f"digits_shard: skew is {skew!r}; use 'label' or 'none'")
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    held_out = int(_TEST_SHARE * len(labels))
    test, train = order[:held_out], order[held_out:]
    if size > len(train):
        raise ArgumentError(f"digits_shard: {size} ranks, but only {len(train)} training images")
    spread = images[train].std(axis=0)
    # A pixel that is blank in all images has no spread to divide by.
    scaled = (images - images[train].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    if skew == "label":
        train = train[np.argsort(labels[train], kind="stable")]
    mine = np.array_split(train, size)[rank]
    x, y = torch.from_numpy(scaled.astype(np.float32)), torch.from_numpy(labels)
    return Shard(x[mine], y[mine], x[test], y[test])


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """``f_i(x) = |A_i x - b_i|^2 / (2 m)``, an oracle with samples and a prox.

    Attributes:
        features: [n, m, d] A_i of the agents hosted here.
        targets: [n, m] b_i.
        agents: [n] int64, their numbers.
    """

    features: Tensor
    targets: Tensor
    agents: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The gradients ``A_i' (A_i x_i - b_i) / m``."""
        residual = self._residual(x)
        return torch.bmm(self.features.mT, residual[..., None]).squeeze(-1) / self.samples

    @property
    def samples(self) -> int:
        """How many samples each agent has, m."""
        return self.features.shape[1]

    def loss(self, x: Tensor) -> Tensor:
        """[n] the values of f_i."""
        return self._residual(x).square().sum(1) / (2 * self.samples)

    def each(self, x: Tensor) -> Tensor:
        """[n, m, d] the gradients of all samples."""
        return self.features * self._residual(x)[..., None]

    def some(self, x: Tensor, which: Tensor) -> Tensor:
        """[n, d] the mean gradient of samples which [n, batch] of each agent."""
        rows = torch.arange(len(x), device=x.device)[:, None]
        return LeastSquares(self.features[rows, which], self.targets[rows, which], self.agents)(x)

    def prox(self, v: Tensor, c: float) -> Tensor:
        """Row i is ``argmin over x of f_i(x) + (c/2) |x - v_i|^2``."""
        hessian, linear = self.normal_form
        eye = torch.eye(hessian.shape[1], dtype=v.dtype, device=v.device)
        x: Tensor = torch.linalg.solve(hessian + c * eye, linear + c * v)
        return x

    def optimum(self) -> Tensor:
        """[d] the minimum of the mean of f_i over the agents here."""
        hessian, linear = self.normal_form
        x: Tensor = torch.linalg.solve(hessian.sum(0), linear.sum(0))
        return x

    def smoothness(self) -> float:
        """The largest eigenvalue of any Hessian here, L."""
        return float(torch.linalg.eigvalsh(self.normal_form[0]).max())

    def zeros(self) -> Tensor:
        """[n, d] zeros, to start from."""
        return torch.zeros_like(self.features[:, 0])

    def take(self, agents: Tensor | Sequence[int]) -> LeastSquares:
        """The problem of some of these agents."""
        rows = _rows(self.agents, agents)
        return LeastSquares(self.features[rows], self.targets[rows], self.agents[rows])

    @cached_property
    def normal_form(self) -> tuple[Tensor, Tensor]:
        """``H_i = A_i' A_i / m`` [n, d, d] and ``A_i' b_i / m`` [n, d]."""
        hessian = torch.bmm(self.features.mT, self.features) / self.samples
        return hessian, torch.bmm(self.features.mT, self.targets[..., None]).squeeze(
            -1
        ) / self.samples

    def _residual(self, x: Tensor) -> Tensor:
        return torch.bmm(self.features, x[..., None]).squeeze(-1) - self.targets


def least_squares(
    agents: int | Tensor,
    *,
    dimension: int = 20,
    samples: int = 40,
    spread: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> LeastSquares:
    """Least squares of normal data: ``b_i = A_i (t + spread t_i) + noise e_i``.

    All numbers of A_i, t, t_i and e_i are normal, those of agent i drawn from (seed, i).

    Args:
        agents: how many, or the numbers [n] of those wanted, such as ``mix.agents``.
        dimension: d.
        samples: m.
        spread: how far apart the agents' own optima are.
        noise: of the observations.
        seed: of everything.
        dtype: of everything.

    Example:
        >>> all_here = least_squares(8)
        >>> one = least_squares(torch.tensor([5]))
        >>> torch.equal(all_here.features[5], one.features[0])
        True
    """
    agents = _numbers(agents)
    features = normal(keys(seed, agents, 0), samples, dimension, dtype=dtype)
    targets = torch.bmm(features, _optima(agents, features, spread, seed)).squeeze(-1)
    errors = normal(keys(seed, agents, 2), samples, dtype=dtype)
    return LeastSquares(features, targets + noise * errors, agents)


def reference_problem() -> LeastSquares:
    """Least squares of 8 very different agents: d = 20, m = 80, the one that the tests measure on.

    L = 2.664, ``|x*| = 5.4856``, and at x* the mean length of the local gradients is 4.495.
    """
    random = np.random.default_rng(0)
    features = random.standard_normal((8, 80, 20))
    t = random.standard_normal((8, 20)) + random.standard_normal(20)
    targets = np.einsum("nmd,nd->nm", features, t)
    return LeastSquares(torch.from_numpy(features), torch.from_numpy(targets), torch.arange(8))


@dataclass(frozen=True, eq=False)
class Logistic:
    """``f_i(x) = mean_j log(1 + exp(-b_ij A_ij x)) + (decay/2) |x|^2``.

    Attributes:
        features: [n, m, d] A_i of the agents hosted here.
        targets: [n, m] labels b_i, -1 or 1.
        agents: [n] int64, their numbers.
        decay: the strong convexity.
    """

    features: Tensor
    targets: Tensor
    agents: Tensor
    decay: float

    def __call__(self, x: Tensor) -> Tensor:
        """The gradients."""
        return torch.bmm(self.features.mT, self._slopes(x)[..., None]).squeeze(
            -1
        ) / self.samples + (self.decay * x)

    @property
    def samples(self) -> int:
        """How many samples each agent has, m."""
        return self.features.shape[1]

    def loss(self, x: Tensor) -> Tensor:
        """[n] the values of f_i."""
        return self.decay / 2 * x.square().sum(1) - logsigmoid(self._margins(x)).mean(1)

    def each(self, x: Tensor) -> Tensor:
        """[n, m, d] the gradients of all samples."""
        return self.features * self._slopes(x)[..., None] + self.decay * x[:, None]

    def some(self, x: Tensor, which: Tensor) -> Tensor:
        """[n, d] the mean gradient of samples which [n, batch] of each agent."""
        rows = torch.arange(len(x), device=x.device)[:, None]
        return Logistic(
            self.features[rows, which], self.targets[rows, which], self.agents, self.decay
        )(x)

    def optimum(self, *, steps: int = 50) -> Tensor:
        """[d] the minimum of the mean of f_i over the agents here, by Newton's method."""
        rows, labels = self.features.flatten(0, 1), self.targets.reshape(1, -1)
        union = Logistic(rows[None], labels, self.agents[:1], self.decay)
        x, eye = rows.new_zeros(1, rows.shape[1]), torch.eye(rows.shape[1], dtype=rows.dtype)
        for _ in range(steps):
            p = torch.sigmoid(union._margins(x))[0]
            curvature = (rows * (p * (1 - p))[:, None]).T @ rows / len(rows)
            x = x - torch.linalg.solve(curvature + self.decay * eye, union(x)[0])
        return x[0]

    def zeros(self) -> Tensor:
        """[n, d] zeros, to start from."""
        return torch.zeros_like(self.features[:, 0])

    def take(self, agents: Tensor | Sequence[int]) -> Logistic:
        """The problem of some of these agents."""
        rows = _rows(self.agents, agents)
        return Logistic(self.features[rows], self.targets[rows], self.agents[rows], self.decay)

    def _margins(self, x: Tensor) -> Tensor:
        return self.targets * torch.bmm(self.features, x[..., None]).squeeze(-1)

    def _slopes(self, x: Tensor) -> Tensor:
        return -self.targets * torch.sigmoid(-self._margins(x))


def logistic(
    agents: int | Tensor,
    *,
    dimension: int = 10,
    samples: int = 50,
    spread: float = 1.0,
    decay: float = 0.01,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Logistic:
    """Classification of normal data by labels drawn with the probabilities of ``t + spread t_i``.

    Arguments as of ``least_squares``; ``decay`` is the strong convexity.
    """
    agents = _numbers(agents)
    features = normal(keys(seed, agents, 0), samples, dimension, dtype=dtype)
    margins = torch.bmm(features, _optima(agents, features, spread, seed)).squeeze(-1)
    drawn = torch.special.ndtr(normal(keys(seed, agents, 2), samples, dtype=dtype))
    labels = torch.where(drawn < torch.sigmoid(margins), 1.0, -1.0).to(dtype)
    return Logistic(features, labels, agents, decay)


@dataclass(frozen=True, eq=False)
class Quadratics:
    """``f_i(x) = sum_k h_ik (x_k - b_ik)^2 / 2``.

    Attributes:
        h: [n, ...] curvatures of the agents hosted here.
        b: [n, ...] their optima.
        agents: [n] int64, their numbers.
    """

    h: Tensor
    b: Tensor
    agents: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The gradients ``h_i (x_i - b_i)``."""
        return self.h * (x - self.b)

    def loss(self, x: Tensor) -> Tensor:
        """[n] the values of f_i."""
        return (self.h * (x - self.b) ** 2).flatten(1).sum(1) / 2

    def prox(self, v: Tensor, c: float) -> Tensor:
        """Row i is ``argmin over x of f_i(x) + (c/2) |x - v_i|^2``."""
        return (self.h * self.b + c * v) / (self.h + c)

    def optimum(self) -> Tensor:
        """[...] the minimum of the mean of f_i over the agents here."""
        return (self.h * self.b).sum(0) / self.h.sum(0)

    def zeros(self) -> Tensor:
        """[n, ...] zeros, to start from."""
        return torch.zeros_like(self.b)

    def take(self, agents: Tensor | Sequence[int]) -> Quadratics:
        """The problem of some of these agents."""
        rows = _rows(self.agents, agents)
        return Quadratics(self.h[rows], self.b[rows], self.agents[rows])


def quadratics(
    agents: int | Tensor, *, dimension: int = 1, dtype: torch.dtype = torch.float64
) -> Quadratics:
    """``f_i(x) = |x - i|^2 / 2``: the optimum of n agents is (n - 1)/2, that of agent i is i."""
    agents = _numbers(agents)
    b = agents.to(dtype)[:, None].expand(-1, dimension).clone()
    return Quadratics(torch.ones_like(b), b, agents)


def _numbers(agents: int | Tensor) -> Tensor:
    return torch.arange(agents) if isinstance(agents, int) else agents


def _optima(agents: Tensor, like: Tensor, spread: float, seed: int) -> Tensor:
    """[n, d, 1] ``t + spread t_i``."""
    key, nobody = keys(seed, agents, 1), torch.tensor([-1])
    own = normal(key, like.shape[2], dtype=like.dtype)
    common = normal(keys(seed, nobody, 1), like.shape[2], dtype=like.dtype)
    return (common + spread * own)[..., None]


def _rows(known: Tensor, wanted: Tensor | Sequence[int]) -> Tensor:
    rows = torch.searchsorted(known, torch.as_tensor(wanted))
    if not torch.equal(known[rows.clamp(max=len(known) - 1)], torch.as_tensor(wanted)):
        raise ArgumentError(
            f"this problem has the agents {known.tolist()[:8]}...; it cannot give {wanted}"
        )
    return rows
