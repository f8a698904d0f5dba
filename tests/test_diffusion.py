"""Biased methods end where their theory says, and nowhere better: nobody may "fix" that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import (
    RING,
    H,
    N,
    P,
    W,
    X,
    atc_point,
    awc_point,
    blocks,
    error,
    local_optima,
    local_powers,
    mixer,
    near,
    one_thread,  # noqa: F401 - a fixture
    pairs,
    run,
    solved,
    wide,
)

import ifog
from ifog import algorithms as methods
from ifog.algorithms import iterate, scheduled
from ifog.conformance import Alone
from ifog.problems import Quadratics, quadratics
from ifog.sampling import Noisy


@pytest.mark.parametrize("lr", [0.1, 0.05])
def test_dgd_and_atc_end_at_their_closed_forms(lr):
    steps = int(300 / lr)
    assert near(run(methods.dgd(lr), steps).x, awc_point(lr), 1e-11)
    assert near(run(methods.atc(lr), steps).x, atc_point(lr), 1e-11)


def test_their_bias_is_proportional_to_the_step_and_that_of_atc_is_smaller():
    dgd = [error(awc_point(lr)) for lr in (0.1, 0.05, 0.025)]
    atc = [error(atc_point(lr)) for lr in (0.1, 0.05, 0.025)]
    assert np.allclose(dgd, [0.148, 0.0877, 0.0484], atol=5e-4)
    assert np.allclose(atc, [0.117, 0.0682, 0.0372], atol=5e-4)


@pytest.mark.parametrize(
    ("graph", "dgd", "atc"),
    [(RING, 0.643180, 0.541602), (ifog.exponential(N), 0.237211, 0.112558)],
    ids=["ring", "exponential"],
)
def test_the_spread_of_unlike_agents_is_that_of_the_closed_form(graph, dgd, atc):
    problem = quadratics(N)
    for method, spread in ((methods.dgd(0.1), dgd), (methods.atc(0.1), atc)):
        x = run(method, 600, mixer(graph), problem).x
        assert abs(float(x.mean()) - 3.5) < 1e-12
        assert abs(float(x.std(correction=0)) - spread) < 5e-7


def test_a_vanishing_step_takes_the_bias_away():
    errors = [
        error(run(scheduled(lambda k: methods.dgd(5 / (k + 100))), steps).x)
        for steps in (1000, 4000)
    ]
    assert errors[1] < errors[0] / 3 < 0.01  # like 1/k


@pytest.mark.parametrize("every", [2, 5, 10])
def test_local_steps_end_at_their_closed_form(every):
    powers = blocks(local_powers(0.02, every))
    right = wide(W) @ powers @ local_optima().reshape(-1)
    point = solved(np.eye(len(right)) - wide(W) @ (np.eye(len(right)) - powers), right)
    assert near(run(methods.local_dgd(0.02, every=every), 5000 // every * every).x, point, 1e-6)
    assert abs(error(point) - {2: 0.0559, 5: 0.114, 10: 0.174}[every]) < 6e-4


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_momentum_multiplies_the_bias_of_dm_sgd_and_not_that_of_the_others(momentum):
    lr = 0.05 * (1 - momentum)
    for make, point in (
        (methods.dm_sgd, atc_point(0.05)),
        (methods.decent_lam, atc_point(lr)),
        (methods.qg_dsgdm, atc_point(lr)),
    ):
        assert near(run(make(lr, momentum=momentum), 4000).x, point, 1e-9)
    assert near(
        run(methods.momentum_tracking(lr, momentum=momentum), 4000).x, X.expand(N, -1), 1e-9
    )
    assert error(atc_point(0.05)) > 1.5 * error(atc_point(lr))


def test_without_momentum_all_are_atc():
    atc = run(methods.atc(0.05), 50).x
    for make in (methods.dm_sgd, methods.decent_lam, methods.qg_dsgdm):
        assert near(run(make(0.05, momentum=0.0), 50).x, atc, 1e-12)


@pytest.mark.parametrize("every", [1, 5, 20])
def test_local_sgd_slow_mo_and_diloco_end_at_the_closed_form(every):
    powers = local_powers(0.05, every)
    right = np.einsum("nij,nj->i", powers, local_optima())
    point = torch.from_numpy(np.linalg.solve(powers.sum(0), right)).expand(N, -1)
    assert abs(error(point) - {1: 0.0, 5: 0.0149, 20: 0.0570}[every]) < 6e-5
    steps = 3000 // every * every
    assert near(run(methods.local_sgd(0.05, every=every), steps).x, point, 1e-9)
    assert near(run(methods.slow_mo(0.05, every=every, momentum=0.5), steps).x, point, 1e-9)
    assert near(run(methods.diloco(0.05, every=every, momentum=0.5), steps).x, point, 1e-9)


def test_without_outer_momentum_slow_mo_and_diloco_are_local_sgd():
    local = run(methods.local_sgd(0.05, every=5), 23).x
    assert near(run(methods.slow_mo(0.05, every=5, momentum=0.0), 23).x, local, 1e-13)
    assert near(run(methods.diloco(0.05, every=5, outer=1.0, momentum=0.0), 23).x, local, 1e-13)


def test_averages_over_all_now_and_then_help_diffusion_and_gossip_helps_local_sgd():
    for every, expected in ((5, 0.0045), (20, 0.0096)):
        pga = error(run(methods.gossip_pga(0.05, every=every), 2000).x)
        assert abs(pga - expected) < 6e-5
        assert pga < error(atc_point(0.05))
        assert pga < error(run(methods.local_sgd(0.05, every=every), 2000).x)


def test_noloco_is_exact_for_equal_agents_and_drifts_without_its_pull():
    same = Quadratics(*(torch.full((N, 3), value).double() for value in (0.7, 2.0)), P.agents)
    end = run(methods.noloco(0.05, every=5), 2000, mixer(pairs()), same)
    assert near(end.x, same.b, 1e-12)
    biases = []
    for lr in (0.05, 0.0125):
        mix, errors = mixer(pairs()), []
        state = run(methods.noloco(lr, every=5), int(100 / lr), mix)
        for _ in range(500):
            state = methods.noloco(lr, every=5).step(state, P, mix)
            errors.append(error(state.x))
        biases.append(np.mean(errors))
    assert 0.02 < biases[1] < biases[0] / 2 < 0.15  # about proportional to the step
    apart = run(methods.noloco(0.05, every=5, pull=0.0), 4000, mixer(pairs())).x
    assert error(apart) > 0.5


def adamw(x, gradients, w, steps, **options):
    """torch's AdamW, each step from the mixed point, with the gradient of the point before."""
    parameter = torch.nn.Parameter(x.clone())
    optimizer = torch.optim.AdamW([parameter], **options)
    for _ in range(steps):
        with torch.no_grad():
            g = gradients(parameter.detach().clone())
            parameter.copy_(w @ parameter)
        parameter.grad = g
        optimizer.step()
    return parameter.detach()


def test_adam_is_torchs_from_the_mixed_point():
    options = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
    expected = adamw(P.zeros(), P, torch.from_numpy(W), 200, **options)
    awc = methods.adam(0.01, betas=(0.9, 0.99), decay=0.1, order="awc")
    accumulating = methods.accum_adam(0.01, every=1, betas=(0.9, 0.99), decay=0.1)
    assert near(run(awc, 200).x, expected, 1e-12)
    assert near(run(accumulating, 200).x, expected, 1e-12)


def test_local_second_moments_lead_to_the_median_and_common_ones_near_the_mean():
    b = torch.tensor([[0.0]] * 7 + [[8.0]], dtype=torch.float64)  # median 0, mean 1
    problem = Quadratics(torch.ones_like(b), b, P.agents)
    for lr in (1e-2, 1e-3):
        steps = int(20 / lr)
        local = run(methods.adam(lr, betas=(0.9, 0.99)), steps, None, problem)
        common = run(methods.adam(lr, betas=(0.9, 0.99), mix_second=True), steps, None, problem)
        assert abs(float(local.x.mean())) < 0.01
        assert 0.9 < float(common.x.mean()) < 1.0


class Ones:
    """The gradient of everything is 1."""

    agents = torch.arange(2000)

    def __call__(self, x):
        return torch.ones_like(x)


@pytest.mark.parametrize("every", [1, 4, 16])
def test_accumulated_moments_see_the_noise_of_the_big_batch(every):
    # Gradients are 1 plus noise of variance 1; their means over windows have variance 1/every.
    method = methods.accum_adam(0.0, every=every, betas=(0.9, 0.5))
    start, alone = torch.zeros(2000, 50, dtype=torch.float64), Alone(Ones.agents, 2000, 1.0)
    state = iterate(method, start, Noisy(Ones(), 1.0), alone, 30 * every)
    assert abs(float(state.v.mean()) - 1.0 - 1 / every) < 0.02  # 100 000 entries


def test_hessians_are_those_of_the_problem():
    x = torch.randn(N, H.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = np.einsum("nij,nj->ni", H, x.numpy() - local_optima())
    assert near(P(x), torch.from_numpy(expected), 1e-11)
