"""BlueFog's optimizer factories: their update rules, weights, windows and errors."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from bluefog_training import FACTORIES, Kind, Model, N, everybody, in_use, made, train
from laws_training import LR, STEPS, Problem, sgd
from spmd import dense, near

import ifog
import ifog.bluefog as bf
from ifog.bluefog import optimizers
from ifog.bluefog.lifecycle import init as bluefog_init
from ifog.testing import run_ranks


def rules():
    """factory -> (arguments, W, order)"""
    then, with_ = bf.DistributedAdaptThenCombineOptimizer, bf.DistributedAdaptWithCombineOptimizer
    return [
        (then, (), in_use(), "atc"),
        (then, (Kind.allreduce,), everybody(), "atc"),
        (then, (Kind.empty,), np.eye(N), "atc"),
        (then, (Kind.hierarchical_neighbor_allreduce,), everybody(), "atc"),
        (with_, (), in_use(), "awc"),
        (with_, (Kind.allreduce,), everybody(), "awc"),
        (with_, (Kind.empty,), np.eye(N), "awc"),
        (bf.DistributedAllreduceOptimizer, (), everybody(), "awc"),
        (bf.DistributedNeighborAllreduceOptimizer, (), in_use(), "awc"),
        (bf.DistributedHierarchicalNeighborAllreduceOptimizer, (), everybody(), "awc"),
        (bf.DistributedGradientAllreduceOptimizer, (), everybody(), "gradient"),
    ]


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("case", range(11))
def test_the_update_is_bluefogs(case, monkeypatch):
    monkeypatch.setenv("BLUEFOG_NODES_PER_MACHINE", "2")

    def work():
        bluefog_init()
        bf.set_machine_topology(bf.ExponentialGraph(2))
        factory, args, w, order = rules()[case]
        problem, model, optimizer = made(factory, *args)
        train(model, optimizer)
        x = problem.x
        for _ in range(STEPS):
            g = problem.gradient(x)
            moved = {"atc": w @ (x - LR * g), "awc": w @ x - LR * g, "gradient": x - LR * (w @ g)}
            x = moved[order]
        problem.holds(x)

    run_ranks(N, work)


def test_what_comes_back_is_an_optimizer_of_the_same_class():
    def work():
        problem = Problem()
        inner = torch.optim.Adam(problem.tensors, lr=LR)
        optimizer = bf.DistributedAdaptThenCombineOptimizer(inner, Model(problem))
        assert isinstance(optimizer, torch.optim.Adam)
        assert type(optimizer).__name__ == "Adam"
        optimizer.param_groups[0]["lr"] = 0.5
        assert inner.param_groups[0]["lr"] == 0.5
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        train(Model(problem), optimizer, 1)
        scheduler.step()
        assert inner.param_groups[0]["lr"] == 0.05
        assert set(optimizer.state_dict()) == {"state", "param_groups"}
        bf.broadcast_optimizer_state(optimizer, 0)

    run_ranks(2, work)


@pytest.mark.parametrize("order", ["atc", "awc"])
def test_weights_are_read_in_each_round(order):
    factory = {
        "atc": bf.DistributedAdaptThenCombineOptimizer,
        "awc": bf.DistributedAdaptWithCombineOptimizer,
    }[order]

    def work():
        bluefog_init()
        n, r = bf.size(), bf.rank()
        problem, model, optimizer = made(factory)
        turns = bf.GetDynamicOnePeerSendRecvRanks(bf.load_topology(), r)

        def choose(step):
            to, sources = next(turns)
            if step % 2:  # the names of older programs
                optimizer.send_neighbors = to
                optimizer.neighbor_weights = dict.fromkeys(sources, 0.5)
            else:
                optimizer.dst_weights = dict.fromkeys(to, 1.0)
                optimizer.src_weights = dict.fromkeys(sources, 0.5)
            optimizer.self_weight = 0.5
            optimizer.enable_topo_check = step % 3 == 0

        train(model, optimizer, before=choose)
        peers, x = ifog.one_peer(n), problem.x
        for k in range(STEPS):
            w = dense(peers(k), weighted=True).numpy()
            g = problem.gradient(x)
            x = w @ (x - LR * g) if order == "atc" else w @ x - LR * g
        problem.holds(x)

    run_ranks(N, work)


def test_machine_weights_are_read_in_each_round(monkeypatch):
    monkeypatch.setenv("BLUEFOG_NODES_PER_MACHINE", "2")

    def work():
        bluefog_init()
        problem, model, optimizer = made(
            bf.DistributedAdaptThenCombineOptimizer, Kind.hierarchical_neighbor_allreduce
        )
        other = 1 - bf.machine_rank()
        optimizer.self_weight = 0.75
        optimizer.src_machine_weights = {other: 0.25}
        optimizer.dst_machine_weights = [other]
        train(model, optimizer, 1)
        inside = np.kron(np.eye(2), np.full((2, 2), 0.5))
        between = np.kron(np.array([[0.75, 0.25], [0.25, 0.75]]), np.eye(2))
        problem.holds(between @ inside @ (problem.x - LR * problem.gradient(problem.x)))

    run_ranks(N, work)


def test_weights_that_do_not_fit_are_refused():
    def work():
        for factory in (
            bf.DistributedAdaptThenCombineOptimizer,
            bf.DistributedAdaptWithCombineOptimizer,
        ):
            _, model, optimizer = made(factory)
            optimizer.self_weight = 0.5
            with pytest.raises(ValueError, match="only self_weight was given"):
                train(model, optimizer, 1)
        optimizer.self_weight = 1
        with pytest.raises(ValueError, match="must be a float"):
            train(model, optimizer, 1)
        with pytest.raises(AssertionError, match="CommunicationType"):
            optimizer.communication_type = "allreduce"
        optimizer.communication_type = Kind.allreduce
        train(model, optimizer, 1)

    run_ranks(2, work)


def test_reading_from_windows_brings_ranks_together():
    def work():
        problem = Problem()
        model = Model(problem)
        still = torch.optim.SGD(problem.tensors, lr=0.0)
        optimizer = optimizers.DistributedPullGetOptimizer(still, model)
        train(model, optimizer, 60, before=lambda _: ifog.barrier())
        x = bf.allgather(problem.flat().detach()[None])
        assert torch.allclose(x, x[:1].expand_as(x), rtol=0, atol=1e-6)
        low, high = problem.x.min(0), problem.x.max(0)
        assert ((low <= x.numpy()) & (x.numpy() <= high)).all()
        optimizer.unregister_window()

    run_ranks(N, work)


@pytest.mark.parametrize("name", ["WinPut", "PushSum"])
def test_windows_mix_with_a_barrier_as_neighbours_would(name):
    factory = getattr(optimizers, f"Distributed{name}Optimizer")

    def work():
        problem, model, optimizer = made(factory)
        assert optimizer.force_barrier is (name == "PushSum")
        optimizer.force_barrier = True
        for _ in range(STEPS):
            optimizer.zero_grad()
            model().backward()
            optimizer.step()
            ifog.barrier()
        x, w = problem.x, in_use()
        for _ in range(STEPS):
            x = w @ x - LR * problem.gradient(x)
        problem.holds(x)
        assert bf.get_current_created_window_names() == ["parameters.float64"]
        optimizer.unregister_window()
        assert bf.get_current_created_window_names() == []

    run_ranks(N, work)


def test_window_names_must_differ():
    def work():
        _, _, first = made(bf.DistributedWinPutOptimizer)
        with pytest.raises(ValueError, match="there is a window"):
            made(bf.DistributedWinPutOptimizer)
        _, _, second = made(bf.DistributedWinPutOptimizer, window_prefix="second")
        first.unregister_window()
        second.unregister_window()

    run_ranks(2, work)


@pytest.mark.parametrize("name", ["", "Neighbor", "HierarchicalNeighbor"])
def test_older_factories_are_discouraged(name):
    factory = getattr(bf, f"Distributed{name}AllreduceOptimizer")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run_ranks(1, lambda: made(factory))
    assert [w.category for w in told] == [PendingDeprecationWarning]
    assert "DistributedAdaptWithCombineOptimizer" in str(told[0].message)


def test_models_that_do_not_fit_are_refused():
    def work(models, match):
        with pytest.raises(ValueError, match=match):
            bf.DistributedAdaptThenCombineOptimizer(sgd(a.parameters()), models)

    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    run_ranks(1, lambda: work([a, b], "distinct"))
    run_ranks(1, lambda: work(b, "belong to no model"))
    with pytest.raises(ValueError, match="from 1 on"):
        run_ranks(1, lambda: made(FACTORIES[0], num_steps_per_communication=0))


def test_several_models_and_a_bare_layer_are_fine():
    def work():
        first = torch.nn.Sequential(torch.nn.Linear(2, 2).double(), torch.nn.Tanh())
        models = torch.nn.ModuleDict({"first": first}), torch.nn.Linear(2, 1).double()
        for factory in (*FACTORIES[:3], FACTORIES[0]):  # each takes over from the one before
            parameters = [x for model in models for x in model.parameters()]
            with torch.no_grad():
                for place, x in enumerate(parameters):
                    x.fill_(ifog.rank() + place / 4)
            optimizer = factory(sgd(parameters), list(models))
            for _ in range(40):
                optimizer.zero_grad()
                models[1](models[0]["first"](torch.ones(3, 2).double())).square().mean().backward()
                optimizer.step()
            spread = max(
                float((bf.allreduce(x.detach()) - x.detach()).abs().max()) for x in parameters
            )
            assert (spread < 0.01) is (factory is not FACTORIES[2])

    run_ranks(2, work)


def test_a_step_function_of_the_users_own_makes_the_update():
    def work():
        problem, model, optimizer = made(bf.DistributedAdaptThenCombineOptimizer)

        def descend(self, x, gradient, group):
            self.state[x]["seen"] = 1
            x.data.add_(gradient, alpha=-2 * group["lr"])

        optimizer.register_step_function(descend)
        train(model, optimizer, 1)
        problem.holds(in_use(2) @ (problem.x - 2 * LR * problem.gradient(problem.x)))
        assert len(optimizer.state) == 3

    run_ranks(2, work)


def test_the_timeline_shows_forward_and_backward(tmp_path, monkeypatch):
    monkeypatch.setenv("BLUEFOG_TIMELINE", f"{tmp_path}/t")

    def work():
        bluefog_init()
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        optimizer = bf.DistributedAdaptWithCombineOptimizer(sgd(model.parameters()), model)
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
        optimizer.turn_off_timeline()
        model(torch.ones(1, 2))

    run_ranks(2, work)
    text = (tmp_path / "t0.json").read_text()
    events = json.loads(text.rstrip(",\n") + "]")
    rows = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        mine = [e for e in events if rows.get(e["pid"]) == f"neighbor.allreduce.{name}"]
        begun = [e["name"] for e in mine if e["ph"] == "B"]
        assert begun == ["FORWARD", "GRADIENT COMPT."] * 2
        assert [e["ph"] for e in mine if e["ph"] != "M"] == ["B", "E"] * 4


def test_one_rank_alone_steps_as_torch_does():
    def work():
        problem, model, optimizer = made(bf.DistributedAdaptThenCombineOptimizer)
        train(model, optimizer, 2)
        x = problem.x
        for _ in range(2):
            x = x - LR * problem.gradient(x)
        problem.holds(x)
        assert near(problem.flat().detach(), torch.from_numpy(x[0]))

    run_ranks(1, work)
