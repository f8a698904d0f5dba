"""Tensors of devices: what is asked of CUDA, and how ranks choose the way between them.

Where every rank has a device of its own, tensors go from device to device by NCCL. Where several
ranks share one, which NCCL refuses, they go through host memory that the ranks share and the
devices know the pages of, so that each byte is copied once down and once up for each reader.
Everything is put on streams beside the caller's; nothing here waits for a device. ``driver`` is all
that touches CUDA: with another one in its place the rest runs on any machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Literal, NamedTuple, Protocol

import torch

from ifog.transport.base import Bytes
from ifog.variables import environment

__all__ = [
    "Choice",
    "Driver",
    "Event",
    "Pins",
    "Place",
    "Streams",
    "choose",
    "driver",
    "environment",
    "unfinished",
]

_NEVER = timedelta(days=365)  # NCCL's own watchdog is not to judge: ranks hear of deaths by mail
_PORTABLE = 1  # cudaHostRegisterPortable: for all devices of the process
# Read when a group is made. Without them a thread of torch's ends the process after an error.
_LENIENT = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_BLOCKING_WAIT": "0",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
}
Way = Literal["nccl", "pinned", "host"]


class Event(Protocol):
    """A point in a stream."""

    def query(self) -> bool:
        """Whether all that was put there before has been done; never blocks."""


class Streams(Protocol):
    """The streams of one device: the caller's, one beside it for copies and sums, one for NCCL."""

    def caller(self) -> Callable[[], AbstractContextManager[Any]]:
        """What makes the stream that is the caller's now current again, in any thread."""

    def follow(self) -> None:
        """Let the stream beside wait for what the caller's holds now."""

    def beside(self) -> AbstractContextManager[Any]:
        """What is started inside goes to the stream beside."""

    def mark(self) -> Event:
        """The present end of the stream beside."""

    def join(self) -> None:
        """Let the caller's stream wait for what the stream beside holds now."""

    def lane(self, after: Event) -> AbstractContextManager[Callable[[], Event]]:
        """What is started inside goes to NCCL's stream, after ``after``; gives what marks its end.

        For the one thread that talks to NCCL.
        """


class Driver(Protocol):
    """What is asked of the devices and of torch's libraries for them."""

    def equipped(self) -> bool:
        """Whether this process has a device."""

    def takes(self, x: object) -> bool:
        """Whether ``x`` is a tensor on a device."""

    def look(self, device: torch.device) -> tuple[str, str, str]:
        """What no other device is called, what people call it, and why NCCL cannot be used."""

    def streams(self, device: torch.device) -> Streams:
        """Streams of a device."""

    def pin(self, memory: Bytes, device: torch.device) -> None:
        """Let devices copy from and to ``memory`` by themselves.

        Raises:
            RuntimeError: they will not.
        """

    def unpin(self, memory: Bytes) -> None:
        """End that, before the memory goes away."""

    def backend(self, store: Any, place: int, size: int, device: torch.device) -> Any:
        """A process group of torch's, connected; blocks until all ``size`` have called it."""


class _CudaStreams:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        stream: Any = torch.cuda.Stream
        self._beside = stream(device)
        self._lane = stream(device)

    def caller(self) -> Callable[[], AbstractContextManager[Any]]:
        stream = torch.cuda.current_stream(self._device)
        return lambda: torch.cuda.stream(stream)

    def follow(self) -> None:
        self._beside.wait_stream(torch.cuda.current_stream(self._device))

    def beside(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._beside)

    def mark(self) -> Event:
        event: Event = self._beside.record_event()
        return event

    def join(self) -> None:
        torch.cuda.current_stream(self._device).wait_stream(self._beside)

    @contextlib.contextmanager
    def lane(self, after: Any) -> Iterator[Callable[[], Event]]:
        self._lane.wait_event(after)
        with torch.cuda.stream(self._lane):
            yield self._lane.record_event


class _Cuda:
    """The driver for NVIDIA's devices."""

    def equipped(self) -> bool:
        return torch.cuda.is_available()

    def takes(self, x: object) -> bool:
        return isinstance(x, torch.Tensor) and x.is_cuda

    def look(self, device: torch.device) -> tuple[str, str, str]:
        about = torch.cuda.get_device_properties(device)
        number = getattr(about, "uuid", None)
        lacks = "" if number is not None else "this torch does not tell devices apart"
        if not (torch.distributed.is_available() and torch.distributed.is_nccl_available()):
            lacks = "this torch has no NCCL"
        return str(number or ""), about.name, lacks

    def streams(self, device: torch.device) -> Streams:
        return _CudaStreams(device)

    def pin(self, memory: Bytes, device: torch.device) -> None:
        runtime: Any = torch.cuda
        found = runtime.cudart().cudaHostRegister(memory.ctypes.data, memory.nbytes, _PORTABLE)
        if int(found):
            # CUDA reports the error once more to whoever starts the next kernel: take it here.
            with contextlib.suppress(RuntimeError):
                torch.zeros((), device=device)
            raise RuntimeError(f"CUDA error {int(found)}")

    def unpin(self, memory: Bytes) -> None:
        runtime: Any = torch.cuda
        runtime.cudart().cudaHostUnregister(memory.ctypes.data)

    def backend(self, store: Any, place: int, size: int, device: torch.device) -> Any:
        nccl: Any = torch.distributed.ProcessGroupNCCL
        options = nccl.Options()
        options._timeout = _NEVER
        with torch.cuda.device(device), environment(_LENIENT):
            made = nccl(store, place, size, options)
            made.eager_connect_single_device(device)
        return made


driver: Driver = _Cuda()


class Place(NamedTuple):
    """Where a rank's device tensors are, as it tells the others.

    Attributes:
        number: what no other device is called; empty if nobody knows.
        device: what people call it.
        lacks: why NCCL cannot be used; empty if it can.
        obstacle: why host memory cannot be pinned; empty if it can.
    """

    number: str
    device: str
    lacks: str
    obstacle: str


class Choice(NamedTuple):
    """How device tensors travel, and why so."""

    way: Way
    why: str

    def __str__(self) -> str:
        names = {
            "nccl": "NCCL",
            "pinned": "pinned host memory",
            "host": "copied through host memory",
        }
        how = names[self.way]
        return f"{how}, {self.why}" if self.way == "nccl" else f"{how}: {self.why}"


def choose(places: Mapping[int, Place]) -> Choice:
    """How device tensors travel, from what all living ranks told; the same on each of them."""
    by_number: dict[str, list[int]] = {}
    for rank, place in sorted(places.items()):
        by_number.setdefault(place.number, []).append(rank)
    most = max(by_number.values(), key=len)
    without = [(rank, place.lacks) for rank, place in sorted(places.items()) if place.lacks]
    if len(places) == 1:
        why = "there is one rank"
    elif len(most) > 1 and "" not in by_number:
        why = f"{len(most)} ranks share {places[most[0]].device}"
    elif without:
        why = "rank {}: {}".format(*without[0])
    else:
        return Choice("nccl", "a device for each rank")
    for rank, place in sorted(places.items()):
        if place.obstacle:
            return Choice("host", f"{why}, and rank {rank} cannot pin memory ({place.obstacle})")
    return Choice("pinned", why)


class Pins:
    """The memory of this process that devices copy from and to by themselves.

    Attributes:
        obstacle: why some of it could not be pinned; copies from and to that are slower.
    """

    def __init__(self) -> None:
        self.obstacle = ""
        self._pinned: dict[int, Bytes] = {}  # by address; memory must not be unmapped meanwhile
        self._refused: dict[int, Bytes] = {}

    def pin(self, memory: Bytes | None, device: torch.device) -> None:
        """Pin ``memory``, unless it is already, or could not be, or is None."""
        if memory is None or memory.ctypes.data in (self._pinned | self._refused):
            return
        try:
            driver.pin(memory, device)
        except RuntimeError as error:
            self.obstacle = str(error)
            self._refused[memory.ctypes.data] = memory
        else:
            self._pinned[memory.ctypes.data] = memory

    def release(self) -> None:
        """Let go of everything; nothing may be on its way."""
        for memory in self._pinned.values():
            driver.unpin(memory)
        self._pinned.clear()
        self._refused.clear()


def unfinished(kept: Iterable[tuple[Event, object]]) -> list[tuple[Event, object]]:
    """Those of ``kept`` whose event has not passed."""
    return [(event, things) for event, things in kept if not event.query()]
