"""What the benches compare with: the same work by hand over MPI, gloo, and a plain copy."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mpi4py import MPI

__all__ = ["Buffers", "copy", "gloo", "mpi_allreduce", "mpi_average", "mpi_send"]

_GLOO_SECONDS = 120.0
Call = Callable[[], object]
Edges = tuple[Sequence[int], Sequence[int]]  # whom one hears, whom one sends to


class Buffers(NamedTuple):
    """The tensors of one size that contestants share: made once, so that none pays for pages.

    Attributes:
        x: [numel] float32, what is averaged; no contestant changes it.
        out: [numel], where results go.
        received: one [numel] for each neighbour.
    """

    x: torch.Tensor
    out: torch.Tensor
    received: list[torch.Tensor]

    @classmethod
    def of(cls, numel: int, neighbors: int, value: float) -> Buffers:
        """Buffers for tensors of ``numel`` entries, all ``value``, and so many neighbours."""
        received = [torch.zeros(numel) for _ in range(neighbors)]
        return cls(torch.full((numel,), value), torch.zeros(numel), received)


def mpi_average(buffers: Buffers, steps: Sequence[Edges]) -> Callable[[], torch.Tensor]:
    """The uniform average over a rank and its in-neighbours: Isend, Irecv, Waitall, torch adds.

    Blocks inside MPI and allocates nothing: the fastest that a few lines of mpi4py do.

    Args:
        buffers: as many received ones as the most in-neighbours.
        steps: the edges of each step in turn.
    """
    world, x, out = MPI.COMM_WORLD, buffers.x, buffers.out
    mine = x.numpy()
    places = [(other, other.numpy()) for other in buffers.received]
    step = -1

    def average() -> torch.Tensor:
        nonlocal step
        step = (step + 1) % len(steps)
        sources, destinations = steps[step]
        coming = list(zip(sources, places, strict=False))
        requests = [world.Irecv([place, MPI.FLOAT], j) for j, (_, place) in coming]
        requests += [world.Isend([mine, MPI.FLOAT], j) for j in destinations]
        MPI.Request.Waitall(requests)
        share = 1.0 / (len(coming) + 1)
        torch.mul(x, share, out=out)
        for _, (other, _) in coming:
            out.add_(other, alpha=share)
        return out

    return average


def mpi_send(buffers: Buffers, source: int, destination: int) -> Call:
    """One message to ``destination`` and one from ``source``."""
    world, mine, place = MPI.COMM_WORLD, buffers.x.numpy(), buffers.received[0].numpy()

    def send() -> None:
        requests = [
            world.Irecv([place, MPI.FLOAT], source),
            world.Isend([mine, MPI.FLOAT], destination),
        ]
        MPI.Request.Waitall(requests)

    return send


def mpi_allreduce(buffers: Buffers) -> Call:
    """MPI's sum over all ranks, without the division that makes it an average."""
    world, mine, place = MPI.COMM_WORLD, buffers.x.numpy(), buffers.out.numpy()
    return lambda: world.Allreduce([mine, MPI.FLOAT], [place, MPI.FLOAT], MPI.SUM)


def copy(buffers: Buffers) -> Call:
    """The tensor copied once by NumPy, which uses the C library's copy."""
    mine, place = buffers.x.numpy(), buffers.out.numpy()
    return lambda: np.copyto(place, mine)


@contextmanager
def gloo(private: str) -> Iterator[Callable[[Buffers], Call] | None]:
    """Meanwhile: gloo among these ranks, over loopback; None where torch was built without it.

    The function given makes a contestant: the sum in place over all ranks. It sums zeros, because
    sums of sums would grow without bound.

    Args:
        private: a folder that all ranks share, where they meet.
    """
    from torch import distributed

    if not distributed.is_available() or not distributed.is_gloo_available():
        yield None
        return
    interface = "lo" if sys.platform == "linux" else "lo0"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)  # several hosts name their own
    world = MPI.COMM_WORLD
    distributed.init_process_group(
        "gloo",
        init_method=(Path(private) / "gloo").as_uri(),
        rank=world.Get_rank(),
        world_size=world.Get_size(),
        timeout=timedelta(seconds=_GLOO_SECONDS),
    )

    def contestant(buffers: Buffers) -> Call:
        zeros = torch.zeros_like(buffers.x)
        return lambda: distributed.all_reduce(zeros)

    try:
        yield contestant
    finally:
        distributed.destroy_process_group()
