"""The ranks of ``ifog doctor``: they average, and rank 0 writes what their wire is like."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

import ifog
from ifog.context import current

__all__: list[str] = []

_TIMES = 200
_MOST = 2000  # averages while the ranks agree on how tensors of devices travel
_PAUSE = 0.01  # seconds between two of them


def _told() -> dict[str, Any]:
    x = torch.full((256,), float(ifog.rank()))
    for _ in range(_TIMES // 10):
        ifog.neighbor_allreduce(x)
    begun = time.perf_counter()
    for _ in range(_TIMES):
        ifog.neighbor_allreduce(x)
    microseconds = (time.perf_counter() - begun) / _TIMES * 1e6
    mean, expected = float(ifog.allreduce(x)[0]), (ifog.size() - 1) / 2
    error = "" if mean == expected else f"the mean of the ranks is {mean}, not {expected}"
    about = current().transport.describe()
    devices = _devices()
    return {
        "devices": devices,
        "error": error,
        "microseconds": microseconds,
        "library": about.get("library", "no MPI"),
        "wire": about["wire"],
        "threads": about["threads"],
        "shared": about.get("shared memory", False),
        "survives": about.get("survives", False),
    }


def _devices() -> str:
    """How tensors of devices travel, found out by averaging some; empty without devices."""
    if not torch.cuda.is_available():
        return ""
    device = f"cuda:{ifog.rank() % torch.cuda.device_count()}"
    x = torch.ones(1 << 16, device=device)
    for _ in range(_MOST):
        ifog.neighbor_allreduce(x)
        devices = current().devices
        settled = torch.tensor([float(devices is not None and devices.settled)])
        if float(ifog.allreduce(settled)) == 1.0:  # the same on all ranks: they go on together
            break
        time.sleep(_PAUSE)
    return current().device_way


def main(out: str) -> None:
    """Average on all ranks; rank 0 writes what it found."""
    ifog.init()
    told = _told()
    if ifog.rank() == 0:
        Path(out).write_text(json.dumps(told))
    ifog.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
