"""The measurements of ``ifog bench simulate``, in a process of their own on one thread.

Times are those that the thread had a core for, so other programs disturb them little. What is
compared takes turns.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import torch

from ifog import simulate  # noqa: F401 - asks for huge pages before the first tensor
from ifog.agents import MatrixMixer
from ifog.algorithms import dgd, gradient_tracking
from ifog.bench import gossipy_rounds
from ifog.channels import Weather
from ifog.links import Links
from ifog.problems import Quadratics
from ifog.rounds import constant
from ifog.simulation import Mixers
from ifog.topology import random_regular

__all__ = ["main"]

DEGREE = 8
_WARMING = 3
_LOOP_D = 100
_DIGRAPH = 10_000  # agents up to which networkx is asked


def _turns(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of this thread, for each contestant in each round."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + _WARMING):
        for name, call in contestants.items():
            begun = time.thread_time()
            call()
            if turn >= _WARMING:
                times[name].append(time.thread_time() - begun)
    return times


def _problem(n: int, d: int) -> Quadratics:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(n, d, generator=generator)
    return Quadratics(torch.ones(1, 1), targets, torch.arange(n))


def scale(n: int, d: int, rounds: int) -> dict[str, Any]:
    """Steps of gradient tracking beside copies of one of its tensors."""
    links, problem = random_regular.links(n, degree=DEGREE), _problem(n, d)
    algorithm = gradient_tracking(0.05)
    mixers = Mixers(algorithm, constant(links), [0], weather=Weather(), device=torch.device("cpu"))
    state = algorithm.init(torch.zeros(n, d))
    targets = problem.b

    def step() -> None:
        nonlocal state
        mixers.begin(0)
        state = algorithm.step(state, lambda x: x - targets, mixers.mix)

    with torch.no_grad():
        times = _turns({"copy": targets.clone, "step": step}, rounds)
    return {"agents": n, "dimension": d, "times": times}


def building(n: int) -> dict[str, Any]:
    """Seconds to draw a graph and to make its mixing matrix, as arrays and, if small, networkx."""
    begun = time.thread_time()
    links = random_regular.links(n, degree=DEGREE)
    drawn = time.thread_time() - begun
    mix = MatrixMixer(links)
    mix(torch.zeros(n, 1))
    made = time.thread_time() - begun - drawn
    found: dict[str, Any] = {"agents": n, "draw": drawn, "matrix": made, "networkx": None}
    if n <= _DIGRAPH:
        begun = time.thread_time()
        graph = nx.random_regular_graph(DEGREE, n, seed=0)
        nx.set_edge_attributes(graph, 1 / (1 + DEGREE), "weight")
        _ = [(u, v, weight) for u, v, weight in nx.DiGraph(graph).edges(data="weight")]
        found["networkx"] = time.thread_time() - begun
    return found


def loop(n: int, rounds: int) -> dict[str, Any]:
    """A step of diffusion: ours, and a loop over the nodes of a networkx graph in NumPy."""
    links = random_regular.links(n, degree=DEGREE)
    problem, algorithm = _problem(n, _LOOP_D), dgd(0.05)
    mix, state = MatrixMixer(links), algorithm.init(torch.zeros(n, _LOOP_D))
    targets = problem.b.numpy()
    graph = _unweighted(links)
    x = {v: np.zeros(_LOOP_D, dtype=np.float32) for v in graph}

    def ours() -> None:
        nonlocal state
        state = algorithm.step(state, lambda point: point - problem.b, mix)

    def theirs() -> None:
        nonlocal x
        x = {v: _mean(graph, x, v) - 0.05 * (x[v] - targets[v]) for v in graph}

    with torch.no_grad():
        times = _turns({"ifog": ours, "loop": theirs}, rounds)
    error = float(np.abs(np.stack([x[v] for v in range(n)]) - state.x.numpy()).max())
    peer = gossipy_rounds.round_seconds(links, _LOOP_D)
    return {"agents": n, "times": times, "error": error, "peer": peer}


def _unweighted(links: Links) -> nx.Graph:
    source, target = links.without_loops()
    graph = nx.Graph(zip(source.tolist(), target.tolist(), strict=True))
    nx.set_edge_attributes(graph, 1 / (1 + DEGREE), "weight")
    return graph


def _mean(graph: nx.Graph, x: Mapping[int, Any], v: int) -> Any:
    total = x[v] / (1 + DEGREE)
    for u in graph[v]:
        total = total + graph.edges[u, v]["weight"] * x[u]
    return total


def main(words: Sequence[str]) -> None:
    """Measure what the first word specifies, and write it to the file that the second one names."""
    asked = json.loads(words[0])
    torch.set_num_threads(1)
    found = {
        "scale": [scale(n, d, asked["rounds"]) for n, d in asked["scale"]],
        "building": [building(n) for n in asked["building"]],
        "loop": [loop(n, asked["rounds"]) for n in asked["loop"]],
    }
    Path(words[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
