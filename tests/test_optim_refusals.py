"""What the decentralized optimizer and its mixers refuse, and say about it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from wrapping import SPARSE, backward, network, wrapped

import ifog
from ifog import window_mixing
from ifog.errors import ArgumentError
from ifog.testing import run_ranks


def refused(message, change, step=True, order="atc"):
    def work():
        model = network()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = wrapped(sgd, order)
        change(model, optimizer)
        if step:
            backward(model, 0)
            optimizer.step()

    with pytest.raises(ArgumentError, match=message):
        run_ranks(1, work)


def test_what_happens_to_parameters_afterwards_is_refused():
    extra = torch.nn.Parameter(torch.ones(1))
    refused("cannot be added", lambda _, o: o.add_param_group({"params": [extra]}), step=False)
    refused(
        "had 4 parameters and has others now .5.",
        lambda _, o: o.optimizer.add_param_group({"params": [extra]}),
    )
    refused("parameter 0 was frozen", lambda m, _: m[0].weight.requires_grad_(False))
    refused("call model.to", lambda m, _: m.float().double())
    refused("call model.to", lambda m, _: setattr(m[0].weight, "data", torch.zeros(4, 3).double()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: wrapped(torch.optim.LBFGS([x])), "LBFGS searches along lines"),
        (lambda x: wrapped([x]), "wraps a torch optimizer, got list"),
        (lambda x: wrapped(wrapped(torch.optim.SGD([x]))), "one already"),
        (lambda x: wrapped(torch.optim.SGD([x]), "cta"), "choose one of"),
        (lambda x: wrapped(torch.optim.SGD([x]), every=0), "whole number from 1"),
        (lambda x: wrapped(torch.optim.SGD([x]), "gradient", every=2), "drift apart"),
        (lambda x: wrapped(torch.optim.SGD([x]), mix=ifog.ring(3)), "pass a mixer"),
        (lambda x: wrapped(torch.optim.SGD([x]), mix_state="m"), "a list of names"),
        (lambda x: wrapped(torch.optim.SGD([x]), "awc", mix_state=["m"]), "order='atc'"),
        (
            lambda x: wrapped(
                torch.optim.SGD([x]), mix=ifog.allreduce_mixer(), overlap=True, mix_state=["m"]
            ),
            "mix_state cannot be mixed with overlap",
        ),
        (
            lambda x: wrapped(torch.optim.SGD([x]), "awc", overlap=True, buffers=[torch.ones(1)]),
            "buffers change",
        ),
        (
            lambda x: wrapped(torch.optim.SGD([x]), "awc", ifog.window_mixer(), overlap=True),
            "waits for nobody",
        ),
        (lambda x: wrapped(torch.optim.SGD([x.requires_grad_(False)])), "requires a gradient"),
        (
            lambda x: wrapped(torch.optim.SGD([x, torch.nn.Parameter(x.detach()[1:])])),
            "share memory",
        ),
        (
            lambda _: wrapped(
                torch.optim.SGD([torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))])
            ),
            "complex64; only dense floating-point",
        ),
        (
            lambda _: wrapped(torch.optim.SGD(torch.nn.LazyLinear(2).parameters())),
            "call the lazy model once",
        ),
        (lambda _: ifog.neighbor_mixer(3), "needs a graph or a schedule, got int"),
        (lambda _: ifog.window_mixer("push"), "use 'put' or 'get'"),
    ],
)
def test_what_cannot_be_wrapped_is_named(make, message):
    x = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ArgumentError, match=message):
        run_ranks(1, lambda: make(x))


def test_sparse_gradients_are_stepped_on_but_not_mixed():
    def work(order):
        embedding = torch.nn.Embedding(4, 2, sparse=True)
        optimizer = wrapped(SPARSE(list(embedding.parameters())), order, ifog.allreduce_mixer())
        moved = embedding.weight.detach().clone()
        moved[ifog.rank()] -= 1e-3  # Adam's first step is its learning rate
        embedding(torch.tensor([ifog.rank()])).sum().backward()
        optimizer.step()
        mean = ifog.allreduce(moved)
        assert torch.allclose(embedding.weight.detach(), mean, rtol=0, atol=1e-6)

    run_ranks(2, lambda: work("atc"))
    with pytest.raises(ArgumentError, match="sparse gradient"):
        run_ranks(1, lambda: work("gradient"))


def test_one_window_has_one_shape():
    def work():
        with ifog.window_mixer() as mix:
            mix(torch.ones(2))
            with pytest.raises(ArgumentError, match=r"shape \(3,\), the rounds before had \(2,\)"):
                mix(torch.ones(3))

    run_ranks(2, work)


@pytest.mark.parametrize(
    ("n", "news", "gives_way"), [(2, False, True), (2, True, False), (1, False, False)]
)
def test_a_rank_without_news_of_its_neighbours_gives_way(monkeypatch, n, news, gives_way):
    moments = []
    clock = SimpleNamespace(sleep=lambda _: moments.append(ifog.rank()))
    monkeypatch.setattr(window_mixing, "time", clock)

    def work():
        with ifog.window_mixer(weights=lambda: None if news else {}) as mix:
            under_way = mix.start(torch.ones(2))
            for handle in under_way.handles:
                handle.wait()
            ifog.barrier()
            under_way.wait()
            ifog.barrier()
            return ifog.rank() in moments

    assert run_ranks(n, work) == [gives_way] * n


def test_named_parameters_are_called_by_their_names():
    def work():
        model = network()
        optimizer = wrapped(torch.optim.SGD(model.named_parameters(), lr=0.1))
        model[0].bias.requires_grad_(False)
        with pytest.raises(ArgumentError, match=r"'0\.bias' was frozen"):
            optimizer.step()

    run_ranks(1, work)
