"""Where the nodes of a graph stand, found once from its declared edges and kept.

Rings and other graphs that look the same from every rank stand on a circle, rank 0 on top; grids,
stars and trees as one would draw them; anything else where springs come to rest.
"""

from __future__ import annotations

import math
from functools import lru_cache

import networkx as nx

__all__ = ["positions"]

Spot = list[float]
Edges = tuple[tuple[int, int], ...]


@lru_cache(maxsize=64)
def positions(n: int, edges: Edges, label: str) -> tuple[bool, list[Spot]]:
    """Whether the nodes stand on a circle, and [x, y] of each in [-1, 1], y downwards."""
    links = nx.Graph(edge for edge in edges if max(edge) < n)
    links.add_nodes_from(range(n))
    columns = _columns(n, links) if label.startswith("grid") else 0
    if columns:
        return False, _grid(n, columns)
    if n > 3 and label.startswith("star"):
        return False, _star(n, max(links.degree, key=lambda item: item[1])[0])
    if _looks_even(n, edges):
        return True, _circle(n)
    if nx.is_tree(links):
        return False, _tree(links)
    return False, _springs(links)


def _circle(n: int) -> list[Spot]:
    if n == 1:
        return [[0.0, 0.0]]
    turns = [2 * math.pi * rank / n for rank in range(n)]
    return [[math.sin(turn), -math.cos(turn)] for turn in turns]


def _looks_even(n: int, edges: Edges) -> bool:
    """Whether the graph is the same seen from every rank, or nearly everybody is linked."""
    offsets = {(v - u) % n for u, v in edges}
    return len(edges) in (0, n * len(offsets)) or len(edges) > 0.4 * n * (n - 1)


def _columns(n: int, links: nx.Graph) -> int:
    """The columns of a grid that is numbered row by row, 0 if it is none."""
    below = [other for other in links[0] if other != 1]
    columns = below[0] if below else n
    expected = {(r, r + columns) for r in range(n - columns)}
    expected |= {(r, r + 1) for r in range(n) if (r + 1) % columns}
    return columns if {tuple(sorted(link)) for link in links.edges} == expected else 0


def _spread(index: int, count: int) -> float:
    return 2 * index / (count - 1) - 1 if count > 1 else 0.0


def _grid(n: int, columns: int) -> list[Spot]:
    rows = n // columns
    return [[_spread(r % columns, columns), _spread(r // columns, rows)] for r in range(n)]


def _star(n: int, center: int) -> list[Spot]:
    leaves = iter(_circle(n - 1))
    return [[0.0, 0.0] if rank == center else next(leaves) for rank in range(n)]


def _tree(links: nx.Graph) -> list[Spot]:
    levels = list(nx.bfs_layers(links, [0]))
    spots: dict[int, Spot] = {}
    for depth, level in enumerate(levels):
        for index, rank in enumerate(sorted(level)):
            spots[rank] = [2 * (index + 0.5) / len(level) - 1, _spread(depth, len(levels))]
    return [spots[rank] for rank in sorted(links)]


def _springs(links: nx.Graph) -> list[Spot]:
    spots = nx.spring_layout(links, seed=0, iterations=200)
    largest = max(float(abs(spot).max()) for spot in spots.values()) or 1.0
    return [[float(x) / largest for x in spots[rank]] for rank in sorted(links)]
