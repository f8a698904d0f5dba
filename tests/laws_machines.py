"""What machines compute together: means on each, W @ z between them, on any layout of ranks."""

from __future__ import annotations

import os

import torch
from spmd import GRAPHS, dense, layouts, machine_means, mixed, near, on, stack

import ifog
from ifog.machines import ranks_per_machine
from ifog.weights import metropolis

mix = ifog.hierarchical_neighbor_allreduce


def law_machines_are_those_of_the_environment_or_of_the_wire():
    n = ifog.size()
    k = int(os.environ.get("BLUEFOG_NODES_PER_MACHINE", n))
    assert ifog.machine_rank() == ifog.rank() // k
    assert ifog.local_rank() == ifog.rank() % k
    assert ifog.local_size() == min(k, n - ifog.machine_rank() * k)
    assert ifog.machine_size() == -(-n // k)
    assert ifog.is_homogeneous() == (n % k == 0)


def law_a_rank_knows_its_machine():
    r = ifog.rank()
    for machines in layouts():
        with on(machines):
            mates = [i for i, m in enumerate(machines) if m == machines[r]]
            sizes = [machines.count(m) for m in range(max(machines) + 1)]
            assert ifog.machine_rank() == machines[r]
            assert ifog.machine_size() == len(sizes)
            assert ifog.local_rank() == mates.index(r)
            assert ifog.local_size() == len(mates)
            assert ranks_per_machine() == sizes
            runs = list(machines) == sorted(machines)
            assert ifog.is_homogeneous() == (runs and len(set(sizes)) == 1)


def law_machines_have_a_graph_of_their_own():
    before = ifog.load_topology()
    for machines in layouts():
        with on(machines):
            assert ifog.load_machine_topology() is None
            assert ifog.in_neighbor_machine_ranks() == ifog.out_neighbor_machine_ranks() == []
            m, count = ifog.machine_rank(), ifog.machine_size()
            graph = ifog.ring(count, style="right")
            assert ifog.set_machine_topology(graph, is_weighted=True) is True
            assert ifog.load_machine_topology() is graph
            assert ifog.is_machine_topo_weighted()
            assert ifog.in_neighbor_machine_ranks() == ([(m - 1) % count] if count > 1 else [])
            assert ifog.out_neighbor_machine_ranks() == ([(m + 1) % count] if count > 1 else [])
            ifog.set_machine_topology("ring")
            assert not ifog.is_machine_topo_weighted()
    assert ifog.load_topology() is before
    assert not ifog.is_topo_weighted()


def law_allreduce_within_a_machine():
    r = ifog.rank()
    for machines in layouts():
        with on(machines):
            for shape in ((3,), (), (0,), (40_000,)):
                x = stack(shape)
                mean = machine_means(machines, x)[machines[r]]
                got = ifog.allreduce(x[r], is_hierarchical_local=True)
                assert near(got, mean)
                total = ifog.allreduce(x[r], False, True, "sum")
                assert near(total, mean * ifog.local_size(), atol=1e-13)
                y = x[r].clone()
                assert ifog.allreduce_(y, is_hierarchical_local=True) is y
                assert near(y, mean)
            count = ifog.allreduce(torch.tensor(1), average=False, is_hierarchical_local=True)
            assert count.item() == ifog.local_size()


def law_one_machine_may_reduce_by_name_while_the_others_do_not():
    r = ifog.rank()
    for machines in layouts():
        with on(machines):
            if machines[r] == 0:
                ifog.allreduce(torch.ones(2), is_hierarchical_local=True, name="ours")
            assert ifog.allreduce(torch.tensor(float(r))).item() == (ifog.size() - 1) / 2


def law_machines_average_over_their_graph():
    r = ifog.rank()
    for machines in layouts():
        x = stack((2, 3))
        z = machine_means(machines, x)
        with on(machines):
            for label in GRAPHS:
                for weighted in (False, True):
                    ifog.set_machine_topology(label, is_weighted=weighted)
                    w = dense(ifog.load_machine_topology(), weighted=weighted)
                    got = mix(x[r])
                    assert near(got, mixed(w, z)[machines[r]])
                    assert torch.equal(x[r], stack((2, 3))[r])


def law_machines_average_over_the_edges_that_are_named():
    r = ifog.rank()
    for machines in layouts():
        x, m, count = stack(), machines[r], max(machines) + 1
        z = machine_means(machines, x)
        with on(machines):
            for set_graph in (False, True):
                if set_graph:
                    ifog.set_machine_topology("complete")
                # Machine 0 tells all others and hears none.
                others = list(range(1, count))
                src, dst = ({}, others) if m == 0 else ({0: 0.5}, {})
                for check in (False, True):
                    got = mix(
                        x[r],
                        self_weight=0.75,
                        src_machine_weights=src,
                        dst_machine_weights=dst,
                        enable_topo_check=check,
                        name="tell",
                    )
                    expected = 0.75 * z[m] + (0.5 * z[0] if m else 0)
                    assert near(got, expected)


def law_machine_weights_multiply_at_both_ends():
    r = ifog.rank()
    for machines in layouts():
        x, m, count = stack(), machines[r], max(machines) + 1
        z = machine_means(machines, x)
        if count < 2:
            continue
        to, source = (m + 1) % count, (m - 1) % count
        with on(machines):
            got = mix(
                x[r],
                self_weight=0.5,
                src_machine_weights={source: 3},
                dst_machine_weights={to: 1 / 3 + m},
                enable_topo_check=True,
            )
        expected = 0.5 * z[m] + 3 * (1 / 3 + source) * z[source]
        assert near(got, expected, atol=1e-13)


def law_one_peer_rounds_of_machines_average_exactly():
    r = ifog.rank()
    for machines in layouts():
        count = max(machines) + 1
        if count & (count - 1):
            continue
        x, schedule = stack(), ifog.one_peer(count)
        expected = machine_means(machines, x).mean(0)
        y = x[r]
        with on(machines):
            for step in range(count.bit_length() - 1):
                graph, m = schedule(step), machines[r]
                y = mix(
                    y,
                    self_weight=0.5,
                    src_machine_weights={k: 0.5 for k in graph.predecessors(m) if k != m},
                    dst_machine_weights=[k for k in graph.successors(m) if k != m],
                )
            if count == 1:
                y = ifog.allreduce(y, is_hierarchical_local=True)
        assert near(y, expected)


def law_machines_of_one_rank_mix_as_ranks_do():
    r = ifog.rank()
    x = stack((5,), torch.float32)
    with on(range(ifog.size())):
        for label in GRAPHS:
            ifog.set_topology(label)
            ifog.set_machine_topology(label)
            assert torch.equal(mix(x[r]), ifog.neighbor_allreduce(x[r]))


def law_unequal_machines_keep_the_mean_that_their_weights_keep():
    r = ifog.rank()
    for machines in layouts():
        x = stack()
        z = machine_means(machines, x)
        with on(machines):
            ring = ifog.ring(ifog.machine_size())
            for graph, kept in (
                (ring, z.mean(0)),
                (metropolis(ring, counts=ranks_per_machine()), x.mean(0)),
            ):
                ifog.set_machine_topology(graph, is_weighted=True)
                w, y = dense(graph, weighted=True), x[r]
                for _ in range(3):
                    y = mix(y)
                expected = torch.linalg.matrix_power(w, 3) @ z
                assert near(y, expected[machines[r]])
                everyone = machine_means(machines, ifog.allgather(y[None]))
                sizes = torch.tensor(ranks_per_machine(), dtype=torch.float64)
                shares = torch.ones_like(sizes) if graph is ring else sizes
                mean = (shares[:, None] * everyone).sum(0) / shares.sum()
                assert near(mean, kept)


def law_hierarchical_averages_are_exact_and_keep_dtype_shape_and_input():
    r = ifog.rank()
    for machines in layouts():
        with on(machines):
            ifog.set_machine_topology("exponential")
            w = dense(ifog.load_machine_topology(), weighted=False)
            tiny = torch.full((7,), 2.0**-256, dtype=torch.float64)
            assert torch.equal(mix(tiny), tiny)
            for dtype in (torch.float16, torch.bfloat16, torch.float32):
                x = stack((6,), dtype)
                got = mix(x[r])
                expected = mixed(w, machine_means(machines, x.double()))[machines[r]]
                assert got.dtype is dtype
                eps = torch.finfo(dtype).eps
                assert torch.allclose(got.double(), expected, rtol=4 * eps, atol=8 * eps)
            for shape in ((), (0,), (3, 0), (50, 60)):
                x = stack(shape)
                expected = mixed(w, machine_means(machines, x))[machines[r]]
                assert near(mix(x[r]), expected)
                if len(shape) == 2:
                    assert near(mix(x[r].T), expected.T)
                mix(x[r]).add_(1)
                assert torch.equal(x[r], stack(shape)[r])


def law_hierarchical_averages_match_by_name_in_any_order():
    r = ifog.rank()
    twin = ifog.hierarchical_neighbor_allreduce_nonblocking
    for machines in layouts():
        with on(machines):
            ifog.set_machine_topology("ring")
            w = dense(ifog.load_machine_topology(), weighted=False)
            names = ["a", "b", "c"] if r % 2 else ["c", "a", "b"]
            xs = {name: stack((9,), seed=ord(name)) for name in names}
            handles = {name: twin(xs[name][r], name=name) for name in names}
            for name in sorted(names):
                expected = mixed(w, machine_means(machines, xs[name]))[machines[r]]
                assert near(handles[name].wait(), expected)
