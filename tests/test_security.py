"""What is not signed is dropped and counted, and disturbs nobody; what is private stays private."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import socket
import stat
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import zmq
from jupyter_client.session import Session

from ifog import watchdog
from ifog.forgery import Refusals
from ifog.iopub import batch_of
from ifog.telemetry import CellStart, encode
from ifog.transport.memory import MachineMemory

PAUSE = threading.Event()


def eventually(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        PAUSE.wait(0.01)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


# The sockets of windows


GARBAGE = {
    "nothing": b"",
    "text": b"hello",
    "bytes that are no text": b"\xff\xfe" * 40,
    "as long as can be": b"x" * 60_000,
    "a list": json.dumps([1, 2]).encode(),
    "no key": json.dumps({"body": 1}).encode(),
    "wrong types": json.dumps({"number": [], "error": {}, "key": 3}).encode(),
    "deep": b"[" * 50_000,
    "a request without signature": json.dumps(
        {"key": "k", "rank": 0, "body": 1, "bell": "x", "number": 1}
    ).encode(),
    "a wrong signature": b"\x01" * 32 + json.dumps({"number": 1, "error": ""}).encode(),
}


def throw(address, data):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.settimeout(5)
        out.sendto(data, os.fsencode(address))


@contextmanager
def two_memories():
    one, other = MachineMemory(0), MachineMemory(1)
    regions = [memory.region(8) for memory in (one, other)]
    addresses = {rank: region.address for rank, region in enumerate(regions)}
    for region in regions:
        region.join(addresses, (0, 1))
    try:
        yield one, other, regions
    finally:
        for region in regions:
            region.close()


@pytest.mark.parametrize("what", GARBAGE)
def test_a_bell_drops_garbage_counts_it_and_still_answers(what):
    with two_memories() as (_, other, regions):
        asked = []
        regions[1].answer(lambda rank, body, _: asked.append((rank, body)))
        for turn in range(1, 4):
            throw(other.bell.address, GARBAGE[what])
            eventually(lambda turn=turn: other.bell.forged == turn)
        request = regions[0].ask(1, "hello")
        eventually(request.test)
        assert asked == [(0, "hello")]
        assert other.bell.forged == 3


def test_an_answer_that_the_asked_rank_did_not_sign_is_dropped():
    with two_memories() as (one, other, regions):
        go = threading.Event()
        regions[1].answer(lambda *_: go.wait(10) and None)
        request = regions[0].ask(1, "slow")
        assert not request.test()
        forged = json.dumps({"number": 1, "error": ""}).encode()
        throw(one.bell.address, bytes(32) + forged)
        stranger = MachineMemory(2)
        stranger.bell.send(
            one.bell.address, stranger.bell.secret, {"number": 1, "error": ""}, wait=True
        )
        eventually(lambda: one.bell.forged == 2)
        assert not request.test()
        go.set()
        eventually(request.test)
        assert other.bell.forged == 0


def test_no_secret_travels_with_requests_or_answers(monkeypatch):
    sent = []
    with two_memories() as (one, other, regions):
        for memory in (one, other):
            real = memory.bell.send

            def send(address, secret, message, *, wait, real=real):
                sent.append(json.dumps(message))
                return real(address, secret, message, wait=wait)

            monkeypatch.setattr(memory.bell, "send", send)
        regions[1].answer(lambda *_: None)
        eventually(regions[0].ask(1, "hello").test)
        secrets = (one.bell.secret, other.bell.secret)
    assert len(sent) == 2
    assert not [text for text in sent if any(secret in text for secret in secrets)]


# Events


def signed(rows, news=None):
    buffers = [rows, pickle.dumps((None, [])) if news is None else news]
    digests = " ".join(hashlib.sha256(part).hexdigest() for part in buffers)
    content = {"rank": 0, "count": 1, "lost": 0, "sha256": digests, "busy_until": None}
    return {"content": content, "buffers": buffers}


def test_events_come_through():
    event = CellStart(1, 2.0, 3, 4, (0, 1))
    rows = pickle.dumps((None, [(0, encode(event))]))
    batch = batch_of(signed(rows, rows))
    assert (list(batch.events), batch.news, batch.lost) == ([event], [event], 0)


def test_events_other_than_those_that_were_signed_are_not_even_opened(tmp_path):
    message = signed(pickle.dumps([]))
    for place in range(2):
        changed = list(message["buffers"])
        changed[place] = pickle.dumps(Evil(tmp_path / "owned"))
        with pytest.raises(ValueError, match="not those that were signed"):
            batch_of(message | {"buffers": changed})
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("where", ["alone", "in a list", "in an event", "in columns"])
def test_a_pickle_that_would_run_code_is_refused_even_when_signed(tmp_path, where):
    evil = Evil(tmp_path / "owned")
    event = ["start", 1, 2.0, 3, 4, (0, 1)]
    rows = {
        "alone": evil,
        "in a list": (None, [evil]),
        "in an event": (None, [(0, [*event[:-1], evil])]),
        "in columns": ((evil, b"", b""), []),
    }[where]
    with pytest.raises(ValueError, match=r"posix\.mkdir is no part of an event"):
        batch_of(signed(b"", pickle.dumps(rows)))
    assert list(batch_of(signed(pickle.dumps(rows))).events) == []
    assert not (tmp_path / "owned").exists()


NO_EVENT = (None, [(0, ["what", 1])])


@pytest.mark.parametrize("rows", [b"", b"garbage", pickle.dumps(7), pickle.dumps(NO_EVENT)])
def test_what_are_no_events_is_one_kind_of_error(rows):
    with pytest.raises(ValueError, match=r"event|iterable"):
        batch_of(signed(b"", rows))
    assert list(batch_of(signed(rows)).events) == []


def test_messages_without_events_are_refused():
    with pytest.raises(ValueError, match="not those that were signed"):
        batch_of({"content": {}, "buffers": []})


# Sessions


def frames(session, **changes):
    message = session.serialize(session.msg("ifog_request", {"what": "waiting"}))
    return [changes.get("signature", message[1]) if k == 1 else f for k, f in enumerate(message)]


def test_a_session_counts_what_it_refuses():
    session = Session(key=b"secret")
    other = Session(key=b"guessed")
    refusals = Refusals(session)

    def read(parts):
        _, rest = session.feed_identities(parts)
        return session.deserialize(rest)

    good = frames(session)
    assert read(good)["content"] == {"what": "waiting"}
    bad = [frames(other), frames(session, signature=b""), good, [b"garbage"], [], good[:3]]
    for k, parts in enumerate(bad):
        with pytest.raises((ValueError, TypeError, IndexError)):
            read(parts)
        assert refusals.count == k + 1
    assert read(frames(session))["content"] == {"what": "waiting"}
    assert refusals.count == len(bad)


# A running cluster


def client_info(cluster):
    return json.loads(Path(cluster._line.connection_files["client"]).read_text())


def engine_info(cluster):
    return json.loads(Path(cluster._line.connection_files["engine"]).read_text())


@contextmanager
def connected(kind, info, name, *, keys=True):
    """A socket to a port of the controller, with the keys to it, or as a stranger."""
    context = zmq.Context()
    out = context.socket(kind)
    out.linger = 5000 if keys else 100
    out.sndtimeo = 5000 if keys else 100
    if keys:
        out.curve_serverkey = info["curve_serverkey"].encode()
        out.curve_publickey, out.curve_secretkey = zmq.curve_keypair()
    out.connect(f"{info['interface']}:{info[name]}")
    try:
        yield out
    finally:
        out.close()
        context.term()


def forgeries(ident):
    """Messages that nobody with the signing key made, to the engine called ``ident``."""
    forger = Session(key=b"guessed")
    request = forger.serialize(forger.msg("ifog_request", {"what": "revoke", "cause": "forged"}))
    execute = forger.serialize(forger.msg("execute_request", {"code": "owned = True"}))
    return [
        [ident, *request],
        [ident, *execute],
        [ident, *execute[:1], b"", *execute[2:]],
        [ident, b"garbage", b"\x00" * 10],
        [ident, b""],
    ]


@pytest.mark.mpi
def test_forged_requests_change_nothing_and_are_counted(cluster):
    info = client_info(cluster)
    before = cluster.status().forged
    cell = cluster.submit("kept = 1\nfor _ in range(200): bf.neighbor_allreduce(torch.ones(3))")
    for name in ("control", "mux"):
        with connected(zmq.DEALER, info, name) as out:
            for rank in range(4):
                for message in forgeries(cluster._line._ident(rank)):
                    out.send_multipart(message)
    cell.wait(30).raise_for_error()
    eventually(lambda: cluster.status().forged >= before + 4 * 2 * 5)
    assert "forged messages dropped" in str(cluster.status())
    assert cluster.run("bf.barrier()", timeout=10).status == "ok"
    assert cluster.pull("(kept, 'owned' in globals())") == dict.fromkeys(range(4), (1, False))


@pytest.mark.mpi
def test_without_the_keys_nobody_reaches_anything(cluster):
    info = client_info(cluster)
    for side in (info, engine_info(cluster)):
        for name in ("registration", "control", "mux", "iopub"):
            with connected(zmq.DEALER, side, name, keys=False) as out:
                # One that breaks off would be glued to somebody else's next message.
                for message in [*forgeries(cluster._line._ident(1)), [cluster._line._ident(1)]]:
                    with suppress(zmq.Again):
                        out.send_multipart(message)
    with connected(zmq.SUB, info, "iopub", keys=False) as listener:
        listener.subscribe(b"")
        result = cluster.run("bf.barrier()\nprint('a secret')", timeout=10)
        assert not listener.poll(500)
    assert (result.status, len(result.outputs)) == ("ok", 4)


@pytest.mark.mpi
def test_forged_events_never_reach_the_notebook(cluster, tmp_path):
    info, cursor = engine_info(cluster), cluster.events.since(0)[0]
    before = cluster.status().forged
    forger = Session(key=b"guessed")
    parent = cluster._line._client.session.msg("execute_request")
    rows = pickle.dumps([["death", 0, 1.0, "forged"], Evil(tmp_path / "owned")])
    content = signed(rows)["content"]
    message = forger.serialize(forger.msg("ifog_events", content, parent=parent["header"]))
    with connected(zmq.PUB, info, "iopub") as out:

        def told():
            out.send_multipart([b"engine.0.ifog_events", *message, rows])
            out.send_multipart([b"garbage"])
            return cluster.status().forged > before

        eventually(told)
    assert cluster.run("bf.barrier()", timeout=10).status == "ok"
    assert not [event for event in cluster.events.since(cursor)[1] if "forged" in str(event)]
    assert not (tmp_path / "owned").exists()


@pytest.mark.mpi
def test_forged_requests_to_windows_are_dropped_while_windows_work(cluster):
    cluster.run(
        "x = torch.full((2,), float(bf.rank()))\n"
        "bf.win_create(x, 'w', zero_init=True)\n"
        "from ifog.context import current\n"
        "bell = current().transport._memory.bell.address",
        timeout=20,
    ).raise_for_error()
    before = cluster.status().forged
    for address in cluster.pull("bell").values():
        for data in GARBAGE.values():
            throw(address, data)
    eventually(lambda: cluster.status().forged == before + 4 * len(GARBAGE))
    cluster.run(
        "bf.win_put(x, 'w')\nbf.barrier()\ny = bf.win_update('w')\nbf.win_free('w')", timeout=20
    )
    got = {rank: float(y[0]) for rank, y in cluster.pull("y").items()}
    # The exponential graph of four ranks: r hears r-1 and r-2, each with weight 1/3.
    assert got == pytest.approx({r: (r + (r - 1) % 4 + (r - 2) % 4) / 3 for r in range(4)})


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.mpi
def test_what_the_cluster_writes_is_private(cluster):
    footprint = cluster._line._job._footprint
    assert mode(footprint.home) == mode(footprint.memory) == 0o700
    for file in cluster._line.connection_files.values():
        assert mode(Path(file)) == 0o600


@pytest.mark.mpi
def test_all_listens_on_loopback_but_what_open_mpi_opens(cluster):
    ranks = {row.pid for row in cluster.status().rows}
    elsewhere = []
    for process in watchdog.carriers(cluster._line.token):
        for connection in process.net_connections("inet"):
            outside = connection.laddr.ip not in ("127.0.0.1", "::1")
            if connection.status == psutil.CONN_LISTEN and outside:
                elsewhere.append("rank" if process.pid in ranks else process.name())
    assert set(elsewhere) <= {"rank", "prterun", "mpiexec"}
