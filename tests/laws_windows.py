"""Windows: what puts, gets, accumulates and updates do to memory, and that none of it is lost."""

from __future__ import annotations

import random
import time

import torch
from spmd import dense, mixed, raises, stack

import ifog
from ifog import errors


def sources(graph, rank):
    return [u for u in graph.predecessors(rank) if u != rank]


def targets(graph, rank):
    return [v for v in graph.successors(rank) if v != rank]


def law_an_update_after_puts_is_one_mixing_round():
    n, r = ifog.size(), ifog.rank()
    for graph, weighted in (
        (ifog.ring(n), False),
        (ifog.star(n), True),
        (ifog.exponential(n), False),
    ):
        ifog.set_topology(graph, is_weighted=weighted)
        x = stack((4, 3))
        own = x[r].clone()
        assert ifog.win_create(own, "x")
        assert not ifog.win_create(own, "x")
        assert ifog.get_current_created_window_names() == ["x"]
        assert ifog.win_put(own, "x") is True
        ifog.barrier()
        assert ifog.get_win_version("x") == dict.fromkeys(sources(graph, r), 1)
        assert ifog.win_update("x") is own
        assert torch.allclose(own, mixed(dense(graph, weighted=weighted), x)[r], atol=1e-14)
        assert set(ifog.get_win_version("x").values()) <= {0}
        assert ifog.win_free("x")
        assert ifog.get_current_created_window_names() == []


def law_buffers_begin_as_copies_of_the_own_tensor_or_as_zeros():
    r = ifog.rank()
    x = torch.full((3,), float(r))
    ifog.win_create(x, "own")
    assert torch.equal(ifog.win_update("own"), torch.full((3,), float(r)))
    y = torch.full((3,), 6.0)
    ifog.win_create(y, "zero", zero_init=True)
    m = len(ifog.in_neighbor_ranks())
    assert torch.allclose(ifog.win_update("zero"), torch.full((3,), 6.0 / (m + 1)))
    ifog.win_free()


def law_a_get_sees_what_the_owner_wrote_in_place():
    n, r = ifog.size(), ifog.rank()
    x = torch.zeros(2, dtype=torch.float64)
    ifog.win_create(x, "x")
    x += r + 1
    ifog.barrier()
    around = ifog.in_neighbor_ranks()
    assert ifog.win_get("x", src_weights=dict.fromkeys(around, 0.5))
    assert ifog.get_win_version("x") == dict.fromkeys(around, 1)
    got = ifog.win_update(
        "x", self_weight=0.0, neighbor_weights=dict.fromkeys(around, 1.0), clone=True
    )
    assert torch.allclose(got, torch.full((2,), sum(0.5 * (j + 1) for j in around)).double())
    assert torch.equal(x, torch.full((2,), r + 1.0).double())
    ifog.barrier()
    ifog.win_free("x")
    assert n == 1 or around


def law_own_weight_scales_the_sent_tensor_after_it_was_sent():
    graph = ifog.ring(ifog.size())
    ifog.set_topology(graph)
    r, around = ifog.rank(), ifog.out_neighbor_ranks()
    x = torch.full((2,), 8.0)
    ifog.win_create(x, "x", zero_init=True)
    other = torch.full((2,), float(r + 1))
    ifog.win_put(other, "x", self_weight=0.5, dst_weights=dict.fromkeys(around, 0.25))
    assert other.tolist() == [(r + 1) / 2] * 2
    assert x.tolist() == [8.0, 8.0]
    ifog.barrier()
    got = ifog.win_update("x", 1.0, dict.fromkeys(ifog.in_neighbor_ranks(), 1.0), reset=True)
    expected = 8.0 + sum(0.25 * (j + 1) for j in ifog.in_neighbor_ranks())
    assert torch.allclose(got, torch.full((2,), expected))
    assert torch.equal(ifog.win_update_then_collect("x"), got)  # the buffers are empty now
    ifog.win_free("x")


def law_sums_of_equal_tiny_doubles_are_exact():
    ifog.set_topology(ifog.complete(ifog.size()))
    x = torch.full((1000,), 2.0**-256, dtype=torch.float64)
    ifog.win_create(x, "tiny")
    ifog.win_put(x, "tiny")
    ifog.barrier()
    assert torch.equal(ifog.win_update("tiny"), torch.full_like(x, 2.0**-256))
    ifog.win_free("tiny")


def law_every_dtype_size_and_stride():
    r = ifog.rank()
    for dtype in (
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    ):
        for shape in ((), (0,), (1,), (5, 3)):
            x = torch.full(shape, r + 1).to(dtype)
            ifog.win_create(x, "x", zero_init=True)
            ifog.win_accumulate(x, "x")
            ifog.win_accumulate(x, "x", dst_weights=dict.fromkeys(ifog.out_neighbor_ranks(), 2))
            ifog.barrier()
            total = r + 1 + sum(3 * (j + 1) for j in ifog.in_neighbor_ranks())
            assert torch.equal(
                ifog.win_update_then_collect("x"), torch.full(shape, total).to(dtype)
            )
            ifog.win_free("x")
    columns = torch.zeros(3, 4)
    ifog.win_create(columns.T, "strided", zero_init=True)
    ifog.win_put(torch.arange(12.0).reshape(4, 3), "strided")
    ifog.barrier()
    weights = dict.fromkeys(ifog.in_neighbor_ranks(), 1.0)
    ifog.win_update("strided", 0.0, weights)
    expected = torch.arange(12.0).reshape(4, 3).T * len(weights)
    assert torch.equal(columns, expected)
    ifog.win_free("strided")


def law_many_windows_and_several_operations_on_each_are_in_order():
    around = ifog.out_neighbor_ranks()
    tensors = {f"w{i}": torch.zeros(3, dtype=torch.float64) for i in range(40)}
    for name, x in tensors.items():
        ifog.win_create(x, name, zero_init=True)
    handles = []
    for name in tensors:
        for k in range(1, 4):
            handles.append(ifog.win_put_nonblocking(torch.full((3,), float(k)).double(), name))
        handles.append(ifog.win_accumulate_nonblocking(torch.ones(3).double(), name))
    for handle in reversed(handles):
        assert ifog.win_wait(handle) is True
        assert ifog.win_poll(handle)
    ifog.barrier()
    for name in tensors:
        assert set(ifog.get_win_version(name).values()) <= {3}
        total = 4.0 * len(ifog.in_neighbor_ranks())  # the last put, 3, and 1 more
        assert torch.equal(ifog.win_update_then_collect(name), torch.full((3,), total).double())
    assert ifog.win_free() is True
    assert ifog.win_free() is True
    assert around == [] or handles


def law_a_sleeping_target_delays_nobody():
    n, r = ifog.size(), ifog.rank()
    ifog.set_topology(ifog.complete(n))
    x = torch.ones(1000, dtype=torch.float64)
    ifog.win_create(x, "x", zero_init=True)
    ifog.barrier()
    started = time.perf_counter()
    if r == 0:
        time.sleep(2.0)
    else:
        for _ in range(5):
            ifog.win_put(x, "x", require_mutex=True)
            ifog.win_accumulate(x, "x")
            ifog.win_get("x", src_weights=[0])
            ifog.win_update("x", clone=True, require_mutex=True)
        assert time.perf_counter() - started < 1.5
    ifog.barrier()
    ifog.win_free("x")


def law_a_held_mutex_keeps_out_its_pair_and_nobody_else():
    n, r = ifog.size(), ifog.rank()
    if n < 3:
        return
    ifog.set_topology(ifog.complete(n))
    x = torch.zeros(1)
    ifog.win_create(x, "x")
    ifog.barrier()
    if r == 0:
        with ifog.win_mutex("x", for_self=True, ranks=[1]):
            ifog.barrier()
            ifog.win_update("x", require_mutex=True)  # the holder itself is not kept out
            time.sleep(0.5)
    else:
        ifog.barrier()
        started = time.perf_counter()
        ifog.win_put(torch.ones(1), "x", dst_weights=[0], require_mutex=True)
        took = time.perf_counter() - started
        assert took > 0.4 if r == 1 else took < 0.3, took
    ifog.barrier()
    ifog.win_free("x")


def law_random_traffic_of_all_to_all_keeps_the_sum_and_p_is_the_sum_of_ones():
    n, r = ifog.size(), ifog.rank()
    ifog.set_topology(ifog.complete(n))
    chance = random.Random(r)
    x = stack((64,))[r]
    total = stack((64,)).sum(0)
    ones = torch.ones(1, dtype=torch.float64)
    ifog.turn_on_win_ops_with_associated_p()
    ifog.win_create(x, "x", zero_init=True)
    ifog.win_create(ones, "ones", zero_init=True)
    for _ in range(60):
        peers = chance.sample(ifog.out_neighbor_ranks(), k=min(n - 1, chance.randint(0, 2)))
        shares = {peer: chance.random() / n for peer in peers}
        keep = 1.0 - sum(shares.values())
        for tensor, name in ((x, "x"), (ones, "ones")):
            ifog.win_accumulate(tensor, name, keep, shares, require_mutex=chance.random() < 0.5)
        if chance.random() < 0.5:
            for name in ("x", "ones"):
                ifog.win_update_then_collect(name, require_mutex=chance.random() < 0.5)
    ifog.barrier()
    for name in ("x", "ones"):
        ifog.win_update_then_collect(name)
    assert torch.allclose(ifog.allreduce(x, average=False), total, atol=1e-12)
    assert abs(ifog.win_associated_p("ones") - float(ones)) < 1e-13
    p = torch.tensor([ifog.win_associated_p("x")], dtype=torch.float64)
    assert abs(float(ifog.allreduce(p, average=False)) - n) < 1e-12
    ifog.turn_off_win_ops_with_associated_p()
    ifog.win_free()


def law_all_to_one_loses_nothing_while_the_one_collects():
    n, r = ifog.size(), ifog.rank()
    ifog.set_topology(ifog.star(n))
    x = torch.zeros(5000, dtype=torch.int64)
    ifog.win_create(x, "x", zero_init=True)
    if r:
        for _ in range(50):
            ifog.win_accumulate(torch.ones_like(x), "x", dst_weights=[0])
    else:
        for _ in range(50):
            ifog.win_update_then_collect("x", require_mutex=False)
    ifog.barrier()
    ifog.win_update_then_collect("x")
    assert torch.equal(x, torch.full_like(x, 50 * (n - 1) if r == 0 else 0))
    ifog.win_free("x")


def law_push_sum_over_windows_reaches_the_mean_on_a_directed_graph():
    n, r = ifog.size(), ifog.rank()
    ifog.set_topology(ifog.exponential(n))
    around = ifog.out_neighbor_ranks()
    x = stack((8,))[r]
    mean = stack((8,)).mean(0)
    ifog.turn_on_win_ops_with_associated_p()
    ifog.win_create(x, "x", zero_init=True)
    share = 1.0 / (len(around) + 1)
    for _ in range(60):
        ifog.win_accumulate(x, "x", share, dict.fromkeys(around, share), require_mutex=True)
        ifog.barrier()
        ifog.win_update_then_collect("x")
        ifog.barrier()
    assert torch.allclose(x / ifog.win_associated_p("x"), mean, atol=1e-9)
    ifog.turn_off_win_ops_with_associated_p()
    ifog.win_free("x")


def law_the_graph_stays_while_a_window_is_there():
    n = ifog.size()
    ifog.win_create(torch.zeros(1), "x")
    if n > 2:
        raises(errors.ArgumentError, lambda: ifog.set_topology(ifog.star(n)), "window", "'x'")
    ifog.win_free("x")
    assert ifog.set_topology(ifog.star(n))


def law_refused_window_calls_say_what_is_wrong_and_leave_it_usable():
    n, r = ifog.size(), ifog.rank()
    ifog.set_topology(ifog.ring(n))
    x = torch.zeros(2, 3)
    bad = errors.ArgumentError
    raises(bad, lambda: ifog.win_put(x, "none"), "'none'", "win_create")
    raises(bad, lambda: ifog.win_create(torch.zeros(2, dtype=torch.bool), "b"), "bool")
    ifog.win_create(x, "x")
    raises(bad, lambda: ifog.win_put(torch.zeros(3), "x"), "(3,)", "(2, 3)")
    raises(bad, lambda: ifog.win_put(x.double(), "x"), "float64")
    raises(bad, lambda: ifog.win_put(x, "x", dst_weights={r: 1.0}), str(r), "neighbours")
    raises(bad, lambda: ifog.win_put(x, "x", dst_weights=[n]), str(n))
    raises(bad, lambda: ifog.win_get("x", src_weights={n + 1: 1.0}), str(n + 1))
    raises(bad, lambda: ifog.win_update("x", self_weight=1.0), "neighbor_weights")
    raises(bad, lambda: ifog.win_update("x", float("nan"), {}), "finite")
    raises(bad, lambda: ifog.win_free("y"), "'y'")
    ifog.win_create(torch.zeros(2, dtype=torch.int64), "int")
    raises(bad, lambda: ifog.win_put(torch.ones(2).long(), "int", self_weight=0.5), "whole", "0.5")
    if n > 1:
        raises(bad, lambda: ifog.win_update("int"), "whole")
        shape = (2,) if r else (3,)
        wrong = errors.MismatchError
        raises(wrong, lambda: ifog.win_create(torch.zeros(shape), "odd"), "(2,)", "(3,)")
    assert ifog.get_current_created_window_names() == ["int", "x"]
    ifog.win_put(x, "x")
    ifog.win_free()
