"""A graph for every round: what a schedule is, and the two kinds there are.

A schedule maps the step to the graph of that step, the same on every rank that asks. It gives
digraphs when called, and arrays by ``links``, which is what the simulator takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from ifog.links import Links, Topology, as_graph, as_links

__all__ = ["Drawn", "Periodic", "Schedule", "constant", "links_of", "mean_graph"]

_KEPT = 1024  # digraphs of a schedule


class Schedule(Protocol):
    """The graph of step 0, 1, 2, ...: the same on every rank that asks."""

    def __call__(self, step: int) -> Topology:
        """The graph to mix by in round ``step``."""


@runtime_checkable
class _OfLinks(Protocol):
    def links(self, step: int) -> Links: ...


@dataclass(frozen=True, slots=True)
class Periodic:
    """A schedule that repeats after ``period`` steps; digraphs are built once and shared.

    Attributes:
        period: after how many steps it repeats.
        label: a short name for tables and pictures.
        build: the graph of a step in ``range(period)``, as a digraph or as arrays.
    """

    period: int
    label: str
    build: Callable[[int], Topology | Links]
    _graphs: dict[int, Topology] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, step: int) -> Topology:
        """The graph to mix by in round ``step``."""
        return _kept(self._graphs, self.build, step % self.period)

    def links(self, step: int) -> Links:
        """The same as arrays."""
        return as_links(self.build(step % self.period))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A schedule that draws a new graph each step, from its seed and the step alone.

    Attributes:
        label: a short name for tables and pictures.
        draw: the graph of a step.
    """

    label: str
    draw: Callable[[int], Links]
    _graphs: dict[int, Topology] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, step: int) -> Topology:
        """The graph to mix by in round ``step``."""
        return _kept(self._graphs, self.draw, step)

    def links(self, step: int) -> Links:
        """The same as arrays."""
        return self.draw(step)

    @property
    def period(self) -> None:
        """It never repeats."""


def constant(graph: Topology | Links) -> Periodic:
    """The schedule that always gives ``graph``."""
    label = graph.label if isinstance(graph, Links) else str(graph.graph.get("label", "custom"))
    return Periodic(1, label, lambda _: graph)


def links_of(schedule: Schedule, step: int) -> Links:
    """The graph of a step as arrays, without a digraph on the way where the schedule can."""
    return schedule.links(step) if isinstance(schedule, _OfLinks) else as_links(schedule(step))


def mean_graph(schedule: Schedule, *, rounds: int = 64) -> Topology:
    """The graph of the mean matrix of a period, or of as many ``rounds`` where that is longer."""
    many = min(getattr(schedule, "period", None) or rounds, rounds)
    every = [links_of(schedule, step) for step in range(many)]
    n = every[0].n
    keys, which = np.unique(
        np.concatenate([links.source * n + links.target for links in every]), return_inverse=True
    )
    weight = np.bincount(which, np.concatenate([links.weight for links in every])) / many
    label = str(getattr(schedule, "label", every[0].label))
    return Links(n, keys // n, keys % n, weight, label).graph()


def _kept(
    graphs: dict[int, Topology], build: Callable[[int], Topology | Links], step: int
) -> Topology:
    if step not in graphs:
        if len(graphs) >= _KEPT:
            graphs.clear()
        graphs[step] = as_graph(build(step))
    return graphs[step]
