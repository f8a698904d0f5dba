"""Ranks that are MPI processes and talk through shared memory with those of their own machine.

Small messages go through mailboxes, large payloads are lent, and MPI does the rest: other machines,
payloads for which there is no room, deaths, agreement on who is left. One receive that nobody sends
to stays posted in MPI, because MPI reports there that a rank has died or has stopped everybody.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from mpi4py import MPI

from ifog.errors import TransportError
from ifog.transport import cuda
from ifog.transport.base import Bytes, Letter, Request
from ifog.transport.envelopes import Inbox
from ifog.transport.files import machine_name, refused
from ifog.transport.loans import Loan, Loans, Pool
from ifog.transport.mail import MOST_BYTES, Mail
from ifog.transport.mpi import MPITransport
from ifog.transport.patience import give_way, pause

__all__ = ["SharedTransport"]

_ROUNDS = 2  # of yields before the first sleep
_YIELDS = 5
_LISTEN_EVERY = 16  # sleeps between two looks for what MPI reports
_ASK_EVERY = 256  # fruitless looks at mailboxes between two of these, where nobody sleeps
_SENTINEL_TAG = 1 << 30


class SharedTransport(MPITransport):
    """A rank that is a process of an MPI job."""

    _mail: Mail | None = None
    _loans: Loans | None = None
    _pool: Pool | None = None
    _pinnable: Pool | None = None
    _sentinel: MPI.Request | None = None
    _fruitless = 0

    def adopt(self, comm: MPI.Intracomm, control: MPI.Intracomm, alive: tuple[int, ...]) -> None:
        """Talk over these communicators, and over fresh mailboxes; collective."""
        super().adopt(comm, control, alive)
        self._sentinel = None
        if self._loans is not None:
            self._loans.drop()
        self._mail = self._loans = None
        if self.size > 1:
            try:
                self._open(control, alive)
                message = [np.empty(1, np.uint8), MPI.BYTE]
                self._sentinel = comm.Irecv(message, MPI.ANY_SOURCE, _SENTINEL_TAG)
            except MPI.Exception:
                return  # one more rank died: the next healing opens them

    def _open(self, control: MPI.Intracomm, alive: tuple[int, ...]) -> None:
        mine = [r for r in self.alive if self.machines[r] == self.machines[self.rank]]
        digest = hashlib.sha256(machine_name().encode()).digest()
        mail, trouble = None, not hasattr(os, "memfd_create") or refused()
        if not trouble:
            try:
                mail = Mail(self.rank, mine, self.check, self.borrow, self.give_back)
            except (OSError, TransportError):
                trouble = True
        address = mail.address if mail else (0, 0)
        number = int.from_bytes(digest[:7], "little")
        own = (*address, number, trouble, cuda.driver.equipped())
        told = np.empty((len(alive), len(own)), np.int64)
        control.Allgather(np.array(own, np.int64), told)
        by_rank = dict(zip(alive, told.tolist(), strict=True))
        self.equipped = all(row[4] for row in by_rank.values())
        near = {rank: by_rank[rank] for rank in mine}
        works = len({row[2] for row in near.values()}) == 1
        works = works and not any(row[3] for row in by_rank.values())
        if works and mail is not None:
            try:
                mail.open({rank: (row[0], row[1]) for rank, row in near.items()})
            except TransportError:
                works = False
        everywhere = np.zeros(1, np.int64)
        control.Allreduce(np.array([works], np.int64), everywhere, MPI.MIN)
        if mail is not None:
            mail.opened()
        if not everywhere[0] or mail is None:
            return
        self._pool = self._pool or Pool(len(mine))
        self._pinnable = self._pinnable or Pool(len(mine), fixed=True)
        self._mail = mail
        pids = {rank: row[0] for rank, row in near.items()}
        self._loans = Loans(mail, self._pool, pids, self._pinnable)

    def send(self, data: bytes, destination: int, tag: int) -> Request:
        """Start sending a small message."""
        mail = self._mail
        if mail is None or destination not in mail.place:
            return super().send(data, destination, tag)
        self.check()
        return mail.send(data, destination, tag)

    def receive(self, source: int, tag: int, most: int) -> Letter:
        """Start receiving a small message, of at most ``most`` bytes."""
        mail = self._mail
        if mail is None or source not in mail.place:
            return super().receive(source, tag, most)
        self.check()
        return mail.receive(source, tag)

    def check(self) -> None:
        """Raise when any rank is known to have aborted."""
        if self._failed is not None:
            raise self._peer_failed()
        self._fruitless += 1
        if self._fruitless % _ASK_EVERY == 0:
            self._listen()

    def _listen(self) -> None:
        """Raise what MPI reports: a rank that died, or one that stopped everybody."""
        try:
            if self._sentinel is not None:
                self._sentinel.Test()
        except MPI.Exception as error:
            self._sentinel = None
            raise self.failure(error) from None

    def idle(self, polls: int) -> None:
        """Yield, then sleep 50 microseconds to a millisecond, or until a message comes."""
        mail = self._mail
        if mail is None or self.pending:
            super().idle(polls)
        elif polls > _ROUNDS:
            mail.sleep(pause(polls - _ROUNDS - 1))
        else:
            # A look at the counters costs a fraction of one at the operations under way.
            for _ in range(_YIELDS):
                give_way()
                if mail.fresh():
                    break
        if polls % _LISTEN_EVERY == 0 and self._meeting is None:
            self._listen()
            if self._heard() is not None:
                super().check()

    def opens(self, ranks: Iterable[int]) -> int:
        """The most bytes that a message to any of them may have with envelopes; 0 if none may."""
        mail = self._mail
        return MOST_BYTES if mail is not None and mail.place.keys() >= set(ranks) else 0

    def inbox(self, source: int) -> Inbox:
        """What came from a rank that sends envelopes here."""
        self.check()
        assert self._mail is not None
        return self._mail.inbox(source)

    def lend(self, data: Bytes, readers: Iterable[int], *, kept: bool = False) -> Loan | None:
        """Let those of ``readers`` that run on this machine read ``data``, if that can be."""
        return None if self._loans is None else self._loans.lend(data, readers, kept=kept)

    def borrow(self, lender: int, token: bytes, nbytes: int) -> Bytes:
        """What ``lender`` lent, to be read only, until it is given back."""
        if self._loans is None:
            raise TransportError(f"rank {lender} lends memory that this rank cannot open")
        return self._loans.borrow(lender, token, nbytes)

    def give_back(self, lender: int, token: bytes) -> None:
        """Tell ``lender`` that this rank is through with what it lent."""
        if self._loans is not None:
            self._loans.give_back(lender, token)

    def room(self, nbytes: int, *, pinnable: bool = False) -> Bytes | None:
        """Memory that can be lent without a copy."""
        pool = self._pinnable if pinnable else self._pool
        return None if pool is None or self._mail is None else pool.room(nbytes)

    def pinnable(self, data: Bytes) -> Bytes | None:
        """The whole memory in which ``data`` lies, if its pages stay where they are."""
        return None if self._loans is None else self._loans.pinnable(data)

    def close(self) -> None:
        """Let go of the mailboxes."""
        if self._sentinel is not None:
            self._sentinel.Cancel()
            self._sentinel = None
        super().close()

    def describe(self) -> dict[str, Any]:
        """What a status page says about this wire."""
        about, shared = super().describe(), self._mail is not None
        if shared:
            about["wire"] = "shared memory" + " and MPI" * (len(set(self.machines)) > 1)
        return about | {"shared memory": shared}
