"""The race of ``ifog bench train`` on the ranks.

``python -m ifog.bench.race_rounds SPECIFICATION OUT`` with ``{"workloads", "halves", "steps",
"rounds", "seconds", "private"}`` lets all contestants train in turn, workload by workload.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import ifog
from ifog.bench.alternation import Contestant, alternate
from ifog.bench.baselines import gloo
from ifog.bench.contestants import ALONE, EXCHANGE
from ifog.bench.trainers import Trainer, field
from ifog.bench.workloads import WORKLOADS, Workload

__all__: list[str] = []


class _Exchange:
    """A one-peer average of so many entries and nothing else."""

    def __init__(self, numel: int) -> None:
        self._numel = numel
        self._x: torch.Tensor
        self._mix: ifog.Mixer

    @contextmanager
    def ready(self) -> Iterator[None]:
        self._x = torch.zeros(self._numel)
        self._mix = ifog.neighbor_mixer(ifog.one_peer(ifog.size()))
        self.average()
        yield
        del self._x

    def average(self) -> None:
        self._x = self._mix(self._x)


def _race(workload: Workload, specification: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    numel = sum(x.numel() for x in workload.model().parameters())
    trainers = {
        name: Trainer(name, workload) for name in [ALONE, *field(halves=specification["halves"])]
    }
    steps, exchange = specification["steps"], _Exchange(numel)
    contestants = {
        name: Contestant(trainer.step, steps, trainer.ready) for name, trainer in trainers.items()
    }
    contestants[EXCHANGE] = Contestant(exchange.average, steps, exchange.ready)
    return {
        "title": workload.title,
        "batch": workload.batch,
        "parameters": numel,
        "times": alternate(contestants, specification["rounds"], seconds, warming=0),
        "sent": {name: statistics.median(trainer.sent) for name, trainer in trainers.items()},
    }


def main(text: str, out: str) -> None:
    """Let all contestants race on every workload; rank 0 writes the results."""
    specification = json.loads(text)
    ifog.init()
    share = specification["seconds"] / len(specification["workloads"])
    with gloo(specification["private"]):
        found = [
            _race(WORKLOADS[name], specification, share) for name in specification["workloads"]
        ]
    if ifog.rank() == 0:
        Path(out).write_text(json.dumps(found))
    ifog.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
