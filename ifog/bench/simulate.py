"""What the simulator costs: a step beside copies of its tensors, a graph, and loops over agents.

The floor of a step of gradient tracking is to read four arrays (x, the data, tracker and last
gradient) and to write three; 3.5 copies of one array, measured in the same rounds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from ifog.bench.jobs import HERE
from ifog.bench.ratios import Ratio, TargetRow, medians, ratio, table, target, target_lines
from ifog.errors import ArgumentError, ClusterError
from ifog.numbers import count, duration

__all__ = ["SimulateReport", "Step", "run"]

_FLOOR = 3.5  # copies of an array: 7 arrays move, a copy moves 2
_SECONDS = 540.0
_FULL = {
    "scale": [(10_000, 1_000), (100_000, 100)],
    "building": [10_000, 100_000, 1_000_000],
    "loop": [100, 1_000],
    "rounds": 20,
}
_QUICK = {
    "scale": [(2_000, 500), (20_000, 50)],
    "building": [10_000, 100_000],
    "loop": [100],
    "rounds": 10,
}


class Step(TypedDict):
    """Gradient tracking, float32: medians in microseconds, and the step over its floor."""

    agents: int
    dimension: int
    us: dict[str, float]
    over_floor: Ratio


class Build(TypedDict):
    """Seconds to draw a graph and make its matrix; of networkx None where it was not asked."""

    agents: int
    draw: float
    matrix: float
    networkx: float | None


class Loop(TypedDict):
    """A step of diffusion beside a loop over agents; a round of GossiPy, or why there is none."""

    agents: int
    us: dict[str, float]
    slower: Ratio
    error: float
    peer: float | str


class SimulateReport(NamedTuple):
    """The result."""

    rounds: int
    steps: list[Step]
    builds: list[Build]
    loops: list[Loop]
    targets: list[TargetRow]

    def lines(self) -> list[str]:
        """The result in words."""
        return [
            f"one thread, float32, random graphs of degree 8, medians of {self.rounds} rounds in "
            "turn, times with a core",
            "",
            "gradient tracking: a step, and what moving its tensors takes",
            *table(
                [["agents x dimension", "step", "floor", "over it", "quartiles"], *self._steps()]
            ),
            "",
            "a graph: drawing it, making its matrix, and networkx drawing and listing one",
            *table([["agents", "draw", "matrix", "per link", "networkx"], *self._builds()]),
            "",
            "diffusion, dimension 100: ours, and loops over agents",
            *table([["agents", "ifog", "networkx and NumPy", "times", "GossiPy"], *self._loops()]),
            "GossiPy does another task (models and optimizers as objects): an order of magnitude",
            *(f"GossiPy: {e['peer']}" for e in self.loops[:1] if isinstance(e["peer"], str)),
            "",
            *target_lines(self.targets),
        ]

    def _steps(self) -> Iterator[list[str]]:
        for step in self.steps:
            over = step["over_floor"]
            yield [
                _shape(step),
                duration(step["us"]["step"] / 1e6),
                duration(_FLOOR * step["us"]["copy"] / 1e6),
                f"{over['median']:.2f}",
                f"{over['low']:.2f} to {over['high']:.2f}",
            ]

    def _builds(self) -> Iterator[list[str]]:
        for build in self.builds:
            both, peer = build["draw"] + build["matrix"], build["networkx"]
            yield [
                count(build["agents"]),
                duration(build["draw"]),
                duration(build["matrix"]),
                duration(both / (9 * build["agents"])),
                "" if peer is None else f"{duration(peer)} ({peer / both:.0f} times)",
            ]

    def _loops(self) -> Iterator[list[str]]:
        for each in self.loops:
            peer = each["peer"]
            yield [
                count(each["agents"]),
                duration(each["us"]["ifog"] / 1e6),
                duration(each["us"]["loop"] / 1e6),
                f"{each['slower']['median']:.0f}",
                duration(peer) if isinstance(peer, float) else "not measured",
            ]


def run(ranks: int, *, rounds: int | None = None, quick: bool = False) -> SimulateReport:
    """Measure in a process of its own.

    Args:
        ranks: not used; all agents are in one process.
        rounds: how many, by default 20, or 10 if quick.
        quick: smaller sizes.

    Raises:
        ArgumentError: fewer than 2 rounds.
        ClusterError: the process failed or took too long.
    """
    del ranks
    asked: dict[str, Any] = dict(_QUICK if quick else _FULL)
    asked["rounds"] = rounds or asked["rounds"]
    if asked["rounds"] < 2:
        raise ArgumentError("bench simulate needs at least 2 rounds")
    found = _measured(asked)
    steps = [_step(each) for each in found["scale"]]
    targets = [
        target(_shape(step), "its floor", "at most", 4.0, step["over_floor"]) for step in steps
    ]
    builds: list[Build] = found["building"]
    return SimulateReport(
        asked["rounds"], steps, builds, [_loop(e) for e in found["loop"]], targets
    )


def _measured(asked: Mapping[str, Any]) -> Any:
    with tempfile.TemporaryDirectory(prefix="ifog-") as private:
        out = Path(private) / "times.json"
        words = [sys.executable, "-m", "ifog.bench.simulate_rounds", json.dumps(asked), str(out)]
        env = {**os.environ, "THP_MEM_ALLOC_ENABLE": "1", "PYTHONPATH": HERE}
        try:
            done = subprocess.run(
                words,
                cwd=private,
                env=env,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ClusterError(
                f"bench simulate took over {_SECONDS:.0f} s and was ended; try --quick"
            ) from None
        if done.returncode or not out.is_file():
            raise ClusterError(f"bench simulate failed:\n{done.stderr[-3000:]}")
        return json.loads(out.read_text())


def _shape(step: Step) -> str:
    return f"{count(step['agents'])} x {count(step['dimension'])}"


def _step(each: Mapping[str, Any]) -> Step:
    times = each["times"]
    floor = [_FLOOR * seconds for seconds in times["copy"]]
    return Step(
        agents=each["agents"],
        dimension=each["dimension"],
        us=medians(times),
        over_floor=ratio(times["step"], floor),
    )


def _loop(each: Mapping[str, Any]) -> Loop:
    times = each["times"]
    return Loop(
        agents=each["agents"],
        us=medians(times),
        slower=ratio(times["loop"], times["ifog"]),
        error=each["error"],
        peer=each["peer"],
    )
