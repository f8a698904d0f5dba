"""An algorithm as a torch optimizer takes the steps of the algorithm itself."""

from __future__ import annotations

import copy

import pytest
import torch
from algorithm_cases import tree
from spmd import near

import ifog
from ifog import algorithms as methods
from ifog.agents import MatrixMixer
from ifog.algorithms import Algorithm, Both, iterate, scheduled
from ifog.compression import random_k, sign
from ifog.errors import ArgumentError, MismatchError
from ifog.problems import Quadratics
from ifog.testing import run_ranks

N = 4
STEPS = 9
SHAPES = [(3, 2), (), (4,)]
RING = ifog.ring(N)


def values(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, 11, generator=generator, dtype=torch.float64)


PROBLEM = Quadratics(values(0).abs() + 0.5, values(1), torch.arange(N))
START = values(2)


class Model:
    """One agent of the problem as parameters of several shapes."""

    def __init__(self, rank):
        sizes = [torch.Size(shape).numel() for shape in SHAPES]
        parts = START[rank].clone().split(sizes)
        self.parameters = [
            torch.nn.Parameter(part.reshape(shape))
            for part, shape in zip(parts, SHAPES, strict=True)
        ]
        self.mine = PROBLEM.take([rank])

    def flat(self):
        return torch.cat([x.reshape(-1) for x in self.parameters])

    def backward(self):
        for x in self.parameters:
            x.grad = None
        loss = self.mine.loss(self.flat()[None]).sum()
        loss.backward()
        return loss


def train(make_mixer, algorithm, *, closure=False, steps=STEPS):
    """Where every rank's parameters end."""

    def on_rank():
        model = Model(ifog.rank())
        optimizer = ifog.AlgorithmOptimizer(model.parameters, algorithm, make_mixer())
        for _ in range(steps):
            if closure:
                assert optimizer.step(model.backward).item() > 0
            else:
                model.backward()
                optimizer.step()
        return model.flat().detach()

    return torch.stack(run_ranks(N, on_rank))


def alone(algorithm, graph=RING, steps=STEPS):
    mix = Both(*map(MatrixMixer, graph)) if isinstance(graph, tuple) else MatrixMixer(graph)
    return iterate(algorithm, START, PROBLEM, mix, steps).x


METHODS = {
    "dgd": methods.dgd(0.1),
    "exact diffusion": methods.exact_diffusion(0.1),
    "tracking": methods.gradient_tracking(0.1),
    "local steps": methods.k_gt(0.1, every=3),
    "choco": methods.choco_sgd(0.1, random_k(0.3, seed=1), gamma=0.2),
    "signs": methods.choco_sgd(0.1, sign(), gamma=0.2),
    "slow_mo": methods.slow_mo(0.1, every=4),
    "adam": methods.adam(0.05, decay=0.1, mix_second=True),
    "events": methods.ad_psgd(0.1, delay=2),
    "scheduled": scheduled(lambda k: methods.atc(1 / (k + 5))),
    "averaging": methods.push_sum(),
}


@pytest.mark.parametrize("name", METHODS)
def test_it_takes_the_algorithms_own_steps(name):
    method = METHODS[name]
    got = train(lambda: ifog.neighbor_mixer(RING), method)
    assert near(got, alone(method), atol=1e-12)
    assert near(train(lambda: ifog.agent_mixer(RING), method), got, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "graph"),
    [
        (methods.relay_sgd(0.1), tree(N)),
        (methods.clipped_gossip(0.1, radius=0.3), RING),
        (methods.trimmed_mean(0.1, trim=1), ifog.complete(N)),
        (methods.push_diging(0.1), ifog.exponential(N)),
    ],
    ids=["relay", "clipped", "trimmed", "push"],
)
def test_neighbours_one_by_one_are_seen_through_an_agent_mixer(method, graph):
    got = train(lambda: ifog.agent_mixer(graph), method)
    assert near(got, alone(method, graph), atol=1e-12)


def test_two_mixers_are_given_together():
    pull, push = ifog.ring(N), ifog.exponential(N)
    method = methods.push_pull(0.1)
    got = train(lambda: Both(ifog.neighbor_mixer(pull), ifog.neighbor_mixer(push)), method)
    assert near(got, alone(method, (pull, push)), atol=1e-12)


def test_a_closure_gives_as_many_gradients_as_are_asked_for():
    def step(s, grad, mix):
        middle = s.x - 0.1 * grad(s.x)
        return s._replace(x=mix(s.x - 0.1 * (grad(middle) + grad(s.x)) / 2))

    heun = Algorithm(methods.dgd(0.1).init, step)
    got = train(lambda: ifog.neighbor_mixer(RING), heun, closure=True)
    assert near(got, alone(heun), atol=1e-12)
    plain = train(lambda: ifog.neighbor_mixer(RING), METHODS["tracking"], closure=True)
    assert near(plain, alone(METHODS["tracking"]), atol=1e-12)
    with pytest.raises(ArgumentError, match=r"another point.*closure"):
        train(lambda: ifog.neighbor_mixer(RING), heun)


@pytest.mark.parametrize("name", ["tracking", "choco", "adam", "scheduled", "events"])
def test_a_saved_state_continues_as_if_nothing_had_happened(name, tmp_path):
    method = METHODS[name]

    def on_rank():
        path = tmp_path / f"{name} {ifog.rank()}.pt"
        mixer = lambda: ifog.neighbor_mixer(ifog.one_peer(N))  # noqa: E731 - made twice
        model = Model(ifog.rank())
        optimizer = ifog.AlgorithmOptimizer(model.parameters, method, mixer())
        for step in range(STEPS):
            if step == 4:
                torch.save(optimizer.state_dict(), path)
                model = Model(ifog.rank())
                optimizer = ifog.AlgorithmOptimizer(model.parameters, method, mixer())
                optimizer.load_state_dict(torch.load(path, weights_only=True))
            model.backward()
            optimizer.step()
        return model.flat().detach()

    got = torch.stack(run_ranks(N, on_rank))
    assert near(got, alone(method, ifog.one_peer(N)), atol=1e-12)


def test_unused_and_frozen_parameters():
    def on_rank():
        frozen = torch.nn.Parameter(torch.full((2,), float(ifog.rank())), requires_grad=False)
        used, unused = (torch.nn.Parameter(torch.full((2,), float(ifog.rank()))) for _ in range(2))
        optimizer = ifog.AlgorithmOptimizer(
            [{"params": [used, unused]}, {"params": [frozen]}],
            methods.atc(0.5),
            ifog.allreduce_mixer(),
        )
        (2 * used).sum().backward()
        optimizer.step()
        return torch.stack([used.detach(), unused.detach(), frozen])

    ends = run_ranks(2, on_rank)
    assert [end[:, 0].tolist() for end in ends] == [[-0.5, 0.5, 0.0], [-0.5, 0.5, 1.0]]


def optimizer_with(parameters, algorithm=None, mix=None):
    return ifog.AlgorithmOptimizer(
        parameters, algorithm or methods.dgd(0.1), mix or ifog.neighbor_mixer(ifog.ring(2))
    )


def one():
    return [torch.nn.Parameter(torch.ones(2))]


REFUSALS = {
    "prox": (lambda: optimizer_with(one(), methods.admm(1.0)), "prox"),
    "samples": (lambda: optimizer_with(one(), methods.gt_saga(0.1)), "single samples"),
    "matrices": (lambda: optimizer_with(one(), methods.power_gossip(0.1)), "one matrix"),
    "edges": (lambda: optimizer_with(one(), methods.relay_sgd(0.1)), "agent_mixer"),
    "two mixers": (lambda: optimizer_with(one(), methods.push_pull(0.1)), "Both"),
    "no algorithm": (lambda: optimizer_with(one(), 0.1), "float"),
    "no mixer": (lambda: optimizer_with(one(), mix=ifog.ring(2)), "neighbor_mixer"),
    "many agents": (
        lambda: optimizer_with(one(), mix=ifog.agent_mixer(ifog.ring(4))),
        "2 agents on this rank",
    ),
    "two dtypes": (
        lambda: optimizer_with([*one(), torch.nn.Parameter(torch.ones(2).double())]),
        "float64",
    ),
    "nothing to train": (
        lambda: optimizer_with([torch.nn.Parameter(torch.ones(2), requires_grad=False)]),
        "requires a gradient",
    ),
    "state of another": (
        lambda: optimizer_with(one()).load_state_dict({"state": {}, "param_groups": []}),
        "not the state",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_trained_is_refused_on_every_rank(name):
    use, words = REFUSALS[name]

    def on_rank():
        with pytest.raises(ArgumentError, match=words):
            use()
        return ifog.allreduce(torch.ones(1)).item()

    assert run_ranks(2, on_rank) == [1.0, 1.0]


def test_parameters_that_something_else_changed_are_noticed():
    def on_rank():
        (x,) = parameters = one()
        optimizer = optimizer_with(parameters)
        x.sum().backward()
        optimizer.step()
        with torch.no_grad():
            x.mul_(2)
        with pytest.raises(ArgumentError, match="changed the parameters"):
            optimizer.step()

    run_ranks(2, on_rank)


def test_ranks_with_other_models_are_refused():
    with pytest.raises(MismatchError, match=r"shape \(2,\)"):
        run_ranks(2, lambda: optimizer_with([torch.nn.Parameter(torch.ones(2 + ifog.rank()))]))


def test_every_rank_learns_xor_from_one_case_each():
    torch.manual_seed(0)
    layers = (torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    start = torch.nn.Sequential(*layers).double()
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).double()
    targets = torch.tensor([[0.0], [1.0], [1.0], [0.0]]).double()

    def on_rank():
        model, r = copy.deepcopy(start), ifog.rank()
        mix = ifog.neighbor_mixer(ifog.one_peer(ifog.size()))
        optimizer = ifog.AlgorithmOptimizer(model.parameters(), methods.gradient_tracking(0.1), mix)
        for _ in range(700):
            optimizer.zero_grad()
            (model(corners[r]) - targets[r]).square().mean().backward()
            optimizer.step()
        return (model(corners) - targets).detach().abs().max().item()

    assert max(run_ranks(4, on_rank)) < 0.1
