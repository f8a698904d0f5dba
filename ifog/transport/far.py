"""Requests to ranks on other machines, which a thread over there serves whatever its rank does.

Over TCP nothing reaches another rank's memory by itself, so each rank that has windows keeps an
office: a socket and a thread for every rank that is connected. A request is a small head and
perhaps a payload; the answer to it is the same. Both are signed (HMAC-SHA256) with a key made of
the office's secret, which travels with the addresses of regions, and of a number that is new for
every connection, so that nothing said on another one counts here.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
import os
import queue
import secrets
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import psutil

from ifog.errors import PeerFailedError, TransportError
from ifog.transport.base import Bytes

__all__ = ["Call", "Line", "Office", "Place", "addresses"]

_FRAME = struct.Struct("<32sIQ")  # signature of what follows, bytes of head and of payload
_SIGNATURE = 32
_NONCE = 32
_MOST_HEAD = 1 << 16
_CONNECT_SECONDS = 10.0
_NOTHING = np.empty(0, np.uint8)
Serve = Callable[["Connection", Any, Bytes], tuple[Any, Bytes]]


class ForgedError(Exception):
    """A message that nobody who may has signed."""


class Place(NamedTuple):
    """Where an office is, and what its requests are signed with."""

    addresses: tuple[str, ...]
    port: int
    secret: str

    @classmethod
    def of(cls, fields: Any) -> Place:
        """The place whose fields took a trip through JSON."""
        addresses, port, secret = fields
        return cls(tuple(addresses), port, secret)


def addresses() -> list[str]:
    """Where the other machines reach this one: in the network of the ranks, if one was named."""
    network = os.environ.get("IFOG_NETWORK", "")
    found = [
        ipaddress.ip_address(address.address.partition("%")[0])
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
    if network:
        wanted = ipaddress.ip_network(network, strict=False)
        return [str(address) for address in found if address in wanted]
    outside = [address for address in found if not (address.is_loopback or address.is_link_local)]
    return [str(address) for address in outside]


class Connection:
    """Signed messages over a socket, in both directions.

    Attributes:
        closed: what is to be called when it ends.
    """

    def __init__(self, stream: socket.socket, secret: str, nonce: bytes, *, asks: bool) -> None:
        self._stream = stream
        self._key = hmac.digest(secret.encode(), nonce, "sha256")
        self._asks = asks
        self._counts = [0, 0]
        self.closed: list[Callable[[], None]] = []

    def _signature(self, data: Any, *, request: bool) -> bytes:
        self._counts[request] += 1
        signed = hmac.new(self._key, struct.pack("<?Q", request, self._counts[request]), "sha256")
        signed.update(data)
        return signed.digest()

    def send(self, head: Any, payload: Bytes = _NOTHING) -> None:
        """Send a message; blocks until the system has taken it."""
        text = json.dumps(head).encode()
        frame = _FRAME.pack(b"", len(text), payload.size)[_SIGNATURE:] + text
        self._stream.sendall(self._signature(frame, request=self._asks) + frame)
        if payload.size:
            self._stream.sendall(payload.data)
            self._stream.sendall(self._signature(payload.data, request=self._asks))

    def receive(self, most: Callable[[], int]) -> tuple[Any, Bytes]:
        """The next message.

        Args:
            most: the largest payload that can be meant.

        Raises:
            ForgedError: nobody who may has signed it.
            OSError: the connection has ended.
        """
        frame = self._take(_FRAME.size).tobytes()
        signature, length, size = _FRAME.unpack(frame)
        if length > _MOST_HEAD or size > most():
            raise ForgedError
        text = self._take(length).tobytes()
        self._require(signature, frame[_SIGNATURE:] + text)
        payload = self._take(size)
        if size:
            self._require(self._take(_SIGNATURE).tobytes(), payload.data)
        return json.loads(text), payload

    def _require(self, signature: bytes, data: Any) -> None:
        expected = self._signature(data, request=not self._asks)
        if not hmac.compare_digest(signature, expected):
            raise ForgedError

    def _take(self, size: int) -> Bytes:
        taken = np.empty(size, np.uint8)
        view = taken.data
        while view:
            count = self._stream.recv_into(view)
            if not count:
                raise ConnectionResetError("the other end is gone")
            view = view[count:]
        return taken

    def end(self) -> None:
        """Let go of the socket and of what was held for the other end."""
        self._stream.close()
        for function in self.closed:
            function()


class Office:
    """What serves the requests of ranks on other machines, in threads.

    Args:
        serve: (connection, head, payload) -> the same of the answer; what it raises is the answer
            as well.
        most: the largest payload that a request can have.

    Attributes:
        place: where it is.
        forged: how many messages were dropped that nobody who may had signed.
    """

    def __init__(self, serve: Serve, most: Callable[[], int]) -> None:
        self._serve = serve
        self._most = most
        self.forged = 0
        found = addresses() or ["127.0.0.1"]
        # Without a named network it is not known which of the addresses the others can reach.
        bound = found[0] if len(found) == 1 or os.environ.get("IFOG_NETWORK") else ""
        self._socket = socket.create_server(
            (bound, 0),
            family=socket.AF_INET6 if ":" in bound else socket.AF_INET,
        )
        port = self._socket.getsockname()[1]
        self.place = Place(tuple(found), port, secrets.token_hex(32))
        threading.Thread(target=self._accept, name="ifog-office", daemon=True).start()

    def _accept(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                stream, _ = self._socket.accept()
                work = threading.Thread(
                    target=self._attend, args=(stream,), name="ifog-office", daemon=True
                )
                work.start()

    def _attend(self, stream: socket.socket) -> None:
        nonce = secrets.token_bytes(_NONCE)
        connection = Connection(stream, self.place.secret, nonce, asks=False)
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream.sendall(nonce)
            while True:
                head, payload = connection.receive(self._most)
                try:
                    answer, data = self._serve(connection, head, payload)
                except Exception as failure:  # the asking rank raises it
                    answer, data = {"error": f"{type(failure).__name__}: {failure}"}, _NOTHING
                connection.send(answer, data)
        except ForgedError:
            self.forged += 1
        except OSError:
            pass  # it has ended
        finally:
            connection.end()


class Call:
    """A request to another rank, until it has been answered.

    Attributes:
        head: what is asked.
        data: the payload that goes with it.
        answer: what came back, once ``test`` is True.
        payload: what came with that.
    """

    def __init__(self, rank: int, head: Any, data: Bytes) -> None:
        self._rank = rank
        self.head, self.data = head, data
        self.answer: Any = None
        self.payload = _NOTHING
        self.failure: Exception | None = None
        self.done = threading.Event()

    def test(self) -> bool:
        """Whether the answer is here.

        Raises:
            PeerFailedError: the connection has ended.
            TransportError: the other rank could not do what was asked.
        """
        if not self.done.is_set():
            return False
        if self.failure is not None:
            raise self.failure
        error = self.answer.get("error")
        if error:
            raise TransportError(f"rank {self._rank} could not answer: {error}")
        return True


class Line:
    """The connection to the office of one rank, with a thread that asks one thing after another."""

    def __init__(self, rank: int, place: Place) -> None:
        self._rank = rank
        self._place = place
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=f"ifog-line-{rank}", daemon=True).start()

    def ask(self, head: Any, data: Bytes = _NOTHING) -> Call:
        """Start asking; requests are served in this order."""
        call = Call(self._rank, head, data)
        self._calls.put(call)
        return call

    def close(self) -> None:
        """Hang up after what has been asked already."""
        self._calls.put(None)

    def _work(self) -> None:
        connection: Connection | None = None
        while (call := self._calls.get()) is not None:
            try:
                connection = connection or self._connect()
                connection.send(call.head, call.data)
                call.answer, call.payload = connection.receive(lambda: 1 << 62)
            except (OSError, ForgedError) as error:
                cause = f"its connection for windows ended: {error}"
                call.failure = PeerFailedError(f"rank {self._rank}: {cause}", self._rank, cause)
                if connection is not None:
                    connection.end()
                connection = None
            call.done.set()
        if connection is not None:
            connection.end()

    def _connect(self) -> Connection:
        stream = self._stream()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.settimeout(_CONNECT_SECONDS)
        nonce = b""
        while len(nonce) < _NONCE:
            more = stream.recv(_NONCE - len(nonce))
            if not more:
                raise ConnectionResetError("it does not answer")
            nonce += more
        stream.settimeout(None)
        return Connection(stream, self._place.secret, nonce, asks=True)

    def _stream(self) -> socket.socket:
        trouble: OSError = ConnectionError("it has no address")
        for address in self._place.addresses:
            try:
                return socket.create_connection((address, self._place.port), _CONNECT_SECONDS)
            except OSError as error:
                trouble = error
        raise trouble
