"""What averaging costs between hosts whose links have a known rate, against gloo and MPI.

Each host has one rank and a link of its own; all of them are namespaces of this machine, so the
sockets are real and the wire is not. The floor of a contestant is the bytes that it has to carry
over one link, one way, at the link's rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ifog.bench.jobs import measure, require_room
from ifog.bench.namespaces import EmulatedHosts
from ifog.bench.ratios import (
    Compared,
    TargetRow,
    compared,
    label,
    ratio,
    table,
    target,
    target_lines,
)
from ifog.errors import ArgumentError
from ifog.mpiexec import cores

__all__ = ["NetReport", "Transfer", "run"]

ONE_PEER, RING, ALLREDUCE = "ifog one-peer", "ifog ring", "ifog allreduce"
MPI_ONE_PEER, MPI_RING, MPI_ALLREDUCE = "MPI one-peer", "MPI ring", "MPI Allreduce"
GLOO = "gloo all_reduce"
SIZES = (1 << 20, 25 << 20, 100 << 20)
QUICK_SIZES = (1 << 18, 1 << 20)
_PROGRAM = ("-m", "ifog.bench.net_rounds")
_LEAST_HOSTS = 2
_TENSORS = 14  # of the largest size that a rank holds at once, those of gloo and MPI included
_SECONDS = 570.0
_AIM = (100 << 20, 4, 1000.0)  # bytes, hosts and Mbit/s of the target


class Transfer(Compared):
    """All contestants at one size, beside ifog's one-peer average.

    ``floor`` is what each one's bytes take at the link's rate.
    """

    bytes: int
    floor: dict[str, float]


class NetReport(NamedTuple):
    """The result."""

    hosts: int
    mbit: float
    cores: int
    sizes: list[Transfer]
    targets: list[TargetRow]

    def lines(self) -> list[str]:
        """The result in words: a table and the target."""
        return [
            f"{self.hosts} hosts emulated on {self.cores} cores, one rank each, links of "
            f"{self.mbit:g} Mbit/s, float32; median milliseconds,",
            "all in turn; in brackets the ratio to ifog's one-peer average; floor: the link alone",
            "",
            *_table(self.sizes),
            "",
            *target_lines(self.targets),
        ]


def run(
    hosts: int = 4,
    *,
    mbit: float = 1000.0,
    rounds: int | None = None,
    quick: bool = False,
    sizes: Sequence[int] | None = None,
) -> NetReport:
    """Let all contestants run in turn on emulated hosts.

    Args:
        hosts: how many, at least 2.
        mbit: the rate of each link in Mbit/s, each way.
        rounds: of each contestant at most, by default 9, or 5 if quick.
        quick: small tensors and few rounds.
        sizes: bytes of the tensors.

    Raises:
        ArgumentError: too few hosts, or too many for this machine's memory.
        NotAvailableError: hosts cannot be emulated by this user or on this machine; says why.
        ClusterError: the job failed or took too long.
    """
    if hosts < _LEAST_HOSTS:
        raise ArgumentError(f"bench net needs at least {_LEAST_HOSTS} hosts; got {hosts}")
    sizes = sizes or (QUICK_SIZES if quick else SIZES)
    require_room("net", hosts, _TENSORS * max(sizes))
    specification = {
        "sizes": list(sizes),
        "rounds": rounds or (5 if quick else 9),
        "seconds": 3.0 if quick else 90.0,
    }
    with EmulatedHosts(hosts, mbit=mbit) as emulated:
        found = measure(
            "net", hosts, _PROGRAM, seconds=_SECONDS, specification=specification, hosts=emulated
        )
    return NetReport(
        hosts,
        mbit,
        cores(),
        [_transfer(case, hosts, mbit) for case in found],
        list(_targets(found, hosts, mbit)),
    )


def _floors(nbytes: int, hosts: int, mbit: float) -> dict[str, float]:
    """{contestant: microseconds} of its bytes on the busiest link, one way."""
    once = nbytes * 8 / mbit
    whole = dict.fromkeys((ALLREDUCE, MPI_ALLREDUCE, GLOO), 2 * (hosts - 1) / hosts * once)
    ring = dict.fromkeys((RING, MPI_RING), min(2, hosts - 1) * once)
    return {**dict.fromkeys((ONE_PEER, MPI_ONE_PEER), once), **ring, **whole}


def _transfer(found: Mapping[str, Any], hosts: int, mbit: float) -> Transfer:
    nbytes, times = found["bytes"], found["times"]
    floor = {name: us for name, us in _floors(nbytes, hosts, mbit).items() if name in times}
    return {"bytes": nbytes, "floor": floor, **compared(times, ONE_PEER)}


def _targets(found: Sequence[Mapping[str, Any]], hosts: int, mbit: float) -> Iterator[TargetRow]:
    nbytes, aimed_hosts, aimed_mbit = _AIM
    times: Mapping[str, Any] = next(
        (case["times"] for case in found if case["bytes"] == nbytes), {}
    )
    measured = None
    if GLOO in times and (hosts, mbit) == (aimed_hosts, aimed_mbit):
        measured = ratio(times[GLOO], times[ONE_PEER])
    work = f"one-peer {label(nbytes)}, {aimed_hosts} hosts, {aimed_mbit:g} Mbit/s"
    yield target(work, GLOO, "at least", 1.4, measured)


def _table(sizes: Sequence[Transfer]) -> list[str]:
    """Sizes across, contestants down."""
    names = list(dict.fromkeys(name for each in sizes for name in each["us"]))
    rows = [["", *(word for each in sizes for word in (label(each["bytes"]), "floor"))]]
    for name in names:
        row = [name]
        for each in sizes:
            us, times = each["us"][name], each["ratio"][name]["median"]
            row += [f"{us / 1e3:.4g} ({times:.2f})", f"{each['floor'][name] / 1e3:.4g}"]
        rows.append(row)
    rounds = ["rounds", *(word for each in sizes for word in (str(each["rounds"]), ""))]
    return table([*rows, rounds])
