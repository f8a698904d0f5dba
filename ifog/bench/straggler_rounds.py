"""One slow rank among fast ones, for ``ifog bench train``, on the ranks.

``python -m ifog.bench.straggler_rounds SPECIFICATION OUT`` with ``{"seconds", "rounds",
"private"}``. All train on the digits; rank 0, where it is slow, sleeps twice as long as each of its
gradients took. Who waits for others makes so many steps as fit into the time, who waits for nobody
stops when it is over.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ifog
from ifog.bench.baselines import gloo
from ifog.bench.contestants import ATC_ONE_PEER, DDP, PUSH_SUM, PUT
from ifog.bench.learning_rounds import Judge, average, batches, least, longest
from ifog.bench.straggler import ALIKE, SLOW
from ifog.bench.trainers import wrapped
from ifog.bench.workloads import digits_network
from ifog.problems import Shard, digits_shard

__all__: list[str] = []

_BATCH = 64
_RATE, _MOMENTUM = 0.02, 0.9
_SLOWNESS = 3
_LOOKS = 12  # at the model, at equal times
_TRIAL = 6  # steps, from which one knows how many fit into the time
_WAITING = (DDP, ATC_ONE_PEER)


class _Student:
    """Takes steps on one rank, and keeps what its model was like meanwhile.

    Attributes:
        steps: how many it has taken since it began.
        elapsed: seconds since then.
        computing: of these, those that its gradients took.
        looks: its parameters at equal times, from the beginning on.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        shard: Shard,
        slow: bool,
    ) -> None:
        self._model, self._module, self._optimizer = model, module, optimizer
        self._shard, self._slow = shard, slow
        images, most = len(shard.y), least(shard)
        self._places = (
            places for epoch in count() for places in batches(images, most, epoch, _BATCH)
        )
        self.begin(1.0)

    def begin(self, seconds: float) -> None:
        self.steps, self.computing, self.elapsed = 0, 0.0, 0.0
        self.looks: list[Tensor] = []
        self._start, self._pause = time.perf_counter(), seconds / _LOOKS
        self._look()

    def step(self) -> None:
        places = next(self._places)
        start = time.perf_counter()
        self._optimizer.zero_grad()
        logits = self._model(self._shard.x[places])
        nn.functional.cross_entropy(logits, self._shard.y[places]).backward()  # type: ignore[no-untyped-call] # torch's
        taken = time.perf_counter() - start
        if self._slow:
            time.sleep((_SLOWNESS - 1) * taken)
        self._optimizer.step()
        self.computing += taken
        self.steps += 1
        self.elapsed = time.perf_counter() - self._start
        if self.elapsed >= len(self.looks) * self._pause:
            self._look()

    def _look(self) -> None:
        self.looks.append(nn.utils.parameters_to_vector(self._module.parameters()).detach())


def _race(name: str, shard: Shard, seconds: float, *, slow: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    module = digits_network()
    sgd = torch.optim.SGD(module.parameters(), lr=_RATE, momentum=_MOMENTUM)
    with wrapped(name, module, sgd) as (model, optimizer):
        student = _Student(model, module, optimizer, shard, slow and ifog.rank() == 0)
        for _ in range(_TRIAL):
            student.step()
        if name in _WAITING:
            fitting = seconds * _TRIAL / longest(student.elapsed)
        ifog.barrier()
        student.begin(seconds)
        while student.steps < fitting if name in _WAITING else student.elapsed < seconds:
            student.step()
        ifog.barrier()
        return _told(student, Judge.of(shard))


def _told(student: _Student, judge: Judge) -> dict[str, Any]:
    """What all ranks together did; the same on each of them."""
    steps = ifog.allgather(torch.tensor([student.steps]))
    computing = ifog.allgather(torch.tensor([student.computing / student.steps]))
    curve = []
    for place in range(_LOOKS + 1):
        mean, distance = average(student.looks[min(place, len(student.looks) - 1)])
        curve.append({"loss": judge.loss(mean), "distance": distance})
    return {
        "steps": steps.tolist(),
        "seconds": longest(student.elapsed),
        "computing": computing.tolist(),
        "accuracy": judge.accuracy(mean),
        "curve": curve,
    }


def main(text: str, out: str) -> None:
    """Let all contestants train without and with a slow rank; rank 0 writes the results."""
    specification = json.loads(text)
    ifog.init()
    shard = digits_shard(ifog.rank(), ifog.size(), skew="none")
    with gloo(specification["private"]):
        found = [
            {
                label: {
                    name: _race(name, shard, specification["seconds"], slow=slow)
                    for name in (DDP, ATC_ONE_PEER, PUT, PUSH_SUM)
                }
                for label, slow in ((ALIKE, False), (SLOW, True))
            }
            for _ in range(specification["rounds"])
        ]
    if ifog.rank() == 0:
        Path(out).write_text(json.dumps(found))
    ifog.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
