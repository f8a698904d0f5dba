"""Requests between ranks of one machine, as datagrams that a thread of each answers.

They are answered while the main thread computes or sleeps.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ifog.errors import PeerFailedError, TransportError
from ifog.transport.base import Answer

__all__ = ["Asked", "Bell"]

_MESSAGE = 1 << 16
_SIGNATURE = 32
_REPLY_SECONDS = 5.0
_NOTHING = np.empty(0, np.uint8)


class Bell:
    """The thread that answers other ranks' requests, and the socket it listens on.

    A datagram is a message behind its HMAC-SHA256 under the secret of the bell that is asked, for
    the answer as well; secrets travel with the addresses of regions, never here. Anybody on the
    machine can send to the socket, so whatever has another signature is counted and dropped unread.

    Attributes:
        forged: how many datagrams were dropped.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.secret = secrets.token_hex(16)
        self.answers: dict[str, Answer] = {}
        self.replies: dict[int, str] = {}
        self.expected: dict[int, str] = {}
        self.forged = 0
        self._count = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._name())
        self.address = os.fsdecode(self._socket.getsockname())
        thread = threading.Thread(target=self._listen, name="ifog-windows", daemon=True)
        thread.start()

    def _name(self) -> str:
        # Linux has socket names without files, which vanish with the process.
        if Path("/proc/self").exists():
            return "\0ifog-" + secrets.token_hex(16)
        return str(Path(tempfile.mkdtemp(prefix="ifog-")) / "bell")

    def send(self, address: str, secret: str, message: Mapping[str, Any], *, wait: bool) -> bool:
        """Whether the datagram could be sent; with ``wait`` some seconds are spent on trying."""
        body = json.dumps(message).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(_REPLY_SECONDS if wait else 0.0)
            try:
                out.sendto(_signature(secret, body) + body, os.fsencode(address))
            except (BlockingIOError, TimeoutError):
                return False
        return True

    def number(self, secret: str) -> int:
        """A number for the next request, whose answer will be signed with ``secret``."""
        self._count += 1
        self.expected[self._count] = secret
        return self._count

    def forget(self, number: int) -> None:
        """No answer to this request is wanted any more."""
        self.expected.pop(number, None)
        self.replies.pop(number, None)

    def _listen(self) -> None:
        while True:
            data = self._socket.recv(_MESSAGE)
            try:
                self._take(data[:_SIGNATURE], data[_SIGNATURE:])
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                self.forged += 1

    def _take(self, signature: bytes, body: bytes) -> None:
        if hmac.compare_digest(signature, _signature(self.secret, body)):
            self._answer(json.loads(body))
            return
        # An answer is signed by the bell that was asked.
        asked = set(self.expected.values())
        if not any(hmac.compare_digest(signature, _signature(key, body)) for key in asked):
            raise ValueError("signed by nobody who was asked")
        message = json.loads(body)
        self.replies[message["number"]] = str(message["error"])

    def _answer(self, message: dict[str, Any]) -> None:
        try:
            answer = self.answers.get(message["key"])
            if answer is None:
                raise TransportError("it has given the window up")
            answer(message["rank"], message["body"], _NOTHING)
            error = ""
        except Exception as failure:  # the asking rank raises it
            error = f"{type(failure).__name__}: {failure}"
        reply = {"number": message["number"], "error": error}
        try:
            self.send(message["bell"], self.secret, reply, wait=True)
        except OSError:
            return  # the asking rank is gone


def _signature(secret: str, body: bytes) -> bytes:
    return hmac.digest(secret.encode(), body, "sha256")


class Asked:
    """A request to another rank, until it has been answered."""

    payload = _NOTHING

    def __init__(
        self, bell: Bell, rank: int, address: tuple[str, str], message: dict[str, Any]
    ) -> None:
        self._bell = bell
        self._rank = rank
        self._address = address
        self._message = message
        self._sent = False

    def test(self) -> bool:
        """Whether the answer is here.

        Raises:
            PeerFailedError: the rank is gone.
            TransportError: it could not do what was asked.
        """
        bell, address = self._bell, self._address
        if not self._sent:
            try:
                self._sent = bell.send(*address, self._message, wait=False)
            except OSError:
                bell.forget(self._message["number"])
                cause = "its process died"
                raise PeerFailedError(f"rank {self._rank}: {cause}", self._rank, cause) from None
        error = bell.replies.get(self._message["number"])
        if error is None:
            return False
        bell.forget(self._message["number"])
        if error:
            raise TransportError(f"rank {self._rank} could not answer: {error}")
        return True
