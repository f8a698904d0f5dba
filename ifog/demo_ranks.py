"""What ``ifog demo`` runs on the ranks; every function is called on all of them together.

They report where they are by watching the pair (round, value), so that the terminal shows progress
from the same events as the notebook.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ifog import schedules
from ifog.context import rank, size
from ifog.neighbors import neighbor_allreduce
from ifog.ops import allreduce, watch
from ifog.problems import digits_shard

__all__ = ["TOLERANCE", "consensus", "train"]

ENTRIES = 100_000
TOLERANCE = 1e-8
_MOST_ROUNDS = 20_000

_HIDDEN = 256
_STEPS = 300
_BATCH = 32
_LEARNING_RATE = 0.5
_DEVICE = "cpu"  # also where the ranks' default device is a GPU, so that all demos compare

Combine = Callable[[Tensor, int], Tensor]


def consensus(label: str) -> list[float]:
    """Average a vector of 100 000 numbers over all ranks by mixing with neighbours only.

    Rank i starts from its own normal random vector and repeats ``x <- W_k x``.

    Args:
        label: of the schedule, as ``schedules.named`` takes it.

    Returns:
        ``||x - mean|| / ||x0 - mean||`` after 0, 1, 2, ... rounds, x stacking all ranks, until it
        is at most 1e-8. A single 0 where there is nothing to average.
    """
    schedule = schedules.named(label, size())
    generator = torch.Generator().manual_seed(rank())
    x = torch.randn(ENTRIES, dtype=torch.float64, device=_DEVICE, generator=generator)
    mean = allreduce(x)
    start = _distance(x, mean)
    if start == 0.0:
        return [0.0]
    errors = [1.0]
    while errors[-1] > TOLERANCE and len(errors) <= _MOST_ROUNDS:
        graph = schedule(len(errors) - 1)
        x = neighbor_allreduce(x, topology=graph, enable_topo_check=False)
        errors.append(_distance(x, mean) / start)
        _report(label, len(errors) - 1, errors[-1])
    return errors


def train(method: str) -> float:
    """Train a small classifier of digits on shards in which each rank sees only some digits.

    One hidden layer, plain stochastic gradients g_i, step a falling linearly to 0::

        no communication       x_i <- x_i - a g_i
        neighbour averaging    x_i <- sum_j W_k[i, j] (x_j - a g_j)    (ATC, one-peer exponential)
        global averaging       x_i <- (1/n) sum_j (x_j - a g_j)

    All ranks start from the same x. ATC: Chen, Sayed 2012, arXiv:1111.0034.

    Returns:
        The share of test images, of all ten digits, that this rank's own model gets right.
    """
    shard = digits_shard(rank(), size())
    combine = _combination(method)
    generator = torch.Generator().manual_seed(1000 + rank())
    x = _initial(shard.x.shape[1])  # [d] float32
    for step in range(_STEPS):
        batch = torch.randint(len(shard.y), (_BATCH,), device=_DEVICE, generator=generator)
        x.requires_grad_(True)
        loss = functional.cross_entropy(_logits(x, shard.x[batch]), shard.y[batch])
        (gradient,) = torch.autograd.grad(loss, x)
        shrinking = _LEARNING_RATE * (1 - step / _STEPS)
        x = combine(x.detach() - shrinking * gradient, step)
        _report(method, step + 1, loss.item())
    right = _logits(x, shard.test_x).argmax(dim=1) == shard.test_y
    return float(right.double().mean())


def _combination(method: str) -> Combine:
    schedule = schedules.one_peer(size())

    def with_neighbour(x: Tensor, step: int) -> Tensor:
        return neighbor_allreduce(x, topology=schedule(step), enable_topo_check=False)

    combinations: dict[str, Combine] = {
        "no communication": lambda x, _: x,
        "neighbour averaging": with_neighbour,
        "global averaging": lambda x, _: allreduce(x),
    }
    return combinations[method]


def _initial(features: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(_HIDDEN, features, device=_DEVICE, generator=generator) / features**0.5
    second = torch.randn(10, _HIDDEN, device=_DEVICE, generator=generator) / _HIDDEN**0.5
    biases = [torch.zeros(_HIDDEN, device=_DEVICE), torch.zeros(10, device=_DEVICE)]
    return torch.cat([first.flatten(), biases[0], second.flatten(), biases[1]])


def _logits(x: Tensor, images: Tensor) -> Tensor:
    features = images.shape[1]
    sizes = [_HIDDEN * features, _HIDDEN, 10 * _HIDDEN, 10]
    first, first_bias, second, second_bias = torch.split(x, sizes)
    hidden = functional.linear(images, first.view(_HIDDEN, features), first_bias).tanh()
    return functional.linear(hidden, second.view(10, _HIDDEN), second_bias)  # [m, 10]


def _distance(x: Tensor, mean: Tensor) -> float:
    square = (x - mean).square().sum().reshape(1)
    return float(allreduce(square, average=False).sqrt())


def _report(label: str, step: int, value: float) -> None:
    watch(torch.tensor([float(step), value], dtype=torch.float64, device=_DEVICE), label)
