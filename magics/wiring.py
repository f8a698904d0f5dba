"""``%bf topology --from-widget``: mix over the graph that was drawn in a Spectrum panel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ifog import weights
from ifog.errors import ArgumentError
from ifog.magics.runner import Runner
from ifog.numbers import count, counted, number

__all__ = ["use_drawn"]


def use_drawn(runner: Runner) -> str:
    """Set the graph that was chosen by *Use*; returns what to say.

    Raises:
        ArgumentError: none was chosen, or one for another number of ranks.
    """
    found = [panel for panel in _panels(runner.shell.user_ns.values()) if panel.proposal]
    if not found:
        raise ArgumentError(
            "%bf topology --from-widget: no graph was chosen; drag links in the panel of "
            "%bf dashboard spectrum, after its button edit, and press Use"
        )
    panel = found[-1]
    graph, cluster = panel.chosen(), runner.cluster_or_default()
    if len(graph) != cluster.n:
        raise ArgumentError(
            f"%bf topology --from-widget: the chosen graph has {counted(len(graph))}, the cluster "
            f"{cluster.n}"
        )
    runner.require_idle(range(cluster.n), "%bf topology")
    cluster.set_topology(graph)
    panel.forget()
    edges = sum(u != v for u, v in graph.edges)
    rate = weights.spectral_rate(weights.matrix(graph))
    return f"edited: {counted(cluster.n)}, {count(edges)} edges, spectral rate {number(rate)}"


def _panels(values: Iterable[Any]) -> list[Any]:
    """The Spectrum panels among the notebook's variables, alone or in dashboards."""
    there = [part for value in list(values) for part in (value, *_parts(value))]
    return [part for part in there if hasattr(type(part), "chosen") and hasattr(part, "proposal")]


def _parts(value: Any) -> tuple[Any, ...]:
    parts = vars(value).get("panels", ()) if hasattr(value, "__dict__") else ()
    return parts if isinstance(parts, tuple) else ()
