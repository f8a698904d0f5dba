"""Event streams of made-up runs, as the ranks would have sent them, for folds and panels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ifog.telemetry import CellEnd, CellStart, Event, GraphEvent, OpEvent, WatchEvent


def ring_matrix(n: int) -> np.ndarray:
    """The mixing matrix of a ring with weights 1/3."""
    W = np.eye(n) / 3
    for i in range(n):
        W[i, (i - 1) % n] += 1 / 3
        W[i, (i + 1) % n] += 1 / 3
    return W


def one_peer_matrix(n: int, k: int) -> np.ndarray:
    """Round k of the one-peer exponential schedule: half from the rank 2^(k mod m) before."""
    hop = 2 ** (k % max(int(np.ceil(np.log2(n))), 1))
    W = np.eye(n) / 2
    for i in range(n):
        W[i, (i - hop) % n] += 0.5
    return W


def star_matrix(n: int) -> np.ndarray:
    """A star in which everybody averages evenly over those it hears: the mean moves."""
    W = np.eye(n) / 2
    W[1:, 0] = 0.5
    W[0, :] = 1 / n
    return W


def graph_event(W: np.ndarray, label: str, t: float = 0.0) -> GraphEvent:
    """The declared graph of a matrix."""
    edges = tuple((int(u), int(v), float(W[v, u])) for v, u in np.argwhere(W))
    return GraphEvent(0, t, len(W), label, edges)


def cell(
    matrix: np.ndarray | Callable[[int], np.ndarray],
    x: np.ndarray,  # [n, d] float
    rounds: int,
    *,
    seq: int = 1,
    t: float = 100.0,
    name: str = "x",
    eps: float = 2.220446049250313e-16,
    round_time: float = 0.01,
    slow: Callable[[int, int], float] = lambda _rank, _k: 0.004,
) -> Iterator[Event]:
    """One cell of ``rounds`` rounds x = W x, in the order of time; x is changed in place."""
    n, d = x.shape
    ranks = tuple(range(n))
    pick = np.arange(min(64, d)) * d // min(64, d)
    for rank in ranks:
        yield CellStart(rank, t, seq, n, ranks)
    for rank in ranks:
        norm = float(np.linalg.norm(x[rank]))
        sample = tuple(map(float, x[rank][pick]))
        yield WatchEvent(rank, t, name, 0, d, norm, eps, sample)
    for k in range(rounds):
        W = matrix(k) if callable(matrix) else matrix
        x[:] = W @ x
        begin, end = t + k * round_time, t + (k + 1) * round_time
        for rank in ranks:
            src = tuple(int(u) for u in np.flatnonzero(W[rank]) if u != rank)
            dst = tuple(int(v) for v in np.flatnonzero(W[:, rank]) if v != rank)
            weights = (float(W[rank, rank]), *(float(W[rank, u]) for u in src))
            t0 = begin + slow(rank, k)
            wait = max(slow(other, k) for other in ranks) - slow(rank, k)
            late = src[0] if src and wait > 0 else -1
            nbytes = 8 * d * len(dst)
            yield OpEvent(
                rank, k, k, "neighbor_allreduce", name, t0, end, wait, late, nbytes, dst, src,
                weights,
            )  # fmt: skip
        for rank in ranks:
            norm = float(np.linalg.norm(x[rank]))
            sample = tuple(map(float, x[rank][pick]))
            yield WatchEvent(rank, end, name, k + 1, d, norm, eps, sample)
    for rank in ranks:
        end = t + rounds * round_time
        yield CellEnd(rank, end, seq, "ok", rounds, 8 * d * rounds, 0.0, 0, None)
