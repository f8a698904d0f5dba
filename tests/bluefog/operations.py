"""A unittest file as BlueFog's users write them: collectives and neighbour operations."""

from __future__ import annotations

import itertools
import unittest

import bluefog.torch as bf
import networkx as nx
import numpy as np
import torch
from bluefog.common import topology_util

FLOATS = (torch.float32, torch.float64)
ALL = (
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.float32, torch.float64),
)
DIMS = (1, 2, 3)


class Operations(unittest.TestCase):
    def setUp(self):
        bf.init()
        self.rank, self.size = bf.rank(), bf.size()
        torch.manual_seed(self.rank)

    def mine(self, dtype, dim=1, rank=None):
        """Each rank's tensor is full of its number."""
        return torch.full([5] * dim, self.rank if rank is None else rank).to(dtype)

    def test_allreduce_averages(self):
        for dtype, dim in itertools.product((torch.float16, *FLOATS), DIMS):
            y = bf.allreduce(self.mine(dtype, dim), average=True, name=f"{dtype}{dim}")
            assert y.dtype is dtype
            assert (y == (self.size - 1) / 2).all()

    def test_allreduce_sums(self):
        for dtype, dim in itertools.product((torch.int32, torch.int64, *FLOATS), DIMS):
            x = self.mine(dtype, dim)
            handle = bf.allreduce_nonblocking(x, average=False, name=f"{dtype}{dim}")
            assert (bf.synchronize(handle) == self.size * (self.size - 1) // 2).all()
            assert (x == self.rank).all()

    def test_allreduce_in_place_returns_its_argument(self):
        for dtype in FLOATS:
            x = self.mine(dtype)
            y = bf.allreduce_(x, True, name="x")
            assert y is x
            assert (x == (self.size - 1) / 2).all()

    def test_allreduce_takes_scalars(self):
        assert bf.allreduce(torch.tensor(float(self.rank))).item() == (self.size - 1) / 2

    def test_allreduce_within_the_only_machine_is_over_all(self):
        if bf.local_size() == self.size:
            y = bf.allreduce(self.mine(torch.float32), is_hierarchical_local=True)
            assert (y == (self.size - 1) / 2).all()

    def test_broadcast(self):
        for dtype, root in itertools.product(ALL, range(self.size)):
            x = self.mine(dtype, 2)
            y = bf.broadcast(x, root_rank=root, name=f"{dtype}{root}")
            assert (y == root).all()
            assert (x == self.rank).all()
            assert bf.broadcast_(x, root, name="in place") is x
            assert (x == root).all()

    def test_broadcast_of_a_counter(self):
        counter = torch.tensor(self.rank + 7)
        bf.broadcast_(counter, root_rank=0)
        assert counter.item() == 7

    def test_allgather_of_various_lengths(self):
        for dtype in ALL:
            x = torch.full((self.rank + 1, 3), self.rank).to(dtype)
            expected = [r for r in range(self.size) for _ in range(r + 1)]
            assert bf.allgather(x, name="x")[:, 1].tolist() == expected

    def test_allgather_of_nothing_from_some(self):
        x = torch.full((self.rank % 2,), self.rank)
        assert bf.allgather(x).tolist() == list(range(1, self.size, 2))

    def test_neighbor_allreduce_over_the_default_graph(self):
        neighbors = [(self.rank - 2**k) % self.size for k in range(20) if 2**k < self.size]
        expected = (self.rank + sum(neighbors)) / (len(neighbors) + 1)
        for dtype, dim in itertools.product((torch.float16, *FLOATS), DIMS):
            x = self.mine(dtype, dim)
            y = bf.neighbor_allreduce(x, name=f"{dtype}{dim}")
            torch.testing.assert_close(y, torch.full_like(y, expected))
            assert (x == self.rank).all()

    def test_uniform_averages_of_tiny_doubles_are_exact(self):
        tiny = torch.full((4,), 2.0**-256, dtype=torch.float64)
        assert torch.equal(bf.neighbor_allreduce(tiny), tiny)

    def test_neighbor_allreduce_by_the_graphs_weights(self):
        for graph in (topology_util.StarGraph, topology_util.MeshGrid2DGraph):
            assert bf.set_topology(graph(self.size), is_weighted=True)
            own, src = topology_util.GetRecvWeights(bf.load_topology(), self.rank)
            expected = own * self.rank + sum(w * r for r, w in src.items())
            x = self.mine(torch.float64)
            for y in (
                bf.neighbor_allreduce(x, name="graph"),
                bf.neighbor_allreduce(x, self_weight=own, src_weights=src, name="given"),
            ):
                torch.testing.assert_close(y, torch.full_like(y, expected))

    def test_rings_of_both_styles_average_with_one_side(self):
        for style, step in ((1, 1), (2, -1)):
            bf.set_topology(topology_util.RingGraph(self.size, connect_style=style))
            other = (self.rank + step) % self.size
            y = bf.neighbor_allreduce(self.mine(torch.float64))
            torch.testing.assert_close(y, torch.full_like(y, (self.rank + other) / 2))

    def test_a_custom_graph_whose_edges_come_in_any_order(self):
        graph = nx.DiGraph()
        graph.add_nodes_from(range(self.size))
        for r in reversed(range(self.size)):
            graph.add_edge(r, (r + 1) % self.size)
        if self.size < 3:  # it is the default one there, whose object stays
            return
        bf.set_topology(graph)
        assert bf.load_topology() is graph
        y = bf.neighbor_allreduce(self.mine(torch.float64))
        expected = (self.rank + (self.rank - 1) % self.size) / 2
        torch.testing.assert_close(y, torch.full_like(y, expected))

    def test_dynamic_rounds_move_only_where_they_say(self):
        right, left = (self.rank + 1) % self.size, (self.rank - 1) % self.size
        if self.size == 1:
            return
        y = bf.neighbor_allreduce(
            self.mine(torch.float64),
            self_weight=0.0,
            src_weights={left: 1.0},
            dst_weights=[right],
            name="move",
        )
        assert (y == left).all()
        y = bf.neighbor_allreduce(
            self.mine(torch.float64),
            self_weight=0.5,
            src_weights={left: 1},
            dst_weights={right: 0.5},
            name="weigh",
        )
        assert (y == (self.rank + left) / 2).all()

    def test_only_one_rank_sends(self):
        everyone = [r for r in range(self.size) if r != 0]
        y = bf.neighbor_allreduce(
            self.mine(torch.float64) + 1,
            self_weight=1.0,
            src_weights={} if self.rank == 0 else {0: 2.0},
            dst_weights=everyone if self.rank == 0 else [],
        )
        assert (y == (1 if self.rank == 0 else self.rank + 3)).all()

    def test_one_peer_rounds_average_exactly(self):
        if self.size & (self.size - 1):
            return
        rounds = topology_util.GetDynamicOnePeerSendRecvRanks(bf.load_topology(), self.rank)
        x = torch.randn(10, dtype=torch.float64)
        mean = bf.allreduce(x)
        for _ in range(self.size.bit_length() - 1):
            send, recv = next(rounds)
            x = bf.neighbor_allreduce(
                x, self_weight=0.5, src_weights={recv[0]: 0.5}, dst_weights=send
            )
        torch.testing.assert_close(x, mean, rtol=0, atol=1e-14)

    def test_a_plan_that_does_not_match_fails_on_all_ranks_and_frees_the_name(self):
        if self.size < 3:
            return
        everyone = [r for r in range(self.size) if r != self.rank]
        hears = everyone if self.rank else everyone[1:]
        for _ in range(2):
            with self.assertRaises(ValueError):
                bf.neighbor_allreduce(
                    self.mine(torch.float64),
                    self_weight=1 / self.size,
                    src_weights=dict.fromkeys(hears, 1 / self.size),
                    dst_weights=everyone,
                    name="x",
                )
        y = bf.neighbor_allreduce(
            self.mine(torch.float64),
            self_weight=1 / self.size,
            src_weights=dict.fromkeys(everyone, 1 / self.size),
            dst_weights=everyone,
            name="x",
        )
        torch.testing.assert_close(y, torch.full_like(y, (self.size - 1) / 2))

    def test_many_small_operations_in_every_ranks_own_order(self):
        order = np.random.RandomState(self.rank).permutation(60)
        handles = {}
        for i in order:
            x = torch.full((i % 7 + 1,), float(self.rank * (i + 1)))
            if i % 3:
                handles[i] = bf.neighbor_allreduce_nonblocking(x, name=f"tensor {i}")
            else:
                handles[i] = bf.allreduce_nonblocking(x, average=False, name=f"tensor {i}")
        neighbors = bf.in_neighbor_ranks()
        for i in reversed(range(60)):
            y = bf.synchronize(handles[i])
            if i % 3:
                expected = (self.rank + sum(neighbors)) / (len(neighbors) + 1)
            else:
                expected = self.size * (self.size - 1) / 2
            torch.testing.assert_close(y, torch.full((i % 7 + 1,), expected * (i + 1)))

    def test_neighbor_allgather_is_ascending_by_source(self):
        for dtype in ALL:
            x = torch.full((self.rank + 1, 2), self.rank).to(dtype)
            y = bf.neighbor_allgather(x, name="x")
            expected = [r for r in sorted(bf.in_neighbor_ranks()) for _ in range(r + 1)]
            assert y[:, 0].tolist() == expected

    def test_dynamic_neighbor_allgather_is_in_the_order_that_was_asked_for(self):
        others = np.array([r for r in range(self.size) if r != self.rank], dtype=np.int64)
        asked = np.random.RandomState(self.rank).permutation(others)
        y = bf.neighbor_allgather(
            torch.full((2,), self.rank), src_ranks=asked, dst_ranks=others, name="x"
        )
        assert y.tolist() == [r for r in asked.tolist() for _ in range(2)]

    def test_mismatches_are_value_errors(self):
        if self.size == 1:
            return
        for x in (
            torch.ones(3 + (self.rank == 0)),
            torch.ones(3, dtype=torch.float32 if self.rank else torch.float64),
        ):
            with self.assertRaises(ValueError):
                bf.allreduce(x, name="mismatch")
        with self.assertRaises(ValueError):
            bf.broadcast(torch.ones(1), root_rank=self.rank, name="roots")

    def test_inferring_who_sends(self):
        for graph in (topology_util.RingGraph, topology_util.StarGraph):
            bf.set_topology(graph(self.size))
            sources, matrix = bf.InferSourceFromDestinationRanks(
                bf.out_neighbor_ranks(), construct_adjacency_matrix=True
            )
            assert sources == sorted(bf.in_neighbor_ranks())
            adjacency = nx.to_numpy_array(bf.load_topology()) > 0
            np.testing.assert_allclose(matrix, adjacency / adjacency.sum(axis=0))
            found = bf.InferDestinationFromSourceRanks(bf.in_neighbor_ranks())
            assert found == sorted(bf.out_neighbor_ranks())

    def test_models_begin_alike(self):
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1 * (self.rank + 1))
        bf.broadcast_parameters(model.state_dict(), root_rank=0)
        bf.broadcast_optimizer_state(optimizer, root_rank=0)
        assert optimizer.param_groups[0]["lr"] == 0.1
        for p in model.state_dict().values():
            gathered = bf.allgather(p.reshape(1, -1))
            assert (gathered == gathered[0]).all()


if __name__ == "__main__":
    unittest.main(failfast=True)
