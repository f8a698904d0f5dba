"""How the cost of an average grows with the ranks and with the model, and how it would go on.

Measured between emulated hosts with links of a known rate, one rank each. The alpha-beta model of
``ifog.costs`` is fitted, for each contestant, to all numbers of ranks but the largest, and
predicts that one and those that do not fit on this machine.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

from ifog.bench.jobs import measure, require_room
from ifog.bench.namespaces import EmulatedHosts
from ifog.bench.ratios import Ratio, label, quartiles, table
from ifog.costs import Link, fitted
from ifog.errors import ArgumentError
from ifog.mpiexec import cores
from ifog.numbers import duration

__all__ = ["ALLREDUCE", "GLOO", "ONE_PEER", "STATIC", "Point", "ScaleReport", "run"]

ONE_PEER = "ifog one-peer"
STATIC = "ifog static exponential"
ALLREDUCE = "ifog allreduce"
GLOO = "gloo all_reduce"
SIZES = (1 << 12, 1 << 16, 1 << 20, 1 << 22, 1 << 23)
QUICK_SIZES = (1 << 12, 1 << 18)
BEYOND = (32, 64, 128, 256, 512, 1024)
_PROGRAM = ("-m", "ifog.bench.scale_rounds")
_LEAST = 4  # hosts: two numbers of them, one to fit and one to predict
_TENSORS = 12  # of the largest size that a rank holds at once
_SECONDS = 300.0


class Point(TypedDict):
    """One contestant at one size on so many ranks: seconds measured and predicted, and why.

    ``measured`` is None where there are more ranks than were run, ``fitted`` whether the model
    knew this measurement.
    """

    name: str
    ranks: int
    bytes: int
    measured: float | None
    predicted: float
    fitted: bool


class ScaleReport(NamedTuple):
    """The result; ``links`` are the latencies in seconds and the rates in bytes a second.

    ``off`` is measured over predicted on the largest number of ranks, over the sizes.
    """

    mbit: float
    cores: int
    hosts: list[int]
    sizes: list[int]
    links: dict[str, Link]
    points: list[Point]
    off: dict[str, Ratio]

    def lines(self) -> list[str]:
        """The result in words: measured beside predicted, and the fit."""
        largest = self.hosts[-1]
        fit = [["fitted", "latency", "Mbit/s", f"measured / predicted, {largest} ranks"]]
        for name, link in self.links.items():
            off = self.off[name]
            told = f"{off['median']:.2f} ({off['low']:.2f} to {off['high']:.2f})"
            fit.append([name, duration(link.latency), f"{link.rate * 8e-6:.4g}", told])
        return [
            f"hosts emulated on {self.cores} cores, one rank each, links of {self.mbit:g} Mbit/s, "
            f"float32; milliseconds, median / predicted; the model knows all but {largest} ranks",
            "",
            *_table(self.points, self.hosts, self.sizes),
            "",
            *table(fit),
            "",
            f"beyond, predicted for {label(self.sizes[-1])}",
            *_beyond(self.points, self.sizes[-1]),
        ]


def run(
    hosts: int = 16, *, mbit: float = 250.0, rounds: int | None = None, quick: bool = False
) -> ScaleReport:
    """Measure 2, 4, 8, ... hosts, fit the model and predict.

    Args:
        hosts: the most, at least 4; a power of two.
        mbit: the rate of each link in Mbit/s, each way.
        rounds: of each contestant at most, by default 7, or 3 if quick.
        quick: few and small tensors.

    Raises:
        ArgumentError: no power of two from 4 on, or more than this machine's memory has room for.
        NotAvailableError: hosts cannot be emulated by this user or on this machine; says why.
        ClusterError: a job failed or took too long.
    """
    if hosts < _LEAST or hosts & (hosts - 1):
        raise ArgumentError(f"bench scale needs a power of two from {_LEAST} hosts on; got {hosts}")
    sizes = QUICK_SIZES if quick else SIZES
    require_room("scale", hosts, _TENSORS * max(sizes))
    counts = [2**power for power in range(1, int(math.log2(hosts)) + 1)]
    specification = {
        "sizes": list(sizes),
        "rounds": rounds or (3 if quick else 7),
        "seconds": 2.0 if quick else 12.0,
    }
    times: dict[int, list[Mapping[str, Sequence[float]]]] = {}
    for count in counts:
        with EmulatedHosts(count, mbit=mbit) as emulated:
            times[count] = measure(
                "scale",
                count,
                _PROGRAM,
                seconds=_SECONDS,
                specification=specification,
                hosts=emulated,
            )
    return report(times, sizes, mbit)


def report(
    times: Mapping[int, Sequence[Mapping[str, Sequence[float]]]], sizes: Sequence[int], mbit: float
) -> ScaleReport:
    """The report of {ranks: for each size {contestant: seconds of each round}}."""
    counts = sorted(times)
    medians = {
        (name, n, nbytes): statistics.median(taken)
        for n, found in times.items()
        for nbytes, by_name in zip(sizes, found, strict=True)
        for name, taken in by_name.items()
    }
    names = list(times[counts[0]][0])
    links = {
        name: fitted(
            [
                (*_traffic(name, n, nbytes), medians[name, n, nbytes])
                for n in counts[:-1]
                for nbytes in sizes
            ]
        )
        for name in names
    }
    points = [
        Point(
            name=name,
            ranks=n,
            bytes=nbytes,
            measured=medians.get((name, n, nbytes)),
            predicted=_predicted(links[name], *_traffic(name, n, nbytes)),
            fitted=n in counts[:-1],
        )
        for name in names
        for n in (*counts, *(n for n in BEYOND if n > counts[-1]))
        for nbytes in sizes
    ]
    off = {name: _off(points, name, counts[-1]) for name in names}
    return ScaleReport(mbit, cores(), counts, list(sizes), links, points, off)


def _traffic(name: str, n: int, nbytes: int) -> tuple[float, float]:
    """Messages one after the other, and the bytes that a rank sends in them."""
    degree = math.ceil(math.log2(n))
    return {
        ONE_PEER: (1, nbytes),
        STATIC: (degree, degree * nbytes),
        ALLREDUCE: (3, 2 * (n - 1) / n * nbytes),  # what is meant, the stripes, their sums
        GLOO: (2 * (n - 1), 2 * (n - 1) / n * nbytes),
    }[name]


def _predicted(link: Link, messages: float, nbytes: float) -> float:
    return messages * link.latency + nbytes / link.rate


def _off(points: Sequence[Point], name: str, largest: int) -> Ratio:
    return quartiles(
        [
            point["measured"] / point["predicted"]
            for point in points
            if point["name"] == name and point["ranks"] == largest and point["measured"] is not None
        ]
    )


def _table(points: Sequence[Point], hosts: Sequence[int], sizes: Sequence[int]) -> list[str]:
    by = {(point["name"], point["ranks"], point["bytes"]): point for point in points}
    rows = [["", "ranks", *(label(nbytes) for nbytes in sizes)]]
    for name in dict.fromkeys(point["name"] for point in points):
        for n in hosts:
            cells = [by[name, n, nbytes] for nbytes in sizes]
            told = [
                f"{1e3 * (cell['measured'] or 0.0):.3g} / {1e3 * cell['predicted']:.3g}"
                for cell in cells
            ]
            rows.append([name, str(n), *told])
    return table(rows)


def _beyond(points: Sequence[Point], nbytes: int) -> list[str]:
    unseen = [p for p in points if p["measured"] is None and p["bytes"] == nbytes]
    counts = sorted({point["ranks"] for point in unseen})
    rows = [["ranks", *map(str, counts)]]
    for name in dict.fromkeys(point["name"] for point in unseen):
        rows.append([name, *(duration(p["predicted"]) for p in unseen if p["name"] == name)])
    return table(rows)
