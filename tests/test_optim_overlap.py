"""Averages on their way while ranks compute: bucket by bucket, and when they must be in."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from laws_handovers import alike
from wrapping import batch, network, train, trainer, wrapped

import ifog
from ifog import pipeline
from ifog.errors import ArgumentError
from ifog.testing import run_ranks


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("order", ["atc", "awc", "gradient"])
@pytest.mark.parametrize("every", [1, 3])
def test_buckets_on_their_way_during_backward_end_as_whole_messages_do(
    order, every, named, monkeypatch
):
    monkeypatch.setattr(pipeline, "NBYTES", 1)
    if order == "gradient" and every > 1:
        every = 1

    def work():
        results = []
        for overlap in (False, True):
            model = network(ifog.rank(), torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
            model.register_parameter("unused", torch.nn.Parameter(torch.ones(2).double()))
            adam = torch.optim.Adam(model.parameters(), lr=0.05)
            mix = ifog.neighbor_mixer(ifog.one_peer(ifog.size()), name="x" if named else None)
            optimizer = wrapped(adam, order, mix, overlap=overlap, every=every)
            for step in range(5):
                optimizer.zero_grad()
                y = batch(10 * step + ifog.rank())
                for place, layer in enumerate(model):
                    # One rank leaves a layer out in some steps: its gradients never come there.
                    if not (place == 1 and ifog.rank() == 1 and step % 2):
                        y = layer(y)
                y.square().mean().backward()
                optimizer.step()
            optimizer.finish()
            results.append([x.detach().clone() for x in model.parameters()])
            assert not overlap or len((optimizer._relay or optimizer._pipeline).buckets) == 9
        for whole, piecewise in zip(*results, strict=True):
            assert torch.allclose(whole, piecewise, rtol=0, atol=1e-14)

    run_ranks(4, work)


def test_a_bucket_is_on_its_way_before_backward_has_ended():
    seen = []

    def work():
        sent = []
        mix = ifog.neighbor_mixer()
        start = mix.start
        mix.start = lambda *xs: sent.append(len(xs)) or start(*xs)
        model = torch.nn.Sequential(torch.nn.Linear(600, 2000), torch.nn.Linear(2000, 600))
        optimizer = wrapped(torch.optim.SGD(model.parameters(), lr=0.1), "atc", mix, overlap=True)
        model[0].weight.register_hook(lambda _: seen.append(len(sent)))
        model(torch.ones(1, 600)).sum().backward()
        optimizer.step()
        assert len(sent) == 2

    run_ranks(1, work)
    assert seen == [1]


@pytest.mark.parametrize("order", ["atc", "gradient"])
def test_what_came_too_early_for_overlap_is_refused(order):
    def work(scaled):
        x = torch.nn.Parameter(torch.ones(2))
        optimizer = wrapped(
            torch.optim.SGD([x], lr=0.1), order, ifog.allreduce_mixer(), overlap=True
        )
        x.sum().backward()
        if scaled:
            scaler = torch.amp.GradScaler("cpu")
            scaler.scale(torch.ones(1))
            scaler.step(optimizer)
        x.sum().backward()

    with pytest.raises(ArgumentError, match="second gradient before step"):
        run_ranks(1, lambda: work(False))
    with pytest.raises(ArgumentError, match="before a GradScaler"):
        run_ranks(1, lambda: work(True))


@pytest.mark.parametrize("order", ["atc", "awc", "gradient"])
def test_the_memory_of_parameters_is_free_when_model_and_optimizer_are_gone(order):
    def work():
        model, optimizer = trainer(order, overlap=True)
        train(model, optimizer, range(2))
        optimizer.finish()
        kept = [weakref.ref(flat) for flat in optimizer._layout.flats]
        assert all(flat() is not None for flat in kept)
        del model, optimizer
        ifog.barrier()  # nobody reads what came last any more
        gc.collect()
        assert all(flat() is None for flat in kept)

    run_ranks(2, work)


@pytest.mark.parametrize("order", ["atc", "awc", "gradient"])
def test_between_machines_a_thread_moves_what_is_overlapped(order):
    def work():
        transport = ifog.context.current().transport
        served, results = [], []
        background = ifog.context.current().progress.background
        serve = background.serve
        background.serve = lambda: served.append(1) or serve()
        for machines in ((0, 0, 0, 0), (0, 0, 1, 1)):
            transport.machines = machines
            model, optimizer = trainer(order, overlap=True)
            train(model, optimizer, range(4))
            optimizer.finish()
            results.append([x.detach().clone() for x in model.parameters()])
            assert bool(served) == (len(set(machines)) > 1)
        alike(*results)

    run_ranks(4, work)


def test_a_step_that_mixes_nothing_is_not_synchronized():
    def work():
        x = torch.nn.Parameter(torch.tensor([float(ifog.rank())]))
        sgd = torch.optim.SGD([x], lr=0.0)
        optimizer = wrapped(sgd, "awc", ifog.allreduce_mixer(), every=2)
        values = []
        for _ in range(2):
            x.sum().backward()
            optimizer.synchronize()
            values.append(x.item())
            optimizer.step()
        assert values == [float(ifog.rank()), 0.5]

    run_ranks(2, work)


def test_what_is_mixed_by_overlap_may_be_changed_after_finish():
    def work():
        results = []
        for overlap in (False, True):
            model, optimizer = trainer("awc", overlap=overlap)
            train(model, optimizer, range(3))
            optimizer.finish()
            with torch.no_grad():
                for x in model.parameters():
                    x.add_(1.0)
            train(model, optimizer, range(3, 6))
            optimizer.finish()
            results.append([x.detach().clone() for x in model.parameters()])
        alike(results[0], results[1])

    run_ranks(4, work)


def test_synchronize_lets_the_mixed_gradient_be_clipped():
    def work():
        x = torch.nn.Parameter(torch.zeros(1))
        sgd = torch.optim.SGD([x], lr=1.0)
        optimizer = wrapped(sgd, "gradient", ifog.allreduce_mixer())
        for sign in (1.0, -1.0):
            optimizer.zero_grad()
            (sign * x * (ifog.rank() + 1.0)).sum().backward()
            optimizer.synchronize()
            assert x.grad.item() == sign * 1.5
            torch.nn.utils.clip_grad_norm_([x], 0.5, foreach=False)
            optimizer.step()
            assert x.item() == pytest.approx(-0.5 if sign > 0 else 0.0, abs=1e-6)

    run_ranks(2, work)


def test_awc_may_be_synchronized_before_the_step():
    def work():
        x = torch.nn.Parameter(torch.full((1,), float(ifog.rank())))
        optimizer = wrapped(torch.optim.SGD([x], lr=1.0), "awc", ifog.allreduce_mixer())
        x.sum().backward()
        optimizer.synchronize()
        assert x.item() == 0.5
        optimizer.step()
        assert x.item() == -0.5

    run_ranks(2, work)
