"""The contest of ``ifog bench overlap`` on the ranks.

``python -m ifog.bench.overlap_rounds SPECIFICATION OUT`` with ``{"bytes", "rounds", "seconds"}``.
The computation is made to take about as long as the communication, where there is most to gain.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mpi4py import MPI

import ifog
from ifog.bench.alternation import Contestant, alternate
from ifog.bench.overlap import ALONE, ASKED, BESIDE, COMPUTE, SEQUENTIAL

__all__: list[str] = []

_WIDTH = 256
_MOST_PRODUCTS = 20_000
_SLICES = 8  # of the computation, between which one asks whether the communication is done


def _seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        MPI.COMM_WORLD.Barrier()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    slowest: float = max(MPI.COMM_WORLD.allgather(statistics.median(times)))
    return slowest


def _products(communicate: Callable[[], object]) -> tuple[Callable[[int], None], int]:
    """A computation of so many matrix products, and how many take as long as communicating."""
    a, out = torch.randn(_WIDTH, _WIDTH), torch.empty(_WIDTH, _WIDTH)

    def compute(products: int) -> None:
        for _ in range(products):
            torch.mm(a, a, out=out)

    ratio = _seconds(communicate) / _seconds(lambda: compute(_SLICES)) * _SLICES
    return compute, min(_MOST_PRODUCTS, max(_SLICES, round(ratio)))


def _contestants(x: torch.Tensor) -> tuple[dict[str, Contestant], int]:
    def communicate() -> torch.Tensor:
        return ifog.neighbor_allreduce(x)

    compute, products = _products(communicate)

    def sequential() -> None:
        compute(products)
        communicate()

    def beside() -> None:
        handle = ifog.neighbor_allreduce_nonblocking(x)
        compute(products)
        handle.wait()

    def asked() -> None:
        handle = ifog.neighbor_allreduce_nonblocking(x)
        for _ in range(_SLICES):
            compute(products // _SLICES)
            handle.done()
        compute(products % _SLICES)
        handle.wait()

    calls: dict[str, Callable[[], object]] = {
        COMPUTE: lambda: compute(products),
        ALONE: communicate,
        SEQUENTIAL: sequential,
        BESIDE: beside,
        ASKED: asked,
    }
    return {name: Contestant(call) for name, call in calls.items()}, products


def main(text: str, out: str) -> None:
    """Time all of them in turn; rank 0 writes the results."""
    specification = json.loads(text)
    ifog.init()
    ifog.set_topology("ring")
    x = torch.full((specification["bytes"] // 4,), float(ifog.rank()))
    contestants, products = _contestants(x)
    times = alternate(contestants, specification["rounds"], specification["seconds"])
    if ifog.rank() == 0:
        Path(out).write_text(json.dumps({"times": times, "products": products}))
    ifog.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
