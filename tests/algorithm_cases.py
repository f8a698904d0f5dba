"""One row for each algorithm: parameters that are safe on the laws' problem, and its graph.

All have 16 agents, so that they can be spread as 1 x 16, 4 x 4 and 16 x 1 over ranks.
``python algorithm_cases.py FOLDER`` under mpiexec runs all of them on MPI ranks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import ifog
from ifog import algorithms as methods
from ifog.algorithms.base import Algorithm, Both, iterate
from ifog.algorithms.draws import keys, normal
from ifog.compression import dithered, qsgd, random_k, sign, top_k
from ifog.conformance import laws_problem

N = 16
STEPS = 25


def unbalanced(n=N):
    """(row-stochastic, column-stochastic) weights of a directed graph that is not balanced."""
    links = np.eye(n)
    for u in range(n):
        links[(u + 1) % n, u] = 1
    for u, v in ((0, 3), (2, 6), (5, 1), (0, 5), (0, 2), (4, n - 2)):
        links[v, u] = 1
    return (
        ifog.from_matrix(links / links.sum(axis=1, keepdims=True)),
        ifog.from_matrix(links / links.sum(axis=0, keepdims=True)),
    )


def tree(n=N):
    """A binary tree."""
    links = np.eye(n)
    for v in range(1, n):
        links[v, (v - 1) // 2] = links[(v - 1) // 2, v] = 1
    return ifog.from_matrix(links)


class Matchings:
    """In round k agent i meets i xor 2^(k mod 4)."""

    period = 4

    def __call__(self, step):
        w = np.eye(N) / 2
        for i in range(N):
            w[i, i ^ (1 << (step % 4))] = 0.5
        return ifog.from_matrix(w)


class Case(NamedTuple):
    """An algorithm and what it keeps."""

    algorithm: Algorithm
    graph: Any = ifog.ring(N)
    exact: int | None = None  # after how many steps it is at the optimum
    conserved: Callable[[Any], Any] | None = lambda s: s.x.sum(0)
    shape: tuple[int, ...] = (4,)
    tolerance: float = 1e-9


def pushed(s):
    return s.u.sum(0)


PULL, PUSH = unbalanced()
JUMPS = 1e-6  # where rounding may decide what a compressor sends
CASES = {
    "dgd": Case(methods.dgd(0.1)),
    "atc": Case(methods.atc(0.1), ifog.one_peer(N)),
    "local_dgd": Case(methods.local_dgd(0.1, every=3)),
    "extra": Case(methods.extra(0.2), exact=3000),
    "exact_diffusion": Case(methods.exact_diffusion(0.2), exact=3000),
    "d2": Case(methods.d2(0.2), exact=3000),
    "nids": Case(methods.nids(0.5), exact=3000),
    "diging": Case(methods.diging(0.05), exact=3000),
    "aug_dgm": Case(methods.aug_dgm(0.1), exact=3000),
    "gradient_tracking": Case(methods.gradient_tracking(0.1), ifog.one_peer(N), exact=3000),
    "gt_saga": Case(methods.gt_saga(0.02), exact=6000),
    "k_gt": Case(methods.k_gt(0.02, every=4), exact=6000),
    "push_sum": Case(methods.push_sum(), PUSH, conserved=pushed),
    "sgp": Case(methods.sgp(0.1), PUSH, conserved=pushed),
    "push_diging": Case(methods.push_diging(0.02), PUSH, 3000, pushed),
    "push_pull": Case(methods.push_pull(0.05), (PULL, PUSH), 3000, None),
    "choco_gossip": Case(methods.choco_gossip(qsgd(4), gamma=0.5), tolerance=JUMPS),
    "choco_sgd": Case(methods.choco_sgd(0.1, top_k(0.5), gamma=0.4), tolerance=JUMPS),
    "beer": Case(methods.beer(0.02, top_k(0.5), gamma=0.3), exact=6000, tolerance=JUMPS),
    "motef": Case(methods.motef(0.02, random_k(0.5), gamma=0.3), exact=6000, tolerance=JUMPS),
    "lead": Case(methods.lead(0.1, dithered(2)), exact=4000, tolerance=JUMPS),
    "deep_squeeze": Case(methods.deep_squeeze(0.1, sign(), gamma=0.1), tolerance=JUMPS),
    "naive_compressed": Case(methods.naive_compressed(0.1, top_k(0.5)), tolerance=JUMPS),
    "power_gossip": Case(methods.power_gossip(0.1), shape=(3, 4)),
    "dm_sgd": Case(methods.dm_sgd(0.02), ifog.one_peer(N)),
    "decent_lam": Case(methods.decent_lam(0.02)),
    "qg_dsgdm": Case(methods.qg_dsgdm(0.02), ifog.one_peer(N)),
    "momentum_tracking": Case(methods.momentum_tracking(0.005), exact=4000),
    "relay_sum": Case(methods.relay_sum(), tree(), conserved=lambda s: s.value.sum(0)),
    "relay_sgd": Case(methods.relay_sgd(0.03), tree(), 3000, None),
    "local_sgd": Case(methods.local_sgd(0.1, every=4)),
    "gossip_pga": Case(methods.gossip_pga(0.1, every=4)),
    "slow_mo": Case(methods.slow_mo(0.1, every=4)),
    "diloco": Case(methods.diloco(0.1, every=4)),
    "noloco": Case(methods.noloco(0.1, every=4), Matchings()),
    "adam": Case(methods.adam(0.05, decay=0.0, mix_second=True)),
    "accum_adam": Case(methods.accum_adam(0.05, every=3)),
    "admm": Case(methods.admm(0.5), exact=3000),
    "dlm": Case(methods.dlm(0.5, proximity=1.5), exact=3000),
    "led": Case(methods.led(0.1, every=4, dual=0.2), exact=6000),
    "prox_skip": Case(methods.prox_skip(0.3, probability=0.3), exact=6000),
    "ad_psgd": Case(methods.ad_psgd(0.05, delay=3), Matchings(), conserved=lambda s: s.live.sum(0)),
    "clipped_gossip": Case(methods.clipped_gossip(0.1, radius=0.5), Matchings()),
    "trimmed_mean": Case(methods.trimmed_mean(0.1, trim=1), ifog.complete(N), conserved=None),
}


def end_of(case, make, device="cpu"):
    """What the agents hosted here have after some steps, with the mixer that ``make`` makes."""
    graph = case.graph
    mix = Both(*map(make, graph)) if isinstance(graph, tuple) else make(graph)
    agents = mix.agents.to(device)
    x = normal(keys(2, agents, 0), *case.shape)
    problem = laws_problem(case.shape, "samples" in case.algorithm.needs)(agents)
    return iterate(case.algorithm, x, problem, mix, STEPS).x


def run_all(folder):
    """Run every case on this MPI rank and leave where its agents ended in ``folder``."""
    ifog.init()
    ends = {name: end_of(case, ifog.agent_mixer) for name, case in CASES.items()}
    torch.save(ends, Path(folder) / f"{ifog.rank()}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_all(sys.argv[1])
