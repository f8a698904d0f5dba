"""Times of operations on the ranks: a program for ``mpiexec`` that also older versions can run.

``python version_rounds.py OUT`` writes ``{case: [microseconds of a call, ...]}`` on rank 0, each
the time of a block of calls on the slowest rank divided by their number.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import ifog

__all__: list[str] = []

_BLOCKS = 5
_SIZES = (("4 B", 1, 100), ("64 KB", 16_384, 60), ("1 MB", 262_144, 30), ("16 MB", 4_194_304, 4))


def _cases() -> dict[str, tuple[int, Callable[[], object]]]:
    """{case: (calls in a block, call)}; float32."""
    n, rank = ifog.size(), ifog.rank()
    ifog.set_topology("ring")
    right, left = (rank + 1) % n, (rank - 1) % n
    cases: dict[str, tuple[int, Callable[[], object]]] = {"barrier": (100, ifog.barrier)}
    for label, numel, calls in _SIZES:
        x = torch.ones(numel)

        def ring(x: torch.Tensor = x) -> object:
            return ifog.neighbor_allreduce(x)

        def one_peer(x: torch.Tensor = x) -> object:
            return ifog.neighbor_allreduce(
                x, self_weight=0.5, src_weights={left: 0.5}, dst_weights=[right]
            )

        def everybody(x: torch.Tensor = x) -> object:
            return ifog.allreduce(x)

        def root(x: torch.Tensor = x) -> object:
            return ifog.broadcast(x, 0)

        cases[f"neighbor_allreduce, ring, {label}"] = (calls, ring)
        cases[f"allreduce, {label}"] = (calls, everybody)
        if n > 1:
            cases[f"neighbor_allreduce, one peer, {label}"] = (calls, one_peer)
        if numel <= 16_384:
            cases[f"broadcast, {label}"] = (calls, root)
            cases[f"allgather, {label}"] = (calls, lambda x=x: ifog.allgather(x))  # type: ignore[misc]
    if hasattr(ifog, "win_create"):
        cases |= _window_cases()
    return cases


def _window_cases() -> dict[str, tuple[int, Callable[[], object]]]:
    cases: dict[str, tuple[int, Callable[[], object]]] = {}
    for label, numel, calls in _SIZES:
        x = torch.ones(numel)
        ifog.win_create(x, label, zero_init=True)

        def put_update(x: torch.Tensor = x, name: str = label) -> object:
            ifog.win_put(x, name)
            return ifog.win_update(name)

        cases[f"win_put + win_update, ring, {label}"] = (calls, put_update)
    return cases


def _block(calls: int, call: Callable[[], object]) -> float:
    ifog.barrier()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    mine = torch.tensor([time.perf_counter() - start], dtype=torch.float64)
    return float(ifog.allgather(mine).max()) / calls * 1e6


def main(out: str) -> None:
    """Time every case, blocks of all cases in turn."""
    ifog.init()
    cases = _cases()
    times: dict[str, list[float]] = {case: [] for case in cases}
    for _ in range(_BLOCKS + 1):
        for case, (calls, call) in cases.items():
            times[case].append(_block(calls, call))
    if ifog.rank() == 0:
        # The first block warmed up.
        Path(out).write_text(json.dumps({case: found[1:] for case, found in times.items()}))


if __name__ == "__main__":
    main(sys.argv[1])
