"""Several hosts on one machine: network namespaces whose links have the rate of a real network.

Each host is a set of namespaces (network, host name, mounts) that lives as long as a process which
holds it; nothing has a name on the machine, so whatever way the holder ends, the links, addresses
and rate limits go with it. Hosts do not see the temporary files of programs on the head node. The
holders carry the token of a footprint: when the process that made the hosts is killed, its guard
ends them and all that runs on them. ``agent`` stands for ``ssh``: ``mpiexec`` calls it to start its
daemons, which find the bare environment of a login there.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ifog.errors import ArgumentError, NotAvailableError
from ifog.footprint import Footprint

__all__ = ["EmulatedHosts", "obstacle"]

_SECONDS = 30.0
_MOST = 64
_MTU = 9000
_HEAD = "10.77.0.254"
_NETWORK = "10.77.0.0/24"
_TOOLS = {"ip": "iproute2", "tc": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}
# The queue holds 20 ms, so that a sender is slowed by what its own link does, not by losses.
_RATE = "tc qdisc add dev {device} root tbf rate {mbit:g}mbit burst 256kb latency 20ms"
# A login has its own environment: what ranks need of the caller's must be handed on to them.
_AGENT = """#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1
shift
case $host in
{cases}
*) echo "$host is not one of the emulated hosts" >&2; exit 255;;
esac
cd /
exec nsenter --target "$holder" --net --uts --mount -- env -i {variables} sh -c "$*"
"""


def obstacle() -> str | None:
    """Why hosts cannot be emulated here, and what to do about it; None when they can."""
    if not hasattr(os, "geteuid"):
        return "emulated hosts need Linux"
    if os.geteuid() != 0:
        return "emulated hosts need root: network namespaces and rate limits are made for them"
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            return f"emulated hosts need the program {tool!r}: apt-get install {package}"
    trial = "ip link set lo up && " + _RATE.format(device="lo", mbit=100)
    command = ["unshare", "--net", "--uts", "--mount", "sh", "-c", trial]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        return f"emulated hosts need network namespaces and tc tbf, and here: {done.stderr.strip()}"
    return None


class EmulatedHosts:
    """Hosts ``host1`` to ``hostN`` and a head node, all in one network; use it with ``with``.

    Args:
        count: how many hosts.
        mbit: the rate of each host's link, each way, in Mbit/s; by default no limit.

    Attributes:
        names: the hosts' names.
        network: what to pass as ``--network``.
        head: the address of the head node, on which ``mpiexec`` is to run.
        agent: the program that stands for ``ssh``.

    Raises:
        ArgumentError: a number of hosts or a rate that cannot be.
    """

    def __init__(self, count: int, *, mbit: float | None = None) -> None:
        if not 1 <= count <= _MOST:
            raise ArgumentError(f"{count} hosts cannot be emulated; ask for 1 to {_MOST}")
        if mbit is not None and not 0.1 <= mbit < float("inf"):
            raise ArgumentError(f"a link cannot have {mbit} Mbit/s; give at least 0.1")
        self.names = tuple(f"host{number}" for number in range(1, count + 1))
        self.network = _NETWORK
        self.head = _HEAD
        self.mbit = mbit
        self._footprint = Footprint()
        self.agent = self._footprint.home / "agent"
        self._private = self._footprint.home / "head"
        self._holders: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> EmulatedHosts:
        """Make the hosts.

        Raises:
            NotAvailableError: this machine or this user cannot; says why.
        """
        found = obstacle()
        if found is not None:
            raise NotAvailableError(found)
        self._footprint.guard()
        try:
            self._private.mkdir()
            self._holders["head"] = self._hold("head")
            for name in self.names:
                self._holders[name] = self._hold(name, "--mount")
            self._link()
            self._write_agent()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def address(self, name: str) -> str:
        """The address of a host."""
        return f"10.77.0.{self.names.index(name) + 1}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What programs that start ranks on the hosts need in their environment.

        Open MPI believes that every host has its own cores, hence the yielding.
        """
        return {
            **self._footprint.environment,
            "TMPDIR": str(self._private),
            "PRTE_MCA_plm_ssh_agent": str(self.agent),
            "PRTE_MCA_prte_tmpdir_base": str(self._footprint.home),
            "OMPI_MCA_btl_sm_backing_directory": str(self._footprint.memory),
            "OMPI_MCA_osc_sm_backing_directory": str(self._footprint.memory),
            "OMPI_MCA_mpi_yield_when_idle": "1",
        }

    def on(self, name: str = "head") -> list[str]:
        """The words to put before a command that is to run on a host; by default on the head."""
        return ["nsenter", "--target", str(self._holders[name].pid), "--net", "--uts", "--"]

    def cut(self, name: str) -> None:
        """Take down a host's link."""
        self._do(name, "ip link set eth0 down")

    def mend(self, name: str) -> None:
        """Take a host's link up again."""
        self._do(name, "ip link set eth0 up")

    def close(self) -> None:
        """End all that runs on the hosts, and the hosts; twice does no harm."""
        holders, self._holders = self._holders, {}
        for holder in holders.values():
            holder.kill()
        self._footprint.remove()
        for holder in holders.values():
            holder.wait(timeout=_SECONDS)
            for stream in (holder.stdin, holder.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()

    def _hold(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        hide = f"mount -t tmpfs tmpfs {shlex.quote(str(self._private))} && " if more else ""
        # The name of the host is that of the namespace only; cat ends with this process's pipe.
        script = f"{hide}hostname {name} && ip link set lo up && echo && exec cat"
        holder = subprocess.Popen(
            ["unshare", "--net", "--uts", *more, "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **self._footprint.environment},
            start_new_session=True,
        )
        assert holder.stdout is not None
        if holder.stdout.readline() != b"\n":
            holder.wait(timeout=_SECONDS)
            raise NotAvailableError(f"emulated hosts: {name} could not be made; see above")
        return holder

    def _link(self) -> None:
        bridge = [
            "ip link add bridge0 mtu 9000 type bridge",
            f"ip address add {_HEAD}/24 dev bridge0",
            "ip link set bridge0 up",
        ]
        for name in self.names:
            bridge += self._port(name)
        self._do("head", *bridge)
        for name in self.names:
            self._do(
                name,
                f"ip address add {self.address(name)}/24 dev eth0",
                *self._limit("eth0"),
                "ip link set eth0 up",
            )

    def _port(self, name: str) -> list[str]:
        """The head's commands for a link from a host to the bridge."""
        device, there = f"to-{name}", self._holders[name].pid
        return [
            f"ip link add {device} mtu {_MTU} type veth peer name eth0 mtu {_MTU} netns {there}",
            *self._limit(device),
            f"ip link set {device} master bridge0 up",
        ]

    def _limit(self, device: str) -> list[str]:
        return [] if self.mbit is None else [_RATE.format(device=device, mbit=self.mbit)]

    def _do(self, name: str, *commands: str) -> None:
        done = subprocess.run(
            [*self.on(name), "sh", "-e", "-c", "\n".join(commands)],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            raise NotAvailableError(f"emulated hosts: {name}: {done.stderr.strip()}")

    def _write_agent(self) -> None:
        cases = "\n".join(f"{name}) holder={self._holders[name].pid};;" for name in self.names)
        login = {"PATH": os.defpath, "HOME": str(Path.home()), **self._footprint.environment}
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in login.items())
        self.agent.write_text(_AGENT.format(cases=cases, variables=variables))
        self.agent.chmod(0o700)
