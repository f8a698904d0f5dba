"""The contests of ``ifog bench ops`` on the ranks.

``python -m ifog.bench.op_rounds SPECIFICATION OUT`` times the contestants of each case in turn;
``{"cases": [[operation, bytes], ...], "only": [names] or null, "rounds", "seconds", "private"}``
says which. Averages are compared with MPI's before they are timed.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

import ifog
from ifog.bench.alternation import Contestant, alternate, block_of
from ifog.bench.baselines import (
    Buffers,
    Call,
    Edges,
    copy,
    gloo,
    mpi_allreduce,
    mpi_average,
    mpi_send,
)
from ifog.bench.contestants import (
    ADDS,
    ALLREDUCE,
    COPY,
    GLOO,
    MPI_SEND,
    OURS,
    REUSED,
    UNCHECKED,
)
from ifog.errors import IfogError

__all__: list[str] = []

_GLOO_SLOWNESS = 8
_WINDOW = "bench"
Contestants = dict[str, Contestant]
Rival = Callable[[Buffers], Call] | None


def _static(buffers: Buffers, graph: str) -> dict[str, Call]:
    ifog.set_topology(graph)
    edges = (ifog.in_neighbor_ranks(), ifog.out_neighbor_ranks())
    state = [buffers.x]

    def reused() -> torch.Tensor:
        state[0] = ifog.neighbor_allreduce(state[0])
        return state[0]

    return {
        OURS: lambda: ifog.neighbor_allreduce(buffers.x),
        REUSED: reused,
        ADDS: mpi_average(buffers, [edges]),
    }


def _one_peer(buffers: Buffers) -> dict[str, Call]:
    n, rank = ifog.size(), ifog.rank()
    hops = [2**power for power in range(max(1, math.ceil(math.log2(n))))]
    steps: list[Edges] = [([(rank - hop) % n], [(rank + hop) % n]) for hop in hops]

    def ours(*, reuse: bool, check: bool = True) -> Call:
        state, turns = [buffers.x], cycle(steps)

        def call() -> torch.Tensor:
            (source,), destinations = next(turns)
            result = ifog.neighbor_allreduce(
                state[0],
                self_weight=0.5,
                src_weights={source: 0.5},
                dst_weights=destinations,
                enable_topo_check=check,
            )
            if reuse:
                state[0] = result
            return result

        return call

    return {
        OURS: ours(reuse=False),
        REUSED: ours(reuse=True),
        UNCHECKED: ours(reuse=True, check=False),
        ADDS: mpi_average(buffers, steps),
    }


def _win_put(buffers: Buffers) -> dict[str, Call]:
    n, rank = ifog.size(), ifog.rank()
    ifog.set_topology("ring")
    ifog.win_create(torch.zeros_like(buffers.x), _WINDOW, zero_init=True)
    right, left = (rank + 1) % n, (rank - 1) % n
    return {
        OURS: lambda: ifog.win_put(buffers.x, _WINDOW, dst_weights={right: 1.0}),
        MPI_SEND: mpi_send(buffers, left, right),
    }


def _calls(operation: str, buffers: Buffers, rival: Rival) -> dict[str, Call]:
    """{name: call} of the operation's contestants."""
    if operation == "win_put":
        return _win_put(buffers) | {COPY: copy(buffers)}
    if operation == "allreduce":
        calls: dict[str, Call] = {OURS: lambda: ifog.allreduce(buffers.x)}
    elif operation == "one-peer":
        calls = _one_peer(buffers)
    else:
        calls = _static(buffers, operation)
    if ADDS in calls:
        _require_equal(operation, calls[OURS](), calls[ADDS]())
        calls = _made_anew(operation, buffers)
    calls[ALLREDUCE] = mpi_allreduce(buffers)
    if rival is not None:
        calls[GLOO] = rival(buffers)
    return calls | {COPY: copy(buffers)}


def _made_anew(operation: str, buffers: Buffers) -> dict[str, Call]:
    """The averages again, so that all are at their first step."""
    return _one_peer(buffers) if operation == "one-peer" else _static(buffers, operation)


def _require_equal(operation: str, ours: Any, theirs: Any) -> None:
    if not torch.allclose(ours, theirs, rtol=1e-6, atol=0.0):
        raise IfogError(f"{operation}: ifog gives {ours[:3]}, MPI with adds {theirs[:3]}")


def _contest(
    operation: str, nbytes: int, specification: Mapping[str, Any], rival: Rival
) -> dict[str, Any]:
    """One case: its times, and how many neighbours each rank hears."""
    n = ifog.size()
    degree = {"ring": min(2, n - 1), "exponential": math.ceil(math.log2(n))}.get(operation, 1)
    buffers = Buffers.of(nbytes // 4, degree, 1.0 + ifog.rank())
    only: Sequence[str] | None = specification["only"]
    contestants: Contestants = {
        name: block_of(
            call,
            nbytes,
            slowness=_GLOO_SLOWNESS if name == GLOO else 1,
            alone=name == COPY or (name == OURS and operation == "win_put"),
        )
        for name, call in _calls(operation, buffers, rival).items()
        if only is None or name in only
    }
    times = alternate(contestants, specification["rounds"], specification["seconds"])
    ifog.win_free()
    return {"operation": operation, "bytes": nbytes, "degree": degree, "times": times}


def main(text: str, out: str) -> None:
    """Time every case of the specification; rank 0 writes the results."""
    specification = json.loads(text)
    ifog.init()
    with gloo(specification["private"]) as rival:
        found = [
            _contest(operation, nbytes, specification, rival)
            for operation, nbytes in specification["cases"]
        ]
    if ifog.rank() == 0:
        Path(out).write_text(json.dumps(found))
    ifog.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
