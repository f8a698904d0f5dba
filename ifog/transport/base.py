"""The contract of a wire: bytes from one rank to another, and a way to stop everybody.

A transport moves bytes and knows nothing of tensors, graphs or operations. What every transport
keeps:

* Messages of one (source, destination, tag) arrive in the order in which they were sent.
* ``isend`` and ``irecv`` return at once. The buffer belongs to the request until ``test`` is True.
* ``test`` never blocks. It raises ``PeerFailedError`` once any rank has called ``abort``.
* Nothing blocks in C for long, so that a keyboard interrupt is served within milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ifog.transport.envelopes import Inbox

__all__ = [
    "TOKEN_BYTES",
    "Answer",
    "Asked",
    "Bytes",
    "Letter",
    "Loan",
    "Region",
    "Request",
    "Transport",
]

Bytes = NDArray[np.uint8]
Answer = Callable[[int, Any, Bytes], Bytes | None]
TOKEN_BYTES = 16  # of what tells a reader where a loan is


class Request(Protocol):
    """A message on its way."""

    def test(self) -> bool:
        """Whether the buffer is free (a send) or filled (a receive).

        Raises:
            PeerFailedError: a rank aborted or died.
            TransportError: the wire failed for another reason.
        """


class Letter(Request, Protocol):
    """A small message on its way here.

    Attributes:
        data: what came, once ``test`` is True; bytes that can be written to, and perhaps more.
    """

    data: Any


class Loan(Protocol):
    """A payload that other ranks read where it is.

    Attributes:
        token: tells a reader where.
        readers: the ranks that can read it.
        lives: whether it is the caller's own memory, which must not change before all have.
    """

    @property
    def token(self) -> bytes: ...  # noqa: D102
    @property
    def readers(self) -> Collection[int]: ...  # noqa: D102
    @property
    def lives(self) -> bool: ...  # noqa: D102

    def unread(self) -> tuple[int, ...]:
        """The readers that have not given it back."""


class Asked(Request, Protocol):
    """A request to another rank.

    Attributes:
        payload: what came with the answer, once ``test`` is True.
    """

    payload: Bytes


class Region(Protocol):
    """Memory that each rank allocated a part of.

    Ranks that are ``near`` read and write it directly, others ask its owner. ``address`` says where
    this rank's part is; once the addresses have been exchanged, ``join`` opens the others'. Nothing
    here waits for another rank.
    """

    address: bytes

    def join(self, addresses: Mapping[int, bytes], ranks: Iterable[int]) -> None:
        """Open the parts of ``ranks``.

        Raises:
            TransportError: a part cannot be opened from here.
        """

    def joined(self) -> None:
        """Every rank has joined."""

    def near(self, rank: int) -> bool:
        """Whether the memory of ``rank`` is at hand."""

    def part(self, rank: int) -> Bytes:
        """The memory that ``rank``, which is near, allocated: its own, or one that was opened."""

    def try_lock(self, rank: int, index: int) -> bool:
        """Take lock ``index`` of ``rank``'s part, unless any rank or thread has it.

        It can take some calls until the answer of one that is not near is here.
        """

    def unlock(self, rank: int, index: int) -> None:
        """Give back a lock that this rank holds, or try to take it no more."""

    def answer(self, function: Answer) -> None:
        """Let ``function(rank, body, data)`` serve the requests of other ranks."""

    def ask(self, rank: int, body: Any, data: Bytes | None = None) -> Asked:
        """Have ``rank`` run what it gave to ``answer``, whatever its main thread does.

        Args:
            rank: who.
            body: what is asked, of numbers, text and lists.
            data: goes with it, to ranks that are not near only, and must not change meanwhile.
        """

    def close(self) -> None:
        """Forget the region."""


class Transport(Protocol):
    """One rank's view of the wire."""

    rank: int
    size: int
    alive: tuple[int, ...]  # the ranks that lived when all of them last healed, ascending
    machines: tuple[int, ...]  # the machine of every rank, numbered in the order of first ranks
    equipped: bool  # whether every living rank has a device that tensors can be on

    def send(self, data: bytes, destination: int, tag: int) -> Request:
        """Start sending a small message, to be taken by ``receive``."""

    def receive(self, source: int, tag: int, most: int) -> Letter:
        """Start receiving a small message, of at most ``most`` bytes."""

    def isend(self, data: Bytes, destination: int, tag: int) -> Request:
        """Start sending ``data``, to be taken by ``irecv``."""

    def irecv(self, out: Bytes, source: int, tag: int) -> Request:
        """Start receiving into ``out``, which must be as long as the message."""

    def opens(self, ranks: Iterable[int]) -> int:
        """The most bytes of an envelope that may be sent to any of ``ranks``; 0 where none may.

        An envelope is what ``send`` sends with the tag ``ENVELOPE``; ``receive`` takes letters out
        of it by their tags.
        """

    def inbox(self, source: int) -> Inbox:
        """What has come from ``source``, to which envelopes may be sent, and was not received."""

    def lend(self, data: Bytes, readers: Iterable[int], *, kept: bool = False) -> Loan | None:
        """Let those of ``readers`` that can read ``data`` where it is, or in a copy that all share.

        None where no rank can: the payload must be sent. Whoever gets the loan's token must give
        it back. What is ``kept`` does not change any more, so that nobody waits for that.
        """

    def borrow(self, lender: int, token: bytes, nbytes: int) -> Bytes:
        """What ``lender`` lent, to be read only, until it is given back.

        Raises:
            TransportError: the memory cannot be opened.
        """

    def give_back(self, lender: int, token: bytes) -> None:
        """Tell ``lender`` that this rank has read what it lent."""

    def room(self, nbytes: int, *, pinnable: bool = False) -> Bytes | None:
        """Memory that can be lent without a copy, free again when the array is gone; or None.

        Args:
            nbytes: how much.
            pinnable: such that its pages stay where they are, so that a device may know them.
        """

    def pinnable(self, data: Bytes) -> Bytes | None:
        """The whole memory in which ``data`` lies, own or borrowed, if its pages stay; or None."""

    def idle(self, polls: int) -> None:
        """Give up the processor after the ``polls``-th fruitless look in a row."""

    def check(self) -> None:
        """Return at once, or raise ``PeerFailedError`` when a rank is known to have aborted."""

    def region(self, nbytes: int) -> Region:
        """A region in which this rank's part is ``nbytes`` zeros."""

    def abort(self, cause: str, rank: int | None = None) -> None:
        """Make every wait on every rank raise ``PeerFailedError``; safe from any thread.

        Args:
            cause: what happened.
            rank: where; by default here.
        """

    def failed_at(self) -> float | None:
        """When a rank called ``abort``, in seconds since 1970, if this one has heard of it.

        The same on every rank that has; None for the death of a process.
        """

    def meet(self) -> Generator[tuple[int, ...], None, None]:
        """Wait until every living rank is here, ready to heal; yields those that are not yet."""

    def heal(self) -> None:
        """Forget all messages and make the wire usable again; every living rank must call it.

        Ranks that have died are left out from then on: all the others agree on ``alive``.
        """

    def close(self) -> None:
        """Release what the wire holds."""

    @property
    def forged(self) -> int:
        """How many requests of nobody who may ask were dropped."""

    def describe(self) -> dict[str, Any]:
        """What a status page says about this wire."""
