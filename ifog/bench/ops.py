"""What operations cost: against MPI by hand, MPI's allreduce, gloo, and the floor of copies.

All contestants of a case run in the same processes, in turn. The floor is what the memory traffic
of an operation takes at the rate of ``np.copyto`` while all ranks copy: with N bytes and k
neighbours (k + 2) N where the tensor already lies in memory that they share, (k + 4) N where it has
to be put there first.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from ifog.bench.contestants import ADDS, COPY, GLOO, OURS, REUSED, UNCHECKED
from ifog.bench.jobs import measure, most_ranks, require_room
from ifog.bench.ratios import (
    Aim,
    Compared,
    Ratio,
    TargetRow,
    compared,
    label,
    ratio,
    table,
    target,
    target_lines,
)
from ifog.mpiexec import cores
from ifog.numbers import counted

__all__ = ["Case", "OpsReport", "Scale", "run"]

OPERATIONS = ("ring", "exponential", "one-peer", "allreduce", "win_put")
SIZES = (4, 1 << 10, 1 << 16, 1 << 20, 16 << 20, 100 << 20)
QUICK_SIZES = (4, 1 << 16, 1 << 20, 16 << 20)
_MB = 1 << 20
_SHARED, _PUBLISHED = "floor, tensor shared", "floor, tensor published"
_PROGRAM = ("-m", "ifog.bench.op_rounds")
_TENSORS = 17  # of the largest size that a rank holds at once, those of gloo and MPI included
_TITLES = {
    "ring": "neighbor_allreduce, ring",
    "exponential": "neighbor_allreduce, exponential graph",
    "one-peer": "neighbor_allreduce, one peer, another one each call",
    "allreduce": "allreduce (MPI and gloo: the sum alone)",
    "win_put": "win_put to one neighbour",
}
_SCALING_SIZES = (1 << 16, 16 << 20)
# (operation, bytes, ours, against, aim, bound)
_TARGETS: tuple[tuple[str, int, str, str, Aim, float], ...] = (
    ("ring", 16 * _MB, OURS, ADDS, "at least", 2.0),
    ("ring", 100 * _MB, OURS, ADDS, "at least", 2.0),
    ("ring", 16 * _MB, OURS, _PUBLISHED, "at most", 1.3),
    ("ring", 16 * _MB, REUSED, _SHARED, "at most", 1.3),
    ("one-peer", 16 * _MB, REUSED, GLOO, "at least", 4.0),
    ("ring", 4, OURS, ADDS, "at most", 1.2),
    ("ring", 1 << 10, OURS, ADDS, "at most", 1.2),
    ("ring", 1 << 16, OURS, ADDS, "at most", 1.2),
    ("win_put", 1 * _MB, OURS, COPY, "at most", 1.2),
    ("win_put", 16 * _MB, OURS, COPY, "at most", 1.2),
    ("win_put", 100 * _MB, OURS, COPY, "at most", 1.2),
)


class Case(Compared):
    """One operation at one size, floors included, beside ifog."""

    operation: str
    bytes: int
    degree: int


class Scale(TypedDict):
    """The one-peer average of one size on more and more ranks.

    ``us_per_share`` is ``us`` times the share of a core that a rank has; ``growth`` compares that
    with the fewest ranks.
    """

    bytes: int
    us: dict[int, float]
    us_per_share: dict[int, float]
    growth: dict[int, Ratio]


class OpsReport(NamedTuple):
    """The result."""

    ranks: int
    cores: int
    cases: list[Case]
    targets: list[TargetRow]
    scaling: list[Scale]

    def lines(self) -> list[str]:
        """The result in words: a table for each operation, the targets, the scaling."""
        lines = [
            f"{counted(self.ranks)}, {self.cores} cores, float32; median microseconds of a call, "
            "from the first rank's start",
            "to the last one's end, all in turn; in brackets the ratio to ifog's, the median over "
            "the rounds",
        ]
        for operation in dict.fromkeys(case["operation"] for case in self.cases):
            cases = [case for case in self.cases if case["operation"] == operation]
            lines += ["", _TITLES[operation], *_case_lines(cases)]
        lines += ["", "targets (for 4 ranks on 2 cores)", *target_lines(self.targets)]
        return lines + _scaling_lines(self.scaling)


def run(
    ranks: int,
    *,
    rounds: int | None = None,
    quick: bool = False,
    sizes: Sequence[int] | None = None,
    scaling: Sequence[int] | None = None,
) -> OpsReport:
    """Let all contestants run in turn on ``ranks`` real ranks.

    Args:
        ranks: how many, at least 2.
        rounds: of each contestant at most, by default 15, or 7 if quick.
        quick: fewer sizes and rounds: less than a minute on a machine with nothing else to do.
        sizes: bytes of the tensors.
        scaling: numbers of ranks on which the one-peer average is also timed.

    Raises:
        ArgumentError: too few ranks, or too many for this machine's memory.
        ClusterError: a job failed or took too long.
    """
    sizes = sizes or (QUICK_SIZES if quick else SIZES)
    scaling = ((2, 4) if quick else (2, 4, 8)) if scaling is None else scaling
    scaling = [n for n in scaling if n <= most_ranks(_TENSORS * max(_SCALING_SIZES))]
    require_room("ops", ranks, _TENSORS * max(sizes))
    specification = {
        "cases": [(operation, nbytes) for nbytes in sizes for operation in OPERATIONS],
        "only": None,
        "rounds": rounds or (7 if quick else 15),
        "seconds": 0.6 if quick else 7.0,
    }
    found = measure(
        "ops", ranks, _PROGRAM, seconds=200.0 if quick else 570.0, specification=specification
    )
    for case in found:
        case["times"] |= _floors(case, ranks)
    scales = _scales(scaling, quick=quick) if len(scaling) > 1 else []
    targets = [*_targets(found), *(_flatness(scale) for scale in scales)]
    return OpsReport(ranks, cores(), [_case(case) for case in found], targets, scales)


def _floors(case: Mapping[str, Any], ranks: int) -> dict[str, list[float]]:
    """The seconds that the memory traffic alone takes, round by round."""
    if case["operation"] == "win_put":
        return {}
    # An allreduce by stripes: each rank sums 1/n of all tensors and reads what the others summed.
    shared = 3 + 1 / ranks if case["operation"] == "allreduce" else case["degree"] + 2
    times = case["times"][COPY]  # of 2 N bytes
    return {
        name: [seconds * traffic / 2 for seconds in times]
        for name, traffic in ((_SHARED, shared), (_PUBLISHED, shared + 2))
    }


def _case(found: Mapping[str, Any]) -> Case:
    return {
        "operation": found["operation"],
        "bytes": found["bytes"],
        "degree": found["degree"],
        **compared(found["times"], OURS),
    }


def _targets(found: Sequence[Mapping[str, Any]]) -> Iterator[TargetRow]:
    times = {(case["operation"], case["bytes"]): case["times"] for case in found}
    for operation, nbytes, ours, against, aim, bound in _TARGETS:
        case = times.get((operation, nbytes), {})
        measured = None
        if ours in case and against in case:
            # How many times faster, or how many times longer.
            pair = (against, ours) if aim == "at least" else (ours, against)
            measured = ratio(case[pair[0]], case[pair[1]])
        kind = "" if ours == OURS else f", {ours.partition(', ')[2]}"
        yield target(f"{operation} {label(nbytes)}{kind}", against, aim, bound, measured)


def _scales(numbers: Sequence[int], *, quick: bool) -> list[Scale]:
    """Jobs of each number of ranks in turn, the one-peer average of unchecked plans in each."""
    specification = {
        "cases": [("one-peer", nbytes) for nbytes in _SCALING_SIZES],
        "only": [UNCHECKED],  # to compare plans, each rank writes to all others
        "rounds": 9,
        "seconds": 0.6 if quick else 2.0,
    }
    times: dict[int, dict[int, list[float]]] = {nbytes: {} for nbytes in _SCALING_SIZES}
    for _ in range(1 if quick else 2):
        for n in numbers:
            found = measure("ops", n, _PROGRAM, seconds=120.0, specification=specification)
            for case in found:
                times[case["bytes"]].setdefault(n, []).extend(case["times"][UNCHECKED])
    return [_scale(nbytes, taken) for nbytes, taken in times.items()]


def _scale(nbytes: int, times: Mapping[int, Sequence[float]]) -> Scale:
    shares = {
        n: [seconds * min(1.0, cores() / n) for seconds in taken] for n, taken in times.items()
    }
    fewest = shares[min(shares)]
    return Scale(
        bytes=nbytes,
        us={n: statistics.median(taken) * 1e6 for n, taken in times.items()},
        us_per_share={n: statistics.median(taken) * 1e6 for n, taken in shares.items()},
        growth={n: _unpaired(taken, fewest) for n, taken in shares.items()},
    )


def _unpaired(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """The ratio of medians of rounds that did not alternate, at worst and at best."""
    a, b = (statistics.quantiles(found, n=4, method="inclusive") for found in (above, below))
    return Ratio(median=a[1] / b[1], low=a[0] / b[2], high=a[2] / b[0])


def _flatness(scale: Scale) -> TargetRow:
    fewest, most = min(scale["growth"]), max(scale["growth"])
    growth = scale["growth"][most]
    return TargetRow(
        work=f"one-peer {label(scale['bytes'])}, {most} ranks, per share of a core",
        against=f"{fewest} ranks",
        aim="1 within the quartiles",
        measured=growth,
        met=growth["low"] <= 1.0,
    )


def _case_lines(cases: Sequence[Case]) -> list[str]:
    """Sizes across, contestants down."""
    names = list(dict.fromkeys(name for case in cases for name in case["us"]))
    rows = [["", *(label(case["bytes"]) for case in cases)]]
    for name in names:
        row = [name]
        for case in cases:
            us, times = case["us"][name], case["ratio"][name]["median"]
            row.append(f"{us:.4g}" if name == OURS else f"{us:.4g} ({times:.2f})")
        rows.append(row)
    return table([*rows, ["rounds", *(str(case["rounds"]) for case in cases)]])


def _scaling_lines(scaling: Sequence[Scale]) -> list[str]:
    if not scaling:
        return []
    rows = [["one-peer, microseconds (per share of a core)", *map(str, scaling[0]["us"])]]
    for scale in scaling:
        shares = scale["us_per_share"]
        cells = (f"{us:.4g} ({shares[n]:.4g})" for n, us in scale["us"].items())
        rows.append([label(scale["bytes"]), *cells])
    rows[0][1:] = [f"{n} ranks" for n in rows[0][1:]]
    return ["", *table(rows)]
