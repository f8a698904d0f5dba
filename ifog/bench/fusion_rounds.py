"""The contests of ``ifog bench fusion`` on the ranks: lists of tensors over the ring.

``python -m ifog.bench.fusion_rounds SPECIFICATION OUT`` with ``{"lists": {title: [entries of each
tensor, ...]}, "rounds", "seconds"}``. That all give the same averages is checked before.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import ifog
from ifog.bench.alternation import Contestant, alternate, block_of
from ifog.bench.baselines import Buffers, Call, copy, mpi_average
from ifog.bench.contestants import ADDS, COPY, FLAT, LIST, OURS, PACKED, POSTED
from ifog.errors import IfogError

__all__: list[str] = []


def _calls(flat: Buffers, counts: Sequence[int]) -> dict[str, Call]:
    """{name: call} of every way to average the tensors, each giving them as a list."""
    edges = (ifog.in_neighbor_ranks(), ifog.out_neighbor_ranks())
    tensors = [piece.clone() for piece in flat.x.split_with_sizes(counts)]
    apart = [
        Buffers(x, torch.zeros_like(x), [torch.zeros_like(x) for _ in edges[0]]) for x in tensors
    ]
    by_hand = [mpi_average(buffers, [edges]) for buffers in apart]
    packed = mpi_average(flat, [edges])
    pieces = list(flat.x.split_with_sizes(counts))

    def posted() -> list[torch.Tensor]:
        handles = [ifog.neighbor_allreduce_nonblocking(x) for x in tensors]
        return [handle.wait() for handle in handles]

    def pack() -> list[torch.Tensor]:
        torch._foreach_copy_(pieces, tensors)
        return list(packed().split_with_sizes(counts))

    calls: dict[str, Call] = {
        OURS: lambda: [ifog.neighbor_allreduce(x) for x in tensors],
        POSTED: posted,
        FLAT: lambda: list(ifog.neighbor_allreduce(flat.x).split_with_sizes(counts)),
        ADDS: lambda: [average() for average in by_hand],
        PACKED: pack,
    }
    listed = _listed(tensors)
    return calls if listed is None else calls | {LIST: listed}


def _listed(tensors: list[torch.Tensor]) -> Call | None:
    """The operation on the whole list, where it takes one."""
    average: Any = ifog.neighbor_allreduce
    try:
        average(tensors)
    except (IfogError, AttributeError, TypeError):
        return None
    return lambda: average(tensors)


def _contest(title: str, counts: Sequence[int], rounds: int, seconds: float) -> dict[str, Any]:
    flat = Buffers.of(sum(counts), len(ifog.in_neighbor_ranks()), 1.0 + ifog.rank())
    calls = _calls(flat, counts)
    expected = [x.clone() for x in calls[ADDS]()]  # type: ignore[attr-defined] # a list
    for name, call in calls.items():
        got: Any = call()
        if not all(map(torch.allclose, got, expected)):
            raise IfogError(f"{title}: {name} gives {got[0][:3]}, MPI with adds {expected[0][:3]}")
    contestants = {name: Contestant(call) for name, call in calls.items()}
    contestants[COPY] = block_of(copy(flat), flat.x.nbytes, alone=True)
    times = alternate(contestants, rounds, seconds)
    return {"title": title, "tensors": len(counts), "bytes": flat.x.nbytes, "times": times}


def main(text: str, out: str) -> None:
    """Time every list of the specification; rank 0 writes the results."""
    specification = json.loads(text)
    ifog.init()
    ifog.set_topology("ring")
    rounds, seconds = specification["rounds"], specification["seconds"]
    found = [
        _contest(title, counts, rounds, seconds) for title, counts in specification["lists"].items()
    ]
    if ifog.rank() == 0:
        Path(out).write_text(json.dumps(found))
    ifog.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
