"""What many tensors cost: averaged one by one, posted together, and as a list.

Over the ring, beside the same by hand over MPI, tensor by tensor and packed into one message, and
beside one flat tensor of the same bytes, which shows what is left to gain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ifog.bench.contestants import COPY, LIST, OURS, POSTED
from ifog.bench.jobs import measure, require_room
from ifog.bench.ratios import Compared, TargetRow, compared, ratio, table, target, target_lines
from ifog.mpiexec import cores
from ifog.numbers import counted, size

__all__ = ["FusionReport", "Listed", "run"]

SMALL = "160 tensors of 4 KB"
MODEL = "the tensors of a ResNet-50"
_PROGRAM = ("-m", "ifog.bench.fusion_rounds")
_FLOOR = "floor, tensors published"
_COPIES = 16  # of all tensors that a rank holds at once


class Listed(Compared):
    """One list of tensors, beside ifog one by one; times are those of the whole list."""

    title: str
    tensors: int
    bytes: int


class FusionReport(NamedTuple):
    """The result; ``takes_lists`` tells whether ``neighbor_allreduce`` takes a list."""

    ranks: int
    cores: int
    takes_lists: bool
    lists: list[Listed]
    targets: list[TargetRow]

    def lines(self) -> list[str]:
        """The result in words."""
        lines = [
            f"{counted(self.ranks)}, {self.cores} cores, ring, float32; median microseconds of a "
            "whole list, all in turn;",
            "in brackets the ratio to ifog's one by one, the median over the rounds",
        ]
        for each in self.lists:
            rows = [
                [name, f"{us:.4g}", f"({each['ratio'][name]['median']:.2f})"]
                for name, us in each["us"].items()
            ]
            rows[0][0] += ", one by one"
            about = f"{each['title']}, {size(each['bytes'])}, {each['rounds']} rounds"
            lines += ["", about, *table(rows)]
        if not self.takes_lists:
            lines += ["", f"{LIST}: not available; neighbor_allreduce takes one tensor here"]
        return [*lines, "", "targets (for 4 ranks on 2 cores)", *target_lines(self.targets)]


def run(
    ranks: int,
    *,
    rounds: int | None = None,
    quick: bool = False,
    lists: Mapping[str, Sequence[int]] | None = None,
) -> FusionReport:
    """Let all ways to average a list of tensors run in turn on ``ranks`` real ranks.

    Args:
        ranks: how many, at least 2.
        rounds: of each contestant at most, by default 25, or 9 if quick.
        quick: leave out the tensors of the ResNet-50, which are 102 MB.
        lists: {title: entries of each tensor}.

    Raises:
        ArgumentError: too few ranks, or too many for this machine's memory.
        ClusterError: the job failed or took too long.
    """
    if lists is None:
        lists = {SMALL: [1024] * 160} | ({} if quick else {MODEL: resnet50()})
    require_room("fusion", ranks, _COPIES * 4 * max(map(sum, lists.values())))
    specification = {
        "lists": {title: list(counts) for title, counts in lists.items()},
        "rounds": rounds or (9 if quick else 25),
        "seconds": 20.0 if quick else 90.0,
    }
    found = measure(
        "fusion", ranks, _PROGRAM, seconds=120.0 if quick else 450.0, specification=specification
    )
    degree = min(2, ranks - 1)
    for each in found:
        each["times"][_FLOOR] = [t * (degree + 4) / 2 for t in each["times"][COPY]]
    takes_lists = any(LIST in each["times"] for each in found)
    return FusionReport(
        ranks, cores(), takes_lists, [_listed(each) for each in found], list(_targets(found))
    )


def resnet50() -> list[int]:
    """How many entries each parameter of a ResNet-50 has.

    Source: He, Zhang, Ren, Sun 2015, arXiv:1512.03385, table 1.
    """
    layers = [(3, 64, 7)]  # channels in, channels out, width of the kernel
    channels = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            layers += [(channels, width, 1), (width, width, 3), (width, 4 * width, 1)]
            if block == 0:
                layers.append((channels, 4 * width, 1))
            channels = 4 * width
    # Each convolution is followed by a normalization with a scale and a shift.
    counts = [n for a, b, kernel in layers for n in (a * b * kernel * kernel, b, b)]
    return [*counts, channels * 1000, 1000]


def _listed(found: Mapping[str, Any]) -> Listed:
    return {
        "title": found["title"],
        "tensors": found["tensors"],
        "bytes": found["bytes"],
        **compared(found["times"], OURS),
    }


def _targets(found: Sequence[Mapping[str, Any]]) -> Iterator[TargetRow]:
    none: dict[str, list[float]] = {}
    times = next((each["times"] for each in found if each["title"] == SMALL), none)
    for name in (POSTED, LIST):
        measured = ratio(times[OURS], times[name]) if name in times else None
        yield target(f"{SMALL}, {name.partition(', ')[2]}", "one by one", "at least", 5, measured)
