"""A mixing graph without the nodes that died, so that those left keep what the graph promised.

Nodes keep their numbers: the dead ones stay in the graph, without links. With S those that live
and D the dead, one of two rules applies.

*Kept*, where W is symmetric and S hangs together without D: the links inside S keep their weights,
and what a node gave to dead ones it gives to itself.

*Bypassed*, for any other W, or where S would fall apart: the values of dead nodes are taken for
what their senders would have made of them, round after round,

    W' = W_SS + W_SD (I - W_DD)^-1 W_DS,

so a path over dead nodes becomes a link. Row sums, column sums and connectedness are kept: doubly
stochastic stays doubly stochastic (the stochastic complement: Meyer 1989, "Stochastic
complementation, uncoupling Markov chains, and the theory of nearly reducible systems").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import networkx as nx
import numpy as np

from ifog.numbers import named, rank_ranges
from ifog.topology import Matrix, Topology, from_matrix
from ifog.weights import matrix, uniform

__all__ = ["Survival", "surviving", "surviving_share"]

_TINY = 1e-12


class Survival(NamedTuple):
    """What became of a graph.

    Attributes:
        graph: over the same nodes, the dead ones without links.
        rule: how the weights of the dead were made up for.
        parts: groups of living nodes between which nothing can pass to and fro; one is what
            consensus needs.
    """

    graph: Topology
    rule: Literal["kept", "bypassed"]
    parts: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        how = {
            "kept": "the links left keep their weights, the rest goes to the own value",
            "bypassed": "links around the dead replace the paths over them",
        }[self.rule]
        if len(self.parts) == 1:
            return how
        groups = " | ".join(rank_ranges(part) for part in self.parts)
        return f"{how}; the graph falls apart: {groups} cannot all hear each other"


def surviving(graph: Topology, alive: Iterable[int]) -> Survival:
    """The graph for those of its nodes that live.

    Args:
        graph: with weights, over the nodes 0..n-1.
        alive: at least one of them.
    """
    W = matrix(graph)
    living = sorted(alive)
    dead = sorted(set(range(len(W))) - set(living))
    left = W[np.ix_(living, living)]
    rule: Literal["kept", "bypassed"] = "kept"
    if np.allclose(W, W.T, rtol=0, atol=_TINY) and len(_parts(left, living)) == 1:
        left[np.diag_indices_from(left)] += W[np.ix_(living, dead)].sum(axis=1)
    elif dead:
        rule, left = "bypassed", _around(W, living, dead)
    rest = np.zeros_like(W)
    rest[np.ix_(living, living)] = left
    label = str(graph.graph.get("label", "custom"))
    if dead:
        label += f" without {named(dead)}"
    return Survival(from_matrix(rest, label=label), rule, _parts(left, living))


def surviving_share(graph: Topology, weighted: bool, alive: Sequence[int]) -> Survival | None:
    """What ``surviving`` makes of a graph as a rank uses it; None where all of its nodes live.

    Args:
        graph: over the nodes 0..n-1.
        weighted: its weights count, not only its links.
        alive: who is left.
    """
    if len(alive) == len(graph):
        return None
    return surviving(graph if weighted else uniform(graph), alive)


def _links(W: Matrix) -> nx.DiGraph:
    return nx.from_numpy_array(W.T != 0, create_using=nx.DiGraph)


def _parts(left: Matrix, living: list[int]) -> tuple[tuple[int, ...], ...]:
    parts = nx.strongly_connected_components(_links(left))
    return tuple(sorted(tuple(sorted(living[i] for i in part)) for part in parts))


def _around(W: Matrix, living: list[int], dead: list[int]) -> Matrix:
    """The block of the living, with a link for every path over dead nodes."""
    links = _links(W)
    told = set().union(*(nx.descendants(links, node) for node in living))
    telling = set().union(*(nx.ancestors(links, node) for node in living))
    # Only these lie on paths between the living; the others would make the matrix singular.
    over = [node for node in dead if node in told and node in telling]
    stay = np.eye(len(over)) - W[np.ix_(over, over)]
    detours = np.linalg.lstsq(stay, W[np.ix_(over, living)], rcond=None)[0]
    left: Matrix = W[np.ix_(living, living)] + W[np.ix_(living, over)] @ detours
    left[np.abs(left) < _TINY] = 0.0
    # What dead nodes alone began, or what only they would have heard, is made up for here.
    for axis in (1, 0):
        if np.allclose(W.sum(axis=axis), 1.0, rtol=0, atol=_TINY):
            left[np.diag_indices_from(left)] += 1.0 - left.sum(axis=axis)
            break
    return left
