"""The machines of ``ifog run``: their names and slots, and what ``mpiexec`` is told about them.

With several machines Open MPI sends big messages in a way that keeps both directions of a link
busy, and hands on only those variables that it is told. A rank that dies is noticed at once, a cut
link is not: ranks that watch each other by heartbeats (``mpi_ft_detector`` with a thread of its
own) would find out, but never return from ``MPI_Finalize``.
"""

from __future__ import annotations

import ipaddress
import platform
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from ifog.errors import ArgumentError

__all__ = ["WATCHED", "Hosts", "address_in", "from_file", "from_list", "placed"]

_RANKS = 4
_MOST_RANKS = 256
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*|[0-9a-fA-F:]+")
_SLOTS = re.compile(r"slots\s*=\s*(\S+)")
_SPREAD = (
    ("--map-by", "slot"),
    ("--mca", "btl", "self,sm,tcp"),
    ("--mca", "btl_tcp_flags", "0x1"),
    ("--mca", "mpi_ft_propagator_with_rbcast", "true"),
)
# For ranks that never call MPI_Finalize.
WATCHED = (
    *("--mca", "mpi_ft_detector", "true"),
    *("--mca", "mpi_ft_detector_thread", "true"),
    *("--mca", "mpi_ft_detector_period", "3"),
    *("--mca", "mpi_ft_detector_timeout", "15"),
)
_EXPORTED = ("BLUEFOG_", "IFOG_", "IPP_", "MALLOC_", "MKL_", "OMP_", "PYTHON", "TORCH_")


class Hosts(NamedTuple):
    """Machines in the order in which ranks are placed on them, and the network between them."""

    slots: tuple[tuple[str, int], ...]
    network: str = ""

    @property
    def total(self) -> int:
        """The number of slots."""
        return sum(slots for _, slots in self.slots)

    @property
    def one_machine(self) -> bool:
        """Whether all of them are this machine."""
        return {name for name, _ in self.slots} <= _LOCAL | {platform.node()}

    def flags(self, environment: Mapping[str, str], network: str | None = None) -> list[str]:
        """The options of ``mpiexec`` for these machines.

        Args:
            environment: what the ranks are to find in theirs; of it BLUEFOG_*, IFOG_*, IPP_*,
                MALLOC_*, MKL_*, OMP_*, PYTHON* and TORCH_* are handed on to other machines.
            network: the network between them, such as ``"10.0.0.0/24"``.
        """
        words = ["--host", ",".join(f"{name}:{slots}" for name, slots in self.slots)]
        if self.one_machine:
            return words
        words += [word for flag in _SPREAD for word in flag]
        network = network or self.network
        if network:
            words += ["--prtemca", "prte_if_include", network]
            words += ["--mca", "btl_tcp_if_include", network]
            words += ["-x", f"IFOG_NETWORK={network}"]
        for name in sorted(environment):
            if name.startswith(_EXPORTED) and (name != "IFOG_NETWORK" or not network):
                words += ["-x", name]
        return words


def from_list(text: str) -> Hosts:
    """The machines of ``"node1:2,node2:2"``; a name without a number has one slot.

    Raises:
        ArgumentError: a name or a number that cannot be one.
    """
    entries = []
    for entry in text.split(","):
        name, colon, slots = entry.strip().rpartition(":")
        if not colon:
            name, slots = slots, "1"
        entries.append((_name(name, f"{entry!r} of -H"), _count(slots, f"{entry!r} of -H")))
    return _merged(entries)


def from_file(path: str) -> Hosts:
    """The machines of a host file: lines ``name slots=2``, with comments after ``#``.

    Raises:
        ArgumentError: the file cannot be read or a line cannot be understood, by its number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"the host file {path!r} cannot be read: {error}") from None
    entries = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split(None, 1)
        if not words:
            continue
        where = f"line {number} of {path}"
        slots = "1"
        if len(words) > 1:
            found = _SLOTS.fullmatch(words[1].strip())
            if found is None:
                raise ArgumentError(f"{where} reads {line!r}; write a name and slots=K, or a name")
            slots = found[1]
        entries.append((_name(words[0], where), _count(slots, where)))
    if not entries:
        raise ArgumentError(f"the host file {path!r} names no machine; write lines 'name slots=2'")
    return _merged(entries)


def placed(n: int | None, hosts: str, network: str, *, sealed: bool) -> tuple[int, Hosts | None]:
    """How many ranks a cluster has, and its machines; None where all of them are this one.

    Machines are reached by ``ssh`` and have the same Python with the same packages at the same
    path.

    Args:
        n: how many; by default the slots of the machines, or 4 on this one.
        hosts: the machines, by the words of ``from_list``.
        network: the network between them, such as ``"10.0.0.0/24"``.
        sealed: whether ranks talk over shared memory only.

    Raises:
        ArgumentError: no such number of ranks, or no such machines.
    """
    found = from_list(hosts) if hosts else None
    if n is None:
        n = _RANKS if found is None else found.total
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= _MOST_RANKS:
        raise ArgumentError(
            f"a cluster of {n!r} ranks was asked for; choose a number from 1 to "
            f"{_MOST_RANKS}, such as `%bf start -n 4`"
        )
    if found is None or found.one_machine:
        return n, None
    if not network:
        raise ArgumentError(
            f"the network between {hosts} is not known; name it: network='10.0.0.0/24', or "
            f"`%bf start --hosts {hosts} --network 10.0.0.0/24`"
        )
    if sealed:
        raise ArgumentError("ranks on several hosts need sockets; start them without sealed")
    return n, found._replace(network=network)


def address_in(network: str) -> str:
    """The address of this machine in a network, such as ``"10.0.0.0/24"``.

    Raises:
        ArgumentError: that is no network, or this machine has no address in it.
    """
    try:
        wanted = ipaddress.ip_network(network, strict=False)
    except ValueError:
        raise ArgumentError(
            f"{network!r} is no network; write it with its length, such as 10.0.0.0/24"
        ) from None
    kinds = (socket.AF_INET, socket.AF_INET6)
    found: list[str] = [
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in kinds
    ]
    mine = [address for address in found if ipaddress.ip_address(address) in wanted]
    if not mine:
        raise ArgumentError(
            f"this machine has no address in {network}; it has {', '.join(found)}: the hosts must "
            "reach it over the network that is given"
        )
    return mine[0]


def _merged(entries: Sequence[tuple[str, int]]) -> Hosts:
    slots: dict[str, int] = {}
    for name, count in entries:
        slots[name] = slots.get(name, 0) + count
    return Hosts(tuple(slots.items()))


def _name(text: str, where: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ArgumentError(f"{where}: {text!r} is no name of a machine; write name:slots")
    return text


def _count(text: str, where: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentError(f"{where}: {text!r} is no number of slots; write a whole number from 1")
    return int(text)
