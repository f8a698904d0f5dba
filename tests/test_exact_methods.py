"""Exact methods reach the optimum of very different agents; next to each, what does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import (
    RING,
    C,
    H,
    N,
    P,
    W,
    X,
    error,
    mixer,
    near,
    one_thread,  # noqa: F401 - a fixture
    run,
)

import ifog
from ifog import algorithms as methods
from ifog.algorithms import Both, iterate
from ifog.problems import Quadratics, quadratics
from ifog.sampling import Sampled

HEAVY = ifog.from_matrix(0.1 * np.eye(N) + 0.45 * (W > 0) * (1 - np.eye(N)))  # down to -.8
CHAIN = ifog.grid2d(N, shape=(1, N))
EXACT = {
    "extra": (methods.extra(0.1), 1500, RING),
    "extra, eigenvalue -.8": (methods.extra(0.1), 1500, HEAVY),
    "exact diffusion": (methods.exact_diffusion(0.1), 1500, RING),
    "exact diffusion, eigenvalue -.8": (methods.exact_diffusion(0.1), 1500, HEAVY),
    "d2": (methods.d2(0.1), 1500, RING),
    "nids": (methods.nids(0.1), 1500, RING),
    "nids, step 1.9/L": (methods.nids(1.9 / P.smoothness()), 1500, RING),
    "diging": (methods.diging(0.1), 2000, RING),
    "aug_dgm": (methods.aug_dgm(0.1), 2000, RING),
    "gradient tracking": (methods.gradient_tracking(0.1), 2000, RING),
    "gradient tracking, changing": (methods.gradient_tracking(0.05), 2500, ifog.one_peer(N)),
    "diging, changing": (methods.diging(0.02), 5000, ifog.one_peer(N)),
    "k_gt": (methods.k_gt(0.02, every=5), 8000, RING),
    "k_gt, outer .5": (methods.k_gt(0.02, every=10, outer=0.5), 12_000, RING),
    "momentum tracking": (methods.momentum_tracking(0.005), 3000, RING),
    "admm": (methods.admm(0.5), 1000, RING),
    "dlm": (methods.dlm(0.5, proximity=P.smoothness()), 2000, RING),
    "led": (methods.led(0.05, every=5, dual=0.2), 6000, RING),
    "prox_skip, always": (methods.prox_skip(0.1, probability=1.0), 3000, RING),
    "prox_skip, seldom": (methods.prox_skip(0.1, probability=0.1), 5000, RING),
    "relay_sgd, chain": (methods.relay_sgd(0.05), 3000, CHAIN),
}


@pytest.mark.parametrize("name", EXACT)
def test_it_reaches_the_optimum_in_spite_of_heterogeneity(name):
    method, steps, graph = EXACT[name]
    assert error(run(method, steps, mixer(graph)).x) < 1e-10


@pytest.mark.parametrize(
    "method",
    [
        methods.extra(0.1),
        methods.exact_diffusion(0.1),
        methods.d2(0.1),
        methods.nids(0.1),
        methods.diging(0.1),
        methods.aug_dgm(0.1),
        methods.gradient_tracking(0.1),
    ],
)
def test_unlike_agents_agree_on_the_mean_of_their_optima(method):
    x = run(method, 1000, None, quadratics(N)).x
    assert float((x - 3.5).abs().max()) < 1e-10


def test_d2_diverges_where_an_eigenvalue_is_below_minus_a_third():
    assert error(run(methods.d2(0.1), 300, mixer(HEAVY)).x) > 1e60


def test_led_without_local_steps_is_exact_diffusion():
    lazy = ifog.from_matrix((np.eye(N) + W) / 2)
    one = run(methods.led(0.1, every=1, dual=1.0), 100, mixer(lazy)).x
    assert near(one, run(methods.exact_diffusion(0.1), 100).x, 1e-11)


def test_trackers_sum_to_the_gradients_of_their_step():
    for make in (methods.diging, methods.gradient_tracking, methods.aug_dgm):
        method, mix, state = make(0.1), mixer(ifog.one_peer(N)), None
        state = method.init(P.zeros())
        for _ in range(20):
            gradients = P(state.x).sum(0)
            state = method.step(state, P, mix)
            assert near(state.y.sum(0), gradients, 1e-11)


def test_one_message_or_two_lead_to_the_same_point_and_cost_one_round_or_two():
    mixers = [mixer(), mixer()]
    run(methods.gradient_tracking(0.1), 10, mixers[0])
    run(methods.aug_dgm(0.1), 10, mixers[1])
    assert [mix.step for mix in mixers] == [10, 20]


def test_saga_takes_the_noise_of_sampling_away_and_plain_tracking_does_not():
    assert error(run(methods.gt_saga(0.01), 5000).x) < 1e-4
    plain = iterate(methods.gradient_tracking(0.005), P.zeros(), Sampled(P), mixer(), 5000)
    assert error(plain.x) > 0.02


def test_local_steps_send_nothing():
    for method, rounds in (
        (methods.k_gt(0.02, every=5), 20),
        (methods.led(0.05, every=5, dual=0.2), 20),
        (methods.local_dgd(0.05, every=5), 20),
        (methods.local_sgd(0.05, every=5), 0),
    ):
        mix = mixer()
        run(method, 100, mix)
        assert mix.step == rounds


# A directed graph that is not balanced: a cycle and five chords.
LINKS = np.eye(N)
for u, v in [*((u, (u + 1) % N) for u in range(N)), (0, 3), (2, 6), (5, 1), (0, 5), (0, 2)]:
    LINKS[v, u] = 1
COLUMNS = LINKS / LINKS.sum(axis=0, keepdims=True)
ROWS = LINKS / LINKS.sum(axis=1, keepdims=True)
PUSH, PULL = ifog.from_matrix(COLUMNS), ifog.from_matrix(ROWS)


def perron(w):
    """The positive vector with w v = v and sum 1."""
    values, vectors = np.linalg.eig(w)
    v = np.real(vectors[:, np.argmax(np.real(values))])
    return v / v.sum()


def test_push_sum_finds_the_mean_and_without_weights_it_does_not():
    x = torch.arange(N, dtype=torch.float64)[:, None]
    state = iterate(methods.push_sum(), x, None, mixer(PUSH), 200)
    assert float((state.x - 3.5).abs().max()) < 1e-12
    assert abs(float(state.u.sum()) - 28) < 1e-12
    assert abs(float(state.w.sum()) - 8) < 1e-12
    assert near(state.u[:, 0], torch.from_numpy(28 * perron(COLUMNS)), 1e-12)
    assert float((state.u - 3.5).abs().max()) > 0.8
    mixed = x
    pull = mixer(PULL)
    for _ in range(200):
        mixed = pull(mixed)
    weighted = float(perron(ROWS.T) @ np.arange(N))
    assert abs(weighted - 3.5) > 0.2
    assert near(mixed, torch.full((N, 1), weighted, dtype=torch.float64), 1e-12)


def test_the_bias_of_push_is_around_the_optimum_of_the_mean_and_that_of_pull_is_not():
    push = {lr: run(methods.sgp(lr), int(300 / lr), mixer(PUSH)).x for lr in (0.05, 0.0125)}
    assert abs(error(push[0.05]) - 0.0435) < 5e-4
    assert abs(error(push[0.0125]) - 0.0111) < 2e-4
    pi = perron(ROWS.T)
    elsewhere = torch.from_numpy(
        np.linalg.solve(np.einsum("n,nij->ij", pi, H), np.einsum("n,ni->i", pi, C))
    )
    pull = {lr: run(methods.atc(lr), int(300 / lr), mixer(PULL)).x for lr in (0.05, 0.0125)}
    assert all(abs(error(x) - 0.157) < 2e-3 for x in pull.values())
    assert error(pull[0.0125], elsewhere) < 0.3 * error(pull[0.05], elsewhere) < 0.02


def test_directed_tracking_is_exact_and_with_rows_alone_it_agrees_on_the_wrong_point():
    assert error(run(methods.push_diging(0.05), 3000, mixer(PUSH)).x) < 1e-10
    both = Both(mixer(PULL), mixer(PUSH))
    assert error(run(methods.push_pull(0.05), 3000, both).x) < 1e-10
    wrong = run(methods.diging(0.05), 4000, mixer(PULL)).x
    assert float(wrong.std(0).max()) < 1e-10
    assert abs(error(wrong) - 0.157) < 1e-3


def test_relayed_sums_are_exact_after_as_many_rounds_as_the_diameter():
    x = torch.arange(N, dtype=torch.float64)[:, None]
    method, mix = methods.relay_sum(), mixer(CHAIN)
    state = method.init(x)
    for round_ in range(1, N):
        state = method.step(state, None, mix)
        known = [
            [j for j in range(N) if abs(i - j) <= round_] for i in range(N)
        ]  # who can have been heard
        means = [[float(np.mean(those))] for those in known]
        assert near(state.x, torch.tensor(means, dtype=torch.float64), 1e-14)
        counts = 1 + state.sizes.sum((1, 2))
        assert counts.tolist() == [len(those) for those in known]
    assert float((state.x - 3.5).abs().max()) < 1e-14


def test_relayed_descent_has_no_bias_on_a_binary_tree():
    links = np.eye(N)
    for v in range(1, N):
        links[v, (v - 1) // 2] = links[(v - 1) // 2, v] = 1
    x = run(methods.relay_sgd(0.1), 1500, mixer(ifog.from_matrix(links))).x
    assert error(x) < 1e-10


def test_unequal_starts_do_not_matter():
    start = torch.randn(N, 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for method in (
        methods.extra(0.1),
        methods.nids(0.1),
        methods.admm(0.5),
        methods.dlm(0.5, proximity=P.smoothness()),
    ):
        assert near(iterate(method, start, P, mixer(), 2000).x, X.expand(N, -1), 1e-8)


def test_every_agent_may_have_its_own_step_in_aug_dgm():
    own = torch.linspace(0.02, 0.15, N, dtype=torch.float64)[:, None]
    assert error(run(methods.aug_dgm(own), 3000).x) < 1e-10


def test_agents_with_flat_functions_follow_the_others():
    h = torch.zeros(N, 1, dtype=torch.float64)
    h[3] = 1.0
    problem = Quadratics(h, torch.full_like(h, 5.0), torch.arange(N))
    x = run(methods.gradient_tracking(0.3), 4000, None, problem).x
    assert float((x - 5.0).abs().max()) < 1e-10
