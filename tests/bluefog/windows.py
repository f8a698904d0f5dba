"""A unittest file as BlueFog's users write them: one-sided windows."""

from __future__ import annotations

import random
import time
import unittest

import bluefog.torch as bf
import torch
from bluefog.common import topology_util

DTYPES = (torch.float32, torch.float64)


class Windows(unittest.TestCase):
    def setUp(self):
        bf.init()
        # Not in tearDown: after a failure the other ranks would be waited for there.
        assert bf.win_free()
        bf.init()
        bf.turn_off_win_ops_with_associated_p()
        bf.set_skip_negotiate_stage(True)
        self.rank, self.size = bf.rank(), bf.size()
        self.near = bf.in_neighbor_ranks()

    def mine(self, dtype=torch.float64, value=None):
        return torch.full((3, 2), float(self.rank if value is None else value), dtype=dtype)

    def close(self, x, value):
        torch.testing.assert_close(x, torch.full_like(x, value))

    def test_create_and_free(self):
        for dtype in (*DTYPES, torch.int32, torch.int64):
            name = str(dtype)
            assert bf.win_create(self.mine().to(dtype), name) is True
            assert bf.win_create(self.mine().to(dtype), name) is False
            assert bf.get_current_created_window_names() == [name]
            assert bf.win_free(name)
            assert bf.get_current_created_window_names() == []
        assert bf.win_free()
        with self.assertRaises(KeyError):
            bf.win_free("unknown")

    def test_names_are_sorted(self):
        for name in ("c", "a", "b"):
            bf.win_create(self.mine(), name)
        assert bf.get_current_created_window_names() == ["a", "b", "c"]

    def test_unknown_windows(self):
        for error, function in (
            (KeyError, bf.win_update),
            (KeyError, bf.win_update_then_collect),
            (ValueError, bf.get_win_version),
            (ValueError, bf.win_associated_p),
            (ValueError, bf.win_get),
        ):
            with self.assertRaises(error):
                function("unknown")
        with self.assertRaises(ValueError), bf.win_mutex("unknown"):
            pass
        with self.assertRaises(ValueError):
            bf.win_put(self.mine(), "unknown")

    def test_handles(self):
        bf.win_create(self.mine(), "x")
        handle = bf.win_put_nonblocking(self.mine(), "x")
        assert type(handle) is int
        while not bf.win_poll(handle):
            continue
        assert bf.win_wait(handle) is True
        assert bf.win_wait(handle) is False
        with self.assertRaises(ValueError):
            bf.win_poll(handle)

    def test_update_begins_with_copies_of_the_own_tensor(self):
        for dtype in DTYPES:
            x = self.mine(dtype, 2.0**-20)
            bf.win_create(x, "x")
            y = bf.win_update("x")
            assert y is x
            assert torch.equal(y, self.mine(dtype, 2.0**-20))
            bf.win_free("x")

    def test_update_begins_with_zeros_where_asked(self):
        bf.win_create(self.mine(), "x", zero_init=True)
        self.close(bf.win_update("x"), self.rank / (len(self.near) + 1))

    def test_weights_of_update_come_together_and_from_neighbours(self):
        bf.win_create(self.mine(), "x")
        for wrong in (
            {"self_weight": 0.5},
            {"neighbor_weights": {}},
            {"self_weight": 1, "neighbor_weights": {}},
            {"self_weight": 0.5, "neighbor_weights": []},
            {"self_weight": 0.5, "neighbor_weights": {self.rank: 0.5}},
        ):
            with self.assertRaises(ValueError):
                bf.win_update("x", **wrong)

    def test_put(self):
        for dtype in DTYPES:
            x = self.mine(dtype)
            bf.win_create(x, "x")
            assert bf.win_put(x, "x") is True
            bf.barrier()
            y = bf.win_update("x")
            self.close(y, (self.rank + sum(self.near)) / (len(self.near) + 1))
            assert y is x
            bf.barrier()
            bf.win_free("x")

    def test_put_to_one_with_weights_of_its_own(self):
        if self.size == 1:
            return
        x = self.mine()
        bf.win_create(x, "x", zero_init=True)
        right, left = (self.rank + 1) % self.size, (self.rank - 1) % self.size
        sent = self.mine(value=self.rank + 1)
        bf.win_put(sent, "x", self_weight=0.5, dst_weights={right: 1.23})
        self.close(sent, (self.rank + 1) / 2)
        self.close(x, self.rank)
        bf.barrier()
        y = bf.win_update("x", self_weight=1.0, neighbor_weights={left: 2.0}, clone=True)
        self.close(y, self.rank + 2 * 1.23 * (left + 1))
        self.close(x, self.rank)
        with self.assertRaises(ValueError):
            bf.win_put(x, "x", dst_weights={self.rank: 1.0})

    def test_accumulate_and_collect(self):
        x = self.mine()
        bf.win_create(x, "x", zero_init=True)
        for _ in range(3):
            assert bf.win_accumulate(self.mine(), "x", require_mutex=True) is True
        bf.barrier()
        self.close(bf.win_update_then_collect("x"), self.rank + 3 * sum(self.near))
        self.close(bf.win_update_then_collect("x"), self.rank + 3 * sum(self.near))

    def test_get_reads_what_the_tensors_hold_right_now(self):
        x = self.mine()
        bf.win_create(x, "x")
        x.add_(10)
        bf.barrier()
        assert bf.win_get("x") is True
        bf.barrier()
        y = bf.win_update("x", clone=True)
        self.close(y, 10 + (self.rank + sum(self.near)) / (len(self.near) + 1))

    def test_a_window_can_be_read_as_soon_as_it_is_there(self):
        for i in range(20):
            bf.win_create(self.mine(), f"x{i}")
            assert bf.win_get(f"x{i}")
        bf.barrier()

    def test_get_of_the_tutorial(self):
        if self.size != 4:
            return
        x = self.mine()
        bf.win_create(x, "x")
        if self.rank == 0:
            bf.win_get("x")
        bf.barrier()
        if self.rank == 0:
            self.close(bf.win_update("x", clone=True), 5 / 3)
            bf.win_get("x", src_weights={3: 0.5})
            y = bf.win_update("x", self_weight=0.5, neighbor_weights={3: 0.4})
            self.close(y, 0.6)
        bf.barrier()

    def test_versions_count_puts_and_gets(self):
        bf.win_create(self.mine(), "x")
        none = dict.fromkeys(self.near, 0)
        assert bf.get_win_version("x") == none
        bf.barrier()
        bf.win_put(self.mine(), "x")
        bf.barrier()
        assert bf.get_win_version("x") == dict.fromkeys(self.near, 1)
        bf.barrier()
        bf.win_accumulate(self.mine(), "x")
        bf.barrier()
        assert bf.get_win_version("x") == dict.fromkeys(self.near, 1)
        bf.win_get("x")
        assert bf.get_win_version("x") == dict.fromkeys(self.near, 2)
        bf.win_update("x")
        assert bf.get_win_version("x") == none
        bf.barrier()

    def test_the_graphs_weights_are_the_updates(self):
        bf.set_topology(topology_util.StarGraph(self.size), is_weighted=True)
        own, src = topology_util.GetRecvWeights(bf.load_topology(), self.rank)
        bf.win_create(self.mine(), "x")
        bf.win_put(self.mine(), "x")
        bf.barrier()
        self.close(bf.win_update("x"), own * self.rank + sum(w * r for r, w in src.items()))
        bf.barrier()

    def test_the_topology_stays_while_there_are_windows(self):
        graph = bf.load_topology()
        bf.win_create(self.mine(), "x")
        if self.size > 2:
            star = topology_util.StarGraph(self.size)
            assert bf.set_topology(star) is False
            bf.init(topology_util.StarGraph)
        assert bf.load_topology() is graph
        assert bf.set_topology(topology_util.ExponentialGraph(self.size)) is True
        bf.win_free()
        assert bf.set_topology(topology_util.StarGraph(self.size)) is True

    def test_mutexes_exclude_the_owner_and_one_peer(self):
        bf.set_topology(topology_util.FullyConnectedGraph(self.size))
        bf.win_create(self.mine(), "x")
        bf.barrier()
        if self.rank == 0:
            with bf.win_mutex("x", for_self=True):
                bf.barrier()
                time.sleep(1.01)
        else:
            bf.barrier()
            begun = time.monotonic()
            with bf.win_mutex("x"):
                waited = time.monotonic() - begun
            # The peer begins to hold before the barrier, so at least this is left of its second.
            assert 0.8 < waited < 10
        bf.barrier()

    def test_associated_p_is_what_a_tensor_of_ones_becomes(self):
        bf.turn_on_win_ops_with_associated_p()
        x = torch.ones(5, dtype=torch.float64)
        bf.win_create(x, "x", zero_init=True)
        dice = random.Random(self.rank)
        for _ in range(40):
            weights = {r: dice.random() for r in bf.out_neighbor_ranks() if dice.random() < 0.7}
            total = 1 + sum(weights.values())
            share = {"self_weight": 1 / total}
            share["dst_weights"] = {r: w / total for r, w in weights.items()}
            choice = dice.randrange(4)
            if choice == 0:
                bf.win_put(x, "x", require_mutex=True, **share)
            elif choice == 1:
                bf.win_accumulate(x, "x", require_mutex=True, **share)
            elif choice == 2:
                near = {r: dice.random() for r in self.near}
                bf.win_update("x", 0.5, near, reset=dice.random() < 0.5, require_mutex=True)
            else:
                bf.win_update_then_collect("x")
        bf.barrier()
        bf.win_update_then_collect("x")
        p = bf.win_associated_p("x")
        torch.testing.assert_close(x, torch.full_like(x, p), rtol=0, atol=1e-10 * max(1.0, p))
        bf.barrier()

    def test_accumulated_mass_is_kept_in_any_order(self):
        bf.turn_on_win_ops_with_associated_p()
        x = torch.full((100,), float(self.rank), dtype=torch.float64)
        bf.win_create(x, "x", zero_init=True)
        out = bf.out_neighbor_ranks()
        share = 1 / (len(out) + 1)
        for _ in range(30):
            bf.win_accumulate(
                x, "x", self_weight=share, dst_weights=dict.fromkeys(out, share), require_mutex=True
            )
            bf.win_update_then_collect("x")
        bf.barrier()
        bf.win_update_then_collect("x")
        p = torch.tensor([bf.win_associated_p("x")], dtype=torch.float64)
        bf.barrier()
        self.close(bf.allreduce(x, average=False), self.size * (self.size - 1) / 2)
        self.close(bf.allreduce(p, average=False), float(self.size))

    def test_a_sleeping_rank_delays_nobody(self):
        if self.size == 1:
            return
        bf.win_create(self.mine(), "x")
        bf.barrier()
        begun = time.monotonic()
        if self.rank == 0:
            time.sleep(3)
        for _ in range(10):
            bf.win_put(self.mine(), "x")
            bf.win_update("x")
        took = time.monotonic() - begun
        assert took < 2 or self.rank == 0, took
        bf.barrier()


if __name__ == "__main__":
    unittest.main(failfast=True)
