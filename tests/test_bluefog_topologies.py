"""BlueFog's graphs and dynamic generators, against the tables of what BlueFog gives."""

from __future__ import annotations

from itertools import islice

import networkx as nx
import numpy as np
import pytest

from ifog.bluefog import topology_util as tu

THIRD = 1 / 3
ROWS = [  # (graph, row, its weights; rows are senders)
    (tu.ExponentialTwoGraph(4), 0, [THIRD, THIRD, THIRD, 0]),
    (tu.ExponentialTwoGraph(4), 1, [0, THIRD, THIRD, THIRD]),
    (tu.ExponentialTwoGraph(5), 0, [0.25, 0.25, 0.25, 0, 0.25]),
    (tu.ExponentialTwoGraph(8), 0, [0.25, 0.25, 0.25, 0, 0.25, 0, 0, 0]),
    (tu.ExponentialGraph(6, base=3), 0, [THIRD, THIRD, 0, THIRD, 0, 0]),
    (tu.ExponentialGraph(6, base=4), 0, [THIRD, THIRD, 0, 0, THIRD, 0]),
    (tu.ExponentialGraph(4, base=4), 0, [0.5, 0.5, 0, 0]),
    (tu.SymmetricExponentialGraph(8, base=4), 0, [0.25, 0.25, 0, 0, 0.25, 0, 0, 0.25]),
    (tu.SymmetricExponentialGraph(12, 4), 0, [0.2, 0.2, 0, 0, 0.2, 0, 0, 0, 0.2, 0, 0, 0.2]),
    (tu.SymmetricExponentialGraph(4, 4), 0, [THIRD, THIRD, 0, THIRD]),
    (tu.FullyConnectedGraph(4), 2, [0.25] * 4),
    (tu.RingGraph(1), 0, [1]),
    (tu.RingGraph(2, 1), 0, [0.5, 0.5]),
    (tu.RingGraph(4, 0), 0, [THIRD, THIRD, 0, THIRD]),
    (tu.RingGraph(4, 1), 0, [0.5, 0, 0, 0.5]),
    (tu.RingGraph(4, 2), 0, [0.5, 0.5, 0, 0]),
    (tu.StarGraph(4), 0, [0.25] * 4),
    (tu.StarGraph(4), 1, [0.25, 0.75, 0, 0]),
    (tu.StarGraph(4, center_rank=2), 0, [0.75, 0, 0.25, 0]),
    (tu.MeshGrid2DGraph(3), 0, [2 / 3, THIRD, 0]),
    (tu.MeshGrid2DGraph(3), 1, [THIRD, THIRD, THIRD]),
    (tu.MeshGrid2DGraph(4), 0, [THIRD, THIRD, THIRD, 0]),
    (tu.MeshGrid2DGraph(6), 0, [5 / 12, 0.25, 0, THIRD, 0, 0]),
    (tu.MeshGrid2DGraph(6), 1, [0.25, 0.25, 0.25, 0, 0.25, 0]),
    (tu.MeshGrid2DGraph(8), 0, [5 / 12, 0.25, 0, 0, THIRD, 0, 0, 0]),
]
# Second largest eigenvalue modulus: ring, mesh, exp2, star.
RATES = {
    4: (0.3333, 0.3333, 0.3333, 0.75),
    8: (0.8047, 0.8536, 0.5, 0.875),
    12: (0.9107, 0.8636, 0.6, 0.9167),
    16: (0.9493, 0.8686, 0.6, 0.9375),
    32: (0.9872, 0.9658, 0.6667, 0.9688),
    64: (0.9968, 0.9677, 0.7143, 0.9844),
}
ONE_PEER = {
    ("exp2", 4, 0): [([1], [3]), ([2], [2]), ([1], [3])],
    ("exp2", 4, 1): [([2], [0]), ([3], [3])],
    ("exp2", 8, 0): [([1], [7]), ([2], [6]), ([4], [4]), ([1], [7])],
    ("exp2", 6, 0): [([1], [5]), ([2], [4]), ([4], [2]), ([1], [5])],
    ("exp2", 16, 0): [([1], [15]), ([2], [14]), ([4], [12]), ([8], [8])],
    ("ring", 4, 0): [([1], [3]), ([3], [1])],
    ("ring", 4, 1): [([2], [0]), ([0], [2])],
    ("star", 4, 0): [([1], [1, 2, 3]), ([2], [1, 2, 3]), ([3], [1, 2, 3])],
    ("star", 4, 1): [([0], [0]), ([0], []), ([0], [])],
    ("star", 4, 2): [([0], []), ([0], [0]), ([0], [])],
    ("mesh", 4, 0): [([1], []), ([2], [1, 2])],
    ("mesh", 4, 1): [([3], [0, 3]), ([0], [])],
    ("mesh", 4, 2): [([3], []), ([0], [0, 3])],
    ("mesh", 4, 3): [([1], [1, 2]), ([2], [])],
    ("mesh", 6, 0): [([1], []), ([3], [3]), ([1], [1]), ([3], [3]), ([1], []), ([3], [1, 3])],
    ("mesh", 6, 1): [([2], [0]), ([4], [2, 4]), ([0], [0]), ([2], [2]), ([4], [0, 4]), ([0], [2])],
    ("mesh", 16, 0): [([1], []), ([4], []), ([1], [1, 4]), ([4], []), ([1], [])],
}
GRAPHS = {
    "exp2": tu.ExponentialTwoGraph,
    "ring": tu.RingGraph,
    "star": tu.StarGraph,
    "mesh": tu.MeshGrid2DGraph,
}
MACHINES = {
    (8, 2, 0): [([1], [3]), ([2], [2])],
    (8, 2, 2): [([2], [0]), ([3], [3])],
    (6, 2, 0): [([1], [2]), ([2], [1])],
    (6, 2, 2): [([2], [0]), ([0], [2])],
    (4, 2, 0): [([1], [1]), ([1], [1])],
    (16, 2, 0): [([1], [7]), ([2], [6]), ([4], [4])],
}
RINGS = {
    (6, 3, 0): [([3], [3]), ([2], [2]), ([1], [1])],
    (6, 3, 1): [([2], [2]), ([4], [4]), ([0], [0])],
    (6, 3, 2): [([1], [1]), ([0], [0]), ([5], [5])],
    (8, 4, 0): [([4], [4]), ([2], [3]), ([1], [3]), ([1], [2])],
    (8, 4, 1): [([2], [3]), ([5], [5]), ([3], [0]), ([2], [0])],
    (8, 4, 2): [([3], [1]), ([3], [0]), ([6], [6]), ([0], [1])],
    (8, 4, 3): [([1], [2]), ([0], [2]), ([0], [1]), ([7], [7])],
    (12, 3, 0): [([3], [9]), ([2], [2]), ([1], [1])],
}
EXPONENTIALS = {
    (8, 4, 0): [([4], [4]), ([3], [2]), ([1], [3]), ([2], [1])],
    (8, 4, 1): [([2], [3]), ([5], [5]), ([3], [0]), ([0], [2])],
    (8, 4, 2): [([3], [1]), ([0], [3]), ([6], [6]), ([1], [0])],
    (8, 4, 3): [([1], [2]), ([2], [0]), ([0], [1]), ([7], [7])],
    (12, 4, 0): [([4], [8]), ([3], [2]), ([1], [3]), ([2], [1])],
    (12, 4, 1): [([2], [3]), ([9], [5]), ([3], [0]), ([0], [2])],
    (6, 3, 0): [([3], [3]), ([2], [2]), ([1], [1]), ([3], [3])],
    (20, 5, 0): [
        *(([5], [15]), ([3], [3]), ([1], [4]), ([2], [2])),
        *(([1], [3]), ([10], [10]), ([2], [4]), ([3], [3])),
    ],
}


@pytest.mark.parametrize(("graph", "row", "weights"), ROWS)
def test_generators_give_the_weights_of_bluefog(graph, row, weights):
    assert list(graph) == list(range(len(weights)))
    np.testing.assert_allclose(nx.to_numpy_array(graph)[row], weights, atol=1e-15)
    assert graph.number_of_edges() == np.count_nonzero(nx.to_numpy_array(graph))


@pytest.mark.parametrize("n", RATES)
def test_second_eigenvalues_are_those_of_the_tutorials(n):
    for name, expected in zip(("ring", "mesh", "exp2", "star"), RATES[n], strict=True):
        moduli = np.sort(np.abs(np.linalg.eigvals(nx.to_numpy_array(GRAPHS[name](n)))))
        assert moduli[-2] == pytest.approx(expected, abs=6e-5), name


@pytest.mark.parametrize("wrong", ["size", "style", "shape", "base"])
def test_generators_assert_their_arguments(wrong):
    with pytest.raises(AssertionError):
        if wrong == "size":
            tu.ExponentialTwoGraph(0)
        elif wrong == "style":
            tu.RingGraph(4, connect_style=3)
        elif wrong == "shape":
            tu.MeshGrid2DGraph(6, shape=(2, 2))
        else:
            tu.isPowerOf(4, 1)


def test_weights_of_a_rank_leave_itself_out_and_keep_the_graphs_order():
    graph = nx.DiGraph()
    graph.add_nodes_from(range(4))
    graph.add_weighted_edges_from([(3, 1, 0.25), (0, 1, 0.5), (1, 1, 0.25), (1, 2, 0.75)])
    own, received = tu.GetRecvWeights(graph, 1)
    assert (own, list(received.items())) == (0.25, [(3, 0.25), (0, 0.5)])
    assert tu.GetSendWeights(graph, 1) == (0.25, {2: 0.75})
    assert tu.GetRecvWeights(graph, 2) == (0.0, {1: 0.75})


def test_equivalence_compares_weights_and_nothing_equals_no_graph():
    ring = tu.RingGraph(6)
    assert tu.IsTopologyEquivalent(ring, tu.RingGraph(6))
    assert not tu.IsTopologyEquivalent(ring, tu.RingGraph(6, connect_style=1))
    assert not tu.IsTopologyEquivalent(ring, None)
    assert not tu.IsTopologyEquivalent(None, None)
    heavier = ring.copy()
    heavier.edges[0, 1]["weight"] = 0.4
    assert not tu.IsTopologyEquivalent(ring, heavier)
    relabelled = nx.relabel_nodes(tu.StarGraph(4), {0: 1, 1: 0})
    assert not tu.IsTopologyEquivalent(tu.StarGraph(4), relabelled)


def test_regular_graphs_have_equal_degrees():
    assert tu.IsRegularGraph(tu.RingGraph(6))
    assert tu.IsRegularGraph(tu.ExponentialTwoGraph(6))
    assert not tu.IsRegularGraph(tu.StarGraph(6))
    assert not tu.IsRegularGraph(tu.MeshGrid2DGraph(6))


def test_powers_are_exact():
    assert all(tu.isPowerOf(base**k, base) for base in range(2, 11) for k in range(20))
    assert not tu.isPowerOf(6, 2)
    assert not tu.isPowerOf(242, 3)


@pytest.mark.parametrize("case", ONE_PEER, ids=str)
def test_one_peer_rounds(case):
    name, n, rank = case
    rounds = tu.GetDynamicOnePeerSendRecvRanks(GRAPHS[name](n), rank)
    assert list(islice(rounds, len(ONE_PEER[case]))) == ONE_PEER[case]


@pytest.mark.parametrize("case", MACHINES, ids=str)
def test_rounds_between_machines(case):
    world, local, rank = case
    rounds = tu.GetExp2DynamicSendRecvMachineRanks(world, local, rank, rank % local)
    assert list(islice(rounds, len(MACHINES[case]))) == MACHINES[case]


@pytest.mark.parametrize("case", RINGS, ids=str)
def test_inner_outer_ring_rounds(case):
    rounds = tu.GetInnerOuterRingDynamicSendRecvRanks(*case)
    assert list(islice(rounds, len(RINGS[case]))) == RINGS[case]


@pytest.mark.parametrize("case", EXPONENTIALS, ids=str)
def test_inner_outer_exponential_rounds(case):
    rounds = tu.GetInnerOuterExpo2DynamicSendRecvRanks(*case)
    assert list(islice(rounds, len(EXPONENTIALS[case]))) == EXPONENTIALS[case]


@pytest.mark.parametrize("size", [(6, 3), (8, 4), (12, 4), (20, 5), (12, 3), (16, 8), (18, 6)])
def test_what_one_sends_the_other_hears(size):
    for generator in (
        tu.GetInnerOuterRingDynamicSendRecvRanks,
        tu.GetInnerOuterExpo2DynamicSendRecvRanks,
    ):
        rounds = [list(islice(generator(*size, rank), 30)) for rank in range(size[0])]
        for step in range(30):
            sent = {(u, v) for u in range(size[0]) for v in rounds[u][step][0]}
            heard = {(u, v) for v in range(size[0]) for u in rounds[v][step][1]}
            assert sent == heard


def test_dynamic_generators_assert_at_the_first_round():
    wrong = [
        tu.GetExp2DynamicSendRecvMachineRanks(8, 2, 0, 1),
        tu.GetExp2DynamicSendRecvMachineRanks(7, 2, 0, 0),
        tu.GetExp2DynamicSendRecvMachineRanks(4, 4, 0, 0),
        tu.GetInnerOuterRingDynamicSendRecvRanks(7, 3, 0),
        tu.GetInnerOuterRingDynamicSendRecvRanks(8, 2, 0),
        tu.GetInnerOuterExpo2DynamicSendRecvRanks(7, 3, 0),
        tu.GetInnerOuterExpo2DynamicSendRecvRanks(8, 2, 0),
    ]
    for rounds in wrong:
        with pytest.raises(AssertionError):
            next(rounds)
