"""A quadratic problem as a module, trained with one of BlueFog's factories, and the matrices."""

from __future__ import annotations

import numpy as np
import torch
from laws_training import STEPS, Problem, sgd
from spmd import dense

import ifog
import ifog.bluefog as bf

N = 4
Kind = bf.CommunicationType
FACTORIES = [
    bf.DistributedAdaptThenCombineOptimizer,
    bf.DistributedAdaptWithCombineOptimizer,
    bf.DistributedGradientAllreduceOptimizer,
    bf.DistributedWinPutOptimizer,
]


class Model(torch.nn.Module):
    """The quadratic losses of ``laws_training`` as a module."""

    def __init__(self, problem):
        super().__init__()
        self.problem = problem
        self.x = torch.nn.ParameterList(problem.tensors)

    def forward(self):
        _, h, c = self.problem.mine
        return (h * (torch.cat([x.reshape(-1) for x in self.x]) - c) ** 2).sum() / 2


def made(factory, *args, **options):
    problem = Problem()
    model = Model(problem)
    return problem, model, factory(sgd(problem.tensors), model, *args, **options)


def train(model, optimizer, steps=STEPS, before=lambda _: None):
    for step in range(steps):
        before(step)
        optimizer.zero_grad()
        model().backward()
        optimizer.step()


def everybody(n=N):
    return np.full((n, n), 1 / n)


def in_use(n=N):
    return dense(ifog.exponential(n), weighted=False).numpy()
