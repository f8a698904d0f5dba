"""Every rank computes its own share of the data, and the shares make up the whole."""

from __future__ import annotations

import pytest
import torch
from spmd import near

from ifog.errors import ArgumentError
from ifog.problems import (
    digits_shard,
    least_squares,
    logistic,
    quadratics,
    reference_problem,
)
from ifog.sampling import Noisy, Sampled


def rows(x):
    """The images as a sorted list, so that sets of them can be compared."""
    return sorted(map(tuple, x.tolist()))


@pytest.mark.parametrize("skew", ["label", "none"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 16])
def test_shards_split_the_training_images_evenly_and_completely(size, skew):
    shards = [digits_shard(rank, size, skew=skew) for rank in range(size)]
    whole = digits_shard(0, 1)
    lengths = [len(shard.y) for shard in shards]
    assert max(lengths) - min(lengths) <= 1
    assert rows(torch.cat([shard.x for shard in shards])) == rows(whole.x)
    assert len(whole.y) + len(whole.test_y) == 1797


@pytest.mark.parametrize("size", [1, 2, 5, 10, 16])
def test_label_skew_leaves_each_rank_few_digits(size):
    seen = [set(digits_shard(rank, size).y.tolist()) for rank in range(size)]
    assert set().union(*seen) == set(range(10))
    assert max(map(len, seen)) <= 10 // size + 2


def test_without_skew_every_rank_sees_all_digits():
    for rank in range(8):
        assert set(digits_shard(rank, 8, skew="none").y.tolist()) == set(range(10))


def test_all_ranks_test_on_the_same_held_out_images():
    first, last = digits_shard(0, 5), digits_shard(4, 5)
    assert torch.equal(first.test_x, last.test_x)
    assert torch.equal(first.test_y, last.test_y)
    assert set(first.test_y.tolist()) == set(range(10))


def test_features_are_standardised_over_the_training_images():
    x = digits_shard(0, 1).x.double()
    spread = x.std(dim=0, correction=0)
    assert x.mean(dim=0).abs().max() < 1e-6
    assert torch.all((spread - 1).abs().lt(1e-5) | (spread == 0))


def test_the_seed_decides_the_split():
    once, again, other = digits_shard(1, 4), digits_shard(1, 4), digits_shard(1, 4, seed=1)
    assert torch.equal(once.x, again.x)
    assert not torch.equal(once.test_y, other.test_y)


def test_shards_are_ready_for_torch():
    shard = digits_shard(0, 3)
    assert (shard.x.dtype, shard.y.dtype) == (torch.float32, torch.int64)
    assert shard.x.shape == (len(shard.y), 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: digits_shard(4, 4), "ranks are 0..3"),
        (lambda: digits_shard(-1, 4), "rank is -1"),
        (lambda: digits_shard(0, 4, skew="digit"), "use 'label' or 'none'"),
        (lambda: digits_shard(0, 5000), "only 1438 training images"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


PROBLEMS = {
    "least squares": lambda agents: least_squares(agents, dimension=4, samples=7, noise=0.1),
    "logistic": lambda agents: logistic(agents, dimension=4, samples=7),
    "quadratics": lambda agents: quadratics(agents, dimension=4),
}


def points(n):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_row_i_is_the_gradient_of_the_loss_of_agent_i(make):
    problem, x = make(6), points(6).requires_grad_()
    (gradients,) = torch.autograd.grad(problem.loss(x).sum(), x)
    assert near(problem(x.detach()), gradients, atol=1e-12)


@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_the_data_of_an_agent_do_not_depend_on_who_hosts_it(make):
    x, some = points(6), torch.tensor([1, 4])
    whole = make(6)(x)
    assert near(make(some)(x[some]), whole[some])
    assert near(make(6).take(some)(x[some]), whole[some])
    with pytest.raises(ArgumentError, match="cannot give"):
        make(some).take([2])


@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_the_mean_gradient_vanishes_at_the_optimum_and_the_local_ones_do_not(make):
    problem = make(6)
    gradients = problem(problem.optimum().expand(6, 4))
    assert near(gradients.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-12)
    assert gradients.norm(dim=1).min() > 0.01


@pytest.mark.parametrize("name", ["least squares", "quadratics"])
def test_the_prox_is_where_the_gradient_balances_the_pull(name):
    problem, v, c = PROBLEMS[name](6), points(6), 0.7
    x = problem.prox(v, c)
    assert near(problem(x) + c * (x - v), torch.zeros_like(x), atol=1e-12)


@pytest.mark.parametrize("name", ["least squares", "logistic"])
def test_the_samples_gradients_make_up_the_whole_one(name):
    problem, x = PROBLEMS[name](6), points(6)
    each = problem.each(x)
    assert near(each.mean(1), problem(x), atol=1e-13)
    which = torch.tensor([[0, 3]]).expand(6, 2)
    assert near(problem.some(x, which), each[:, [0, 3]].mean(1), atol=1e-13)


def test_stochastic_gradients_are_drawn_for_the_agent_and_the_call():
    problem, x, some = PROBLEMS["logistic"](6), points(6), torch.tensor([1, 4])
    for make in (lambda p: Sampled(p, 2, seed=3), lambda p: Noisy(p, 0.5, seed=3)):
        whole, part = make(problem), make(problem.take(some))
        first, second = whole(x), whole(x)
        assert not near(first, second)
        assert near(part(x[some]), first[some])
        assert near(part(x[some]), second[some])
        many = torch.stack([whole(x) for _ in range(4000)])
        spread = 5 * many.std(0) / 4000**0.5  # five standard errors
        assert bool(((many.mean(0) - problem(x)).abs() < spread).all())


def test_the_reference_problem_is_as_heterogeneous_as_documented():
    problem = reference_problem()
    optimum = problem.optimum()
    assert abs(problem.smoothness() - 2.664) < 5e-4
    assert abs(float(optimum.norm()) - 5.4856) < 5e-5
    assert abs(float(problem(optimum.expand(8, 20)).norm(dim=1).mean()) - 4.495) < 5e-4
