"""MPI's own world, which ifog leaves to the user's code: only to free a rank is it touched."""

from __future__ import annotations

from mpi4py import MPI

__all__ = ["revoke_world"]


def revoke_world() -> None:
    """Make calls of the user's own code that wait on MPI's world communicator fail, for good."""
    try:
        MPI.COMM_WORLD.Revoke()
    except (MPI.Exception, NotImplementedError):
        return  # without fault tolerance, or already revoked
