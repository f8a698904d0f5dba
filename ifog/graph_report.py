"""What a graph or a schedule does to disagreement, and what a round of it costs.

Of a schedule the product over a period is looked at, of a random one the mean over many draws. Up
to 512 ranks everything is computed from dense matrices; beyond, only what arrays of edges tell.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ifog import schedules, topology
from ifog.errors import ArgumentError
from ifog.links import Links, Real, Topology
from ifog.numbers import count, counted, number
from ifog.rounds import Drawn, Periodic, Schedule, constant, links_of
from ifog.weights import effective_neighbors, matrix, spectral_rate

__all__ = ["GraphReport", "describe"]

_DENSE = 512  # ranks up to which there are matrices
_DRAWS = 256  # of a random schedule
_ROUNDING = 1e-12

Stochastic = Literal["doubly", "row", "column", "not"]


@dataclass(frozen=True, slots=True, eq=False)
class GraphReport:
    """How a graph or a schedule mixes; None stands for what cannot be told.

    Attributes:
        label: its name.
        n: the number of ranks.
        period: rounds after which it repeats, 1 for a graph, None for a random schedule.
        stochastic: which sums of all its matrices are 1: "doubly", "row", "column" or "not".
        symmetric: whether all its matrices are.
        rho: the factor on the error per round, in the end: the second largest eigenvalue modulus of
            a graph, ``||product - J||_2 ^ (1/period)`` of a schedule, the root of the mean square
            over draws of a random one.
        effective_neighbors: with how many ranks one effectively averages, of 1 to n; of a schedule,
            over a period.
        degree: the most ranks that one hears in a round.
        exact_after: the rounds after which everybody has the exact mean, if there are.
        diameter: the rounds until everybody can know of everybody.
        messages: per round, all ranks together.
        busiest: the most messages that one rank sends in a round.
        eigenvalues: of the matrix, or of the product over a period; [n] complex.
    """

    label: str
    n: int
    period: int | None
    stochastic: Stochastic
    symmetric: bool
    rho: float | None
    effective_neighbors: float | None
    degree: int
    exact_after: int | None
    diameter: int | None
    messages: float
    busiest: int
    eigenvalues: npt.NDArray[np.complex128] | None = field(repr=False)

    @property
    def gap(self) -> float | None:
        """The spectral gap, 1 - rho."""
        return None if self.rho is None else 1 - self.rho

    @property
    def half_life(self) -> float | None:
        """The rounds in which disagreement halves; 0 where none is left."""
        if self.rho is None or self.rho >= 1:
            return None
        return 0.0 if self.rho == 0 else math.log(2) / -math.log(self.rho)

    def summary(self) -> str:
        """Everything that matters in one line."""
        mixing = "" if self.rho is None else f", spectral rate {number(self.rho)}"
        if self.exact_after is not None and self.period != 1:
            mixing = f", exact after {_rounds(self.exact_after)}"
        kind = "edges" if self.period == 1 else "messages a round"
        return f"{self.label}: {counted(self.n)}, {_plain(self.messages)} {kind}{mixing}"

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) of everything, as text."""
        return [*self._mixing(), *self._reach(), *self._cost()]

    def _mixing(self) -> Iterator[tuple[str, str]]:
        sums = {"doubly": "doubly stochastic", "not": "not stochastic"}
        words = sums.get(self.stochastic, f"{self.stochastic}-stochastic")
        yield "weights", words + (", symmetric" if self.symmetric else "")
        if self.stochastic == "not":
            yield "gap", "none: neither what ranks hear nor what they say sums to 1"
        elif self.rho is None:
            yield "gap", "not computed"
        elif self.exact_after is not None:
            yield "gap", f"finite time: exact after {_rounds(self.exact_after)}"
        elif self.half_life is None:
            yield "gap", "0: never agrees"
        else:
            halves = f"disagreement halves every {number(self.half_life)} rounds"
            yield "gap 1 - rho", f"{number(1 - self.rho)}; {halves}"
            yield "rho per round", number(self.rho)
        if self.effective_neighbors is not None:
            over = f", over {_rounds(self.period)}" if (self.period or 1) > 1 else ""
            yield "effective neighbours", f"{_plain(self.effective_neighbors)} of {self.n}{over}"

    def _reach(self) -> Iterator[tuple[str, str]]:
        if self.diameter is not None:
            yield "diameter", _rounds(self.diameter)
        elif self.n <= _DENSE:
            yield "diameter", "none: somebody never hears of somebody"

    def _cost(self) -> Iterator[tuple[str, str]]:
        yield "degree", str(self.degree)
        each = f"at most {self.busiest} from one rank"
        yield "messages a round", f"{_plain(self.messages)}; {each}"

    def __str__(self) -> str:
        rows = [f"  {what:<22}{how}" for what, how in self.lines()]
        return "\n".join([f"{self.label}: {counted(self.n)}{self._kind()}", *rows])

    __repr__ = __str__

    def _kind(self) -> str:
        if self.period is None:
            return f", a new graph each round ({_DRAWS} looked at)"
        return f", repeats after {_rounds(self.period)}" if self.period > 1 else ""

    def _repr_html_(self) -> str:
        view: Any = importlib.import_module("ifog.magics.graph_view")
        return str(view.html(self, self._kind()))


def describe(graph: Topology | Links | Schedule | str, n: int | None = None) -> GraphReport:
    """What ``topology.report`` gives.

    Raises:
        ArgumentError: not a graph or schedule, or a name without a number of ranks.
    """
    schedule = _schedule(graph, n)
    period = schedule.period
    rounds = [schedule.links(step) for step in range(period or _DRAWS)]
    degrees = [np.bincount(links.without_loops()[1], minlength=links.n) for links in rounds]
    sends = [np.bincount(links.without_loops()[0], minlength=links.n) for links in rounds]
    dense = rounds[0].n <= _DENSE
    matrices = [matrix(links) for links in rounds] if dense else []
    product = _product(matrices) if period and dense else None
    stochastic = _stochastic(rounds)
    mixes = stochastic != "not"
    return GraphReport(
        label=schedule.label,
        n=rounds[0].n,
        period=period,
        stochastic=stochastic,
        symmetric=all(map(_is_symmetric, rounds)),
        rho=None if not mixes else _rho(schedule) if dense else _rho_of_links(rounds),
        effective_neighbors=effective_neighbors(product) if mixes and product is not None else None,
        degree=max(int(degree.max()) for degree in degrees),
        exact_after=_exact_after(matrices) if period else None,
        diameter=_diameter(matrices) if dense else None,
        messages=float(np.mean([degree.sum() for degree in degrees])),
        busiest=max(int(sent.max()) for sent in sends),
        eigenvalues=None if product is None else np.linalg.eigvals(product).astype(np.complex128),
    )


def _schedule(graph: Topology | Links | Schedule | str, n: int | None) -> Periodic | Drawn:
    if isinstance(graph, str):
        if n is None:
            raise ArgumentError(f"report: {graph!r} of how many ranks? Say report({graph!r}, 16)")
        return schedules.named(graph, n)
    if isinstance(graph, Links):
        return constant(graph)
    if isinstance(graph, Periodic | Drawn):
        return graph
    if callable(graph):
        schedule = graph
        return Drawn("custom", lambda step: links_of(schedule, step))
    topology.check(graph, len(graph) if hasattr(graph, "__len__") else 0)
    return constant(graph)


def _product(matrices: Sequence[Real]) -> Real:
    product = np.eye(len(matrices[0]))
    for W in matrices:
        product = W @ product
    return product


def _rho(schedule: Periodic | Drawn) -> float:
    if schedule.period == 1:  # of a graph whose W is not normal, what holds in the end
        return spectral_rate(matrix(schedule.links(0)))
    return schedules.spectral_rate(schedule, draws=_DRAWS)


def _rho_of_links(rounds: Sequence[Links], steps: int = 3000) -> float | None:
    """By iteration, where there is one graph, whose rows or columns sum to 1."""
    if len(rounds) > 1:
        return None
    links, lengths = rounds[0], [1.0]
    source, target = links.source, links.target
    if (
        _stochastic(rounds) == "column"
    ):  # the transpose has the same eigenvalues, and rows that sum to 1
        source, target = target, source
    x: Real = np.random.default_rng(0).standard_normal(links.n)
    for step in range(1, steps + 1):
        x = np.bincount(target, links.weight * x[source], links.n).astype(np.float64)
        x -= x.mean()
        size = float(np.linalg.norm(x))
        if size == 0:
            return 0.0
        x /= size
        lengths.append(size)
        if step % 200 == 0:  # complex pairs turn, so many rounds are compared
            halves = np.log(lengths[-200:]).reshape(2, 100).mean(axis=1)
            early, late = map(math.exp, halves)
            if abs(late - early) < 1e-4 * (1 - late):
                return late
    return None


def _stochastic(rounds: Sequence[Links]) -> Stochastic:
    def sums_to_one(ends: Literal["source", "target"]) -> bool:
        return all(
            np.allclose(np.bincount(getattr(g, ends), g.weight, g.n), 1, rtol=0, atol=_ROUNDING)
            for g in rounds
        )

    rows, columns = sums_to_one("target"), sums_to_one("source")
    return "doubly" if rows and columns else "row" if rows else "column" if columns else "not"


def _is_symmetric(links: Links) -> bool:
    there = np.lexsort((links.target, links.source))
    back = np.lexsort((links.source, links.target))
    return (
        np.array_equal(links.source[there], links.target[back])
        and np.array_equal(links.target[there], links.source[back])
        and np.allclose(links.weight[there], links.weight[back], rtol=0, atol=_ROUNDING)
    )


def _exact_after(matrices: Sequence[Real]) -> int | None:
    if not matrices:
        return None
    product, n = np.eye(len(matrices[0])), len(matrices[0])
    for step, W in enumerate(matrices, start=1):
        product = W @ product
        if np.abs(product - 1 / n).max() < _ROUNDING:
            return step
    return None


def _diameter(matrices: Sequence[Real]) -> int | None:
    """Rounds until all know of all; repeating what is there, for as long as anybody may need."""
    n = len(matrices[0])
    links = [((W != 0) | np.eye(n, dtype=bool)).astype(np.float32) for W in matrices]
    known = np.eye(n, dtype=np.float32)
    for step in range((n - 1) * len(links)):
        if known.all():
            return step
        known = (links[step % len(links)] @ known > 0).astype(np.float32)
    return (n - 1) * len(links) if known.all() else None


def _plain(value: float) -> str:
    whole = round(value)
    return count(whole) if abs(value - whole) < 1e-9 * max(whole, 1) else number(value)


def _rounds(many: int | None) -> str:
    return f"{count(many or 0)} round{'' if many == 1 else 's'}"
