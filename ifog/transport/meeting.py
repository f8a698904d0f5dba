"""How MPI ranks find out that all of them are ready to heal, so that none heals alone."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
from mpi4py import MPI

from ifog.transport.base import Bytes

__all__ = ["Meeting"]

_MEET_TAG = 2  # on the communicator on which ranks also tell why they fail, by tag 1


class Meeting:
    """Messages between all ranks that each of them is ready to heal."""

    def __init__(self, control: MPI.Intracomm, places: Mapping[int, int], me: int) -> None:
        self._buffers: list[Bytes] = [np.zeros(1, np.uint8)]
        self._sent: list[MPI.Request] = []
        self._awaited: dict[int, MPI.Request] = {}
        for rank, place in places.items():
            if rank != me:
                with contextlib.suppress(MPI.Exception):  # raised for a rank that is dead
                    self._buffers.append(np.empty(1, np.uint8))
                    message = [self._buffers[-1], MPI.BYTE]
                    self._awaited[rank] = control.Irecv(message, place, _MEET_TAG)
                    message = [self._buffers[0], MPI.BYTE]
                    self._sent.append(control.Isend(message, place, _MEET_TAG))

    def missing(self) -> tuple[int, ...]:
        """The ranks that have not come, except those that died."""
        for rank, request in list(self._awaited.items()):
            try:
                here = request.Test()
            except MPI.Exception:
                here = True
            if here:
                del self._awaited[rank]
        return tuple(self._awaited)
