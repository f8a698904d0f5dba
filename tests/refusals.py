"""What ranks must do when something is wrong: the same error where it concerns, and go on."""

from __future__ import annotations

import torch
from spmd import raises

import ifog
from ifog import errors
from ifog.context import current


def law_a_name_in_flight_is_refused_and_reusable_later():
    if ifog.size() == 1:
        return
    x = torch.ones(2)
    ifog.barrier()
    handle = ifog.neighbor_allreduce_nonblocking(x, name="x")
    if not handle.done():
        raises(
            errors.ArgumentError,
            lambda: ifog.neighbor_allreduce_nonblocking(x, name="x"),
            "in flight",
        )
    handle.wait()
    assert torch.equal(ifog.neighbor_allreduce(x, name="x"), x)


def law_wrong_shapes_raise_on_every_rank_and_the_next_call_works():
    n, r = ifog.size(), ifog.rank()
    if n == 1:
        return
    ifog.set_topology("complete")
    for numel in (3, 5000, 100_000):
        x = torch.ones(numel + (r == 0))
        for call in (ifog.neighbor_allreduce, ifog.allreduce, ifog.broadcast):
            raises(errors.MismatchError, lambda: call(x), "shape", f"rank {r}")  # noqa: B023
        assert ifog.allreduce(torch.ones(2)).tolist() == [1.0, 1.0]


def law_wrong_dtypes_raise_on_every_rank():
    if ifog.size() == 1:
        return
    ifog.set_topology("complete")
    x = torch.ones(4, dtype=torch.float32 if ifog.rank() else torch.float64)
    for call in (ifog.neighbor_allreduce, ifog.allreduce, ifog.allgather):
        raises(errors.MismatchError, lambda: call(x), "float32", "float64")  # noqa: B023
    assert ifog.allreduce(torch.ones(1)).item() == 1.0


def law_different_roots_and_graphs_are_refused_on_every_rank():
    if ifog.size() == 1:
        return
    root = int(ifog.rank() == 0)
    raises(errors.MismatchError, lambda: ifog.broadcast(torch.ones(2), root), "root")
    label = "complete" if ifog.rank() else "star"
    if ifog.size() > 2:
        raises(errors.MismatchError, lambda: ifog.set_topology(label), "set_topology")
    assert ifog.allreduce(torch.ones(1)).item() == 1.0


def law_unmatched_plans_raise_on_every_rank_and_name_the_edge():
    n, r = ifog.size(), ifog.rank()
    if n == 1:
        return
    to = {0: [1]}.get(r, [])
    raises(
        errors.TopologyMismatchError,
        lambda: ifog.neighbor_allreduce(
            torch.ones(2), self_weight=1.0, src_weights={}, dst_weights=to
        ),
        "rank 0 sends to rank 1",
    )
    raises(
        errors.TopologyMismatchError,
        lambda: ifog.neighbor_allgather(
            torch.ones(2), src_ranks=[0] if r == 1 else [], dst_ranks=[], name="g"
        ),
        "rank 1 receives from rank 0",
    )
    assert ifog.allreduce(torch.ones(1), name="g").item() == 1.0


def law_static_and_dynamic_calls_do_not_mix():
    n, r = ifog.size(), ifog.rank()
    if n == 1:
        return
    ifog.set_topology("complete")
    others = [j for j in range(n) if j != r]
    for numel in (3, 5000):
        x = torch.ones(numel)

        def mix(x=x):
            if r == 0:
                return ifog.neighbor_allreduce(x, name="x")
            even = dict.fromkeys(others, 1 / n)
            return ifog.neighbor_allreduce(
                x, self_weight=1 / n, src_weights=even, dst_weights=others, name="x"
            )

        def gather(x=x):
            if r == 0:
                return ifog.neighbor_allgather(x, name="x")
            return ifog.neighbor_allgather(x, src_ranks=others, dst_ranks=others, name="x")

        for call in (mix, gather):
            raises(errors.MismatchError, call, "same form", f"rank {r}" if r == 0 else "rank 0")
    assert ifog.neighbor_allreduce(torch.ones(2), name="x").tolist() == [1.0, 1.0]


def law_every_kind_of_operation_refuses_a_second_of_its_name():
    r, n = ifog.rank(), ifog.size()
    if n == 1:
        return
    ifog.set_topology("complete")
    x = torch.ones(2)
    for start in (
        ifog.allreduce_nonblocking,
        ifog.allreduce_nonblocking_,
        ifog.broadcast_nonblocking,
        ifog.broadcast_nonblocking_,
        ifog.allgather_nonblocking,
        ifog.neighbor_allreduce_nonblocking,
        ifog.neighbor_allgather_nonblocking,
    ):
        if r == 0:
            ifog.barrier()
            start(x, name="x").wait()
            continue
        # Rank 0 is not there yet, so this cannot have finished.
        handle = start(x, name="x")
        raises(errors.ArgumentError, lambda: start(x, name="x"), "in flight")  # noqa: B023
        ifog.barrier()
        handle.wait()


def law_bad_arguments_are_refused_before_anything_is_sent():
    n, x = ifog.size(), torch.ones(2)
    ifog.set_topology("ring")
    mix = ifog.neighbor_allreduce
    bad = errors.ArgumentError
    raises(bad, lambda: mix(x, self_weight=0.5), "src_weights", "together")
    raises(bad, lambda: mix(x, src_weights={}), "self_weight")
    raises(bad, lambda: mix(x, dst_weights=[]), "self_weight")
    raises(bad, lambda: mix(x, self_weight=1.0, src_weights=[0]), "dict", "list")
    raises(bad, lambda: mix(x, self_weight="1", src_weights={}), "finite number")
    raises(bad, lambda: mix(x, self_weight=float("nan"), src_weights={}), "finite number")
    raises(bad, lambda: mix(x, self_weight=1.0, src_weights={n: 1.0}), f"rank {n}")
    dst = [ifog.rank()]
    raises(bad, lambda: mix(x, self_weight=1.0, src_weights={}, dst_weights=dst), "self_weight")
    raises(bad, lambda: mix(x, self_weight=1.0, src_weights={}, dst_weights=[1, 1]), "twice")
    raises(bad, lambda: mix(torch.ones(2, dtype=torch.int64)), "float")
    raises(bad, lambda: mix([1.0, 2.0]), "torch tensor", "float")
    raises(bad, lambda: ifog.allreduce(torch.ones(2, dtype=torch.int64)), "average=False")
    raises(bad, lambda: ifog.broadcast(x, n), f"rank {n}", f"0..{n - 1}")
    raises(bad, lambda: ifog.neighbor_allgather(x, src_ranks=[]), "dst_ranks")
    raises(bad, lambda: ifog.set_topology(ifog.ring(n + 1)), str(n + 1), str(n))
    raises(bad, lambda: ifog.set_topology("rign"), "ring")
    if n > 3:
        far = (ifog.rank() + 2) % n
        raises(
            bad,
            lambda: mix(x, self_weight=0.5, src_weights={far: 0.5}),
            f"[{far}]",
            "in-neighbours",
        )
    for take in (ifog.wait, ifog.synchronize, ifog.poll):
        raises(bad, lambda: take(3), "_nonblocking", "int")  # noqa: B023
        raises(bad, lambda: take(x), "_nonblocking", "Tensor")  # noqa: B023
    assert ifog.allreduce(x).tolist() == [1.0, 1.0]


def law_a_failure_wakes_the_others_and_heals():
    n, r = ifog.size(), ifog.rank()
    for trial in range(3):
        failing = trial % n

        def mix_until_stopped(trial=trial, failing=failing):
            while True:
                got = ifog.allreduce(torch.tensor(float(r + trial)))
                assert got.item() == trial + (n - 1) / 2
                # All ranks have left the heal before, which an abort must not meet.
                if r == failing:
                    current().abort("ValueError: boom")

        if n > 1:
            raises(errors.PeerFailedError, mix_until_stopped, f"rank {failing}", "boom")
            raises(errors.PeerFailedError, ifog.barrier, f"rank {failing}", "boom")
        current().heal()
    assert ifog.allreduce(torch.ones(1)).item() == 1.0


def law_ranks_outside_the_cell_are_refused_at_once():
    n, context = ifog.size(), current()
    if n < 3:
        return
    ifog.set_topology("complete")
    context.begin_cell(7, (0, 1))
    try:
        if ifog.rank() < 2:
            raises(
                errors.ParticipationError,
                lambda: ifog.neighbor_allreduce(torch.ones(2)),
                "rank 2",
                "0,1",
            )
            raises(errors.ParticipationError, ifog.barrier, "all ranks")
            raises(
                errors.ParticipationError,
                lambda: ifog.neighbor_allreduce(
                    torch.ones(2), self_weight=1.0, src_weights={}, dst_weights=[2]
                ),
                "rank 2",
            )
            other = 1 - ifog.rank()
            got = ifog.neighbor_allreduce(
                torch.tensor([float(ifog.rank())]),
                self_weight=0.5,
                src_weights={other: 0.5},
                dst_weights=[other],
            )
            assert got.item() == 0.5
    finally:
        context.end_cell("ok", None)
    assert ifog.allreduce(torch.ones(1)).item() == 1.0


def law_cells_of_some_ranks_leave_the_others_in_step():
    n, r, context = ifog.size(), ifog.rank(), current()
    if n < 3:
        return
    for seq in (11, 12):
        if r < 2:
            context.begin_cell(seq, (0, 1))
            for _ in range(seq):
                other = 1 - r
                ifog.neighbor_allreduce(
                    torch.ones(2), self_weight=0.5, src_weights={other: 0.5}, dst_weights=[other]
                )
            context.end_cell("ok", None)
        assert ifog.allreduce(torch.tensor(float(r))).item() == (n - 1) / 2
        ifog.set_topology("ring")
