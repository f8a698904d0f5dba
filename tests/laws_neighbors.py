"""What neighbours on the graph compute together: W @ x, on whatever edges."""

from __future__ import annotations

import time

import networkx as nx
import numpy as np
import torch
from spmd import GRAPHS, dense, mixed, near, raises, stack

import ifog
from ifog import errors, schedules
from ifog.context import current


def law_static_uniform_average_is_w_at_x():
    r = ifog.rank()
    for label in GRAPHS:
        ifog.set_topology(label)
        expected = mixed(dense(ifog.load_topology(), weighted=False), stack())
        assert near(ifog.neighbor_allreduce(stack()[r]), expected[r])


def law_a_large_average_ends_though_it_was_read_before_the_next_one_was_posted():
    r, n = ifog.rank(), ifog.size()
    if n < 3:  # the two must be read by different ranks
        return

    def post(x, shift):
        edges = {"src_weights": {(r - shift) % n: 0.5}, "dst_weights": [(r + shift) % n]}
        return ifog.neighbor_allreduce_nonblocking(
            x, self_weight=0.5, **edges, enable_topo_check=False
        )

    # Averages live where the others can read them, so they are lent as they are.
    x = [post(torch.full((100_000,), value), 1).wait() for value in (1.0, 2.0)]
    first = post(x[0], 1)
    if r % 2:
        first.wait()
    else:
        time.sleep(0.05)  # while the next rank reads it
    second = post(x[1], 2)
    assert second.wait().eq(2.0).all()
    assert first.wait().eq(1.0).all()


def law_static_weighted_average_is_w_at_x():
    r = ifog.rank()
    for label in GRAPHS:
        ifog.set_topology(label, is_weighted=True)
        expected = mixed(dense(ifog.load_topology(), weighted=True), stack())
        assert near(ifog.neighbor_allreduce(stack()[r]), expected[r])


def law_a_schedule_in_use_gives_one_round_after_the_other():
    r, n = ifog.rank(), ifog.size()
    for label in ("one_peer", "base", "random_pair", "matcha", "epidemic"):
        schedule = schedules.named(label, n)
        ifog.set_topology(schedule if label == "base" else label)
        expected = {"x": stack(), "y": stack()}
        values = {name: x[r] for name, x in expected.items()}
        for step in range(4):
            for name in ("x", "y") if step < 2 else ("x",):  # each name counts its own rounds
                expected[name] = mixed(dense(schedule(step), weighted=True), expected[name])
                values[name] = ifog.neighbor_allreduce(values[name], name=f"{label} {name}")
                assert near(values[name], expected[name][r])
        if schedule.period != 1:
            mean = nx.to_numpy_array(schedules.mean_graph(schedule))
            assert np.array_equal(nx.to_numpy_array(ifog.load_topology()), mean)


def law_ranks_that_set_other_schedules_are_told():
    seed = ifog.rank() % 2
    if ifog.size() > 2:
        wrong = schedules.random_pair(ifog.size(), seed=seed)
        raises(errors.MismatchError, lambda: ifog.set_topology(wrong), "set_topology")


def law_the_input_may_change_as_soon_as_the_result_is_there():
    ifog.set_topology("ring")
    r, w = ifog.rank(), dense(ifog.load_topology(), weighted=False)
    for numel in (1, 3_000, 30_000, 50_000):
        x = torch.full((numel,), float(r), dtype=torch.float64)
        expected = torch.arange(ifog.size(), dtype=torch.float64)
        for _ in range(6):
            y = ifog.neighbor_allreduce(x)
            x.fill_(float("nan"))
            x, expected = y, w @ expected
            assert bool(((x - expected[r]).abs() < 1e-12).all())
        total = ifog.allreduce(x, average=False)
        x.fill_(float("nan"))
        assert bool(((total - expected.sum()).abs() < 1e-9).all())


def law_a_list_of_tensors_is_averaged_as_each_of_them_is():
    ifog.set_topology("ring")
    r, n = ifog.rank(), ifog.size()
    w = dense(ifog.load_topology(), weighted=False)
    shapes = [((3,), torch.float32), ((), torch.float64), ((0, 2), torch.float32)]
    shapes += [((70, 70), torch.float64), ((2, 3), torch.bfloat16)]
    lists = [
        [torch.full(shape, 10.0 * j + k, dtype=dtype) for k, (shape, dtype) in enumerate(shapes)]
        for j in range(n)
    ]
    got = ifog.neighbor_allreduce(lists[r])
    for k, (result, (shape, dtype)) in enumerate(zip(got, shapes, strict=True)):
        expected = sum(w[r, j] * (10.0 * j + k) for j in range(n))
        assert (tuple(result.shape), result.dtype) == (shape, dtype)
        tolerance = 0.25 if dtype is torch.bfloat16 else 1e-5
        assert bool(((result.double() - expected).abs() <= tolerance).all())


def law_a_list_can_travel_over_the_edges_named_and_by_a_handle():
    r, n = ifog.rank(), ifog.size()
    edges = {"self_weight": 0.25, "src_weights": {(r - 1) % n: 0.75}, "dst_weights": [(r + 1) % n]}
    handle = ifog.neighbor_allreduce_nonblocking(
        [torch.full((2,), float(r)), torch.tensor(2.0 * r)], **(edges if n > 1 else {})
    )
    first, second = handle.wait()
    expected = 0.25 * r + 0.75 * ((r - 1) % n) if n > 1 else float(r)
    assert first.tolist() == [expected, expected]
    assert second.item() == 2 * expected


def law_different_lists_are_refused_on_every_rank():
    if ifog.size() != 2:
        return
    shapes = [(2, 3), (4,)] if ifog.rank() == 0 else [(3, 2), (4,)]
    xs = [torch.zeros(shape) for shape in shapes]
    raises(errors.MismatchError, lambda: ifog.neighbor_allreduce(xs), "different lists of tensors")


def law_an_empty_list_is_refused():
    raises(errors.ArgumentError, lambda: ifog.neighbor_allreduce([]), "empty list")


def law_directed_graph_sends_along_its_edges():
    graph = ifog.ring(ifog.size(), style="right")
    ifog.set_topology(graph, is_weighted=True)
    r, n = ifog.rank(), ifog.size()
    got = ifog.neighbor_allreduce(torch.tensor([float(r)]))
    assert got.item() == ((r + (r - 1) % n) / 2 if n > 1 else 0.0)


def law_given_weights_are_used():
    ifog.set_topology("ring")
    r, sources = ifog.rank(), ifog.in_neighbor_ranks()
    weights = {j: 0.1 * (j + 1) for j in sources}
    got = ifog.neighbor_allreduce(stack()[r], self_weight=0.25, src_weights=weights)
    expected = 0.25 * stack()[r] + sum((w * stack()[j] for j, w in weights.items()), 0 * stack()[r])
    assert near(got, expected)


def law_neighbours_left_out_count_zero():
    ifog.set_topology("complete")
    r = ifog.rank()
    some = dict.fromkeys(ifog.in_neighbor_ranks()[:1], 0.5)
    got = ifog.neighbor_allreduce(stack()[r], self_weight=0.5, src_weights=some)
    expected = 0.5 * stack()[r] + sum((0.5 * stack()[j] for j in some), 0 * stack()[r])
    assert near(got, expected)


def law_dynamic_weights_multiply_at_both_ends():
    r, n = ifog.rank(), ifog.size()
    if n == 1:
        return
    to, source = (r + 1) % n, (r - 1) % n
    got = ifog.neighbor_allreduce(
        stack()[r], self_weight=0.5, src_weights={source: 2.0}, dst_weights={to: 1 / 3}
    )
    assert near(got, 0.5 * stack()[r] + 2.0 / 3 * stack()[source])


def law_unchecked_rounds_multiply_at_both_ends_whatever_the_size():
    r, n = ifog.rank(), ifog.size()
    left, right = (r - 1) % n, (r + 1) % n
    for numel in (1, 600, 5_000, 20_000, 40_000):
        for own, theirs, factor in ((0.5, 0.5, 1.0), (0.25, 0.5, 1.0), (0.5, 0.75, 2.0 + r)):
            edges = {"src_weights": {left: theirs}, "dst_weights": {right: factor}}
            y = ifog.neighbor_allreduce(
                torch.full((numel,), 1.0 + r, dtype=torch.float64),
                self_weight=own,
                **(edges if n > 1 else {"src_weights": {}, "dst_weights": {}}),
                enable_topo_check=False,
            )
            sent = 1.0 if factor == 1.0 else 2.0 + left
            expected = own * (1.0 + r) + (theirs * sent * (1.0 + left) if n > 1 else 0.0)
            assert y.shape == (numel,)
            assert bool(((y - expected).abs() < 1e-12).all())


def law_dynamic_round_may_leave_ranks_alone():
    r, n = ifog.rank(), ifog.size()
    if n == 1:
        return
    x = torch.tensor([float(r)])
    if r == 0:
        got = ifog.neighbor_allreduce(x, self_weight=1.0, src_weights={}, dst_weights=[1])
    elif r == 1:
        got = ifog.neighbor_allreduce(x, self_weight=0.5, src_weights={0: 0.5}, dst_weights=[])
    else:
        got = ifog.neighbor_allreduce(x, self_weight=2.0, src_weights={}, dst_weights={})
    assert got.item() == {0: 0.0, 1: 0.5}.get(r, 2.0 * r)
    assert x.item() == r


def law_one_peer_rounds_multiply_to_the_product():
    r, n = ifog.rank(), ifog.size()
    schedule, x, expected = ifog.one_peer(n), stack()[r], stack()
    for step in range(5):
        x = ifog.neighbor_allreduce(x, topology=schedule(step))
        expected = mixed(dense(schedule(step), weighted=True), expected)
    assert near(x, expected[r])


def law_one_peer_exponential_is_exact_for_powers_of_two():
    n = ifog.size()
    if n & (n - 1):
        return
    schedule, x = ifog.one_peer(n), stack()[ifog.rank()]
    for step in range(n.bit_length() - 1):
        x = ifog.neighbor_allreduce(x, topology=schedule(step))
    assert near(x, stack().mean(0))


def law_doubly_stochastic_mixing_keeps_the_mean_and_contracts():
    ifog.set_topology("ring", is_weighted=True)
    n, x = ifog.size(), stack()[ifog.rank()]
    rate = abs(1 / 3 + 2 / 3 * np.cos(2 * np.pi / n)) if n > 2 else 0.0
    for _ in range(30):
        x = ifog.neighbor_allreduce(x)
    assert near(ifog.allreduce(x), stack().mean(0))
    spread = torch.linalg.vector_norm(ifog.allgather(x[None]) - stack().mean(0))
    start = torch.linalg.vector_norm(stack() - stack().mean(0))
    assert spread <= start * rate**30 + 1e-13


def law_uniform_average_of_equal_tiny_doubles_is_exact():
    for label in GRAPHS:
        ifog.set_topology(label)
        x = torch.full((7,), 2.0**-256, dtype=torch.float64)
        assert torch.equal(ifog.neighbor_allreduce(x), x)


def law_every_float_dtype_keeps_its_dtype():
    ifog.set_topology("ring")
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x = stack(dtype=dtype)
        got = ifog.neighbor_allreduce(x[ifog.rank()])
        expected = mixed(dense(ifog.load_topology(), weighted=False), x.double())[ifog.rank()]
        assert got.dtype is dtype
        assert torch.allclose(got.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-2)


def law_any_shape_and_stride_is_accepted():
    ifog.set_topology("exponential")
    w, r = dense(ifog.load_topology(), weighted=False), ifog.rank()
    for shape in ((), (0,), (1,), (5, 0), (4, 6), (2, 3, 4)):
        x = stack(shape)
        assert near(ifog.neighbor_allreduce(x[r]), mixed(w, x)[r])
    x = stack((4, 6))
    got = ifog.neighbor_allreduce(x[r].T)
    assert near(got, mixed(w, x)[r].T)


def law_large_tensors_arrive_whole():
    ifog.set_topology("ring")
    x = stack((300_001,))
    expected = mixed(dense(ifog.load_topology(), weighted=False), x)[ifog.rank()]
    assert near(ifog.neighbor_allreduce(x[ifog.rank()]), expected)
    assert near(ifog.allreduce(x[ifog.rank()]), x.mean(0))


def law_neighbor_allgather_is_ascending_by_source():
    ifog.set_topology("ring")
    r = ifog.rank()
    got = ifog.neighbor_allgather(torch.full((r + 1,), r))
    expected = [j for j in sorted(ifog.in_neighbor_ranks()) for _ in range(j + 1)]
    assert got.tolist() == expected


def law_dynamic_neighbor_allgather_follows_src_ranks():
    r, n = ifog.rank(), ifog.size()
    others = np.array([j for j in range(n) if j != r])[::-1]
    got = ifog.neighbor_allgather(torch.tensor([r]), src_ranks=others, dst_ranks=others)
    assert got.tolist() == others.tolist()


def law_init_resets_the_topology():
    ifog.set_topology("star", is_weighted=True)
    ifog.init()
    assert ifog.load_topology().graph["label"] == "exponential"
    assert not current().weighted
    assert ifog.set_topology() is True


def law_neighbours_are_those_of_the_graph():
    graph = ifog.star(ifog.size())
    ifog.set_topology(graph)
    assert ifog.load_topology() is graph
    leaves = list(range(1, ifog.size()))
    assert ifog.in_neighbor_ranks() == (leaves if ifog.rank() == 0 else [0])
    assert ifog.out_neighbor_ranks() == (leaves if ifog.rank() == 0 else [0])


def law_equal_tiny_doubles_stay_exact_with_any_number_of_senders():
    n, x = ifog.size(), torch.full((7,), 2.0**-256, dtype=torch.float64)
    # Multiplying before adding loses a bit with 5 and with 6 senders.
    for senders in range(1, n):
        links = sum(np.roll(np.eye(n), hop, axis=0) for hop in range(senders + 1))
        graph = ifog.from_matrix(links / (senders + 1))
        even = 1 / (senders + 1)
        for weighted in (False, True):
            ifog.set_topology(graph, is_weighted=weighted)
            assert torch.equal(ifog.neighbor_allreduce(x), x)
        for own in (even, 1 - senders * even):
            weights = dict.fromkeys(ifog.in_neighbor_ranks(), even)
            got = ifog.neighbor_allreduce(x, self_weight=own, src_weights=weights)
            assert torch.equal(got, x)


def law_weights_that_are_even_up_to_rounding_average_exactly():
    for label in GRAPHS:
        ifog.set_topology(label)
        sources = ifog.in_neighbor_ranks()
        m, x = len(sources), torch.full((7,), 2.0**-256, dtype=torch.float64)
        even = dict.fromkeys(sources, 1 / (m + 1))
        for own in (1 / (m + 1), 1 - sum(even.values())):
            got = ifog.neighbor_allreduce(x, self_weight=own, src_weights=even)
            assert torch.equal(got, x)
            got = ifog.neighbor_allreduce(
                x, self_weight=own, src_weights=even, dst_weights=ifog.out_neighbor_ranks()
            )
            assert torch.equal(got, x)


def law_weights_that_are_nearly_even_are_used_as_given():
    ifog.set_topology("ring")
    sources = ifog.in_neighbor_ranks()
    share = 1 / (len(sources) + 1)
    for off in (1e-6, 1e-9, 1e-13):
        x = torch.ones(3, dtype=torch.float64)
        weights = dict.fromkeys(sources, share)
        got = ifog.neighbor_allreduce(x, self_weight=share + off, src_weights=weights)
        assert torch.allclose(got - 1, torch.full_like(x, off), rtol=0, atol=5e-16)


def law_sending_weights_keep_the_sum_to_double_precision():
    n, r = ifog.size(), ifog.rank()
    ifog.set_topology("ring", is_weighted=True)
    to, sources = ifog.out_neighbor_ranks(), ifog.in_neighbor_ranks()
    out = len(to) + 1
    x = stack((50,))[r].abs()
    total = ifog.allreduce(x, average=False)
    for _ in range(20):
        x = ifog.neighbor_allreduce(
            x,
            self_weight=1 / out,
            src_weights=dict.fromkeys(sources, 1),
            dst_weights=dict.fromkeys(to, 1 / out),
        )
    assert torch.allclose(ifog.allreduce(x, average=False), total, rtol=1e-14 * n, atol=0)


def law_many_averages_at_once_stay_within_single_precision():
    ifog.set_topology("exponential")
    w, r = dense(ifog.load_topology(), weighted=False), ifog.rank()
    stacks = [stack((8,), torch.float32, seed) + seed for seed in range(60)]
    handles = [
        ifog.neighbor_allreduce_nonblocking(x[r], name=f"x{i}") for i, x in enumerate(stacks)
    ]
    for handle, x in zip(handles, stacks, strict=True):
        assert (handle.wait().double() - mixed(w, x.double())[r]).abs().max() < 1e-5
    x = stack((23, 23), torch.float32)[r] * 10
    mean = ifog.allreduce(x.double())
    for _ in range(60):
        x = ifog.neighbor_allreduce(x)
    assert (x.double() - mean).abs().max() < 1e-5


def law_a_rank_that_hears_nobody_gets_a_new_tensor():
    x = stack()[ifog.rank()].clone()
    for own in (1.0, 0.5):
        got = ifog.neighbor_allreduce(x, self_weight=own, src_weights={}, dst_weights=[])
        assert got.data_ptr() != x.data_ptr()
        assert torch.equal(got, own * stack()[ifog.rank()])
        assert torch.equal(x, stack()[ifog.rank()])
