"""MPI's own world, which ifog leaves to the user's code: asked who is where, revoked in need."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

__all__ = ["machines_of", "revoke_world"]


def machines_of(world: MPI.Intracomm) -> tuple[int, ...]:
    """The machine of each rank, numbered in the order of first ranks; collective."""
    node = world.Split_type(MPI.COMM_TYPE_SHARED, key=world.Get_rank())
    first = np.array([world.Get_rank()], np.int64)
    node.Bcast(first, 0)
    node.Free()
    firsts = np.empty(world.Get_size(), np.int64)
    world.Allgather(first, firsts)
    return tuple(np.unique(firsts, return_inverse=True)[1].tolist())


def revoke_world() -> None:
    """Make calls of the user's own code that wait on MPI's world communicator fail, for good."""
    try:
        MPI.COMM_WORLD.Revoke()
    except (MPI.Exception, NotImplementedError):
        return  # without fault tolerance, or already revoked
