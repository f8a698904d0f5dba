"""The table of algorithms: what each asks of the graph, what it gives, and where it stands.

Equations and references are those of the constructors' docstrings; the rest is written here, once.
"""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from ifog.algorithms.adaptive import accum_adam, adam
from ifog.algorithms.asynchronous import ad_psgd
from ifog.algorithms.base import Algorithm
from ifog.algorithms.compressed import (
    beer,
    choco_gossip,
    choco_sgd,
    deep_squeeze,
    lead,
    motef,
    naive_compressed,
)
from ifog.algorithms.diffusion import atc, dgd, local_dgd
from ifog.algorithms.exact import d2, exact_diffusion, extra, nids
from ifog.algorithms.momentum import decent_lam, dm_sgd, momentum_tracking, qg_dsgdm
from ifog.algorithms.outer import diloco, gossip_pga, local_sgd, noloco, slow_mo
from ifog.algorithms.power_gossip import power_gossip
from ifog.algorithms.primal_dual import admm, dlm, led, prox_skip
from ifog.algorithms.push import push_diging, push_pull, push_sum, sgp
from ifog.algorithms.relay import relay_sgd, relay_sum
from ifog.algorithms.robust import clipped_gossip, trimmed_mean
from ifog.algorithms.tracking import aug_dgm, diging, gradient_tracking, gt_saga, k_gt
from ifog.errors import ArgumentError

__all__ = ["Catalog", "Entry", "catalog"]

Graph = Literal["balanced", "symmetric", "columns", "rows and columns", "tree", "links", "none"]
Flag = Literal["directed", "changing", "stochastic", "exact", "compressed"]
_FLAGS: tuple[Flag, ...] = ("directed", "changing", "stochastic", "exact", "compressed")
_LEFT = "style='text-align:left'"  # notebooks align cells to the right
_COLUMNS = ("name", "family", "graph", *_FLAGS, "reference")


class Entry(NamedTuple):
    """One algorithm.

    Attributes:
        make: its constructor.
        family: to which it belongs.
        graph: what W must be: "balanced" is doubly stochastic, directed or not; "symmetric" doubly
            stochastic and symmetric; "columns" column-stochastic; "rows and columns" one of each;
            "tree" a tree with any weights; "links" any weights; "none" that there is no graph.
        flags: those of directed (also where no balanced weights are known), changing (the graph may
            be another each round), stochastic (the sources allow noisy gradients), exact (no bias
            at fixed parameters), compressed.
    """

    make: Callable[..., Algorithm]
    family: str
    graph: Graph
    flags: frozenset[Flag]

    @property
    def name(self) -> str:
        """What it is called in ``ifog.algorithms``."""
        return self.make.__name__

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        return _doc(self.make).split("\n", 1)[0]

    @property
    def equation(self) -> str:
        """Its recursion."""
        found = re.search(r"::\n\n((?: {4}.*\n|\n)+)", _doc(self.make))
        return inspect.cleandoc(found[1]) if found else ""

    @property
    def reference(self) -> str:
        """Where it stands: authors, year, and arXiv or DOI."""
        found = re.search(r"^Sources?: (.*)", _doc(self.make), re.M | re.S)
        return " ".join(found[1].split()) if found else ""

    def row(self) -> dict[str, Any]:
        """Everything about it by column, as ``pandas.DataFrame`` takes it."""
        flags = {flag: flag in self.flags for flag in _FLAGS}
        told = {"summary": self.summary, "equation": self.equation, "reference": self.reference}
        return {"name": self.name, "family": self.family, "graph": self.graph, **flags, **told}


class Catalog(tuple[Entry, ...]):
    """A table of algorithms; shown as such in a notebook."""

    __slots__ = ()

    def named(self, name: str) -> Entry:
        """The algorithm called ``name``.

        Raises:
            ArgumentError: there is none in this table.
        """
        for entry in self:
            if entry.name == name:
                return entry
        names = ", ".join(entry.name for entry in self)
        raise ArgumentError(f"no algorithm here is called {name!r}; there are {names}")

    def rows(self) -> list[dict[str, Any]]:
        """All about each algorithm, as ``pandas.DataFrame`` takes it."""
        return [entry.row() for entry in self]

    def __repr__(self) -> str:
        lines = [list(_COLUMNS), *(list(_cells(entry, short=True)) for entry in self)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = (
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            for line in lines
        )
        return "\n".join(line.rstrip() for line in padded)

    def _repr_html_(self) -> str:
        head = "".join(f"<th {_LEFT}>{column}</th>" for column in _COLUMNS)
        return f"<table><thead><tr>{head}</tr></thead>{''.join(map(_html_rows, self))}</table>"


def catalog(
    *,
    directed: bool | None = None,
    changing: bool | None = None,
    stochastic: bool | None = None,
    exact: bool | None = None,
    compressed: bool | None = None,
    family: str | None = None,
) -> Catalog:
    """The algorithms, all of them or those with the properties asked for.

    Args:
        directed: works where links go one way and no balanced weights are known.
        changing: the graph may be another each round.
        stochastic: its sources allow noisy gradients.
        exact: no bias at fixed parameters, however different the agents' data are.
        compressed: messages are compressed.
        family: one of those that the table shows.

    Raises:
        ArgumentError: there is no such family.

    Example:
        >>> for entry in catalog(directed=True, exact=True, changing=True):
        ...     print(entry.name)
        push_sum
        push_diging
    """
    asked: dict[Flag, bool | None] = {
        "directed": directed,
        "changing": changing,
        "stochastic": stochastic,
        "exact": exact,
        "compressed": compressed,
    }
    families = sorted({entry.family for entry in _ENTRIES})
    if family is not None and family not in families:
        raise ArgumentError(f"catalog: no family is called {family!r}; there are {families}")
    return Catalog(
        entry
        for entry in _ENTRIES
        if family in (None, entry.family)
        and all(want is None or (flag in entry.flags) is want for flag, want in asked.items())
    )


def _doc(make: Callable[..., Algorithm]) -> str:
    return inspect.getdoc(make) or ""


def _cells(entry: Entry, *, short: bool) -> Iterator[str]:
    yield from (entry.name, entry.family, entry.graph)
    yield from ("yes" if flag in entry.flags else "-" for flag in _FLAGS)
    reference = entry.reference
    if short:  # the first one's number
        found = re.search(r"(\d{4}), (arXiv:[\d.]+\d|doi:\S+?)(?=[;,.]?(?: |$))", reference)
        reference = f"{found[2]} ({found[1]})" if found else reference
    yield reference


def _html_rows(entry: Entry) -> str:
    """Two rows: the properties, and below them the equation over the whole width."""
    number = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
    cells = [html.escape(cell) for cell in _cells(entry, short=True)]
    cells[0] = f"<b title='{html.escape(entry.summary)}'>{cells[0]}</b>"
    linked = number.sub(r'<a href="https://arxiv.org/abs/\1">\g<0></a>', cells[-1])
    cells[-1] = f"<span title='{html.escape(entry.reference)}'>{linked}</span>"
    row = "".join(f"<td {_LEFT}>{cell}</td>" for cell in cells)
    equation = f"<pre style='margin:0; white-space:pre'>{html.escape(entry.equation)}</pre>"
    below = f"<td {_LEFT} colspan='{len(cells)}'>{equation}</td>"
    return f"<tbody><tr>{row}</tr><tr>{below}</tr></tbody>"


def _entries(family: str, *rows: tuple[Callable[..., Algorithm], Graph, str]) -> list[Entry]:
    """Rows of one family; flags are given by their first letters, x standing for exact."""
    letters: dict[str, Flag] = {
        "d": "directed",
        "v": "changing",
        "s": "stochastic",
        "x": "exact",
        "c": "compressed",
    }
    return [
        Entry(make, family, graph, frozenset(letters[letter] for letter in flags))
        for make, graph, flags in rows
    ]


# d: directed, v: the graph may vary, s: stochastic, x: exact, c: compressed
_ENTRIES = [
    *_entries(
        "diffusion",
        (dgd, "balanced", "vs"),
        (atc, "balanced", "vs"),
        (local_dgd, "balanced", "vs"),
    ),
    *_entries(
        "exact",
        (extra, "symmetric", "x"),
        (exact_diffusion, "symmetric", "x"),
        (d2, "symmetric", "sx"),
        (nids, "symmetric", "x"),
    ),
    *_entries(
        "tracking",
        (diging, "balanced", "vx"),
        (aug_dgm, "balanced", "x"),
        (gradient_tracking, "balanced", "vsx"),
        (gt_saga, "balanced", "sx"),
        (k_gt, "balanced", "sx"),
    ),
    *_entries(
        "push",
        (push_sum, "columns", "dvx"),
        (sgp, "columns", "dvs"),
        (push_diging, "columns", "dvx"),
        (push_pull, "rows and columns", "dx"),
    ),
    *_entries(
        "compressed",
        (choco_gossip, "symmetric", "xc"),
        (choco_sgd, "symmetric", "sc"),
        (beer, "symmetric", "sxc"),
        (motef, "symmetric", "sxc"),
        (lead, "symmetric", "sxc"),
        (deep_squeeze, "symmetric", "sc"),
        (naive_compressed, "symmetric", "c"),
        (power_gossip, "symmetric", "sc"),
    ),
    *_entries(
        "momentum",
        (dm_sgd, "balanced", "vs"),
        (decent_lam, "symmetric", "s"),
        (qg_dsgdm, "balanced", "vs"),
        (momentum_tracking, "balanced", "sx"),
    ),
    *_entries("relay", (relay_sum, "tree", "x"), (relay_sgd, "tree", "sx")),
    *_entries(
        "outer",
        (local_sgd, "none", "s"),
        (gossip_pga, "balanced", "vs"),
        (slow_mo, "none", "s"),
        (diloco, "none", "s"),
        (noloco, "balanced", "vs"),
    ),
    *_entries("adaptive", (adam, "balanced", "vs"), (accum_adam, "balanced", "vs")),
    *_entries(
        "primal-dual",
        (admm, "symmetric", "x"),
        (dlm, "symmetric", "x"),
        (led, "symmetric", "sx"),
        (prox_skip, "symmetric", "sx"),
    ),
    *_entries("asynchronous", (ad_psgd, "balanced", "vs")),
    *_entries("robust", (clipped_gossip, "symmetric", "vs"), (trimmed_mean, "links", "vs")),
]
