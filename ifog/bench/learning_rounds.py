"""Who learns the digits how well and how fast, for ``ifog bench train``, on the ranks.

``python -m ifog.bench.learning_rounds SPECIFICATION OUT`` with ``{"skews", "seeds", "epochs",
"private"}``. All contestants see the same images in the same order for the same number of epochs;
their clocks stand still while the models are judged.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

import ifog
from ifog.bench.baselines import gloo
from ifog.bench.contestants import DDP, MOMENTUM
from ifog.bench.trainers import apart, field, sent, step, wrapped
from ifog.bench.workloads import digits_network
from ifog.problems import Shard, digits_shard

__all__ = ["Judge", "average", "batches", "least", "longest"]

_BATCH = 16
_RATE, _MOMENTUM = 0.05, 0.9


class Epoch(TypedDict):
    """What is known after an epoch.

    Attributes:
        seconds: of training so far.
        accuracy: the share of test images that the averaged model gets right.
        worst: the least such share of the ranks' own models.
        distance: root mean square of the models' distances to their mean, over the mean's norm.
    """

    seconds: float
    accuracy: float
    worst: float
    distance: float


class Judge(NamedTuple):
    """Judges models on the test images."""

    network: nn.Module
    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, shard: Shard) -> Judge:
        """A judge with a network of its own."""
        return cls(digits_network(), shard.test_x, shard.test_y)

    @torch.no_grad()
    def accuracy(self, flat: Tensor) -> float:
        """The share that a model gets right."""
        return (self._logits(flat).argmax(1) == self.y).double().mean().item()

    @torch.no_grad()
    def loss(self, flat: Tensor) -> float:
        """Its cross entropy."""
        return nn.functional.cross_entropy(self._logits(flat), self.y).item()

    def _logits(self, flat: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(flat, self.network.parameters())
        logits: Tensor = self.network(self.x)
        return logits


def average(flat: Tensor) -> tuple[Tensor, float]:
    """The mean of all ranks' models, and how far they are from it."""
    mean = ifog.allreduce(flat.double())
    square = ifog.allreduce((flat - mean).square().sum().reshape(1))
    return mean.to(flat.dtype), float((square.sqrt() / mean.norm()).item())


def least(shard: Shard) -> int:
    """How many images every rank has at least."""
    return int(ifog.allgather(torch.tensor([len(shard.y)])).min())


def batches(images: int, most: int, seed: int, size: int) -> list[Tensor]:
    """The places of the images of each step of an epoch, drawn anew from ``most`` of them.

    Args:
        images: of this rank.
        most: how many are used.
        seed: of the draw, which differs from rank to rank.
        size: of a batch.
    """
    generator = torch.Generator().manual_seed(seed * ifog.size() + ifog.rank())
    order = torch.randperm(images, generator=generator)
    return list(torch.split(order[: most // size * size], size))


def _learn(name: str, shard: Shard, seed: int, epochs: int) -> tuple[list[Epoch], float]:
    """What was known after each epoch, and the bytes that were sent."""
    torch.manual_seed(seed)
    module, judge = digits_network(), Judge.of(shard)
    sgd = torch.optim.SGD(module.parameters(), lr=_RATE, momentum=_MOMENTUM)
    seconds, nbytes, most, found = 0.0, 0.0, least(shard), []
    with wrapped(name, module, sgd) as (model, optimizer):
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        for epoch in range(epochs):
            order = batches(len(shard.y), most, seed * epochs + epoch, _BATCH)
            ifog.barrier()
            before, start = sent(), time.perf_counter()
            for places in order:
                step(model, optimizer, shard.x[places], shard.y[places])
            seconds += longest(time.perf_counter() - start)
            nbytes += sent() - before
            if name == DDP and not apart():  # gloo's bytes are not counted there
                numel = sum(x.numel() for x in module.parameters())
                nbytes += len(order) * 2 * (ifog.size() - 1) / ifog.size() * 4 * numel
            scheduler.step()
            flat = nn.utils.parameters_to_vector(module.parameters()).detach()
            mean, distance = average(flat)
            own = ifog.allgather(torch.tensor([judge.accuracy(flat)]))
            found.append(
                Epoch(
                    seconds=seconds,
                    accuracy=judge.accuracy(mean),
                    worst=own.min().item(),
                    distance=distance,
                )
            )
    return found, nbytes


def longest(seconds: float) -> float:
    """The most seconds that any rank took."""
    return ifog.allgather(torch.tensor([seconds], dtype=torch.float64)).max().item()


def _case(skew: Literal["label", "none"], seed: int, epochs: int) -> dict[str, Any]:
    shard = digits_shard(ifog.rank(), ifog.size(), skew=skew, seed=seed)
    found = {}
    for name in [*field(halves=False), MOMENTUM]:
        known, nbytes = _learn(name, shard, seed, epochs)
        found[name] = {"epochs": known, "sent": nbytes}
    return {"skew": skew, "seed": seed, "ways": found}


def main(text: str, out: str) -> None:
    """Let all contestants learn; rank 0 writes what was known after each epoch."""
    specification = json.loads(text)
    ifog.init()
    with gloo(specification["private"]):
        found = [
            _case(skew, seed, specification["epochs"])
            for skew in specification["skews"]
            for seed in specification["seeds"]
        ]
    if ifog.rank() == 0:
        Path(out).write_text(json.dumps(found))
    ifog.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
