"""Stochastic gradients of the problems: chance that belongs to the agent and the call.

A rank that hosts one agent draws what a process that hosts all of them draws for it.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ifog.algorithms.draws import integers, keys, normal

__all__ = ["Noisy", "Sampled"]


class _Samples(Protocol):
    agents: Tensor

    @property
    def samples(self) -> int: ...

    def some(self, x: Tensor, which: Tensor) -> Tensor: ...


class Sampled:
    """The stochastic gradients of a problem: call k uses ``batch`` samples of each agent.

    They are drawn with replacement, from (seed, agent, k).
    """

    def __init__(self, problem: _Samples, batch: int = 1, *, seed: int = 0) -> None:
        self.problem, self.batch, self.seed = problem, batch, seed
        self.step = 0

    def __call__(self, x: Tensor) -> Tensor:
        """[n, d] the mean gradient of the samples drawn."""
        key = keys(self.seed, self.problem.agents, self.step)
        self.step += 1
        return self.problem.some(x, integers(key, self.problem.samples, self.batch))


class _Oracle(Protocol):
    agents: Tensor

    def __call__(self, x: Tensor) -> Tensor: ...


class Noisy:
    """The gradients of a problem plus normal noise, drawn in call k from (seed, agent, k)."""

    def __init__(self, problem: _Oracle, deviation: float, *, seed: int = 0) -> None:
        self.problem, self.deviation, self.seed = problem, deviation, seed
        self.step = 0

    def __call__(self, x: Tensor) -> Tensor:
        """[n, ...] gradients with noise of the given standard deviation in every entry."""
        key = keys(self.seed, self.problem.agents, self.step)
        self.step += 1
        return self.problem(x) + self.deviation * normal(key, *x.shape[1:], dtype=x.dtype)
