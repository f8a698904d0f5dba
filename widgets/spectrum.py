"""How fast can W mix?"""

from __future__ import annotations

from typing import Any

import networkx as nx
import traitlets

from ifog import weights
from ifog.modes import Modes, fold_modes, view_modes
from ifog.widgets.bundle import module
from ifog.widgets.layout import positions
from ifog.widgets.panel import Panel, Picture

__all__ = ["Spectrum"]


def _view(state: Modes, time: float) -> dict[str, Any]:
    view = view_modes(state, time)
    if view["empty"] or not view["weights"]:
        return view
    links = tuple((u, v) for u, v, _ in view["weights"])
    on_circle, spots = positions(view["n"], links, view["label"])
    return view | {"round_layout": on_circle, "positions": spots}


class Spectrum(Panel):
    """The eigenvalues of W, or of the product over a schedule's period, and the gap.

    Attributes:
        proposal: the graph that was chosen by *Use*, with ``n`` and its ``edges``; empty if none.
    """

    _esm = module("spectrum.js")
    span = 4
    proposal = traitlets.Dict().tag(sync=True)
    picture = Picture(Modes, fold_modes, _view)

    def chosen(self) -> nx.DiGraph | None:
        """The graph chosen by *Use*; None if none is.

        Its weights are Metropolis weights where all links go both ways, else even averages: those
        the picture was drawn with.
        """
        if not self.proposal:
            return None
        graph = nx.DiGraph(label="edited")
        graph.add_nodes_from(range(int(self.proposal["n"])))
        graph.add_edges_from((int(u), int(v)) for u, v in self.proposal["edges"])
        both = all(graph.has_edge(v, u) for u, v in graph.edges)
        return weights.metropolis(graph) if both else weights.uniform(graph)

    def forget(self) -> None:
        """Take no graph as chosen, and show no edits."""
        self.proposal = {}
        look: dict[str, Any] = self.get_state("look")["look"]
        self.look = look | {"edit": {"on": False}}
