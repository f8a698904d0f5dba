"""A unittest file as BlueFog's users write them: machines of two ranks each."""

from __future__ import annotations

import os
import unittest

import bluefog.torch as bf
import torch
from bluefog.common import topology_util

K = 2


class Hierarchical(unittest.TestCase):
    def setUp(self):
        os.environ["BLUEFOG_NODES_PER_MACHINE"] = str(K)
        bf.init()
        self.machine, self.machines = bf.machine_rank(), bf.machine_size()
        self.x = torch.full((4, 3), float(bf.rank()), dtype=torch.float64)

    def mean(self, machine):
        return machine * K + (K - 1) / 2

    def test_who_is_where(self):
        assert bf.is_homogeneous()
        assert (bf.local_size(), bf.local_rank()) == (K, bf.rank() % K)
        assert (self.machine, self.machines) == (bf.rank() // K, bf.size() // K)

    def test_allreduce_within_a_machine(self):
        y = bf.allreduce(self.x, is_hierarchical_local=True, name="local")
        assert (y == self.mean(self.machine)).all()

    def test_static(self):
        assert bf.set_machine_topology(topology_util.RingGraph(self.machines))
        around = bf.in_neighbor_machine_ranks()
        y = bf.hierarchical_neighbor_allreduce(self.x, name="x")
        expected = (self.mean(self.machine) + sum(map(self.mean, around))) / (len(around) + 1)
        torch.testing.assert_close(y, torch.full_like(y, expected))
        assert (self.x == bf.rank()).all()

    def test_dynamic(self):
        bf.set_machine_topology(topology_util.ExponentialGraph(self.machines))
        rounds = topology_util.GetExp2DynamicSendRecvMachineRanks(
            bf.size(), bf.local_size(), bf.rank(), bf.local_rank()
        )
        for _ in range(3):
            send, recv = next(rounds)
            y = bf.hierarchical_neighbor_allreduce(
                self.x,
                self_weight=0.5,
                src_machine_weights=dict.fromkeys(recv, 0.5),
                dst_machine_weights=send,
            )
            expected = 0.5 * self.mean(self.machine) + 0.5 * self.mean(recv[0])
            torch.testing.assert_close(y, torch.full_like(y, expected))

    def test_machine_topologies_must_fit(self):
        with self.assertRaises(TypeError):
            bf.set_machine_topology(topology_util.RingGraph(self.machines + 1))
        with self.assertRaises(ValueError):
            bf.set_machine_topology(None)


if __name__ == "__main__":
    unittest.main(failfast=True)
