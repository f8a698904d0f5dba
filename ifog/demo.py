"""``ifog demo``: average consensus and decentralized training on real MPI ranks, in a minute.

This is the client's half: it starts the ranks, follows them through their events and gathers what
is claimed into a ``Report``. The ranks' half is ``ifog.demo_ranks``.
"""

from __future__ import annotations

import importlib.util
import json
import time
from typing import Any, NamedTuple, Protocol

from ifog import schedules
from ifog.cluster import CellResult, Cluster
from ifog.errors import ArgumentError
from ifog.telemetry import EventLog, WatchEvent

__all__ = [
    "METHODS",
    "TOPOLOGIES",
    "Consensus",
    "Digits",
    "Report",
    "Screen",
    "measured_rate",
    "run",
]

TOPOLOGIES = ("ring", "exponential", "one-peer exponential")
METHODS = ("no communication", "neighbour averaging", "global averaging")

_EXACT = 1e-13  # relative error below which only rounding is left
_CELL_LIMIT = 600.0  # seconds


class Consensus(NamedTuple):
    """How one topology averaged: rounds, relative error at the end, factors on it per round."""

    topology: str
    rounds: int
    error: float
    measured_rate: float
    spectral_rate: float


class Digits(NamedTuple):
    """How one method learned: mean test accuracy of the ranks' own models, bytes all ranks sent."""

    method: str
    accuracy: float
    bytes: int


class Report(NamedTuple):
    """What the demo measured."""

    ranks: int
    seconds: float
    consensus: tuple[Consensus, ...]
    digits: tuple[Digits, ...]

    def to_json(self) -> str:
        """The report as a JSON object, one entry per topology and per method."""
        content = self._asdict()
        content["consensus"] = [row._asdict() for row in self.consensus]
        content["digits"] = [row._asdict() for row in self.digits]
        return json.dumps(content, indent=2)

    def shortfalls(self) -> list[str]:
        """What the demo set out to show and did not; empty when all went well."""
        missed = [
            f"{row.topology}: the error is still {row.error:.1e} after {row.rounds} rounds"
            for row in self.consensus
            if not row.error <= 1e-6
        ]
        accuracy = {row.method: row.accuracy for row in self.digits}
        neighbour, everyone = accuracy["neighbour averaging"], accuracy["global averaging"]
        if not neighbour >= everyone - 0.01:
            missed.append(
                f"neighbour averaging reached {neighbour:.1%}, more than a point below the "
                f"{everyone:.1%} of global averaging"
            )
        return missed


class Screen(Protocol):
    """Where the demo shows what it is doing."""

    def note(self, text: str) -> None:
        """Say what goes on now, outside the tables."""

    def running(self, label: str, step: int, value: float) -> None:
        """Row ``label`` has done ``step`` rounds; ``value`` is its error or loss."""

    def finished(self, row: Consensus | Digits) -> None:
        """The row is complete."""


def run(n: int, screen: Screen) -> Report:
    """Run the whole demo on ``n`` ranks, which are started before and stopped after.

    Raises:
        ArgumentError: ``n`` is below 1, or scikit-learn, which brings the digits, is missing.
        ClusterStartError: the ranks did not come up.
        CellError: a rank raised.
        KeyboardInterrupt: the user stopped it; the ranks are gone by then.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ArgumentError(
            "the demo takes its digits from scikit-learn, which is not installed; "
            'install it with: pip install "ifog[lab]"'
        )
    started = time.monotonic()
    cluster = Cluster(n)
    try:
        cluster.start(screen.note)
        runner = _Runner(cluster, screen)
        screen.note("averaging a vector of 100,000 numbers over all ranks")
        consensus = tuple(runner.consensus(label) for label in TOPOLOGIES)
        screen.note("training on digits, each rank on a few of them")
        digits = tuple(runner.train(method) for method in METHODS)
    finally:
        cluster.stop()
    return Report(n, round(time.monotonic() - started, 3), consensus, digits)


def measured_rate(errors: list[float], period: int) -> float:
    """The factor a round took off the error: geometric mean over the later half of the rounds.

    Early rounds are faster, because they also remove what dies out quickly. 0 when the error ends
    at rounding level, as with graphs that average exactly in finitely many rounds.

    Args:
        errors: relative errors after 0, 1, 2, ... rounds.
        period: of the schedule; the mean is taken over whole periods where that is possible.
    """
    rounds = len(errors) - 1
    if errors[-1] <= _EXACT:
        return 0.0
    span = min(max(rounds // 2 // period, 1) * period, rounds)
    return float((errors[-1] / errors[-1 - span]) ** (1 / span))


class _Runner:
    """Runs one part after the other on the ranks and keeps the screen up to date."""

    def __init__(self, cluster: Cluster, screen: Screen) -> None:
        self._cluster = cluster
        self._screen = screen
        self._cursor = 0

    def consensus(self, label: str) -> Consensus:
        """Average over the graph or schedule ``label``."""
        self._call("consensus", label)
        errors: list[float] = self._cluster.pull("demo_result", [0])[0]
        schedule = schedules.named(label, self._cluster.n)
        row = Consensus(
            topology=label,
            rounds=len(errors) - 1,
            error=errors[-1],
            measured_rate=measured_rate(errors, schedule.period or 1),
            spectral_rate=schedules.spectral_rate(schedule),
        )
        self._screen.finished(row)
        return row

    def train(self, method: str) -> Digits:
        """Train by ``method``."""
        result = self._call("train", method)
        accuracies = self._cluster.pull("demo_result").values()
        row = Digits(method, sum(accuracies) / len(accuracies), result.nbytes)
        self._screen.finished(row)
        return row

    def _call(self, function: str, label: str) -> CellResult:
        code = f"import ifog.demo_ranks\ndemo_result = ifog.demo_ranks.{function}({label!r})"
        self._screen.running(label, 0, float("nan"))
        cell = self._cluster.submit(code, timeout=_CELL_LIMIT)
        result = cell.wait(on_tick=lambda: self._follow(label))
        self._follow(label)
        if result.status == "interrupted" or cell.pressed:
            raise KeyboardInterrupt
        result.raise_for_error()
        return result

    def _follow(self, label: str) -> None:
        log: EventLog = self._cluster.events
        self._cursor, events = log.since(self._cursor)
        glances = [
            event
            for event in events
            if isinstance(event, WatchEvent) and event.rank == 0 and event.name == label
        ]
        if glances:
            step, value = _pair(glances[-1].sample)
            self._screen.running(label, step, value)


def _pair(sample: tuple[Any, ...]) -> tuple[int, float]:
    return int(sample[0]), float(sample[1])
