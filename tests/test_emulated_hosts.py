"""Emulated hosts: the rates of their links, cuts, logins, and that they vanish with their maker."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ifog import watchdog
from ifog.bench import namespaces
from ifog.bench.namespaces import EmulatedHosts
from ifog.errors import ArgumentError, NotAvailableError

IFOG = str(Path(sys.executable).with_name("ifog"))
SECONDS = 100
OBSTACLE = namespaces.obstacle()
on_hosts = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))


def done(command):
    """A command that has ended, with what it said."""
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


@on_hosts
def test_a_link_takes_the_time_that_its_rate_says():
    send = "import socket; s = socket.create_connection(('{}', 7000)); s.sendall(bytes({}))"
    take = """
import socket, time
with socket.create_server(("{}", 7000)) as server:
    print(flush=True)
    peer, _ = server.accept()
    start, got = time.monotonic(), 0
    while data := peer.recv(1 << 16):
        got += len(data)
    print(got, time.monotonic() - start)
"""
    nbytes, mbit = 3_000_000, 100
    with EmulatedHosts(2, mbit=mbit) as hosts:
        address = hosts.address("host2")
        server = subprocess.Popen(
            [*hosts.on("host2"), sys.executable, "-c", take.format(address)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout.readline() == "\n"
            client = [*hosts.on("host1"), sys.executable, "-c", send.format(address, nbytes)]
            subprocess.run(client, check=True, timeout=SECONDS)
            out = server.communicate(timeout=SECONDS)[0]
        finally:
            server.kill()
            server.wait()
    got, seconds = out.split()
    assert int(got) == nbytes
    # What the two token buckets held was not slowed.
    assert float(seconds) >= (nbytes - 2 * 262_144) * 8 / (mbit * 1e6)


@on_hosts
def test_a_cut_link_carries_nothing_until_it_is_mended():
    connect = "import socket; socket.create_connection(('{}', 7001), timeout=5)"
    with EmulatedHosts(2) as hosts:
        command = [*hosts.on("host1"), sys.executable, "-c", connect.format("10.77.0.2")]

        assert "ConnectionRefusedError" in done(command).stderr  # reached, and nobody listens
        hosts.cut("host1")
        assert "Network is unreachable" in done(command).stderr
        hosts.mend("host1")
        assert "ConnectionRefusedError" in done(command).stderr


@on_hosts
def test_hosts_vanish_with_whoever_made_them():
    script = """
import signal, os
from ifog.bench.namespaces import EmulatedHosts
with EmulatedHosts(2, mbit=10) as hosts:
    print(hosts.environment["IFOG_TOKEN"], hosts.agent, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    token, agent = done([sys.executable, "-c", script]).stdout.split()
    deadline = time.monotonic() + SECONDS
    while watchdog.carriers(token) or Path(agent).exists():
        assert time.monotonic() < deadline, watchdog.carriers(token)
        psutil.wait_procs(watchdog.carriers(token), timeout=0.1)


@on_hosts
def test_daemons_find_the_bare_environment_of_a_login(monkeypatch):
    monkeypatch.setenv("IFOG_THREADS", "7")
    with EmulatedHosts(2) as hosts:
        words = "hostname; pwd; echo $IFOG_THREADS"
        assert done([str(hosts.agent), "-x", "host2", words]).stdout.split("\n")[:3] == [
            "host2",
            "/",
            "",
        ]
        nobody = done([str(hosts.agent), "host3", "hostname"])
        assert nobody.returncode == 255
        assert "host3 is not one" in nobody.stderr


def test_who_cannot_have_hosts_is_told_why(monkeypatch):
    monkeypatch.setattr(namespaces.os, "geteuid", lambda: 1000)
    with pytest.raises(NotAvailableError, match="need root"), EmulatedHosts(2):
        pass
    monkeypatch.setattr(namespaces.os, "geteuid", lambda: 0)
    monkeypatch.setattr(namespaces.shutil, "which", lambda _: None)
    with pytest.raises(NotAvailableError, match="apt-get install iproute2"), EmulatedHosts(2):
        pass


def test_hosts_that_cannot_be_are_refused():
    with pytest.raises(ArgumentError, match="0 hosts"):
        EmulatedHosts(0)
    with pytest.raises(ArgumentError, match="-1 Mbit/s"):
        EmulatedHosts(2, mbit=-1)
