"""What averages of tensors on devices cost: beside copies by hand, and the floor of those copies.

Over the ring. By hand means to host memory, the average there, and back, each waited for. The
floor is one copy down into pinned memory and one up for each neighbour, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ifog.bench.contestants import BY_HAND, COPIES, OURS
from ifog.bench.jobs import measure, require_room
from ifog.bench.ratios import Compared, compared, label, table
from ifog.errors import ArgumentError
from ifog.numbers import counted

__all__ = ["DeviceReport", "Sized", "run"]

SIZES = (4, 1 << 16, 1 << 20, 16 << 20, 100 << 20)
QUICK_SIZES = (4, 1 << 20, 16 << 20)
_PROGRAM = ("-m", "ifog.bench.device_rounds")
_TENSORS = 8  # of the largest size that a rank holds in host memory at once


class Sized(Compared):
    """Tensors of one size, beside ifog."""

    bytes: int


class DeviceReport(NamedTuple):
    """The result; ``way`` says how the tensors travelled, ``device`` whose they were."""

    ranks: int
    device: str
    way: str
    sizes: list[Sized]

    def lines(self) -> list[str]:
        """The result in words."""
        rows = [["", *(label(each["bytes"]) for each in self.sizes)]]
        for name in self.sizes[0]["us"]:
            cells = [f"{each['us'][name]:.4g}" for each in self.sizes]
            if name != OURS:
                ratios = (f" ({each['ratio'][name]['median']:.2f})" for each in self.sizes)
                cells = [cell + of_ours for cell, of_ours in zip(cells, ratios, strict=True)]
            rows.append([name, *cells])
        return [
            f"{counted(self.ranks)}, {self.device}; ring, float32; {self.way or 'in host memory'}",
            "median microseconds, all in turn; in brackets the ratio to ifog",
            *table([*rows, ["rounds", *(str(each["rounds"]) for each in self.sizes)]]),
        ]


def run(
    ranks: int,
    *,
    rounds: int | None = None,
    quick: bool = False,
    sizes: Sequence[int] | None = None,
    kind: str = "cuda",
) -> DeviceReport:
    """Let averages of tensors on devices and copies by hand run in turn on ``ranks`` real ranks.

    Args:
        ranks: how many, at least 2.
        rounds: of each contestant at most, by default 25, or 9 if quick.
        quick: fewer sizes.
        sizes: bytes of each tensor.
        kind: of device: "cuda", or "cpu" to try the bench itself.

    Raises:
        ArgumentError: there is no device, or too few ranks, or too many for this machine's memory.
        ClusterError: the job failed or took too long.
    """
    if kind == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("bench devices: torch finds no CUDA device here; run it where one is")
    sizes = sizes or (QUICK_SIZES if quick else SIZES)
    require_room("devices", ranks, _TENSORS * max(sizes))
    specification = {
        "sizes": list(sizes),
        "rounds": rounds or (9 if quick else 25),
        "seconds": 4.0 if quick else 15.0,
        "kind": kind,
    }
    found = measure("devices", ranks, _PROGRAM, seconds=200.0, specification=specification)
    return DeviceReport(ranks, found["device"], found["way"], [_sized(x) for x in found["sizes"]])


def _sized(found: Mapping[str, Any]) -> Sized:
    times = {name: found["times"][name] for name in (OURS, BY_HAND, COPIES)}
    return {"bytes": found["bytes"], **compared(times, OURS)}
