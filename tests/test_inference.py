"""What ranks find out about their edges by asking all others."""

from __future__ import annotations

import re
import threading

import networkx as nx
import numpy as np
import pytest
import torch

import ifog
from ifog import inference, topology
from ifog.errors import ArgumentError, PeerFailedError
from ifog.testing import run_ranks

SIZES = (1, 2, 3, 4, 5, 8)


def random_links(n, seed):
    return nx.gnp_random_graph(n, 0.4, seed=seed, directed=True)


def normalised(links):
    """Written out entry by entry: 1/(senders of j and j itself) where i sends to j."""
    n = len(links)
    result = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i == j or links.has_edge(i, j):
                result[i, j] = 1 / (1 + len([u for u in links.predecessors(j) if u != j]))
    return result


def graphs(n):
    named = [topology.named(label, n) for label in ("ring", "star", "grid", "exponential")]
    return [*named, topology.ring(n, style="left"), *(random_links(n, seed) for seed in range(3))]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("matrix", [False, True])
def test_sources_are_those_who_named_the_rank(n, matrix):
    def work():
        for links in graphs(n):
            r = ifog.rank()
            told = [v for v in reversed(list(links.successors(r))) if v != r]
            found = ifog.infer_source_from_destination_ranks(told, matrix)
            expected = sorted(u for u in links.predecessors(r) if u != r)
            if matrix:
                found, adjacency = found
                assert adjacency.dtype == np.float64
                assert np.array_equal(adjacency, normalised(links))
            assert found == expected
            assert {type(rank) for rank in found} <= {int}

    run_ranks(n, work)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("matrix", [False, True])
def test_destinations_are_those_who_named_the_rank(n, matrix):
    def work():
        for links in graphs(n):
            r = ifog.rank()
            heard = [u for u in reversed(list(links.predecessors(r))) if u != r]
            found = ifog.infer_destination_from_source_ranks(
                heard, construct_adjacency_matrix=matrix
            )
            if matrix:
                found, adjacency = found
                assert np.array_equal(adjacency, normalised(links))
            assert found == sorted(v for v in links.successors(r) if v != r)

    run_ranks(n, work)


def test_the_matrix_is_normalised_by_its_columns():
    # Everyone sends to all higher ranks: rows and columns sum differently.
    def work():
        return ifog.infer_source_from_destination_ranks(range(ifog.rank() + 1, 3), True)

    for rank, (sources, adjacency) in enumerate(run_ranks(3, work)):
        assert sources == list(range(rank))
        assert np.allclose(
            adjacency, [[1, 1 / 2, 1 / 3], [0, 1 / 2, 1 / 3], [0, 0, 1 / 3]], atol=1e-16
        )


def test_the_matrix_is_that_of_an_even_average():
    def work():
        x = torch.tensor([float(ifog.rank() ** 2)], dtype=torch.float64)
        links = random_links(5, seed=4)
        to = [v for v in links.successors(ifog.rank()) if v != ifog.rank()]
        sources, adjacency = ifog.infer_source_from_destination_ranks(to, True)
        share = 1 / (len(sources) + 1)
        y = ifog.neighbor_allreduce(
            x, self_weight=share, src_weights=dict.fromkeys(sources, share), dst_weights=to
        )
        expected = adjacency.T @ (np.arange(5.0) ** 2)
        assert y.item() == pytest.approx(expected[ifog.rank()])

    run_ranks(5, work)


@pytest.mark.parametrize(
    "convert",
    [np.array, tuple, set, iter, torch.tensor, lambda ranks: [np.int32(r) for r in ranks]],
)
def test_any_integers_in_any_collection_are_ranks(convert):
    def work():
        others = [rank for rank in range(3) if rank != ifog.rank()]
        return ifog.infer_source_from_destination_ranks(convert(others))

    assert run_ranks(3, work) == [[1, 2], [0, 2], [0, 1]]


BAD = [
    ([3], "contains [3]; the other ranks are [0, 2]"),
    ([-1], "contains [-1]"),
    ([1], "contains the rank itself"),
    ([0, 0], "names a rank twice: [0, 0]"),
    ([0.0], "contains 0.0; ranks are integers"),
    ([True], "contains True"),
    (["0"], "contains '0'"),
    (None, "is a NoneType; pass a list"),
    (2, "is a int; pass a list"),
]


@pytest.mark.parametrize(("ranks", "words"), BAD)
@pytest.mark.parametrize(
    "infer",
    [
        inference.infer_source_from_destination_ranks,
        inference.infer_destination_from_source_ranks,
    ],
)
def test_bad_ranks_are_named_and_leave_nobody_waiting(infer, ranks, words):
    released = threading.Semaphore(0)

    def work():
        try:
            infer(ranks if ifog.rank() == 1 else [])
        except PeerFailedError:
            released.release()
            raise

    with pytest.raises(ArgumentError, match=rf"on rank 1: ..._ranks {re.escape(words)}"):
        run_ranks(3, work, timeout=10)
    assert all(released.acquire(blocking=False) for _ in range(2))
