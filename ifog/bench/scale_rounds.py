"""The contest of ``ifog bench scale``, on one rank of each host.

``python -m ifog.bench.scale_rounds SPECIFICATION OUT`` with ``{"sizes", "rounds", "seconds",
"private"}`` times averages of every size.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import ifog
from ifog.bench.alternation import alternate, block_of
from ifog.bench.baselines import Buffers, Call, gloo
from ifog.bench.scale import ALLREDUCE, GLOO, ONE_PEER, STATIC

__all__: list[str] = []

_SLOWNESS = 16  # a wire is so much slower than memory, at least


def _contest(
    nbytes: int, rounds: int, seconds: float, rival: Callable[[Buffers], Call] | None
) -> dict[str, list[float]]:
    buffers = Buffers.of(nbytes // 4, 0, 1.0 + ifog.rank())
    x, n = torch.ones(nbytes // 4), ifog.size()
    one_peer = ifog.neighbor_mixer(ifog.one_peer(n))
    static = ifog.neighbor_mixer(ifog.exponential(n))
    calls: dict[str, Call] = {
        ONE_PEER: lambda: one_peer(x),
        STATIC: lambda: static(x),
        ALLREDUCE: lambda: ifog.allreduce(x),
    }
    if rival is not None:
        calls[GLOO] = rival(buffers)
    contestants = {name: block_of(call, nbytes, slowness=_SLOWNESS) for name, call in calls.items()}
    return alternate(contestants, rounds, seconds, warming=1)


def main(text: str, out: str) -> None:
    """Time all contestants at every size; rank 0 writes the results."""
    specification = json.loads(text)
    ifog.init()
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
