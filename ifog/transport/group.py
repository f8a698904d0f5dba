"""The ranks as a process group of torch's, through which tensors go from device to device.

By NCCL on devices; the same code runs on gloo's groups. All that may block is left to a thread,
because whom it waits for may have died.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch

from ifog.errors import TransportError
from ifog.transport import cuda
from ifog.variables import environment

__all__ = ["LOOPBACK", "Group", "Transfer", "serve"]

LOOPBACK = "127.0.0.1"
_STORE_SECONDS = 60.0
distributed: Any = torch.distributed


class Transfer:
    """What one rank sends and receives in one step, on its way."""

    def __init__(self) -> None:
        self.end: cuda.Event | None = None
        self.error: Exception | None = None

    def query(self) -> bool:
        """Whether all of it has been sent and received.

        Raises:
            TransportError: it failed.
        """
        if self.error is not None:
            raise TransportError(f"device to device: {self.error}") from None
        return self.end is not None and self.end.query()


class Group:
    """The ranks as a process group of torch's, and the only thread that ever waits in there.

    Making the group and the first message to another rank block until the others come, which they
    may not. Steps are started in the order in which they were handed in.

    Args:
        server: host and port of the store where the ranks meet.
        name: of this group; nobody else knows it.
        rank: this one.
        ranks: all of the group, in one order everywhere.
        device: of this rank.
        keep: what must live as long.
    """

    def __init__(
        self,
        server: tuple[str, int],
        name: str,
        *,
        rank: int,
        ranks: Sequence[int],
        device: torch.device,
        keep: object = None,
    ) -> None:
        self.trouble = ""
        self.made = False
        self._keep = keep
        self._backend: Any = None
        self._over = False
        self._once = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._places = {r: place for place, r in enumerate(ranks)}
        self._jobs.put(lambda: self._make(server, name, self._places[rank], device))
        self._threads = [self._thread(self._work, "ifog-device-group")]

    @staticmethod
    def _thread(target: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def _make(self, server: tuple[str, int], name: str, place: int, device: torch.device) -> None:
        try:
            patience = timedelta(seconds=_STORE_SECONDS)
            store = distributed.TCPStore(*server, is_master=False, timeout=patience)
            known = distributed.PrefixStore(name, store)
            # Else NCCL listens on whatever interface it likes best.
            interface = os.environ.get("NCCL_SOCKET_IFNAME", "lo")
            inside = {"NCCL_SOCKET_IFNAME": interface} if server[0] == LOOPBACK else {}
            with environment(inside):
                self._backend = cuda.driver.backend(known, place, len(self._places), device)
        except (RuntimeError, OSError, ValueError) as error:
            self.trouble = str(error).partition("\n")[0] or type(error).__name__
        self.made = True

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        self._abort()

    def _abort(self) -> None:
        with self._once:
            backend, self._backend = self._backend, None
        if backend is not None:
            backend.abort()

    def start(
        self,
        sends: Mapping[int, torch.Tensor],
        receives: Mapping[int, torch.Tensor],
        on: cuda.Streams,
    ) -> Transfer:
        """Send and receive contiguous tensors, by rank, after what the stream beside holds now.

        The tensors belong to the transfer until its ``query`` is True, also if it fails.
        """
        transfer, ready = Transfer(), on.mark()

        def job() -> None:
            try:
                if self._over:
                    raise RuntimeError("the group was given up")
                with on.lane(ready) as end:
                    self._exchange(sends, receives)
                    transfer.end = end()
            except Exception as error:
                transfer.error = error

        self._jobs.put(job)
        return transfer

    def _exchange(
        self, sends: Mapping[int, torch.Tensor], receives: Mapping[int, torch.Tensor]
    ) -> None:
        backend = self._backend
        together = backend.supports_coalescing
        if together:  # else a send would wait for a receive that is not started yet
            backend._start_coalescing()
        works = [backend.send([_flat(x)], self._places[r], 0) for r, x in sends.items()]
        works += [backend.recv([_flat(x)], self._places[r], 0) for r, x in receives.items()]
        if together:
            works = [backend._end_coalescing()]
        for work in works:
            work.wait()  # of NCCL: it is the stream that waits

    def give_up(self) -> None:
        """End all that is on its way, wherever it hangs; returns at once."""
        self._over = True
        self._jobs.put(None)
        # The group's own thread may be the one that hangs in there, and aborting takes its time.
        self._threads.append(self._thread(self._abort, "ifog-device-abort"))

    def ended(self, seconds: float) -> bool:
        """Wait until what was given up has ended; whether it has in time."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)


def _flat(x: torch.Tensor) -> torch.Tensor:
    """The bytes of a contiguous tensor: NCCL lacks some dtypes."""
    return x.view(-1).view(torch.uint8)


def serve(address: str) -> tuple[int, object]:
    """A store where the ranks of a group meet: its port, and what keeps it."""
    listening = socket.create_server(
        (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET
    )
    port: int = listening.getsockname()[1]
    store = distributed.TCPStore(
        address,
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listening.detach(),  # torch's own would listen on every interface
    )
    return port, store
