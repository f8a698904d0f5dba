"""Small averages that are posted before any of them is waited for."""

from __future__ import annotations

import random
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch
from spmd import dense, mixed, near, raises, stack

import ifog
from ifog import errors
from ifog.context import current

PATIENCE = 30.0  # seconds
post = ifog.neighbor_allreduce_nonblocking


def values(count, seed=0, dtype=torch.float64):
    """[n, ...] values of ``count`` small tensors of all kinds of shapes."""
    shapes = [(3,), (), (2, 5), (40,), (1, 2, 3)]
    return [stack(shapes[k % len(shapes)], dtype, seed + k) for k in range(count)]


def averages(xs):
    w = dense(ifog.load_topology(), weighted=False)
    return [mixed(w, x.double())[ifog.rank()] for x in xs]


def all_near(got, expected):
    return all(map(near, got, expected))


def law_each_of_many_posted_averages_is_its_own():
    r = ifog.rank()
    for label in ("ring", "exponential", "star"):
        ifog.set_topology(label)
        xs = values(100)
        handles = [post(x[r]) for x in xs]
        assert all_near([handle.wait() for handle in handles], averages(xs))


def law_posted_averages_can_be_waited_for_in_any_order():
    ifog.set_topology("ring")
    r, xs = ifog.rank(), values(30)
    handles = [post(x[r]) for x in xs]
    order = random.Random(r).sample(range(30), 30)
    got = {k: handles[k].wait() for k in order}
    assert all_near([got[k] for k in range(30)], averages(xs))


def law_names_match_what_ranks_post_in_different_orders():
    ifog.set_topology("ring")
    r, xs = ifog.rank(), values(30)
    for attempt in range(4):
        order = random.Random(10 * attempt + r).sample(range(30), 30)
        handles = {k: post(xs[k][r], name=f"x{k}") for k in order}
        assert all_near([handles[k].wait() for k in range(30)], averages(xs))


def law_ranks_may_wait_at_different_places_of_what_they_post():
    ifog.set_topology("ring")
    r, xs, expected = ifog.rank(), values(60), None
    for attempt in range(6):
        chance, got, handles = random.Random(10 * attempt + r), [], []
        for x in xs:
            handles.append(post(x[r]))
            if chance.random() < (0.0, 0.05, 0.5)[r % 3]:
                got += [handle.wait() for handle in handles]
                handles = []
        got += [handle.wait() for handle in handles]
        expected = expected or averages(xs)
        assert all_near(got, expected)


def law_some_ranks_may_post_what_others_do_one_by_one():
    ifog.set_topology("ring")
    r, xs = ifog.rank(), values(40)
    for posting in (r % 2 == 0, r == 0, r != 0):
        if posting:
            handles = [post(x[r]) for x in xs]
            got = [handle.wait() for handle in handles]
        else:
            got = [ifog.neighbor_allreduce(x[r]) for x in xs]
        assert all_near(got, averages(xs))


def law_other_operations_may_come_between():
    ifog.set_topology("ring")
    r, n = ifog.rank(), ifog.size()
    xs, large = values(24), stack((5000,))
    w, handles, others = dense(ifog.load_topology(), weighted=False), [], []
    edges = {"self_weight": 0.5, "src_weights": {(r - 1) % n: 0.5}, "dst_weights": [(r + 1) % n]}
    for k, x in enumerate(xs):
        handles.append(post(x[r]))
        if k % 6 == 1 and n > 1:
            others.append((post(x[r], **edges), 0.5 * (x[r] + x[(r - 1) % n])))
        if k % 6 == 2:
            others.append((post(x[r].float()), mixed(w, x.float().double())[r]))
        if k % 6 == 3:
            others.append((post(large[r]), mixed(w, large)[r]))
        if k % 6 == 4:
            others.append((ifog.allreduce_nonblocking(x[r]), x.mean(0)))
        if k % 6 == 5:
            others.append((post([x[r], x[r]]), [mixed(w, x)[r]] * 2))
    for handle, expected in others:
        got = handle.wait()
        if isinstance(got, list):
            assert all_near(got, expected)
        else:
            assert near(got.double(), expected, atol=1e-6)
    assert all_near([handle.wait() for handle in handles], averages(xs))


def law_bursts_of_two_kinds_can_be_posted_in_either_order():
    ifog.set_topology("complete")
    r, xs = ifog.rank(), values(10)
    singles = [x.float() for x in xs]
    kinds = [("d", xs), ("f", singles)]
    if r % 2:
        kinds.reverse()
    got = {}
    for name, tensors in kinds:
        handles = [post(x[r], name=f"{name}{k}") for k, x in enumerate(tensors)]
        got[name] = [handle.wait() for handle in handles] if r == 1 else handles
    for name, each in got.items():
        got[name] = [x if isinstance(x, torch.Tensor) else x.wait() for x in each]
    assert all_near(got["d"], averages(xs))
    assert all(map(lambda a, b: near(a.double(), b, atol=1e-6), got["f"], averages(singles)))


def law_more_than_one_envelope_may_hold_is_posted_all_the_same():
    ifog.set_topology("ring")
    r = ifog.rank()
    xs = [stack((1024,), torch.float32, seed) for seed in range(6)]
    handles = [post(xs[k % 6][r]) for k in range(600)]
    expected = averages(xs)
    for k, handle in enumerate(handles):
        assert near(handle.wait().double(), expected[k % 6], atol=1e-6)


def law_posted_averages_keep_their_dtype_and_their_exactness():
    ifog.set_topology("complete")
    n = ifog.size()
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    tiny = [torch.full((7,), 2.0**-14, dtype=dtype) for dtype in dtypes for _ in range(3)]
    got = [handle.wait() for handle in [post(x) for x in tiny]]
    assert all(y.dtype is x.dtype for x, y in zip(tiny, got, strict=True))
    if n & (n - 1) == 0:
        assert all(map(torch.equal, got, tiny))
    tiny = torch.full((7,), 2.0**-256, dtype=torch.float64)
    assert all(torch.equal(h.wait(), tiny) for h in [post(tiny) for _ in range(5)])


def law_posted_averages_use_the_weights_of_the_graph():
    ifog.set_topology("ring", is_weighted=True)
    r, xs = ifog.rank(), values(20)
    w = dense(ifog.load_topology(), weighted=True)
    handles = [post(x[r]) for x in xs]
    assert all_near([handle.wait() for handle in handles], [mixed(w, x)[r] for x in xs])


def law_results_of_one_burst_know_nothing_of_each_other():
    ifog.set_topology("ring")
    xs = [torch.ones(5, dtype=torch.float64) for _ in range(4)]
    first, second, *_ = [handle.wait() for handle in [post(x) for x in xs]]
    assert first.untyped_storage().nbytes() == 5 * 8
    version = second._version
    first.add_(1.0)
    assert second._version == version
    assert torch.equal(second, xs[1])
    second.requires_grad_().mul(2.0).sum().backward()
    assert torch.equal(second.grad, torch.full((5,), 2.0, dtype=torch.float64))


def law_a_wrong_shape_in_a_burst_fails_where_it_concerns_and_nowhere_else():
    ifog.set_topology("ring")
    r, n = ifog.rank(), ifog.size()
    if n == 1:
        return
    xs = values(20)
    mine = [x[r] for x in xs]
    if r == 0:
        mine[7], mine[12] = torch.zeros(4, dtype=torch.float64), mine[12].float()
    handles = [post(x) for x in mine]
    concerned = r in (0, 1, n - 1)
    expected = averages(xs)
    for k, handle in enumerate(handles):
        if k in (7, 12) and concerned:
            raises(errors.MismatchError, handle.wait, f"rank {r}", "rank 0" if r else "rank")
        else:
            assert near(handle.wait(), expected[k])


def law_static_and_dynamic_posts_do_not_mix():
    n, r = ifog.size(), ifog.rank()
    if n != 2:
        return
    ifog.set_topology("ring")
    if r == 0:
        handles = [post(torch.ones(2)) for _ in range(3)]
    else:
        edges = {"self_weight": 0.5, "src_weights": {0: 0.5}, "dst_weights": [0]}
        handles = [post(torch.ones(2), **edges) for _ in range(3)]
    for handle in handles:
        raises(errors.MismatchError, handle.wait, "names its destinations")


def law_a_name_in_a_burst_cannot_be_used_again_before_it_has_ended():
    ifog.set_topology("ring")
    if ifog.size() == 1:
        return
    ifog.barrier()
    with current().progress.lock:  # no thread ends it meanwhile
        handles = [post(torch.ones(2), name=name) for name in ("a", "b")]
        if not handles[0].finished:  # where each is sent at once it may have ended
            raises(errors.ArgumentError, lambda: post(torch.ones(2), name="a"), "in flight")
    for handle in handles:
        handle.wait()
    assert torch.equal(ifog.neighbor_allreduce(torch.ones(2), name="a"), torch.ones(2))


def law_a_name_is_matched_in_order_however_far_a_sender_is_ahead():
    ifog.set_topology(ifog.ring(ifog.size(), style="right"), is_weighted=True)
    r, n = ifog.rank(), ifog.size()
    if n == 1:
        return
    if r == n - 1:
        time.sleep(0.05)  # its in-neighbour is rounds ahead by then
    for step in range(8):
        x, y = torch.tensor([10.0 * r + step]), torch.tensor([1000.0 * r + step])
        if step % 2:
            got = [ifog.neighbor_allreduce(x, name="x"), ifog.neighbor_allreduce(y, name="y")]
        else:
            got = [handle.wait() for handle in (post(x, name="x"), post(y, name="y"))]
        sources = (r, (r - 1) % n)
        assert got[0].item() == sum(10.0 * j + step for j in sources) / 2
        assert got[1].item() == sum(1000.0 * j + step for j in sources) / 2


def law_what_is_posted_leaves_although_the_rank_does_not_come_back_to_it():
    ifog.set_topology("complete")
    r, n = ifog.rank(), ifog.size()
    transport = current().transport
    if transport.equipped or not transport.opens(range(n)):
        return  # MPI may hold back any message until its sender asks for it, and a device is asked
    mine = tempfile.mkdtemp() if r == 0 else ""
    folder = Path(bytes(ifog.broadcast(_text(mine), 0).tolist()).decode().strip())
    if n == 1:
        return
    xs = values(5)
    handles = [post(x[r]) for x in xs]
    if r == 0:
        deadline = time.monotonic() + PATIENCE
        while not all((folder / str(other)).exists() for other in range(1, n)):
            assert time.monotonic() < deadline, f"rank 0 waited {PATIENCE} s for the others' ends"
            time.sleep(1e-3)
    got = [handle.wait() for handle in handles]
    (folder / str(r)).touch()
    assert all_near(got, averages(xs))


def _text(folder):
    return torch.tensor(list(folder.ljust(200).encode()), dtype=torch.uint8)


def law_the_graph_may_change_while_posted_averages_are_under_way():
    r, xs = ifog.rank(), values(10)
    pending = []
    for label in ("ring", "complete", "ring"):
        ifog.set_topology(label)
        pending.append((averages(xs), [post(x[r]) for x in xs]))
    for expected, handles in pending:
        assert all_near([handle.wait() for handle in handles], expected)


def law_bursts_that_cannot_be_lent_are_sent_one_by_one():
    ifog.set_topology("ring")
    r, transport = ifog.rank(), current().transport
    xs = [stack((1024,), seed=seed) for seed in range(20)]
    if r % 2 == 0:
        transport.lend = lambda *_, **__: None
    try:
        handles = [post(x[r]) for x in xs]
        assert all_near([handle.wait() for handle in handles], averages(xs))
    finally:
        if r % 2 == 0:
            del transport.lend


def law_a_failure_wakes_those_who_wait_for_a_burst_and_all_go_on():
    ifog.set_topology("ring")
    r, n = ifog.rank(), ifog.size()
    if n == 1:
        return
    handles = [post(torch.ones(3)) for _ in range(10 if r else 4)]
    if r == 0:
        current().abort("lost its way")
    else:
        for handle in handles:
            try:
                handle.wait()
            except errors.PeerFailedError as error:
                assert "lost its way" in str(error)
                break
        else:
            with suppress(errors.PeerFailedError):
                ifog.barrier()
    current().heal()
    xs = values(10)
    handles = [post(x[r]) for x in xs]
    assert all_near([handle.wait() for handle in handles], averages(xs))


def law_blocking_and_posted_averages_of_any_size_match():
    ifog.set_topology("ring")
    r, w = ifog.rank(), dense(ifog.load_topology(), weighted=False)
    for nbytes in (4088, 4104, 16_384, 16_392, 65_536, 174_768, 262_136, 262_144, 262_152):
        row = torch.arange(nbytes // 8, dtype=torch.float64)
        for turn in range(3):
            if r % 2 == turn % 2:
                y = ifog.neighbor_allreduce(row + r)
            else:
                y = ifog.neighbor_allreduce_nonblocking(row + r).wait()
            expected = row + float(w[r] @ torch.arange(ifog.size(), dtype=torch.float64))
            assert bool(((y - expected).abs() < 1e-9).all())


def law_payloads_that_cannot_be_lent_are_sent():
    ifog.set_topology("ring")
    transport, w = current().transport, dense(ifog.load_topology(), weighted=False)
    transport.lend = lambda *_: None
    try:
        for nbytes in (1024, 4088, 4096, 4104, 4168, 4256, 4264, 70_000):
            x = torch.full((nbytes // 8,), float(ifog.rank()), dtype=torch.float64)
            expected = w @ torch.arange(ifog.size(), dtype=torch.float64)
            y = ifog.neighbor_allreduce(x)
            assert bool(((y - expected[ifog.rank()]).abs() < 1e-12).all())
    finally:
        del transport.lend
