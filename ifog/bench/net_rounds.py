"""The contest of ``ifog bench net``, on one rank of each host.

``python -m ifog.bench.net_rounds SPECIFICATION OUT`` times all contestants in turn, size by size;
``{"sizes": [bytes, ...], "rounds", "seconds", "private"}`` says which.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import torch

import ifog
from ifog.bench.alternation import alternate, block_of
from ifog.bench.baselines import Buffers, Call, Edges, gloo, mpi_allreduce, mpi_average
from ifog.bench.net import (
    ALLREDUCE,
    GLOO,
    MPI_ALLREDUCE,
    MPI_ONE_PEER,
    MPI_RING,
    ONE_PEER,
    RING,
)
from ifog.errors import IfogError

__all__: list[str] = []

_NETWORK_SLOWNESS = 8  # a wire is so much slower than memory, at least


def _hops() -> list[Edges]:
    """The edges of the exponential one-peer schedule, step by step."""
    n, rank = ifog.size(), ifog.rank()
    hops = [2**power for power in range(math.ceil(math.log2(n)))]
    return [([(rank - hop) % n], [(rank + hop) % n]) for hop in hops]


def _one_peer(x: torch.Tensor) -> Callable[[], torch.Tensor]:
    turns = cycle(_hops())

    def call() -> torch.Tensor:
        (source,), destinations = next(turns)
        return ifog.neighbor_allreduce(
            x, self_weight=0.5, src_weights={source: 0.5}, dst_weights=destinations
        )

    return call


def _neighbor_calls(buffers: Buffers) -> dict[str, Callable[[], torch.Tensor]]:
    ring: Edges = (ifog.in_neighbor_ranks(), ifog.out_neighbor_ranks())
    return {
        ONE_PEER: _one_peer(buffers.x),
        MPI_ONE_PEER: mpi_average(buffers, _hops()),
        RING: lambda: ifog.neighbor_allreduce(buffers.x),
        MPI_RING: mpi_average(buffers, [ring]),
    }


def _require_equal(buffers: Buffers) -> None:
    calls = _neighbor_calls(buffers)
    for ours, theirs in ((ONE_PEER, MPI_ONE_PEER), (RING, MPI_RING)):
        got, expected = calls[ours](), calls[theirs]()
        if not torch.allclose(got, expected, rtol=1e-6, atol=0.0):
            raise IfogError(f"{ours} gives {got[:3]}, {theirs} {expected[:3]}")


def _contest(
    nbytes: int, rounds: int, seconds: float, rival: Callable[[Buffers], Call] | None
) -> dict[str, object]:
    buffers = Buffers.of(nbytes // 4, 2, 1.0 + ifog.rank())
    _require_equal(buffers)
    calls: dict[str, Call] = {**_neighbor_calls(buffers)}
    calls[ALLREDUCE] = lambda: ifog.allreduce(buffers.x)
    calls[MPI_ALLREDUCE] = mpi_allreduce(buffers)
    if rival is not None:
        calls[GLOO] = rival(buffers)
    contestants = {
        name: block_of(call, nbytes, slowness=_NETWORK_SLOWNESS) for name, call in calls.items()
    }
    return {"bytes": nbytes, "times": alternate(contestants, rounds, seconds)}


def main(text: str, out: str) -> None:
    """Time all contestants at every size; rank 0 writes the results."""
    specification = json.loads(text)
    ifog.init()
    ifog.set_topology("ring")
    with gloo(specification["private"]) as rival:
        found = [
            _contest(nbytes, specification["rounds"], specification["seconds"], rival)
            for nbytes in specification["sizes"]
        ]
    if ifog.rank() == 0:
        Path(out).write_text(json.dumps(found))
    ifog.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
