"""The contract of a wire: bytes from one rank to another, and a way to stop everybody.

A transport moves bytes and knows nothing of tensors, graphs or operations. What every transport
keeps:

* Messages of one (source, destination, tag) arrive in the order in which they were sent.
* ``isend`` and ``irecv`` return at once. The buffer belongs to the request until ``test`` is True.
* ``test`` never blocks. It raises ``PeerFailedError`` once any rank has called ``abort``.
* Nothing blocks in C for long, so that a keyboard interrupt is served within milliseconds.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bytes", "Request", "Transport"]

Bytes = NDArray[np.uint8]


class Request(Protocol):
    """A message on its way."""

    def test(self) -> bool:
        """Whether the buffer is free (a send) or filled (a receive).

        Raises:
            PeerFailedError: a rank aborted or died.
            TransportError: the wire failed for another reason.
        """


class Transport(Protocol):
    """One rank's view of the wire."""

    rank: int
    size: int
    machines: tuple[int, ...]  # the machine of every rank, numbered in the order of first ranks

    def isend(self, data: Bytes, destination: int, tag: int) -> Request:
        """Start sending ``data``."""

    def irecv(self, out: Bytes, source: int, tag: int) -> Request:
        """Start receiving into ``out``, which must be at least as long as the message."""

    def idle(self, polls: int) -> None:
        """Give up the processor after the ``polls``-th fruitless look in a row."""

    def abort(self, cause: str) -> None:
        """Make every wait on every rank raise ``PeerFailedError``; safe from any thread."""

    def heal(self) -> None:
        """Forget all messages and make the wire usable again; every rank must call it."""

    def close(self) -> None:
        """Release what the wire holds."""

    def describe(self) -> dict[str, Any]:
        """What a status page says about this wire."""
