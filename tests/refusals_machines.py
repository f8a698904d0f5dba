"""What machines must refuse: the same error on every rank it concerns, and go on."""

from __future__ import annotations

import torch
from spmd import layouts, on, raises

import ifog
from ifog import errors

mix = ifog.hierarchical_neighbor_allreduce


def several():
    """The layouts with more than one machine."""
    return [machines for machines in layouts() if max(machines) > 0]


def goes_on():
    ifog.set_machine_topology("complete")
    return mix(torch.ones(2), name="x").tolist() == [1.0, 1.0]


def law_machines_without_a_graph_or_with_half_the_weights_are_refused():
    bad, x = errors.ArgumentError, torch.ones(2)
    for machines in layouts():
        with on(machines):
            raises(bad, lambda: mix(x), "set_machine_topology")
            raises(bad, lambda: mix(x, self_weight=1.0), "src_machine_weights", "together")
            raises(
                bad,
                lambda: mix(x, self_weight=1.0, src_machine_weights={}),
                "dst_machine_weights missing",
            )
            raises(bad, lambda: mix(x, dst_machine_weights=[]), "self_weight")
            raises(bad, lambda: mix(x.long()), "float")
            assert goes_on()


def law_machines_that_are_none_or_no_neighbours_are_refused():
    bad, x = errors.ArgumentError, torch.ones(2)
    for machines in layouts():
        m, count = machines[ifog.rank()], max(machines) + 1
        with on(machines):

            def call(src, dst, own=1.0):
                return mix(x, self_weight=own, src_machine_weights=src, dst_machine_weights=dst)

            raises(bad, lambda: call({count: 1.0}, []), f"machine {count}")  # noqa: B023
            raises(bad, lambda: call({}, [m]), "self_weight")  # noqa: B023
            raises(bad, lambda: call([], []), "dict", "machine")
            raises(bad, lambda: call({}, [1, 1]), "twice")
            raises(bad, lambda: call({}, [], "1"), "finite number")
            if count > 3:
                ifog.set_machine_topology(ifog.ring(count))
                far = (m + 2) % count
                raises(bad, lambda: call({far: 0.5}, []), "src_machine_weights", f"[{far}]")  # noqa: B023
                raises(bad, lambda: call({}, {far: 0.5}), "dst_machine_weights", f"[{far}]")  # noqa: B023
            assert goes_on()


def law_graphs_that_do_not_fit_the_machines_are_refused():
    bad = errors.ArgumentError
    for machines in layouts():
        count = max(machines) + 1
        with on(machines):
            raises(bad, lambda: ifog.set_machine_topology(None), "exponential")
            raises(
                bad,
                lambda: ifog.set_machine_topology(ifog.ring(count + 1)),  # noqa: B023
                f"{count} machines",
            )
            raises(bad, lambda: ifog.set_machine_topology(3), "DiGraph")
            if count > 2:
                label = "star" if ifog.rank() else "complete"
                raises(
                    errors.MismatchError,
                    lambda: ifog.set_machine_topology(label),  # noqa: B023
                    "set_machine_topology",
                )
            assert goes_on()


def law_a_shape_that_differs_on_a_machine_is_told_to_all_it_concerns():
    for machines in several():
        odd_one = max(r for r, m in enumerate(machines) if m == 0)
        with on(machines):
            ifog.set_machine_topology("complete")
            for numel in (3, 5000):
                x = torch.ones(numel + (ifog.rank() == odd_one))
                raises(errors.MismatchError, lambda: mix(x, name="x"), "shape")  # noqa: B023
            assert goes_on()


def law_weights_that_differ_on_a_machine_are_told_to_all_it_concerns():
    for machines in several():
        mates = [r for r, m in enumerate(machines) if m == 0]
        if len(mates) == 1:
            continue
        m, others = machines[ifog.rank()], list(range(1, max(machines) + 1))
        with on(machines):
            own = 0.25 if ifog.rank() == mates[-1] else 0.5
            src, dst = ({}, others) if m == 0 else ({0: 0.5}, [])

            def call():
                return mix(
                    torch.ones(2),
                    self_weight=own,  # noqa: B023
                    src_machine_weights=src,  # noqa: B023
                    dst_machine_weights=dst,  # noqa: B023
                    name="x",
                )

            raises(errors.MismatchError, call, "weights", f"{mates[0]} and {mates[-1]}")
            assert goes_on()


def law_unmatched_machine_plans_raise_on_every_rank_and_name_both():
    for machines in several():
        m = machines[ifog.rank()]
        with on(machines):
            for src, dst, words in (
                ({}, [1] if m == 0 else [], "machine 0 sends to machine 1"),
                ({0: 1.0} if m == 1 else {}, [], "machine 1 receives from machine 0"),
            ):

                def call(src=src, dst=dst):
                    return mix(
                        torch.ones(2),
                        self_weight=1.0,
                        src_machine_weights=src,
                        dst_machine_weights=dst,
                        enable_topo_check=True,
                        name="x",
                    )

                raises(errors.TopologyMismatchError, call, words)
            assert goes_on()


def law_reducing_here_and_everywhere_at_once_is_refused():
    n, r = ifog.size(), ifog.rank()
    if n == 1:
        return
    for numel in (4, 50_000):
        x = torch.ones(numel)
        with on([0] * n):
            raises(
                errors.MismatchError,
                lambda: ifog.allreduce(x, is_hierarchical_local=r == 0, name="x"),  # noqa: B023
                "its machine's mean",
            )
            raises(
                errors.MismatchError,
                lambda: ifog.allreduce(x, average=r == 0, name="x"),  # noqa: B023
                "the sum",
                "the mean",
            )
    assert ifog.allreduce(torch.ones(1), name="x").item() == 1.0
