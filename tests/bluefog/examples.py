"""Programs of BlueFog's examples and tutorials, written anew, with the numbers they must give."""

from __future__ import annotations

import random
import time
import unittest

import bluefog.torch as bf
import numpy as np
import torch
from bluefog.common import topology_util


def least_squares(m=20, d=5):
    """Each rank's own data, and the optimum of the sum over all ranks."""
    generator = torch.Generator().manual_seed(bf.rank())
    a = torch.randn(m, d, generator=generator, dtype=torch.float64)
    b = torch.randn(m, 1, generator=generator, dtype=torch.float64)
    optimum = torch.linalg.solve(
        bf.allreduce(a.T @ a, average=False), bf.allreduce(a.T @ b, average=False)
    )
    smoothness = bf.allgather(torch.linalg.matrix_norm(a, 2)[None] ** 2 / m).max().item()
    return a, b, optimum, 0.9 / smoothness


class Examples(unittest.TestCase):
    def setUp(self):
        bf.init()
        bf.win_free()
        bf.init()
        bf.turn_off_win_ops_with_associated_p()
        self.rank, self.size = bf.rank(), bf.size()
        torch.manual_seed(self.rank)

    def error(self, x, target):
        return bf.allreduce((x - target).norm().reshape(1)).item()

    def test_average_consensus_reaches_machine_precision(self):
        for graph, weighted in ((bf.ExponentialGraph, False), (bf.MeshGrid2DGraph, True)):
            bf.set_topology(graph(self.size), is_weighted=weighted)
            x = torch.randn(1000, dtype=torch.float64)
            mean = bf.allreduce(x)
            for _ in range(60):
                x = bf.neighbor_allreduce(x, name="x")
            assert self.error(x, mean) < 1e-12

    def test_the_static_error_falls_by_the_second_eigenvalue(self):
        bf.set_topology(bf.RingGraph(self.size), is_weighted=True)
        x = torch.randn(10, dtype=torch.float64) + self.rank
        mean, before = bf.allreduce(x), None
        w = topology_util.nx.to_numpy_array(bf.load_topology())
        rho = np.sort(np.abs(np.linalg.eigvalsh(w)))[-2] if self.size > 1 else 0
        for _ in range(10):
            x = bf.neighbor_allreduce(x)
            now = bf.allreduce(((x - mean) ** 2).sum().reshape(1)).sqrt().item()
            assert before is None or now <= rho * before + 1e-12
            before = now

    def diffusion(self, combine_first):
        a, b, optimum, lr = least_squares()
        x = torch.zeros(5, 1, dtype=torch.float64)
        for _ in range(300):
            gradient = a.T @ (a @ x - b) / len(b) / 3
            if combine_first:
                handle = bf.neighbor_allreduce_nonblocking(x, name="x")
                x = bf.wait(handle) - lr * gradient
            else:
                x = bf.neighbor_allreduce(x - lr * gradient, name="x")
        return self.error(x, optimum)

    def test_adapt_then_combine_is_less_biased_than_adapt_with_combine(self):
        atc, awc = self.diffusion(combine_first=False), self.diffusion(combine_first=True)
        if self.size > 1:
            assert 1e-6 < atc < awc < 1

    def test_exact_diffusion_has_no_bias(self):
        a, b, optimum, lr = least_squares()
        bf.set_topology(topology_util.RingGraph(self.size), is_weighted=True)
        own, src = topology_util.GetRecvWeights(bf.load_topology(), self.rank)
        own, src = (own + 1) / 2, {r: w / 2 for r, w in src.items()}
        x = psi = torch.zeros(5, 1, dtype=torch.float64)
        for _ in range(250):
            before, psi = psi, x - lr * a.T @ (a @ x - b) / len(b)
            x = bf.neighbor_allreduce(x + psi - before, self_weight=own, src_weights=src, name="x")
        assert self.error(x, optimum) < 1e-10

    def test_gradient_tracking_overlaps_two_averages(self):
        a, b, optimum, lr = least_squares()
        x = torch.zeros(5, 1, dtype=torch.float64)
        gradient = y = a.T @ (a @ x - b) / len(b)
        for _ in range(600):
            mixed_x = bf.neighbor_allreduce_nonblocking(x, name="x")
            mixed_y = bf.neighbor_allreduce_nonblocking(y, name="y")
            x = bf.synchronize(mixed_x) - lr / 4 * y
            before, gradient = gradient, a.T @ (a @ x - b) / len(b)
            y = bf.synchronize(mixed_y) + gradient - before
        assert self.error(x, optimum) < 1e-10

    def test_push_diging_through_one_window(self):
        a, b, optimum, lr = least_squares()
        bf.set_topology(topology_util.ExponentialGraph(self.size))
        out = bf.out_neighbor_ranks()
        share = 1 / (len(out) + 1)
        gradient = a.T @ (-b) / len(b)
        w = torch.cat([torch.zeros_like(gradient), gradient, torch.ones(1, 1).double()])  # u y v
        bf.win_create(w, "w", zero_init=True)
        for _ in range(600):
            bf.barrier()
            w[:5] -= lr / 4 * w[5:10]
            bf.win_accumulate(
                w, "w", self_weight=share, dst_weights=dict.fromkeys(out, share), require_mutex=True
            )
            bf.barrier()
            bf.win_update_then_collect("w")
            before, gradient = gradient, a.T @ (a @ (w[:5] / w[-1]) - b) / len(b)
            w[5:10] += gradient - before
        assert self.error(w[:5] / w[-1], optimum) < 1e-10
        bf.barrier()

    def test_push_sum_over_one_peer_meshes(self):
        bf.set_topology(bf.MeshGrid2DGraph(self.size))
        if self.size < 2:
            return
        rounds = bf.GetDynamicOnePeerSendRecvRanks(bf.load_topology(), self.rank)
        x = torch.full((3,), float(self.rank), dtype=torch.float64)
        v, mean = torch.ones(1, dtype=torch.float64), (self.size - 1) / 2
        for _ in range(200):
            send, recv = next(rounds)
            weights = {
                "self_weight": 0.5,
                "src_weights": dict.fromkeys(recv, 1),
                "dst_weights": dict.fromkeys(send, 0.5),
            }
            x = bf.neighbor_allreduce(x, **weights)
            v = bf.neighbor_allreduce(v, **weights)
        assert self.error(x / v, mean) < 1e-12

    def push_sum(self, weight):
        """Random asynchronous push-sum; the error and the sum of all p."""
        bf.turn_on_win_ops_with_associated_p()
        x = torch.full((10,), float(self.rank), dtype=torch.float64)
        bf.win_create(x, "x", zero_init=True)
        dice, out = random.Random(self.rank), bf.out_neighbor_ranks()
        for step in range(300):
            for _ in range(dice.randrange(1, 3)):
                bf.win_accumulate(
                    x,
                    "x",
                    self_weight=1 - weight * len(out),
                    dst_weights=dict.fromkeys(out, weight),
                    require_mutex=True,
                )
                bf.win_update_then_collect("x")
            if step % 3 == 0:  # however unevenly the ranks run, every rank mixes 100 times
                bf.barrier()
        bf.barrier()
        bf.win_update_then_collect("x")
        bf.barrier()
        p = bf.win_associated_p("x")
        total = bf.allreduce(torch.tensor([p], dtype=torch.float64), average=False).item()
        return self.error(x / p, (self.size - 1) / 2), total

    def test_asynchronous_push_sum_loses_nothing_with_thirds(self):
        error, total = self.push_sum(1 / (len(bf.out_neighbor_ranks()) + 1))
        assert error < 1e-13
        assert abs(total - self.size) < 1e-13

    def test_asynchronous_push_sum_is_exact_with_halves(self):
        bf.set_topology(topology_util.RingGraph(self.size, connect_style=2))
        error, total = self.push_sum(0.5)
        assert error < 1e-13
        assert abs(total - self.size) < 1e-14

    def test_only_the_slow_rank_is_slow(self):
        x = torch.full((1000,), float(self.rank), dtype=torch.float64)
        bf.win_create(x, "x")
        bf.barrier()
        begun = time.monotonic()
        for _ in range(20):
            if self.rank == 0:
                time.sleep(0.15)
            bf.win_put(x, "x")
            bf.win_update("x")
        took = bf.allgather(torch.tensor([time.monotonic() - begun]))
        assert took[0] >= 3
        assert (took[1:] < 2).all(), took

    def test_dual_ascent_with_neighbours_only(self):
        bf.set_topology(topology_util.RingGraph(self.size))
        near = bf.in_neighbor_ranks()
        x = torch.full((1,), float(self.rank), dtype=torch.float64)
        if near:
            src = dict.fromkeys(near, 1 / len(near))
            y = bf.neighbor_allreduce(x, self_weight=0.0, src_weights=src)
            assert abs(y.item() - sum(near) / len(near)) < 1e-15

    def test_timeline_calls_answer_whether_there_is_one(self):
        with bf.timeline_context("x", "COMPUTE"):
            assert bf.timeline_start_activity("x", "STEP") is False
        assert bf.timeline_end_activity("x") is False


if __name__ == "__main__":
    unittest.main(failfast=True)
