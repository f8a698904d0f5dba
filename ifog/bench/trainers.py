"""The contestants of the training race on one rank: who wraps a model and its optimizer, and how.

All of them step by stochastic gradients with momentum from the same beginning, and overlap what
they can overlap.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import psutil
import torch
from torch import Tensor, nn

import ifog
from ifog.bench.contestants import (
    ALONE,
    ATC_MACHINES,
    ATC_ONE_PEER,
    ATC_STATIC,
    AWC_HALF,
    AWC_MACHINES,
    AWC_ONE_PEER,
    AWC_STATIC,
    DDP,
    DDP_HALF,
    GRADIENT,
    MOMENTUM,
    PUSH_SUM,
    PUT,
)
from ifog.bench.workloads import Workload
from ifog.context import current
from ifog.mixing import Mixer
from ifog.optim import Order
from ifog.window_mixing import WindowMixer

__all__ = ["Trainer", "Way", "apart", "dtype_of", "field", "sent", "step", "wrapped"]

_WARMING = 2  # steps: DDP orders its buckets after the first, and ifog's buffers take two
_RATE, _MOMENTUM = 1e-3, 0.9


class Way(NamedTuple):
    """How one of ifog's contestants mixes.

    Attributes:
        order: of the optimizer.
        mixer: makes a mixer.
        overlap: whether messages travel while ranks compute.
        momentum: whether the momentum is mixed too.
    """

    order: Order
    mixer: Callable[[], Mixer]
    overlap: bool = True
    momentum: bool = False


def _one_peer() -> Mixer:
    return ifog.neighbor_mixer(ifog.one_peer(ifog.size()))


def _static() -> Mixer:
    return ifog.neighbor_mixer(ifog.exponential(ifog.size()))


def _machines() -> Mixer:
    return ifog.hierarchical_mixer(ifog.one_peer(ifog.machine_size()))


_WAYS = {
    GRADIENT: Way("gradient", ifog.allreduce_mixer),
    ATC_STATIC: Way("atc", _static),
    ATC_ONE_PEER: Way("atc", _one_peer),
    ATC_MACHINES: Way("atc", _machines),
    AWC_STATIC: Way("awc", _static),
    AWC_ONE_PEER: Way("awc", _one_peer),
    AWC_MACHINES: Way("awc", _machines),
    AWC_HALF: Way("awc", _one_peer),
    MOMENTUM: Way("atc", _one_peer, overlap=False, momentum=True),
    PUT: Way("atc", ifog.window_mixer, overlap=False),
    PUSH_SUM: Way("atc", ifog.push_sum_mixer, overlap=False),
}
_HALVES = (DDP_HALF, AWC_HALF)


def field(*, halves: bool = True) -> list[str]:
    """Who races here: hierarchical averages only where there are several machines."""
    names = [DDP, GRADIENT, ATC_STATIC, ATC_ONE_PEER, AWC_STATIC, AWC_ONE_PEER]
    if ifog.machine_size() > 1 and ifog.size() > ifog.machine_size():
        names += [ATC_MACHINES, AWC_MACHINES]
    return names + list(_HALVES if halves else ())


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a contestant's parameters, and so of its messages."""
    return torch.bfloat16 if name in _HALVES else torch.float32


@contextmanager
def wrapped(
    name: str, module: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[Callable[..., Tensor], torch.optim.Optimizer]]:
    """The model to call and the optimizer to step, as the contestant has them.

    Every rank must enter and leave it; the parameters are the same on all ranks.
    """
    if name == ALONE:
        yield module, optimizer
    elif name in (DDP, DDP_HALF):
        parallel: Any = nn.parallel.DistributedDataParallel
        yield parallel(module, gradient_as_bucket_view=True, init_sync=False), optimizer
    else:
        way = _WAYS[name]
        mixer = way.mixer()
        mine = ifog.DecentralizedOptimizer(
            optimizer,
            mixer,
            order=way.order,
            overlap=way.overlap,
            mix_state=["momentum_buffer"] if way.momentum else (),
        )
        yield module, mine
        mine.finish()
        if isinstance(mixer, WindowMixer):
            mixer.close()


def apart() -> bool:
    """Whether messages travel between hosts."""
    return len(set(current().transport.machines)) > 1


def sent() -> int:
    """Bytes that have left this host by its link; on one machine those that ifog counted."""
    if not apart():
        return current().nbytes
    links = psutil.net_io_counters(pernic=True)
    return sum(link.bytes_sent for name, link in links.items() if name != "lo")


class Trainer:
    """One contestant on one workload; ``step`` works within ``ready`` only.

    Attributes:
        sent: bytes a step that were sent, of each block.
    """

    def __init__(self, name: str, workload: Workload) -> None:
        self.sent: list[float] = []
        self._name = name
        self._workload = workload
        self._steps = 0
        self._call: Callable[[], object]

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Make the model and warm it up; the memory is free again afterwards."""
        torch.manual_seed(0)
        dtype = dtype_of(self._name)
        module = self._workload.model().to(dtype)
        sgd = torch.optim.SGD(module.parameters(), lr=_RATE, momentum=_MOMENTUM)
        images, labels = self._workload.data(dtype)
        before, self._steps = sent(), 0
        with wrapped(self._name, module, sgd) as (model, optimizer):
            self._call = partial(step, model, optimizer, images, labels)
            for _ in range(_WARMING):
                self.step()
            yield
        # One average more than steps is sent where the next one is under way already.
        rounds = self._steps + (self._name in _WAYS and _WAYS[self._name].order == "awc")
        self.sent.append((sent() - before) / rounds)
        del self._call, module, sgd, model, optimizer
        gc.collect()  # what DDP holds on to itself

    def step(self) -> None:
        """One forward and backward pass, and a step."""
        self._steps += 1
        self._call()


def step(
    model: Callable[..., Tensor], optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> None:
    """One forward and backward pass and a step on a batch of images and labels."""
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call] # torch's
    optimizer.step()
