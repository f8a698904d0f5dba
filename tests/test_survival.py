"""The ranks that live go on: graphs thinned out, and every operation among the living."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
import torch

import ifog
from ifog.context import current
from ifog.errors import ArgumentError, ParticipationError, PeerFailedError
from ifog.layout import Layout
from ifog.survival import surviving
from ifog.telemetry import EventLog, GraphEvent
from ifog.testing import die, run_ranks
from ifog.topology import (
    check,
    complete,
    exponential,
    from_matrix,
    grid2d,
    ring,
    star,
    symmetric_exponential,
)
from ifog.weights import matrix, metropolis, uniform

GRAPHS = {
    "ring": ring,
    "grid": grid2d,
    "star": star,
    "complete": complete,
    "exponential": exponential,
    "symmetric exponential": symmetric_exponential,
}


def block(graph, nodes):
    return matrix(graph)[np.ix_(nodes, nodes)]


def complement(W, living):
    """The stochastic complement, by summing the paths over the dead one length after the other."""
    dead = [v for v in range(len(W)) if v not in living]
    left, step = W[np.ix_(living, living)].copy(), W[np.ix_(dead, living)].copy()
    for _ in range(20_000):
        left += W[np.ix_(living, dead)] @ step
        step = W[np.ix_(dead, dead)] @ step
    return left


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("n", [3, 4, 6, 8])
def test_doubly_stochastic_stays_so_and_connected_stays_so_whoever_dies(name, n):
    graph = GRAPHS[name](n)
    for deaths in (1, 2):
        for dead in itertools.combinations(range(n), min(deaths, n - 1)):
            living = [v for v in range(n) if v not in dead]
            left = surviving(graph, living)
            W = block(left.graph, living)
            check(left.graph, n)
            assert W.min() >= 0
            assert np.allclose(W.sum(0), 1, rtol=0, atol=1e-12)
            assert np.allclose(W.sum(1), 1, rtol=0, atol=1e-12)
            assert left.parts == (tuple(living),)
            assert np.count_nonzero(matrix(left.graph)) == np.count_nonzero(W)


@pytest.mark.parametrize("name", ["ring", "grid", "symmetric exponential"])
def test_symmetric_weights_are_kept_and_the_rest_goes_to_the_own_value(name):
    graph = GRAPHS[name](8)
    living = [v for v in range(8) if v != 3]
    left = surviving(graph, living)
    assert left.rule == "kept"
    W, expected = block(left.graph, living), block(graph, living)
    expected = expected + np.diag(1 - expected.sum(1))
    assert np.allclose(W, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dead", [(0,), (2, 3), (1, 4, 7)])
def test_a_directed_circulant_is_bypassed_by_the_stochastic_complement(dead):
    graph = exponential(8)
    living = [v for v in range(8) if v not in dead]
    left = surviving(graph, living)
    assert left.rule == "bypassed"
    assert np.allclose(block(left.graph, living), complement(matrix(graph), living), atol=1e-12)


def test_a_star_without_its_centre_becomes_a_complete_graph():
    left = surviving(star(5), [1, 2, 3, 4])
    assert (left.rule, left.parts) == ("bypassed", ((1, 2, 3, 4),))
    assert np.count_nonzero(block(left.graph, [1, 2, 3, 4])) == 16


def test_a_graph_that_was_in_pieces_is_reported():
    blocks = np.kron(np.eye(2), np.full((3, 3), 1 / 3))
    left = surviving(from_matrix(blocks), [0, 1, 3, 4, 5])
    assert left.parts == ((0, 1), (3, 4, 5))
    assert "falls apart: 0-1 | 3-5" in str(left)


def test_a_directed_chain_that_loses_its_first_rank_reports_that_nothing_comes_back():
    W = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]])
    left = surviving(from_matrix(W), [1, 2])
    assert np.allclose(block(left.graph, [1, 2]), [[1, 0], [0.5, 0.5]])
    assert left.parts == ((1,), (2,))


def test_column_stochastic_weights_keep_their_column_sums():
    generator = np.random.default_rng(3)
    W = generator.random((6, 6)) * (generator.random((6, 6)) < 0.6) + np.eye(6)
    W /= W.sum(0)
    for dead in range(6):
        living = [v for v in range(6) if v != dead]
        left = block(surviving(from_matrix(W), living).graph, living)
        assert np.allclose(left.sum(0), 1, rtol=0, atol=1e-12)


def test_weights_that_only_reach_a_dead_end_stay_with_their_sender():
    W = np.array([[0.5, 0.5, 0], [0.25, 0.5, 0], [0.25, 0, 1.0]])
    left = block(surviving(from_matrix(W), [0, 1]).graph, [0, 1])
    assert np.allclose(left.sum(0), 1)
    assert np.allclose(left, [[0.75, 0.5], [0.25, 0.5]])


def test_deaths_one_after_the_other_leave_the_same_graph_as_at_once():
    for graph in (exponential(8), uniform(star(8))):
        step = surviving(graph, [0, 1, 2, 4, 5, 6, 7]).graph
        W = complement(matrix(step), [0, 1, 2, 4, 5, 7])
        at_once = surviving(graph, [0, 1, 2, 4, 5, 7]).graph
        assert np.allclose(W, block(at_once, [0, 1, 2, 4, 5, 7]), atol=1e-12)


def survivors(n, dead, rest, before=lambda: None, sink=None):
    """What ``rest`` gives on each rank after ``dead`` died in a barrier and the others healed."""

    def work():
        before()
        with pytest.raises(PeerFailedError):
            ifog.barrier()  # the first to leave it may die while others are still in it
            if ifog.rank() in dead:
                die()
            while True:
                ifog.barrier()
        while set(ifog.alive_ranks()) & set(dead):
            try:
                ifog.heal()
            except PeerFailedError:
                continue
        return rest()

    return [result for result in run_ranks(n, work, sink=sink) if result is not None]


def test_ranks_keep_their_numbers():
    def who():
        return ifog.rank(), ifog.size(), ifog.alive_ranks()

    assert survivors(4, {1}, who) == [(r, 4, [0, 2, 3]) for r in (0, 2, 3)]


def test_the_last_rank_goes_on_alone():
    def alone():
        assert ifog.neighbor_allreduce(torch.full((2,), 3.0)).tolist() == [3.0, 3.0]
        return ifog.allreduce(torch.ones(1)).item()

    assert survivors(3, {0, 2}, alone) == [1.0]


@pytest.mark.parametrize("n", [3, 5])
def test_collectives_are_among_the_living(n):
    def collect():
        ranks = ifog.alive_ranks()
        x = torch.full((3,), float(ifog.rank()), dtype=torch.float64)
        assert ifog.allreduce(x).tolist() == [sum(ranks) / len(ranks)] * 3
        assert ifog.allreduce(x, average=False).tolist() == [sum(ranks)] * 3
        large = torch.full((20_000,), float(ifog.rank()), dtype=torch.float64)
        assert torch.allclose(ifog.allreduce(large), torch.tensor(sum(ranks) / len(ranks)).double())
        assert ifog.allgather(x[:1]).tolist() == ranks
        assert ifog.broadcast(x, ranks[-1]).tolist() == [ranks[-1]] * 3
        with pytest.raises(ParticipationError, match="rank 1, which is dead"):
            ifog.broadcast(x, 1)
        ifog.barrier()
        return True

    assert survivors(n, {1}, collect) == [True] * (n - 1)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("weighted", [False, True])
def test_mixing_is_that_of_the_surviving_graph_and_keeps_the_sum(name, weighted):
    n = 6
    graph = GRAPHS[name](n)
    start = torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    living = [v for v in range(n) if v != 2]
    W = torch.from_numpy(matrix(surviving(graph if weighted else uniform(graph), living).graph))

    def mix():
        return ifog.neighbor_allreduce(start[ifog.rank()])

    got = survivors(n, {2}, mix, lambda: ifog.set_topology(graph, is_weighted=weighted))
    assert torch.allclose(torch.stack(got), (W @ start)[living], rtol=0, atol=1e-14)
    if weighted:
        kept = start[living].sum(0)
        assert torch.allclose(torch.stack(got).sum(0), kept, rtol=0, atol=1e-13)


def test_a_graph_set_afterwards_and_one_passed_in_the_call_are_thinned_out_too():
    def mix():
        ifog.set_topology("ring", is_weighted=True)
        W = torch.from_numpy(matrix(surviving(ring(5), ifog.alive_ranks()).graph))
        schedule = ifog.one_peer(5)
        x = torch.arange(5, dtype=torch.float64)
        assert torch.allclose(ifog.neighbor_allreduce(x[ifog.rank()]), (W @ x)[ifog.rank()])
        for step in range(4):
            left = torch.from_numpy(matrix(surviving(schedule(step), ifog.alive_ranks()).graph))
            y = ifog.neighbor_allreduce(x[ifog.rank()], topology=schedule(step))
            assert torch.allclose(y, (left @ x)[ifog.rank()])
        return ifog.set_topology(ring(5))

    assert survivors(5, {3}, mix) == [True] * 4


def test_dynamic_rounds_are_checked_among_the_living():
    def mix():
        ranks, me = ifog.alive_ranks(), ifog.rank()
        place = ranks.index(me)
        left, right = ranks[place - 1], ranks[(place + 1) % len(ranks)]
        y = ifog.neighbor_allreduce(
            torch.full((1,), float(me)),
            self_weight=0.5,
            src_weights={left: 0.5},
            dst_weights=[right],
        )
        assert y.item() == (me + left) / 2
        with pytest.raises(ParticipationError, match="dead"):
            ifog.neighbor_allreduce(
                torch.ones(1), self_weight=0.5, src_weights={2: 0.5}, dst_weights=[2]
            )
        gathered = ifog.neighbor_allgather(torch.tensor([me]), src_ranks=[left], dst_ranks=[right])
        assert gathered.tolist() == [left]
        assert ifog.infer_source_from_destination_ranks([right]) == [left]
        return True

    assert survivors(5, {2}, mix) == [True] * 4


def test_windows_are_lost_and_can_be_made_afresh():
    def use():
        old = kept[ifog.rank()]
        with pytest.raises(ArgumentError, match="create it again"):
            old.put(torch.ones(1))
        x = torch.full((1,), float(ifog.rank()), dtype=torch.float64)
        window = ifog.Window(x, "w")
        window.put(x).wait()
        ifog.barrier()
        W = torch.from_numpy(matrix(ifog.load_topology()))
        everyone = torch.arange(4, dtype=torch.float64)
        assert torch.allclose(window.update(), (W @ everyone)[ifog.rank()])
        ifog.barrier()
        window.free()
        return True

    kept = {}

    def create():
        kept[ifog.rank()] = ifog.Window(torch.zeros(1), "w")

    assert survivors(4, {1}, use, create) == [True] * 3


@pytest.mark.parametrize("dead", [{1}, {0}, {2, 3}])
def test_machines_count_who_is_left(dead):
    n, machines = 6, (0, 0, 1, 1, 2, 2)
    living = [v for v in range(n) if v not in dead]
    homes = sorted({machines[r] for r in living})
    graph = metropolis(ring(3))
    W = torch.from_numpy(matrix(surviving(graph, homes).graph))
    x = torch.arange(n, dtype=torch.float64)
    means = torch.zeros(3, dtype=torch.float64)
    for home in homes:
        means[home] = x[[r for r in living if machines[r] == home]].mean()

    def arrange():
        current().arrange(Layout(machines))
        ifog.set_machine_topology(graph, is_weighted=True)

    def mix():
        me, mates = ifog.rank(), [r for r in living if machines[r] == machines[ifog.rank()]]
        y = ifog.hierarchical_neighbor_allreduce(x[me], enable_topo_check=True)
        assert torch.allclose(y, (W @ means)[machines[me]])
        local = ifog.allreduce(x[me], is_hierarchical_local=True)
        assert torch.allclose(local, means[machines[me]])
        assert (ifog.local_size(), ifog.local_rank()) == (len(mates), mates.index(me))
        return True

    assert survivors(n, dead, mix, arrange) == [True] * len(living)


def test_a_loop_goes_on_from_the_earliest_round_of_a_living_rank():
    n, rounds = 5, 200

    def work():
        x = torch.full((1,), float(ifog.rank()), dtype=torch.float64)
        ifog.set_topology("ring", is_weighted=True)
        k, total, healed_at = 0, None, None
        while k < rounds:
            if ifog.rank() == 2 and k == 20:
                die()
            try:
                x = ifog.neighbor_allreduce(x, name="x")
                k += 1
            except PeerFailedError:
                k = healed_at = ifog.heal(k)
                total = ifog.allreduce(x)
        return x.item(), total.item(), healed_at

    got = [result for result in run_ranks(n, work) if result is not None]
    assert len(got) == 4
    means = {round(mean, 12) for _, mean, _ in got}
    assert len(means) == 1
    assert all(abs(x - mean) < 1e-9 for x, mean, _ in got)
    assert len({k for *_, k in got}) == 1
    assert 18 <= got[0][2] <= 20


def test_unnamed_operations_match_whoever_was_ahead():
    def work():
        with pytest.raises(PeerFailedError):
            ifog.barrier()
            if ifog.rank() == 3:
                die()
            for _ in range(5 + ifog.rank()):
                ifog.neighbor_allreduce(torch.ones(1))
            ifog.barrier()
        ifog.heal()
        return ifog.allreduce(torch.tensor([float(ifog.rank())]), average=False).item()

    assert run_ranks(4, work)[:3] == [3.0] * 3


def test_healing_needs_every_living_rank_of_the_world_in_the_cell():
    def work():
        context = current()
        context.begin_cell(1, [0, 1])
        if ifog.rank() < 2:
            with pytest.raises(ParticipationError, match="needs all ranks that live, and 2"):
                ifog.heal()
        context.end_cell("ok", None)
        return True

    assert all(run_ranks(3, work))


def test_watchers_are_told_the_graph_that_is_left():
    log = EventLog()
    survivors(4, {0}, lambda: True, lambda: ifog.set_topology("ring", is_weighted=True), log)
    told = [event for event in log.since(0)[1] if isinstance(event, GraphEvent)][-1]
    W = np.zeros((4, 4))
    for u, v, weight in told.edges:
        W[v, u] = weight
    assert np.allclose(W, matrix(surviving(ring(4), [1, 2, 3]).graph))
    assert (told.n, told.label) == (4, "ring without rank 0")


def test_what_follows_a_failure_is_one_of_two_words():
    def work():
        with pytest.raises(ArgumentError, match="stop"):
            ifog.on_failure("panic")
        ifog.on_failure("heal")
        return current().on_failure

    assert run_ranks(1, work) == ["heal"]


def test_the_graph_without_weights_is_the_even_one_as_long_as_all_live():
    def work():
        ifog.set_topology(nx.DiGraph([(0, 1), (1, 0), (1, 2), (2, 1)]))
        return current().weights.self_weight

    assert run_ranks(3, work) == [1 / 2, 1 / 3, 1 / 2]
