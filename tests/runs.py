"""Event streams of made-up runs, as the ranks would have sent them, for folds and panels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ifog.telemetry import (
    CellEnd,
    CellStart,
    Event,
    GraphEvent,
    LawEvent,
    LogEvent,
    OpEvent,
    WatchEvent,
)


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


def tracking(
    n: int = 8,
    rounds: int = 60,
    *,
    seq: int = 1,
    t: float = 100.0,
    round_time: float = 0.01,
    matrix: np.ndarray | None = None,
    wrong: tuple[int, int] | None = None,
    seed: int = 0,
) -> Iterator[Event]:
    """Gradient tracking on f_i = |x - b_i|^2 / 2 over a ring, with losses and its law, in order.

    x+ = W x - y / 20, y = W y_prev + g(x) - g_prev. In round ``wrong[0]``, rank ``wrong[1]`` adds
    a hundredth to its y.
    """
    generator = np.random.default_rng(seed)
    W = ring_matrix(n) if matrix is None else matrix
    b = generator.standard_normal((n, 3))
    x, wy, g = 5 + generator.standard_normal((n, 3)), np.zeros((n, 3)), np.zeros((n, 3))
    ranks, eps = tuple(range(n)), 2.220446049250313e-16
    slow = 0.2 + 0.5 * generator.random((rounds, n)) + 0.1 * (np.arange(n) == n - 3)
    yield from (CellStart(rank, t, seq, n, ranks) for rank in ranks)
    for k in range(rounds):
        fresh = x - b
        y = wy + fresh - g
        if wrong and wrong[0] == k:
            y[wrong[1]] += 0.01
        told = [(tuple(map(float, y[r])), tuple(map(float, fresh[r]))) for r in ranks]
        x, wy, g = W @ x - y / 20, W @ y, fresh
        begin, end = t + k * round_time, t + (k + 1) * round_time
        starts = begin + round_time * slow[k]
        for r in ranks:
            src = tuple(int(u) for u in np.flatnonzero(W[r]) if u != r)
            dst = tuple(int(v) for v in np.flatnonzero(W[:, r]) if v != r)
            arrived = tuple(max(float(starts[u] + 0.1 * round_time), starts[r]) for u in src)
            late = max(src, key=lambda u: float(starts[u]))
            wait = max(arrived) - float(starts[r])
            stop = float(max(arrived) + 0.05 * round_time)
            yield LawEvent(r, float(starts[r]), "tracking 1ᵀy = 1ᵀg", -1, k, eps, *told[r])
            weights = (float(W[r, r]), *(float(W[r, u]) for u in src))
            yield OpEvent(
                r, k, k, "neighbor_allreduce", "y", float(starts[r]), stop, wait,
                late if wait > 0 else -1, 24 * len(dst), dst, src, weights, arrived,
            )  # fmt: skip
            sample = tuple(map(float, x[r]))
            yield WatchEvent(r, stop, "x", k + 1, 3, float(np.linalg.norm(sample)), eps, sample)
            loss = float(
                ((x[r] - b) ** 2).sum(axis=1).mean() / 2 + 0.1 * ((x[r] - b[r]) ** 2).sum()
            )
            accuracy = float(1 - 0.6 * np.exp(-k / 12) - 0.02 * ((k + r) % 3))
            values = (("loss", loss), ("test_accuracy", accuracy), ("samples", 32.0))
            yield LogEvent(r, stop, k, k + 1, values)
    end = t + rounds * round_time
    for rank in ranks:
        yield CellEnd(rank, end, seq, "ok", rounds, 48 * rounds, 0.0, 0, None)


def numbered(n: int) -> np.ndarray:
    """[n, 1] rank r begins at r."""
    return np.arange(float(n))[:, None]


def ring_run(n: int = 4, rounds: int = 20) -> list[Event]:
    """The declared ring of ``n`` ranks, and a cell of averages on it."""
    return [graph_event(ring_matrix(n), "ring"), *cell(ring_matrix(n), numbered(n), rounds)]
