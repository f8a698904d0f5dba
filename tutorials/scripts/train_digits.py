"""Train a small network on handwritten digits, each rank on its own part of them.

    ifog run -n 4 train_digits.py
    ifog run -n 4 train_digits.py --skew label --epochs 20 --method one-peer all-reduce

Every rank has a model of its own. After each step (or, for awc, while it computes) it averages
parameters with one neighbour, with all neighbours, with everybody, or with nobody.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

import ifog
from ifog.problems import Shard, digits_shard

SEED = 0
METHODS: dict[str, tuple[str, Callable[[], ifog.Mixer]]] = {
    "one-peer": ("atc", lambda: ifog.neighbor_mixer(ifog.one_peer(ifog.size()), name="model")),
    "one-peer-awc": ("awc", lambda: ifog.neighbor_mixer(ifog.one_peer(ifog.size()), name="model")),
    "static": ("atc", lambda: ifog.neighbor_mixer(ifog.exponential(ifog.size()), name="model")),
    "push-sum": ("atc", ifog.push_sum_mixer),
    "all-reduce": ("gradient", ifog.allreduce_mixer),
    "alone": ("atc", ifog.local_mixer),
}


def network() -> torch.nn.Module:
    """64 pixels in, ten digits out; the same on every rank."""
    torch.manual_seed(SEED)
    return torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )  # fmt: skip


def accuracy(model: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of images that the model gets right."""
    with torch.no_grad():
        return (model(x).argmax(dim=1) == y).double().mean().item()


def train(method: str, shard: Shard, options: argparse.Namespace) -> tuple[float, float, float]:
    """Train by one method.

    Returns:
        The accuracy of the averaged model and of this rank's own, and the seconds it took.
    """
    order, make_mixer = METHODS[method]
    model, mixer = network(), make_mixer()
    sgd = torch.optim.SGD(model.parameters(), lr=options.lr, momentum=0.9)
    optimizer = ifog.DecentralizedOptimizer(
        sgd,
        mixer,
        order=order,
        mix_state=["momentum_buffer"] if options.mix_momentum and order == "atc" else [],
        overlap=order == "awc",
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    generator = torch.Generator().manual_seed(SEED + ifog.rank())
    # Shares may differ by one image, but all ranks make equally many steps.
    smallest = ifog.allgather(torch.tensor([len(shard.y)])).min()
    steps = int(smallest) // options.batch
    began = time.perf_counter()
    for _ in range(options.epochs):
        order_of_images = torch.randperm(len(shard.y), generator=generator)
        for batch in order_of_images[: steps * options.batch].split(options.batch):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(shard.x[batch]), shard.y[batch])
            loss.backward()
            optimizer.step()
        scheduler.step()
    optimizer.finish()
    seconds = time.perf_counter() - began
    own = accuracy(model, shard.test_x, shard.test_y)
    ifog.allreduce_parameters(model.named_parameters())
    if hasattr(mixer, "close"):
        mixer.close()
    return accuracy(model, shard.test_x, shard.test_y), own, seconds


def main() -> None:
    """Train by each method that was asked for, and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16, help="images a rank and step")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument(
        "--skew", choices=("none", "label"), default="none", help="label: a rank sees some digits"
    )
    parser.add_argument(
        "--mix-momentum", action="store_true", help="average the momentum too, twice the traffic"
    )
    options = parser.parse_args()
    ifog.init()
    torch.set_num_threads(1)
    shard = digits_shard(ifog.rank(), ifog.size(), skew=options.skew, seed=SEED)
    if ifog.rank() == 0:
        print(f"{'method':14}{'averaged model':>16}{'ranks alone':>18}{'seconds':>10}")
    for method in options.method:
        averaged, own, seconds = train(method, shard, options)
        each = ifog.allgather(torch.tensor([own]))
        if ifog.rank() == 0:
            spread = f"{each.min():.1%} … {each.max():.1%}"
            print(f"{method:14}{averaged:>16.1%}{spread:>18}{seconds:>10.1f}", flush=True)


if __name__ == "__main__":
    main()
