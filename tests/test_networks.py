"""Networks of many agents at once: each has its own data, and its own gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ifog import networks, simulate
from ifog.algorithms import atc, gradient_tracking
from ifog.errors import ArgumentError


def test_the_gradients_are_those_of_each_network_by_itself():
    problem = networks.digits(5, hidden=4, batch=None, skew="dirichlet")
    generator = torch.Generator().manual_seed(3)
    x = problem.start() + 0.1 * torch.randn(5, problem.size, generator=generator)
    together, losses = problem(x), problem.loss(x)
    for i in range(5):
        nn.utils.vector_to_parameters(x[i], problem.network.parameters())
        chosen = problem.shares[i]
        loss = cross_entropy(problem.network(problem.inputs[chosen]), problem.labels[chosen])
        problem.network.zero_grad()
        loss.backward()
        alone = torch.cat([p.grad.reshape(-1) for p in problem.network.parameters()])
        assert torch.allclose(together[i], alone, atol=1e-6)
        assert float(losses[i]) == pytest.approx(float(loss.detach()), rel=1e-5)


def test_batches_belong_to_seed_agent_and_call():
    one, again = networks.digits(6, batch=4, seed=1), networks.digits(6, batch=4, seed=1)
    x = one.start()
    calls = [one(x) for _ in range(3)]
    assert all(torch.equal(g, again(x)) for g in calls)
    assert not torch.equal(calls[0], calls[1])
    part = networks.digits(6, batch=4, seed=1).take(torch.tensor([2, 4]))
    assert torch.allclose(part(x[:2]), calls[0][[2, 4]], atol=1e-7)


@pytest.mark.parametrize("agents", [1, 7, 40, 2000])
@pytest.mark.parametrize("skew", ["none", "label", "dirichlet"])
def test_everybody_gets_data_and_all_of_it_is_dealt(agents, skew):
    labels = np.random.default_rng(0).integers(10, size=1437)
    shares = networks.deal(labels, agents, skew=skew)
    assert len(shares) == agents
    assert min(map(len, shares)) >= 1
    dealt = np.bincount(np.concatenate(shares), minlength=1437)
    assert set(dealt) == {-(-agents // 1437)} if agents <= 1437 or skew != "x" else True
    if skew == "label" and agents == 40:
        assert max(len(set(labels[share])) for share in shares) <= 2
    if skew == "none" and agents == 7:
        assert all(len(set(labels[share])) == 10 for share in shares)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_small_alpha_means_few_labels_and_a_large_one_all_of_them():
    labels = np.repeat(np.arange(10), 200)

    def largest_share(alpha):
        shares = networks.deal(labels, 20, skew="dirichlet", alpha=alpha)
        tables = [np.bincount(labels[share], minlength=10) for share in shares]
        return np.mean([table.max() / table.sum() for table in tables])

    assert largest_share(0.05) > 0.6
    assert largest_share(100.0) < 0.2
    assert networks.deal(labels, 5, skew="dirichlet", seed=1)[0].tolist() != (
        networks.deal(labels, 5, skew="dirichlet", seed=2)[0].tolist()
    )


@pytest.mark.parametrize("skew", ["label", "dirichlet"])
def test_agents_with_few_labels_learn_all_of_them_together(skew):
    problem = networks.digits(16, skew=skew)
    trace = simulate.run(atc(0.3), problem, "exponential", steps=150, every=50)
    accuracy = trace.measures["accuracy"][0]
    assert accuracy[0] < 0.3
    assert accuracy[-1] > 0.93
    assert trace.measures["worst"][0, -1] > 0.9
    assert trace.main is trace.measures["loss"]
    alone = simulate.run(atc(0.3), problem, _isolated(16), steps=150, every=50)
    assert alone.measures["worst"][0, -1] < 0.6


def _isolated(n):
    from ifog import from_matrix

    return from_matrix(np.eye(n))


def test_seeds_run_side_by_side_with_batches_of_their_own():
    problem = networks.digits(4, hidden=4)
    both = simulate.run(gradient_tracking(0.1), problem, "ring", steps=8, seed=[0, 5])
    for r, seed in enumerate((0, 5)):
        alone = simulate.run(gradient_tracking(0.1), problem, "ring", steps=8, seed=seed)
        assert torch.allclose(both.x[r], alone.x, atol=1e-5)
    assert not torch.allclose(both.x[0], both.x[1], atol=1e-4)
    assert problem.step == 0  # a run takes a copy


def test_other_precisions_move_everything():
    problem = networks.digits(3, hidden=4)
    trace = simulate.run(atc(0.1), problem, "ring", steps=3, dtype=torch.float64)
    assert trace.x.dtype is torch.float64
    assert problem.start().dtype is torch.float32


def test_what_cannot_be_simulated_is_refused():
    shares = torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(ArgumentError, match="BatchNorm"):
        networks.Classifiers(
            nn.BatchNorm1d(4), torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), shares
        )
    with pytest.raises(ArgumentError, match="'none', 'label' or 'dirichlet'"):
        networks.digits(4, skew="odd")
    with pytest.raises(ArgumentError, match="must be positive"):
        networks.digits(4, skew="dirichlet", alpha=0)
