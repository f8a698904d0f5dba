"""Where BlueFog differs from ifog the alias follows BlueFog: handles, exceptions, return values."""

from __future__ import annotations

import logging
import warnings

import networkx as nx
import numpy as np
import pytest
import torch

import ifog
import ifog.bluefog as bf
from ifog.bluefog import lifecycle
from ifog.context import current
from ifog.layout import Layout
from ifog.testing import run_ranks


def on(n):
    """Run the decorated test on ``n`` thread ranks."""

    def wrap(test):
        def run():
            run_ranks(n, test)

        return run

    return wrap


def machines_of(k):
    """Let every k ranks be a machine."""
    current().layout = Layout(tuple(rank // k for rank in range(ifog.size())))


def refused(error, function, *arguments, **keywords):
    with pytest.raises(error) as caught:
        function(*arguments, **keywords)
    assert str(caught.value), "an error without a message"


@on(3)
def test_handles_are_ints_that_end_with_synchronize():
    handle = bf.allreduce_nonblocking(torch.ones(2), average=False)
    assert type(handle) is int
    assert bf.synchronize(handle).tolist() == [3, 3]
    refused(ValueError, bf.synchronize, handle)
    refused(ValueError, bf.wait, handle)
    refused(ValueError, bf.poll, handle)
    refused(ValueError, bf.poll, 4711)
    other = bf.broadcast_nonblocking(torch.ones(1), 0)
    while not bf.poll(other):
        continue
    assert bf.wait(other).tolist() == [1]


@on(2)
def test_a_handle_is_used_up_by_an_error_as_well():
    handle = bf.allreduce_nonblocking(torch.ones(1 + bf.rank()), name="x")
    refused(ValueError, bf.synchronize, handle)
    refused(ValueError, bf.poll, handle)
    assert bf.allreduce(torch.ones(1), name="x").tolist() == [1]


@on(2)
def test_a_name_in_flight_is_refused():
    handle = bf.allreduce_nonblocking(torch.ones(1), name="x")
    refused(ValueError, bf.allreduce_nonblocking, torch.ones(1), name="x")
    other = bf.broadcast_nonblocking(torch.ones(1), 0, name="x")
    bf.synchronize(handle)
    handle = bf.allreduce_nonblocking(torch.ones(1), name="x")
    while not bf.poll(handle):
        continue
    assert bf.allreduce(torch.ones(1), name="x").tolist() == [1]
    bf.synchronize(other)


@on(4)
def test_init_sets_the_unweighted_exponential_graph_every_time():
    bf.init()
    assert bf.IsTopologyEquivalent(bf.load_topology(), bf.ExponentialGraph(4))
    assert bf.set_topology(bf.StarGraph(4), is_weighted=True) is True
    assert bf.is_topo_weighted()
    bf.init()
    assert bf.IsTopologyEquivalent(bf.load_topology(), bf.ExponentialGraph(4))
    assert not bf.is_topo_weighted()
    bf.init(lambda n: bf.RingGraph(n, connect_style=1))
    assert bf.out_neighbor_ranks() == [(bf.rank() - 1) % 4]
    bf.init(bf.RingGraph, is_weighted=True)
    assert bf.is_topo_weighted()


@on(4)
def test_load_topology_gives_the_object_that_was_set():
    bf.init()
    ring = bf.RingGraph(4)
    bf.set_topology(ring)
    assert bf.load_topology() is ring
    assert bf.set_topology(bf.RingGraph(4))
    assert bf.load_topology() is ring


@on(2)
def test_topologies_of_the_wrong_kind_are_type_errors():
    refused(TypeError, bf.set_topology, nx.cycle_graph(2))
    refused(TypeError, bf.set_topology, bf.RingGraph(3))
    refused(TypeError, bf.set_topology, "ring")
    refused(ValueError, bf.set_machine_topology, None)
    refused(TypeError, bf.set_machine_topology, nx.cycle_graph(1))
    refused(TypeError, bf.set_machine_topology, bf.RingGraph(2))


@on(2)
def test_machines_and_the_build_answer_as_a_cpu_build_does():
    assert (bf.machine_size(), bf.machine_rank()) == (1, 0)
    assert bf.is_homogeneous() is True
    assert bf.nccl_built() is False
    assert type(bf.mpi_threads_supported()) is int
    assert type(bf.unified_mpi_window_model_supported()) is bool
    assert bf.load_machine_topology() is None
    assert bf.in_neighbor_machine_ranks() == bf.out_neighbor_machine_ranks() == []


@on(3)
def test_machine_ranks_of_unequal_machines_are_assertion_errors():
    machines_of(2)
    refused(AssertionError, bf.machine_size)
    refused(AssertionError, bf.machine_rank)
    refused(AssertionError, bf.set_machine_topology, bf.RingGraph(2))


def test_before_init_there_is_no_topology_and_no_rank():
    assert not ifog.is_initialized()
    assert bf.load_topology() is None
    assert bf.load_machine_topology() is None
    assert bf.in_neighbor_ranks() == bf.out_neighbor_ranks() == []
    assert bf.get_skip_negotiate_stage() is False
    for function in (bf.rank, bf.size, bf.local_rank, bf.local_size, bf.machine_size):
        refused(ValueError, function)
    refused(ValueError, bf.set_topology)
    refused(ValueError, bf.allreduce, torch.ones(1))
    refused(ValueError, bf.poll, 1)


def test_setting_the_stage_before_init_is_only_logged(caplog):
    with caplog.at_level(logging.ERROR, "bluefog"):
        bf.set_skip_negotiate_stage(True)
    assert "bf.init()" in caplog.text
    assert bf.get_skip_negotiate_stage() is False


def test_one_process_works_without_launcher(monkeypatch):
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    ended = []
    monkeypatch.setattr(lifecycle.atexit, "register", ended.append)
    bf.init()
    try:
        assert (bf.rank(), bf.size(), bf.local_rank(), bf.local_size()) == (0, 1, 0, 1)
        assert bf.neighbor_allreduce(torch.arange(3.0)).tolist() == [0, 1, 2]
        assert bf.in_neighbor_ranks() == []
        bf.init()
        assert ended.count(bf.shutdown) == 1
    finally:
        bf.shutdown()
    assert bf.load_topology() is None
    refused(ValueError, bf.size)
    bf.shutdown()


@on(2)
def test_shutdown_leaves_a_rank_alone_that_it_did_not_start():
    bf.init()
    bf.shutdown()
    assert bf.size() == 2
    bf.barrier()


@on(2)
def test_integers_have_no_mean():
    for dtype in (torch.int32, torch.int64):
        refused(AssertionError, bf.allreduce, torch.ones(2, dtype=dtype))
        refused(AssertionError, bf.allreduce_, torch.ones(2, dtype=dtype))
        refused(AssertionError, bf.allreduce_parameters, {"n": torch.ones(2, dtype=dtype)})
        assert bf.allreduce(torch.ones(2, dtype=dtype), average=False).tolist() == [2, 2]


@on(4)
def test_neighbor_allreduce_refuses_what_bluefog_refuses():
    bf.init()
    x, inside = torch.ones(2), dict.fromkeys(bf.in_neighbor_ranks(), 0.3)
    stranger = {r: 0.5 for r in range(4) if r not in (bf.rank(), *inside)}
    refused(ValueError, bf.neighbor_allreduce, x, self_weight=0.4)
    refused(ValueError, bf.neighbor_allreduce, x, src_weights=inside)
    refused(ValueError, bf.neighbor_allreduce, x, self_weight=1, src_weights=inside)
    refused(ValueError, bf.neighbor_allreduce, x, self_weight=np.float32(1), src_weights=inside)
    refused(ValueError, bf.neighbor_allreduce, x, self_weight=0.5, src_weights=list(inside))
    refused(ValueError, bf.neighbor_allreduce, x, self_weight=0.5, src_weights=stranger)
    refused(ValueError, bf.neighbor_allreduce, x, dst_weights=[])
    twice = {"self_weight": 0.5, "src_weights": {}, "dst_weights": [0, 0, 1, 1]}
    refused(ValueError, bf.neighbor_allreduce, x, **twice)
    refused(ValueError, bf.neighbor_allreduce, x.int())
    refused(IndexError, bf.neighbor_allreduce, torch.tensor(1.0))
    refused(TypeError, bf.neighbor_allreduce, x, 0.5, inside)
    refused(TypeError, bf.neighbor_allreduce, x, self_weight=0.5, neighbor_weights=inside)
    refused(TypeError, bf.neighbor_allreduce, x, send_neighbors=[1])
    weight = np.float64(0.4)  # a float in Python's eyes
    y = bf.neighbor_allreduce(x, self_weight=weight, src_weights=dict.fromkeys(inside, 0.3))
    torch.testing.assert_close(y, torch.ones(2))


@on(4)
def test_plans_that_do_not_match_are_value_errors_everywhere():
    everyone = [r for r in range(4) if r != bf.rank()]
    src = dict.fromkeys(everyone if bf.rank() else everyone[:-1], 0.25)
    for _ in range(2):  # the name is free again
        handle = bf.neighbor_allreduce_nonblocking(
            torch.ones(1), self_weight=0.25, src_weights=src, dst_weights=everyone, name="x"
        )
        refused(ValueError, bf.synchronize, handle)


@on(2)
def test_gathers_refuse_half_of_the_ranks():
    refused(ValueError, bf.neighbor_allgather, torch.ones(1), src_ranks=[1 - bf.rank()])
    refused(ValueError, bf.neighbor_allgather, torch.ones(1), dst_ranks=[1 - bf.rank()])
    refused(ValueError, bf.allgather, torch.tensor(1.0))


@on(2)
def test_suspended_ranks_refuse_operations():
    bf.suspend()
    for operation in (
        lambda: bf.allreduce(torch.ones(1)),
        lambda: bf.broadcast_(torch.ones(1), 0),
        lambda: bf.neighbor_allreduce(torch.ones(1)),
        lambda: bf.broadcast_parameters({"x": torch.ones(1)}, 0),
        bf.barrier,
    ):
        refused(ValueError, operation)
    bf.resume()
    assert bf.allreduce(torch.ones(1)).tolist() == [1]


@on(2)
def test_pair_gossip_asks_for_the_skipped_negotiation():
    x, other = torch.full((2,), float(bf.rank())), 1 - bf.rank()
    refused(ValueError, bf.pair_gossip, x, other)
    bf.set_skip_negotiate_stage(True)
    assert bf.get_skip_negotiate_stage() is True
    refused(ValueError, bf.pair_gossip, x, other, 0.5)
    assert bf.pair_gossip(x, other).tolist() == [0.5, 0.5]
    y = bf.pair_gossip(x, other, self_weight=0.75, pair_weight=0.25)
    assert y.tolist() == [0.75 * bf.rank() + 0.25 * other] * 2


@on(4)
def test_hierarchical_averages_keep_to_the_machine_topology():
    x, op = torch.full((2,), float(bf.rank())), bf.hierarchical_neighbor_allreduce
    refused(RuntimeError, op, x)
    machines_of(2)
    bf.set_machine_topology(bf.RingGraph(2))
    other = 1 - bf.machine_rank()
    refused(ValueError, op, x, self_weight=0.5, src_machine_weights={other: 0.5})
    refused(ValueError, op, x, self_weight=0.5)
    three = {"src_machine_weights": {other: 0.5}, "dst_machine_weights": [other]}
    refused(ValueError, op, x, self_weight=1, **three)
    refused(ValueError, op, x, self_weight=0.5, **three | {"dst_machine_weights": [5]})
    refused(ValueError, op, x, self_weight=0.5, **three | {"src_machine_weights": {5: 0.5}})
    refused(ValueError, op, x, self_weight=0.5, **three | {"dst_machine_weights": [other, other]})
    refused(TypeError, op, x, neighbor_machine_weights={})
    refused(TypeError, op, x, send_neighbor_machines=[])
    assert op(x).tolist() == [1.5, 1.5]
    mine, theirs = 0.5 + 2 * bf.machine_rank(), 0.5 + 2 * other  # the machines' means
    y = op(x, self_weight=0.75, **three)
    assert y.tolist() == [0.75 * mine + 0.5 * theirs] * 2


@on(2)
def test_hierarchical_averages_need_company_on_the_machine():
    machines_of(1)
    bf.set_machine_topology(bf.RingGraph(2))
    refused(AssertionError, bf.hierarchical_neighbor_allreduce, torch.ones(1))


@on(3)
def test_inferring_checks_its_ranks_and_normalises_columns():
    for wrong in ([bf.rank()], [3], [-1], [np.int64((bf.rank() + 1) % 3)], [0, 1, 2]):
        refused(AssertionError, bf.InferSourceFromDestinationRanks, wrong)
        refused(AssertionError, bf.InferDestinationFromSourceRanks, wrong)
    sends = {0: [1, 2], 1: [2], 2: []}[bf.rank()]
    hears = {0: [], 1: [0], 2: [0, 1]}[bf.rank()]
    assert bf.InferSourceFromDestinationRanks(sends) == hears
    assert bf.InferDestinationFromSourceRanks(hears) == sends
    assert all(type(r) is int for r in bf.InferSourceFromDestinationRanks(sends))
    found, matrix = bf.InferSourceFromDestinationRanks(sends, construct_adjacency_matrix=True)
    expected = np.array([[1, 1 / 2, 1 / 3], [0, 1 / 2, 1 / 3], [0, 0, 1 / 3]])
    assert found == hears
    np.testing.assert_allclose(matrix, expected)
    _, matrix = bf.InferDestinationFromSourceRanks(hears, construct_adjacency_matrix=True)
    np.testing.assert_allclose(matrix, expected)


@on(2)
def test_parameters_come_as_dicts_or_lists_only():
    model = torch.nn.Linear(2, 1)
    refused(ValueError, bf.broadcast_parameters, model.named_parameters(), 0)
    refused(ValueError, bf.allreduce_parameters, model.named_parameters())
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(bf.rank() + 1.0)
    bf.allreduce_parameters(list(model.named_parameters()))
    assert model.weight.tolist() == [[1.5, 1.5]]
    model.weight.data.fill_(bf.rank())
    bf.broadcast_parameters(model.state_dict(), root_rank=1)
    assert model.weight.tolist() == [[1, 1]]
    lbfgs = torch.optim.LBFGS(model.parameters())
    refused(ValueError, bf.broadcast_optimizer_state, lbfgs, 0)


def test_optimizers_mix_by_these_kinds_of_communication():
    assert bf.CommunicationType.neighbor_allreduce.value == "neighbor.allreduce"
    assert [kind.name for kind in bf.CommunicationType] == [
        "neighbor_allreduce",
        "hierarchical_neighbor_allreduce",
        "allreduce",
        "empty",
    ]


def test_a_deprecated_argument_is_a_type_error_with_advice():
    @bf.deprecated_function_arg("old", "use new")
    def function(new=1):
        return new

    assert function(new=2) == 2
    with pytest.raises(TypeError, match=r"old.*use new"):
        function(old=2)


def test_the_basics_are_the_same_functions():
    from ifog.bluefog.basics import BlueFogBasics, logger

    basics = BlueFogBasics("/a/path", "mpi_lib")
    assert basics.init is bf.init
    assert basics.set_machine_topology is bf.set_machine_topology
    assert (logger.name, logger.level) == ("bluefog", logging.INFO)
    assert logger.handlers


@on(2)
def test_outputs_carry_no_gradients():
    x = torch.ones(2, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for y in (bf.allreduce(x), bf.broadcast(x, 0), bf.allgather(x), bf.neighbor_allreduce(x)):
            assert not y.requires_grad
    assert x.requires_grad
