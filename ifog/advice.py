"""Which way of training fits this network and this model: measured in one warm-up, and told.

The regime is the time of one exchange over the time of computing a gradient. What it predicts
follows ``ifog.costs``; what it is based on is measured here and now, on all ranks at once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from ifog.context import current, size
from ifog.costs import Link, fitted
from ifog.errors import ArgumentError
from ifog.machines import machine_size
from ifog.mixing import Mixer, allreduce_mixer, hierarchical_mixer, neighbor_mixer
from ifog.numbers import counted, duration, number
from ifog.numbers import size as in_bytes
from ifog.ops import allgather, barrier
from ifog.schedules import one_peer

__all__ = ["Advice", "Measured", "advise", "advised"]

Regime = Literal["computing", "balanced", "sending"]
_SIZES = ((1 << 12, 9), (1 << 22, 3))  # bytes, and how often they are exchanged
_WARMING = 2  # exchanges or gradients before those that are measured
_GRADIENTS = 3
_FORWARD = 1 / 3  # of a gradient's time
_LITTLE = 0.3  # of computing: less than that is not worth hiding
_WAYS = {
    "gradient": "gradient order, all-reduce",
    "atc": "atc, one-peer",
    "awc": "awc, one-peer, overlap",
    "machines": "awc, hierarchical, overlap",
}
_CODE = {
    "plain": 'neighbor_mixer(ifog.one_peer(ifog.size())), order="atc"',
    "overlap": 'neighbor_mixer(ifog.one_peer(ifog.size())), order="awc", overlap=True',
    "machines": 'hierarchical_mixer(ifog.one_peer(ifog.machine_size())), order="awc", overlap=True',
}
_IN_WORDS = {
    "computing": "bound by computing: with whom ranks mix hardly changes the time of a step; "
    "choose by accuracy",
    "balanced": "balanced: a step gains where messages travel while ranks compute",
    "sending": "bound by sending: fewer bytes make a step faster; one peer a round sends fewest",
}
_ONE_MACHINE = "on one machine messages are copies by the processors that compute: nothing hides"


class Measured(NamedTuple):
    """What was measured; the same on every rank.

    Attributes:
        ranks: how many.
        machines: on how many machines.
        apart: whether messages travel over a network.
        nbytes: of the model's parameters.
        link: latency and rate of a rank that sends to one other while all do.
        everybody: the same of averages over all ranks.
        between: the same of hierarchical averages, where machines have several ranks.
        computing: seconds of a gradient, of the slowest rank.
    """

    ranks: int
    machines: int
    apart: bool
    nbytes: int
    link: Link
    everybody: Link
    between: Link | None
    computing: float


@dataclass(frozen=True)
class Advice:
    """What was measured, what follows, and what to choose; the same on every rank.

    Attributes:
        measured: latency, rate, and computing.
        exchange: seconds in which the whole model goes to one peer.
        regime: what a step's time is bound by.
        predicted: seconds of a step in each way.
        code: the arguments of ``DecentralizedOptimizer`` behind the optimizer.
    """

    measured: Measured
    exchange: float
    regime: Regime
    predicted: dict[str, float]
    code: str

    def __str__(self) -> str:
        """All of it in a few lines."""
        measured, of_all = self.measured, self.predicted[_WAYS["gradient"]]
        computing, machines = measured.computing, measured.machines
        lines = [
            f"{counted(measured.ranks)} on {machines} machine{'s' * (machines > 1)}: latency "
            f"{duration(measured.link.latency)}, {in_bytes(measured.link.rate)}/s a rank",
            f"model {in_bytes(measured.nbytes)}: one exchange {duration(self.exchange)}, a "
            f"gradient {duration(computing)}, ratio {number(self.exchange / computing, 2)}",
            _IN_WORDS[self.regime],
            *([] if measured.apart or self.regime == "computing" else [_ONE_MACHINE]),
            "predicted step, and how many times faster than an all-reduce of gradients:",
        ]
        for name, seconds in self.predicted.items():
            lines.append(f"  {name:28} {duration(seconds):>10}   {of_all / seconds:.2f}x")
        lines.append(f"choose: ifog.DecentralizedOptimizer(optimizer, ifog.{self.code})")
        if self.exchange > 2 * computing:
            seldom = min(round(self.exchange / computing), 10)
            lines.append(f"every={seldom} mixes more seldom; larger batches compute longer")
        return "\n".join(lines)

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(str(self))


def advise(gradient: Callable[[], object], model: nn.Module) -> Advice:
    """Measure latency, rate and computing, and say what to choose; every rank must call it.

    Takes a second or two besides five gradients. Parameters, their gradients and the optimizer
    stay as they are; what a forward pass changes, such as running statistics, does not.

    Args:
        gradient: one forward and backward pass, such as
            ``lambda: loss(model(x), y).backward()``.
        model: whose parameters are to be mixed.

    Raises:
        ArgumentError: no parameter requires a gradient.

    Example:
        >>> import torch, ifog
        >>> ifog.init()
        >>> model = torch.nn.Linear(3, 1)
        >>> advice = ifog.advise(lambda: model(torch.ones(2, 3)).sum().backward(), model)
        >>> advice.measured.ranks, advice.regime
        (1, 'computing')
    """
    trained = [x for x in model.parameters() if x.requires_grad]
    if not trained:
        raise ArgumentError("advise: no parameter of the model requires a gradient")
    nbytes = sum(x.nbytes for x in trained)
    link = fitted(_exchanges(neighbor_mixer(one_peer(size()))))
    everybody = fitted(_exchanges(allreduce_mixer()))
    between = None
    if 1 < machine_size() < size():
        between = fitted(_exchanges(hierarchical_mixer(one_peer(machine_size()))))
    apart = len(set(current().transport.machines)) > 1
    computing = _computing(gradient, trained)
    return advised(
        Measured(size(), machine_size(), apart, nbytes, link, everybody, between, computing)
    )


def advised(measured: Measured) -> Advice:
    """The advice that follows from what was measured."""
    ranks, link, computing = measured.ranks, measured.link, measured.computing
    nbytes, between = measured.nbytes, measured.between
    exchange = link.one_peer(nbytes) if ranks > 1 else 0.0
    everybody = measured.everybody.one_peer(nbytes) if ranks > 1 else 0.0

    def step(sending: float, beside: float) -> float:
        """Seconds of a step that sends beside so much computing."""
        if not measured.apart:  # messages are copies by the processors that compute
            beside = 0.0
        return computing - beside + max(beside, sending)

    backward = (1 - _FORWARD) * computing
    predicted = {
        _WAYS["gradient"]: step(everybody, backward),
        _WAYS["atc"]: step(exchange, backward),
        _WAYS["awc"]: step(exchange, computing),
    }
    best = exchange
    if between is not None:
        best = min(exchange, between.one_peer(nbytes))
        predicted[_WAYS["machines"]] = step(between.one_peer(nbytes), computing)
    ratio = best / computing
    regime: Regime = "sending" if ratio >= 1 else "computing" if ratio < _LITTLE else "balanced"
    hidden = measured.apart and regime != "computing"
    choice = "machines" if best < exchange else "overlap" if hidden else "plain"
    return Advice(measured, best, regime, predicted, _CODE[choice])


def _exchanges(mix: Mixer) -> list[tuple[float, float, float]]:
    """(messages, bytes, seconds) of exchanges of two sizes, of the slowest rank."""
    points = []
    for nbytes, times in _SIZES:
        x = torch.zeros(nbytes // 4)
        taken = _timed(lambda: mix(x), times)  # noqa: B023 - called before x is another one
        points.append((1.0, float(nbytes), taken))
    return points


def _computing(gradient: Callable[[], object], trained: Sequence[nn.Parameter]) -> float:
    kept = [x.grad for x in trained]

    def call() -> None:
        for x in trained:
            x.grad = None
        gradient()

    try:
        return _timed(call, _GRADIENTS)
    finally:
        for x, before in zip(trained, kept, strict=True):
            x.grad = before


def _timed(call: Callable[[], object], times: int) -> float:
    """The median of the seconds that a call takes, of the slowest rank."""
    taken = []
    for _ in range(_WARMING + times):
        barrier()
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    here = torch.tensor([statistics.median(taken[_WARMING:])], dtype=torch.float64)
    return float(allgather(here).max())
