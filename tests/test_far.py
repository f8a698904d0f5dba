"""Requests between machines: they arrive whole, in order, and only from who may ask."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

import numpy as np
import pytest

from ifog.errors import PeerFailedError, TransportError
from ifog.transport.far import Line, Office

SECONDS = 10


def answered(call):
    """The call, once it has its answer."""
    deadline = time.monotonic() + SECONDS
    while not call.test():
        assert time.monotonic() < deadline, "no answer came"
        time.sleep(0.001)
    return call


@pytest.fixture
def asked():
    return []


@pytest.fixture
def office(asked, monkeypatch):
    monkeypatch.setenv("IFOG_NETWORK", "127.0.0.0/8")

    def serve(_, head, payload):
        if head == "fail":
            raise ValueError("no such thing")
        asked.append((head, payload.tobytes()))
        return {"head": head}, payload[::-1].copy()

    return Office(serve, lambda: 1 << 20)


def test_requests_are_served_in_order_and_answers_come_back_whole(office, asked):
    line = Line(1, office.place)
    payload = np.random.default_rng(0).integers(0, 256, 1 << 20).astype(np.uint8)
    calls = [line.ask(number, payload[: number * 1000]) for number in range(20)]
    big = answered(line.ask("big", payload))
    assert np.array_equal(big.payload, payload[::-1])
    assert [answered(call).answer["head"] for call in calls] == list(range(20))
    assert [head for head, _ in asked] == [*range(20), "big"]
    assert [len(data) for _, data in asked] == [*(1000 * number for number in range(20)), 1 << 20]
    line.close()


def test_what_fails_over_there_is_raised_here_and_the_line_goes_on(office):
    line = Line(3, office.place)
    with pytest.raises(TransportError, match="rank 3 could not answer: ValueError: no such thing"):
        answered(line.ask("fail"))
    assert answered(line.ask("more")).answer == {"head": "more"}
    line.close()


def test_whoever_has_another_secret_is_not_served(office, asked):
    line = Line(2, office.place._replace(secret="guess"))
    with pytest.raises(PeerFailedError, match="rank 2: its connection for windows ended"):
        answered(line.ask("open"))
    assert (office.forged, asked) == (1, [])
    line.close()


@pytest.mark.parametrize(
    "sent",
    [
        bytes(32) + struct.pack("<IQ", 2, 0) + b"{}",
        bytes(32) + struct.pack("<IQ", 1 << 30, 0),
        bytes(32) + struct.pack("<IQ", 2, 1 << 40) + b"{}",
    ],
    ids=["unsigned", "a head too long", "a payload too long"],
)
def test_garbage_is_dropped_and_counted(office, asked, sent):
    with socket.create_connection(("127.0.0.1", office.place.port), SECONDS) as stream:
        stream.settimeout(SECONDS)
        stream.recv(32, socket.MSG_WAITALL)  # the number of the connection
        stream.sendall(sent)
        with contextlib.suppress(ConnectionResetError):  # also an end
            assert stream.recv(100) == b""
    assert (office.forged, asked) == (1, [])


def test_what_was_said_on_one_connection_counts_on_no_other(office, asked):
    with socket.create_server(("127.0.0.1", 0)) as spy:
        spy.settimeout(SECONDS)
        line = Line(1, office.place._replace(port=spy.getsockname()[1]))
        call = line.ask("once")
        between, _ = spy.accept()
        with between, socket.create_connection(("127.0.0.1", office.place.port)) as real:
            real.settimeout(SECONDS)
            between.settimeout(SECONDS)
            between.sendall(real.recv(32, socket.MSG_WAITALL))
            request = between.recv(1000)
            real.sendall(request)
            between.sendall(real.recv(1000))
        assert answered(call).answer == {"head": "once"}
    with socket.create_connection(("127.0.0.1", office.place.port)) as again:
        again.settimeout(SECONDS)
        again.recv(32, socket.MSG_WAITALL)
        again.sendall(request)
        assert again.recv(1000) == b""
    assert asked == [("once", b"")]
    assert office.forged == 1
    line.close()
