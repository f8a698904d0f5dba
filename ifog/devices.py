"""One rank's devices: how their tensors travel, and the copies between them and memory of the host.

How is found out by all ranks together, beside their operations, once each of them has used a
tensor of a device. No copy is waited for by the host; operations look whether it is through.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ifog.errors import IfogError
from ifog.exchange import Parcel, exchange, room, tag_of, wire
from ifog.handle import Operation
from ifog.transport import cuda
from ifog.transport.far import addresses
from ifog.transport.group import LOOPBACK, Group, serve

if TYPE_CHECKING:
    from ifog.context import Context

__all__ = ["Arriving", "Devices", "devices_of"]

_CARRIERS = "OMPI_MCA_btl"  # what carries Open MPI's messages, from whoever starts the ranks
_MISSING = "the others did not come"
_END_SECONDS = 5.0
_MAKE_SECONDS = 60.0  # after which a group is given up whose members did not all come


class Arriving(NamedTuple):
    """A copy to memory of the host that has been started.

    Attributes:
        event: passes when it is there.
        source: must stay until then.
        streams: of the device that it comes from.
    """

    event: cuda.Event
    source: torch.Tensor
    streams: cuda.Streams


def devices_of(context: Context) -> Devices:
    """The devices of this rank."""
    if context.devices is None:
        context.devices = Devices(context)
    return context.devices


class Devices:
    """What a rank knows of its devices and of the others'.

    Attributes:
        choice: how device tensors travel; None until all ranks have told where theirs are.
        settled: whether that is how it stays.
        group: through which they travel from device to device, where they do.
        offer: the operation that offers to send that way and has not heard from all neighbours.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._streams: dict[torch.device, cuda.Streams] = {}
        self._pins = cuda.Pins()
        self._kept: list[tuple[cuda.Event, object]] = []
        self._epoch = -1
        self._meeting: Operation[None] | None = None
        self._home = torch.device("cpu")
        self.choice: cuda.Choice | None = None
        self.group: Group | None = None
        self.offer: object = None

    @property
    def settled(self) -> bool:  # noqa: D102
        return self.choice is not None and self._meeting is None

    def streams(self, device: torch.device) -> cuda.Streams:
        """The streams of a device."""
        if device not in self._streams:
            self._streams[device] = cuda.driver.streams(device)
        return self._streams[device]

    def is_home(self, device: torch.device) -> bool:
        """Whether this is the device that the others know of."""
        return device == self._home

    def describe(self) -> str:
        """How tensors of devices travel, for people; empty where there are none."""
        if not cuda.driver.equipped():
            return ""
        if not self._context.transport.equipped:
            return "copied through host memory: not every rank has a device"
        if self.choice is None:
            return "not used by all ranks yet"
        if self._pins.obstacle and self.choice.way == "pinned":
            return f"copied through host memory: it cannot be pinned ({self._pins.obstacle})"
        return str(self.choice)

    def advance(self, device: torch.device) -> None:
        """Find out with the other ranks how tensors travel, as far as that goes without waiting."""
        if self._epoch != self._context.healed:
            self.abandon()
            self._release()  # what was borrowed has been mapped anew
            self._epoch, self._home = self._context.healed, device
            self.choice, self._meeting = None, self._meet()
        if self._meeting is None:
            return
        try:
            next(self._meeting)
        except StopIteration:
            self._meeting = None
        except (IfogError, OSError) as error:  # an operation under way reports what concerns it
            self._meeting = None
            self.choice = self.choice or cuda.Choice("host", f"the ranks found no other: {error}")

    def abandon(self) -> None:
        """Give up what goes from device to device; another group is made after healing."""
        group, self.group, self.offer = self.group, None, None
        if self._meeting is not None:
            self._meeting.close()
            self._meeting = None
        if group is not None:
            self.choice = cuda.Choice("pinned", "the way from device to device broke")
            group.give_up()

    def close(self) -> None:
        """Let go of everything that outlives an operation."""
        group = self.group
        self.abandon()
        # The interpreter must not end under a thread that is inside of torch.
        if group is None or group.ended(_END_SECONDS):
            self._wait_for_copies()
            self._release()

    def _wait_for_copies(self) -> None:
        """Let what is under way end, within a time."""
        deadline = time.monotonic() + _END_SECONDS
        while (kept := cuda.unfinished(self._kept)) and time.monotonic() < deadline:
            self._kept = kept
            time.sleep(1e-3)

    def _release(self) -> None:
        """Let go of pinned memory, unless a device may still use it."""
        self._kept = cuda.unfinished(self._kept)
        if not self._kept:
            self._pins.release()

    def _meet(self) -> Operation[None]:
        told = yield from self._tell(list(self._place()))
        choice = cuda.choose({rank: cuda.Place(*fields) for rank, fields in told.items()})
        if choice.way == "nccl":
            self.choice = cuda.Choice("pinned", "NCCL is being set up")
            group = yield from self._form()
            told = yield from self._tell(group.trouble)
            troubles = [f"rank {rank}: {text}" for rank, text in sorted(told.items()) if text]
            troubles.sort(key=lambda text: text.endswith(_MISSING))  # for which there is a reason
            if troubles:
                group.give_up()
                choice = cuda.Choice("pinned", f"NCCL does not start ({troubles[0]})")
            else:
                self.group = group
        self.choice = choice

    def _place(self) -> cuda.Place:
        """Where this rank's tensors are, after trying to pin memory."""
        probe = self._context.transport.room(1, pinnable=True)
        if probe is None:
            obstacle = "the ranks share none"
        else:
            self._pins.pin(self._context.transport.pinnable(probe), self._home)
            obstacle = self._pins.obstacle
        number, name, lacks = cuda.driver.look(self._home)
        if "tcp" not in os.environ.get(_CARRIERS, "tcp"):
            lacks = "the ranks are to listen on no socket"
        return cuda.Place(number, name, lacks, obstacle)

    def _form(self) -> Operation[Group]:
        """Make a group of the living ranks; it may be one with a ``trouble``."""
        context, keep = self._context, None
        first, me, invitation = context.alive[0], context.rank, ["", 0, ""]
        machines = {context.transport.machines[rank] for rank in context.alive}
        if me == first:
            address = LOOPBACK if len(machines) == 1 else (addresses() or [LOOPBACK])[0]
            with contextlib.suppress(OSError, RuntimeError):
                port, keep = serve(address)
                invitation = [address, port, secrets.token_hex(16)]
        told = yield from self._tell(invitation)
        address, port, name = told[first]
        group = Group(
            (address, port), name, rank=me, ranks=context.alive, device=self._home, keep=keep
        )
        deadline = time.monotonic() + _MAKE_SECONDS
        try:
            while not group.made:
                if time.monotonic() > deadline:
                    group.trouble, group.made = _MISSING, True
                yield ()
        except BaseException:
            group.give_up()
            raise
        return group

    def _tell(self, what: Any) -> Operation[dict[int, Any]]:
        """Tell all living ranks something; returns what each of them told, this one included."""
        context = self._context
        data = torch.frombuffer(bytearray(json.dumps(what).encode()), dtype=torch.uint8)
        others = [rank for rank in context.alive if rank != context.rank]
        outgoing = dict.fromkeys(others, Parcel(data, wire(data)))
        tag = tag_of(f"{context.healed}.devices")
        arrivals = yield from exchange(context.transport, tag, outgoing, others)
        told = {r: json.loads(wire(p.like).tobytes()) for r, p in arrivals.parcels.items()}
        return told | {context.rank: what}

    def slot(self, like: torch.Tensor) -> torch.Tensor:
        """Memory of the host for a tensor, where the others can read it; pinned if that can be."""
        if not like.numel():
            return torch.empty(like.shape, dtype=like.dtype, device="cpu")
        slot = room(self._context.transport, like.shape, like.dtype, pinnable=True)
        self.pin(slot, like.device)
        return slot

    def pin(self, x: torch.Tensor, device: torch.device) -> None:
        """Pin the memory around ``x``, own or borrowed, where that is safe and not done yet."""
        self._pins.pin(self._context.transport.pinnable(wire(x)), device)

    def fetch(self, x: torch.Tensor) -> tuple[torch.Tensor, Arriving]:
        """Start to copy a contiguous tensor of a device to where the other ranks can read it."""
        streams, slot = self.streams(x.device), self.slot(x)
        streams.follow()
        with streams.beside():
            slot.copy_(x, non_blocking=True)
        return slot, Arriving(streams.mark(), x, streams)

    def send(self, result: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
        """Start to copy what lies in memory of the host into a tensor of a device; returns that.

        What the caller starts there afterwards finds the values.
        """
        streams = self.streams(into.device)
        into.copy_(result, non_blocking=True)
        streams.follow()
        self.keep(streams.mark(), result)
        return into

    def keep(self, event: cuda.Event, *things: object) -> None:
        """Hold on to ``things`` until ``event`` has passed."""
        self._kept = cuda.unfinished(self._kept)
        self._kept.append((event, things))
