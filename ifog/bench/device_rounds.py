"""The contests of ``ifog bench devices`` on the ranks: tensors on devices over the ring.

``python -m ifog.bench.device_rounds SPECIFICATION OUT`` with ``{"sizes": [bytes], "rounds",
"seconds", "kind"}``. That all give the same averages is checked before.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import ifog
from ifog.bench.alternation import alternate, block_of
from ifog.bench.contestants import BY_HAND, COPIES, OURS
from ifog.context import current
from ifog.errors import IfogError

__all__: list[str] = []

_MOST = 2000  # averages while the ranks agree on how tensors of devices travel
_PAUSE = 0.01  # seconds between two of them


def _settle(x: torch.Tensor) -> None:
    for _ in range(_MOST):
        ifog.neighbor_allreduce(x)
        devices = current().devices
        settled = torch.tensor([float(devices is None or devices.settled)])
        if float(ifog.allreduce(settled)) == 1.0:  # the same on all ranks: they go on together
            return
        time.sleep(_PAUSE)
    raise IfogError("the ranks did not agree on how tensors of devices travel")


def _contest(nbytes: int, device: torch.device, rounds: int, seconds: float) -> dict[str, Any]:
    x = torch.full((nbytes // 4,), 1.0 + ifog.rank(), device=device)
    down = torch.empty(x.shape, pin_memory=device.type == "cuda")
    up, readers = torch.empty_like(x), len(ifog.in_neighbor_ranks())

    def through(work: Callable[[], Any]) -> Callable[[], Any]:
        """The work, and waiting until the device has done it."""

        def call() -> Any:
            result = work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return result

        return call

    def copies() -> None:
        down.copy_(x, non_blocking=True)
        for _ in range(readers):
            up.copy_(down, non_blocking=True)

    calls = {
        OURS: through(lambda: ifog.neighbor_allreduce(x)),
        BY_HAND: through(lambda: ifog.neighbor_allreduce(x.cpu()).to(device)),
        COPIES: through(copies),
    }
    ours, by_hand = calls[OURS](), calls[BY_HAND]()
    if not torch.allclose(ours, by_hand, rtol=1e-6, atol=0.0):
        raise IfogError(f"devices: ifog gives {ours[:3]}, by hand {by_hand[:3]}")
    contestants = {
        name: block_of(call, nbytes, alone=name == COPIES) for name, call in calls.items()
    }
    return {"bytes": nbytes, "times": alternate(contestants, rounds, seconds)}


def main(text: str, out: str) -> None:
    """Time every size of the specification; rank 0 writes the results."""
    specification = json.loads(text)
    ifog.init()
    ifog.set_topology("ring")
    found: dict[str, Any] = {"device": "", "way": "", "sizes": []}
    device, name = torch.device("cpu"), "the processor"
    if specification["kind"] == "cuda":
        count = torch.cuda.device_count()
        device = torch.device("cuda", ifog.local_rank() % max(1, count))
        name = torch.cuda.get_device_name(device) if count else ""
    if name:
        _settle(torch.ones(1 << 16, device=device))
        rounds, seconds = specification["rounds"], specification["seconds"]
        sizes = [_contest(nbytes, device, rounds, seconds) for nbytes in specification["sizes"]]
        found = {"device": name, "way": current().device_way, "sizes": sizes}
    if ifog.rank() == 0:
        Path(out).write_text(json.dumps(found))
    ifog.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
