"""Ranks as MPI processes, through mpi4py, on a communicator that can be revoked and rebuilt.

Operations travel on one duplicate of the world. A rank that fails tells the others why on a second
one and then revokes the first (MPI's user-level failure mitigation), which makes every pending
request on every rank return an error; ``heal`` shrinks the revoked communicator to a fresh one.
All waiting is done by ``Test`` from Python, never inside MPI, so that signals are served.

Where MPI was started without fault tolerance, revoking reaches only the own process; waiting ranks
therefore also look for the message on the second communicator.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from mpi4py import MPI

from ifog.errors import IfogError, PeerFailedError, TransportError
from ifog.transport.base import Bytes, Letter, Request
from ifog.transport.envelopes import Inbox
from ifog.transport.files import refused
from ifog.transport.meeting import Meeting
from ifog.transport.memory import MachineMemory, MachineRegion
from ifog.transport.patience import give_way, pause
from ifog.transport.pieces import PIECE, Pieces
from ifog.transport.world import machines_of

__all__ = ["MPITransport"]

_SPINS = 5
_YIELDS = 55
_SENT_AT_ONCE = 2  # pieces of a large message
_AWAITED_AT_ONCE = 8
_CAUSE_TAG = 1
_CAUSE_BYTES = 2048
_CAUSE_WAIT = 0.5  # seconds a rank looks for the reason after its communicator was revoked
_LOOK_EVERY = 64  # idle sleeps between two looks for an abort message
T = TypeVar("T", bound="MPITransport")


def _quietly(call: Callable[[], None]) -> None:
    with contextlib.suppress(MPI.Exception, NotImplementedError):
        call()


class _Request:
    __slots__ = ("_request", "_transport", "data")

    def __init__(self, transport: MPITransport, request: MPI.Request, data: Any) -> None:
        self._transport = transport
        self._request = request
        self.data = data
        transport.pending[id(self)] = self

    def test(self) -> bool:
        try:
            if not self._request.Test():
                return False
        except MPI.Exception as error:
            self._transport.pending.pop(id(self), None)
            raise self._transport.failure(error) from None
        self._transport.pending.pop(id(self), None)
        return True

    def drained(self) -> bool:
        try:
            return bool(self._request.Test())
        except MPI.Exception:
            return True


class MPITransport:
    """A rank that is a process of an MPI job."""

    equipped = False

    def __init__(
        self, rank: int, size: int, machines: tuple[int, ...], comm: MPI.Intracomm
    ) -> None:
        self.rank, self.size, self.machines = rank, size, machines
        self.alive: tuple[int, ...] = ()
        self._world = self._comm = self._control = comm
        self._places: dict[int, int] = {}  # of the ranks in the communicator
        self._bridge: MPI.Intercomm | None = None
        self._guard = threading.RLock()
        self._meeting: Meeting | None = None
        self.pending: dict[int, _Request] = {}
        self._epoch = -1
        self._failed: tuple[int | None, str] | None = None
        self._failed_at: float | None = None
        self._told: list[MPI.Request] = []
        self._memory: MachineMemory | None = None

    @classmethod
    def world(cls: type[T]) -> T:
        """The transport over all ranks of this MPI job."""
        world = MPI.COMM_WORLD
        comm, control = cls._duplicate(world), cls._duplicate(world)
        # A communicator must not be revoked while another rank is still inside its constructor.
        world.Barrier()
        transport = cls(world.Get_rank(), world.Get_size(), machines_of(world), world)
        transport.adopt(comm, control, tuple(range(transport.size)))
        return transport

    @classmethod
    def newcomer(cls: type[T], rank: int, machines: tuple[int, ...], epoch: int) -> T:
        """The transport of a process that ``spawn`` started, as ``rank``; the others ``admit`` it.

        Raises:
            TransportError: the two sides do not come together.
        """
        transport = cls(rank, len(machines), machines, MPI.COMM_WORLD)
        transport._epoch = epoch
        transport._bridge = MPI.Comm.Get_parent()
        transport._cross(high=True)
        return transport

    def spawn(self, command: Sequence[str]) -> None:
        """Start one more process, which is to become a rank; all living ranks must call it.

        Raises:
            TransportError: MPI cannot.
        """
        try:
            self._bridge = self._comm.Spawn(command[0], list(command[1:]), 1, root=0)
        except (MPI.Exception, NotImplementedError) as error:
            raise TransportError(f"MPI cannot start a process: {error}") from None
        self._bridge.Set_errhandler(MPI.ERRORS_RETURN)

    def admit(self) -> None:
        """Let in the process that was started last; all living ranks must call it.

        Raises:
            TransportError: the two sides do not come together.
        """
        self._cross(high=False)

    def _cross(self, *, high: bool) -> None:
        bridge, self._bridge = self._bridge, None
        try:
            if bridge is None:
                raise TransportError("no process was started that could be let in")
            bridge.Set_errhandler(MPI.ERRORS_RETURN)
            merged = bridge.Merge(high)
            merged.Set_errhandler(MPI.ERRORS_RETURN)
            comm: MPI.Intracomm = merged.Split(0, self.rank)  # type: ignore[assignment] # a plain Comm
            comm.Set_errhandler(MPI.ERRORS_RETURN)
            ranks = np.empty(comm.Get_size(), np.int64)
            comm.Allgather(np.array([self.rank], np.int64), ranks)
        except MPI.Exception as error:
            raise TransportError(f"the new process cannot be let in: {error}") from None
        control = self._armed(comm)
        if control is None:
            raise TransportError("a rank died while another one was let in")
        self.adopt(comm, control, tuple(ranks.tolist()))

    @staticmethod
    def _duplicate(comm: MPI.Intracomm) -> MPI.Intracomm:
        duplicate = comm.Dup()
        duplicate.Set_errhandler(MPI.ERRORS_RETURN)
        return duplicate

    def send(self, data: bytes, destination: int, tag: int) -> Request:
        """Start sending a small message."""
        return self.isend(np.frombuffer(data, np.uint8), destination, tag)

    def isend(self, data: Bytes, destination: int, tag: int) -> Request:
        """Start sending ``data``."""
        if self._in_pieces(data, destination):
            return Pieces(lambda piece: self._isend(piece, destination, tag), data, _SENT_AT_ONCE)
        return self._isend(data, destination, tag)

    def _in_pieces(self, data: Bytes, other: int) -> bool:
        return data.size > PIECE and self.machines[other] != self.machines[self.rank]

    def _isend(self, data: Bytes, destination: int, tag: int) -> _Request:
        self.check()
        try:
            request = self._comm.Isend([data, MPI.BYTE], self._places[destination], tag)
        except MPI.Exception as error:
            raise self.failure(error) from None
        return _Request(self, request, data)

    def receive(self, source: int, tag: int, most: int) -> Letter:
        """Start receiving a message of at most ``most`` bytes."""
        return self._irecv(np.empty(most, np.uint8), source, tag)

    def irecv(self, out: Bytes, source: int, tag: int) -> Request:
        """Start receiving into ``out``."""
        if self._in_pieces(out, source):
            return Pieces(lambda piece: self._irecv(piece, source, tag), out, _AWAITED_AT_ONCE)
        return self._irecv(out, source, tag)

    def _irecv(self, out: Bytes, source: int, tag: int) -> _Request:
        self.check()
        try:
            request = self._comm.Irecv([out, MPI.BYTE], self._places[source], tag)
        except MPI.Exception as error:
            raise self.failure(error) from None
        return _Request(self, request, out)

    def opens(self, ranks: Iterable[int]) -> int:  # noqa: ARG002 - all are equal here
        """No envelope goes to them: what would have to wait for any of theirs costs too much."""
        return 0

    def inbox(self, source: int) -> Inbox:
        """No envelope comes."""
        raise TransportError(f"rank {source} sends no envelopes to rank {self.rank}")

    def region(self, nbytes: int) -> MachineRegion:
        """A region in which this rank's part is ``nbytes`` zeros."""
        if self._memory is None:
            apart = len(set(self.machines)) > 1
            self._memory = MachineMemory(self.rank, apart=apart, alone=refused())
        return self._memory.region(nbytes)

    def idle(self, polls: int) -> None:
        """Spin, then yield, then sleep 50 microseconds to a millisecond."""
        if polls <= _SPINS:
            return
        if polls <= _YIELDS:
            give_way()
            return
        time.sleep(pause(polls - _YIELDS - 1))
        if polls % _LOOK_EVERY == 0 and self._meeting is None and self._heard() is not None:
            self.check()

    def abort(self, cause: str, rank: int | None = None) -> None:
        """Tell the others why, then revoke the communicator they wait on."""
        # Other threads call this too, while the main one may be putting new communicators in place.
        with self._guard:
            if self._failed is None:
                self._failed = (self.rank if rank is None else rank, cause)
                self._failed_at = time.time() if rank is None else None
                told = (self._failed[0], cause[: _CAUSE_BYTES // 8], self._failed_at)
                message = json.dumps([self._epoch, *told])
                self._tell(np.frombuffer(message.encode(), np.uint8))
            self._revoke()

    def _tell(self, data: Bytes) -> None:
        for rank, place in self._places.items():
            if rank == self.rank:
                continue
            try:
                self._told.append(self._control.Isend([data, MPI.BYTE], place, _CAUSE_TAG))
            except MPI.Exception:
                continue  # it is dead: there is nobody to tell

    def _revoke(self) -> None:
        _quietly(self._comm.Revoke)  # without fault tolerance the message alone must do

    def _heard(self) -> tuple[int | None, str] | None:
        """The reason another rank gave in this epoch, if a message is here."""
        status = MPI.Status()
        try:
            while self._failed is None and self._control.Iprobe(MPI.ANY_SOURCE, _CAUSE_TAG, status):
                data = np.empty(status.Get_count(MPI.BYTE), np.uint8)
                self._control.Recv([data, MPI.BYTE], status.Get_source(), _CAUSE_TAG)
                epoch, rank, cause, moment = json.loads(data.tobytes())
                if epoch == self._epoch:
                    self._failed, self._failed_at = (rank, cause), moment
        except MPI.Exception:
            return self._failed  # probing any source fails while a dead rank is not acknowledged
        return self._failed

    def check(self) -> None:
        """Raise when any rank is known to have aborted."""
        if self._failed is not None:
            raise self._peer_failed()

    def _peer_failed(self) -> PeerFailedError:
        rank, cause = self._failed or (None, "the communicator was revoked")
        who = "the cell" if rank is None else f"rank {rank}"
        return PeerFailedError(f"{who} stopped: {cause}", rank, cause)

    def failure(self, error: MPI.Exception) -> IfogError:
        """The error to raise for what MPI reported: whose fault it is, if anybody knows."""
        fault_classes = {
            getattr(MPI, name, None)
            for name in ("ERR_REVOKED", "ERR_PROC_FAILED", "ERR_PROC_FAILED_PENDING")
        }
        if error.Get_error_class() not in fault_classes:
            return TransportError(f"MPI: {error.Get_error_string()}")
        deadline = time.monotonic() + _CAUSE_WAIT
        while self._heard() is None and time.monotonic() < deadline:
            dead = self._dead_ranks()
            if dead:
                self._failed = (dead[0], "its process died")
                self._revoke()  # a rank that leaves without revoking strands those waiting for it
                break
            time.sleep(1e-3)
        return self._peer_failed()

    def _failed_group(self) -> MPI.Group | None:
        """The ranks that died, or None where this MPI does not survive that."""
        try:
            return self._comm.Get_failed()
        except (MPI.Exception, NotImplementedError, AttributeError):
            return None

    def _dead_ranks(self) -> list[int]:
        group = self._failed_group()
        if group is None:
            return []
        places = group.Translate_ranks(None, self._comm.Get_group()) if group.size else []
        return [self.alive[place] for place in places if place >= 0]

    def failed_at(self) -> float | None:
        """When a rank aborted, if its message is here."""
        for _ in range(_SPINS):
            if self._heard() is not None:
                break
        return self._failed_at

    def meet(self) -> Generator[tuple[int, ...], None, None]:
        """Wait until every living rank is here, ready to heal; yields those that are not yet."""
        # What was received in a meeting that was interrupted is not sent again.
        meeting = self._meeting = self._meeting or Meeting(self._control, self._places, self.rank)
        while missing := meeting.missing():
            yield missing

    def heal(self) -> None:
        """Replace the revoked communicators by fresh ones of the ranks that live; collective."""
        self._revoke()
        self._drain()
        comm, alive = self._comm, self.alive
        while True:
            try:
                fresh: MPI.Intracomm = comm.Shrink()  # type: ignore[assignment] # a plain Comm
            except NotImplementedError:
                fresh = self._world.Dup()
            except MPI.Exception:
                continue  # one more died meanwhile: the next attempt leaves it out
            fresh.Set_errhandler(MPI.ERRORS_RETURN)
            places = fresh.Get_group().Translate_ranks(None, comm.Get_group())
            comm, alive = fresh, tuple(alive[place] for place in places)
            control = self._armed(comm)
            if control is not None:
                break
        self.adopt(comm, control, alive)

    def adopt(self, comm: MPI.Intracomm, control: MPI.Intracomm, alive: tuple[int, ...]) -> None:
        """Talk over these communicators, in which ``alive`` have their places in this order."""
        with self._guard:
            self._comm, self._control, self.alive = comm, control, tuple(sorted(alive))
            self._places = {rank: place for place, rank in enumerate(alive)}
            self._epoch += 1
            self._failed = self._failed_at = self._meeting = None
            self._told.clear()

    def _drain(self) -> None:
        deadline = time.monotonic() + _CAUSE_WAIT
        while self.pending and time.monotonic() < deadline:
            for key, request in list(self.pending.items()):
                if request.drained():
                    del self.pending[key]
        self.pending.clear()

    def _armed(self, comm: MPI.Intracomm) -> MPI.Intracomm | None:
        """A second communicator of the same ranks; None, on all of them, if any has died again."""
        control = None
        try:
            control = self._duplicate(comm)
            comm.Barrier()
        except MPI.Exception:
            _quietly(comm.Revoke)  # whoever still waits in there must hear of it
        try:
            return control if comm.Agree(int(control is not None)) else None
        except NotImplementedError:
            return control
        except MPI.Exception:
            return None

    def close(self) -> None:
        """Leave the communicators to the end of the process: freeing is collective."""

    @property
    def forged(self) -> int:
        """How many requests of nobody who may ask were dropped."""
        return 0 if self._memory is None else self._memory.forged

    def describe(self) -> dict[str, Any]:
        """What a status page says about this wire."""
        library = MPI.Get_library_version().split(",")[0].strip()
        several = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        about = {
            "library": library,
            "threads": several,
            "survives": self._failed_group() is not None,
        }
        return {"transport": "mpi", "wire": "MPI", "epoch": self._epoch, **about}
