"""What every operation must do on every transport and any number of ranks.

Each law is a function that runs on all ranks at once and asserts on its own rank. Expected values
come from the dense W @ x of ``mixed`` or from closed forms. ``python laws.py FILE`` under mpiexec
runs all of them on MPI ranks and writes what failed.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import traceback
from pathlib import Path

import numpy as np
import refusals
import torch
from spmd import GRAPHS, dense, mixed, raises, stack

import ifog
from ifog import errors
from ifog.context import current


def law_identity_of_ranks():
    assert 0 <= ifog.rank() < ifog.size()
    assert 0 <= ifog.local_rank() < ifog.local_size() == ifog.size()
    everyone = ifog.allgather(torch.tensor([ifog.rank()]))
    assert everyone.tolist() == list(range(ifog.size()))


def law_static_uniform_average_is_w_at_x():
    r = ifog.rank()
    for label in GRAPHS:
        ifog.set_topology(label)
        expected = mixed(dense(ifog.load_topology(), weighted=False), stack())
        assert torch.allclose(ifog.neighbor_allreduce(stack()[r]), expected[r], atol=1e-15)


def law_static_weighted_average_is_w_at_x():
    r = ifog.rank()
    for label in GRAPHS:
        ifog.set_topology(label, is_weighted=True)
        expected = mixed(dense(ifog.load_topology(), weighted=True), stack())
        assert torch.allclose(ifog.neighbor_allreduce(stack()[r]), expected[r], atol=1e-15)


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
    assert torch.allclose(got, expected, atol=1e-15)


def law_neighbours_left_out_count_zero():
    ifog.set_topology("complete")
    r = ifog.rank()
    some = dict.fromkeys(ifog.in_neighbor_ranks()[:1], 0.5)
    got = ifog.neighbor_allreduce(stack()[r], self_weight=0.5, src_weights=some)
    expected = 0.5 * stack()[r] + sum((0.5 * stack()[j] for j in some), 0 * stack()[r])
    assert torch.allclose(got, expected, atol=1e-15)


def law_dynamic_weights_multiply_at_both_ends():
    r, n = ifog.rank(), ifog.size()
    if n == 1:
        return
    to, source = (r + 1) % n, (r - 1) % n
    got = ifog.neighbor_allreduce(
        stack()[r], self_weight=0.5, src_weights={source: 2.0}, dst_weights={to: 1 / 3}
    )
    assert torch.allclose(got, 0.5 * stack()[r] + 2.0 / 3 * stack()[source], atol=1e-15)


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
    assert torch.allclose(x, expected[r], atol=1e-14)


def law_one_peer_exponential_is_exact_for_powers_of_two():
    n = ifog.size()
    if n & (n - 1):
        return
    schedule, x = ifog.one_peer(n), stack()[ifog.rank()]
    for step in range(n.bit_length() - 1):
        x = ifog.neighbor_allreduce(x, topology=schedule(step))
    assert torch.allclose(x, stack().mean(0), atol=1e-15)


def law_doubly_stochastic_mixing_keeps_the_mean_and_contracts():
    ifog.set_topology("ring", is_weighted=True)
    n, x = ifog.size(), stack()[ifog.rank()]
    rate = abs(1 / 3 + 2 / 3 * np.cos(2 * np.pi / n)) if n > 2 else 0.0
    for _ in range(30):
        x = ifog.neighbor_allreduce(x)
    assert torch.allclose(ifog.allreduce(x), stack().mean(0), atol=1e-14)
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
        assert torch.allclose(ifog.neighbor_allreduce(x[r]), mixed(w, x)[r], atol=1e-15)
    x = stack((4, 6))
    got = ifog.neighbor_allreduce(x[r].T)
    assert torch.allclose(got, mixed(w, x)[r].T, atol=1e-15)


def law_large_tensors_arrive_whole():
    ifog.set_topology("ring")
    x = stack((300_001,))
    expected = mixed(dense(ifog.load_topology(), weighted=False), x)[ifog.rank()]
    assert torch.allclose(ifog.neighbor_allreduce(x[ifog.rank()]), expected, atol=1e-14)
    assert torch.allclose(ifog.allreduce(x[ifog.rank()]), x.mean(0), atol=1e-14)


def law_inputs_are_not_changed_and_outputs_are_new():
    ifog.set_topology("complete")
    x = stack()[ifog.rank()].clone()
    for got in (
        ifog.neighbor_allreduce(x),
        ifog.allreduce(x),
        ifog.broadcast(x, 0),
        ifog.allgather(x),
        ifog.neighbor_allreduce(x, self_weight=1.0, src_weights={}, dst_weights=[]),
    ):
        got.add_(1)
        assert torch.equal(x, stack()[ifog.rank()])


def law_outputs_carry_no_gradient():
    x = stack()[ifog.rank()].requires_grad_()
    assert not ifog.neighbor_allreduce(x).requires_grad
    assert not ifog.allreduce(x).requires_grad


def law_allreduce_sums_and_averages():
    x, r = stack((2, 3)), ifog.rank()
    assert torch.allclose(ifog.allreduce(x[r]), x.mean(0), atol=1e-15)
    assert torch.allclose(ifog.allreduce(x[r], average=False), x.sum(0), atol=1e-14)
    total = ifog.allreduce(torch.tensor(r + 1), average=False)
    assert total.item() == ifog.size() * (ifog.size() + 1) // 2
    assert ifog.allreduce(torch.tensor(float(r))).item() == (ifog.size() - 1) / 2


def law_allreduce_gives_every_rank_the_same_bits():
    for numel in (10, 50_000):
        got = ifog.allreduce(stack((numel,), torch.float32)[ifog.rank()])
        everyone = ifog.allgather(got[None])
        assert all(torch.equal(row, everyone[0]) for row in everyone)


def law_broadcast_copies_the_root():
    for root in range(ifog.size()):
        for x in (stack(), torch.arange(ifog.size()), stack((20_000,))):
            assert torch.equal(ifog.broadcast(x[ifog.rank()], root), x[root])


def law_allgather_joins_in_rank_order():
    r, n = ifog.rank(), ifog.size()
    got = ifog.allgather(torch.full((r, 2), r))
    assert got.tolist() == [[i, i] for i in range(n) for _ in range(i)]
    raises(errors.ArgumentError, lambda: ifog.allgather(torch.tensor(1.0)), "first dimension")


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


def law_nonblocking_twins_agree_with_the_blocking_ones():
    ifog.set_topology("ring")
    x = stack()[ifog.rank()]
    handles = [
        ifog.neighbor_allreduce_nonblocking(x),
        ifog.allreduce_nonblocking(x),
        ifog.broadcast_nonblocking(x, 0),
        ifog.allgather_nonblocking(x),
        ifog.neighbor_allgather_nonblocking(x),
    ]
    expected = [
        ifog.neighbor_allreduce(x),
        ifog.allreduce(x),
        ifog.broadcast(x, 0),
        ifog.allgather(x),
        ifog.neighbor_allgather(x),
    ]
    for handle, value in zip(handles, expected, strict=True):
        assert torch.equal(ifog.synchronize(handle), value)
        assert ifog.poll(handle)
        assert torch.equal(ifog.wait(handle), value)


def law_named_operations_match_in_any_order():
    r = ifog.rank()
    names = ["a", "b", "c"] if r % 2 else ["c", "a", "b"]
    handles = {m: ifog.allreduce_nonblocking(torch.tensor(float(ord(m))), name=m) for m in names}
    for m in sorted(handles, reverse=bool(r % 2)):
        assert handles[m].wait().item() == ord(m)


def law_handles_may_be_waited_for_in_any_order():
    x = stack((20_000,))
    first = ifog.allreduce_nonblocking(x[ifog.rank()])
    second = ifog.neighbor_allreduce_nonblocking(x[ifog.rank()])
    for handle in (first, second) if ifog.rank() % 2 else (second, first):
        handle.wait()
    assert torch.allclose(first.wait(), x.mean(0), atol=1e-14)


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


LAWS = {
    name.removeprefix("law_"): law
    for name, law in {**vars(refusals), **globals()}.items()
    if name.startswith("law_")
}


def run_all(path):
    """Run every law on this MPI rank; write {law: traceback} to ``path`` plus the rank."""
    # Before the starter loses patience, and also where it was killed and nobody waits.
    faulthandler.dump_traceback_later(80, exit=True)
    ifog.init()
    failed = {}
    for name, law in LAWS.items():
        ifog.init()
        try:
            law()
        except BaseException:
            failed[name] = traceback.format_exc()
            current().abort(f"law {name} failed")
        # A law that failed on one rank must not strand the others in the next one.
        verdict = [name in failed]
        try:
            ifog.barrier()
        except errors.PeerFailedError:
            verdict.append(True)
        if any(verdict):
            current().heal()
    Path(f"{path}.{ifog.rank()}").write_text(json.dumps(failed))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_all(sys.argv[1])
