"""Liars, events and old news: what robust rules stand, and where asynchronous models end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import (
    RING,
    N,
    P,
    awc_point,
    error,
    mixer,
    near,
    one_thread,  # noqa: F401 - a fixture
    run,
)

import ifog
from ifog import algorithms as methods
from ifog.algorithms import attacked, iterate
from ifog.delays import DelayedMixer
from ifog.errors import ArgumentError
from ifog.links import Links
from ifog.problems import least_squares

SIMILAR = least_squares(N, samples=80, spread=0.2)
HONEST = SIMILAR.take(range(7))
ATTACKS = {
    "constant": lambda x, _: torch.full_like(x, 1e3),
    "alternating": lambda x, k: torch.full_like(x, 1e3 * (-1) ** k),
}


def end_of_the_honest(method, attack):
    mix = attacked(mixer(ifog.complete(N)), [7], ATTACKS[attack])
    x = iterate(method, SIMILAR.zeros(), SIMILAR, mix, 1500).x[:7]
    return error(x, HONEST.optimum())


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_liar_spoils_plain_averages_and_not_robust_ones(attack):
    assert end_of_the_honest(methods.atc(0.05), attack) > 10
    assert end_of_the_honest(methods.clipped_gossip(0.05, radius=0.1), attack) < 0.15
    assert end_of_the_honest(methods.trimmed_mean(0.05, trim=1), attack) < 0.15


def test_what_a_constant_liar_moves_grows_with_the_radius():
    small, large = (
        end_of_the_honest(methods.clipped_gossip(0.05, radius=radius), "constant")
        for radius in (0.1, 0.5)
    )
    assert 3 * small < large < 1


def test_with_a_large_radius_clipped_gossip_is_atc():
    clipped = run(methods.clipped_gossip(0.05, radius=1e9), 100).x
    assert near(clipped, run(methods.atc(0.05), 100).x, 1e-12)


def test_trimmed_means_are_those_of_numpy():
    x = torch.randn(N, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    graph = ifog.exponential(N)  # 3 neighbours, of whom one is left
    got = iterate(methods.trimmed_mean(0.0, trim=1), x, torch.zeros_like, mixer(graph), 1).x
    for v in graph:
        heard = np.sort(x[[u for u in graph.predecessors(v) if u != v]].numpy(), axis=0)[1:-1]
        expected = np.concatenate([x[v : v + 1].numpy(), heard]).mean(0)
        assert np.allclose(got[v], expected, rtol=0, atol=1e-14)
    alone = iterate(methods.trimmed_mean(0.0, trim=1), x, torch.zeros_like, mixer(RING), 1).x
    assert torch.equal(alone, x)


class Events:
    """One pair of neighbours on the ring meets in each of 2000 rounds that are repeated."""

    period = 2000

    def __call__(self, step):
        random = np.random.default_rng(step)
        i = int(random.integers(N))
        j = (i + int(random.choice([1, -1]))) % N
        everyone = np.arange(N)
        weight = np.where(np.isin(everyone, [i, j]), 0.5, 1.0)
        return Links(
            N,
            np.append(everyone, [i, j]),
            np.append(everyone, [j, i]),
            np.append(weight, [0.5, 0.5]),
        )


def test_in_an_event_two_average_and_one_of_them_descends_along_its_old_gradient():
    method, mix = methods.ad_psgd(0.1, delay=2, seed=1), mixer(Events())
    x = torch.randn(N, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state, history, woke = method.init(x), [x, x, x], []
    for k in range(300):
        links = Events()(k)
        i, j = links.source[-2:]
        before, old = history[-1], history[-3]
        assert torch.equal(state.x, old)
        state = method.step(state, P, mix)
        history.append(state.live)
        mean, g = (before[i] + before[j]) / 2, P(old)
        moved = [near(state.live[a], mean - 0.1 * g[a], 1e-13) for a in (i, j)]
        stayed = [near(state.live[a], mean, 1e-13) for a in (i, j)]
        assert sorted(moved) == sorted(stayed) == [False, True]
        woke.append(moved[0])
        others = [a for a in range(N) if a not in (i, j)]
        assert torch.equal(state.live[others], before[others])
    assert 100 < sum(woke) < 200  # either as often


def test_asynchronous_events_end_near_the_optimum_by_the_step():
    ends = []
    for lr in (0.1, 0.025):
        method, mix, found = methods.ad_psgd(lr, delay=8), mixer(Events()), []
        state = run(method, int(200 / lr), mix)
        for _ in range(2000):
            state = method.step(state, P, mix)
            found.append(error(state.live))
        ends.append(np.mean(found))
    assert 0.02 < ends[1] < ends[0] / 2 < 0.15  # about proportional to the step


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_gossip_with_old_news_tends_to_the_closed_form(seed):
    mix = DelayedMixer(RING, 3, seed=seed)
    x = torch.arange(N, dtype=torch.float64)[:, None]
    first = x
    for _ in range(1500):
        x = mix(x)
    lag = np.zeros((N, N))
    for (i, j), delay in mix.delays.items():
        lag[i, j] = delay / 3  # the weight of every link
    limit = float(first[:, 0].numpy() @ (1 + lag.sum(0)) / (N + lag.sum()))
    assert float((x - limit).abs().max()) < 1e-11
    assert (abs(limit - 3.5) < 1e-12) is (seed is None)


def test_equal_delays_do_not_change_where_descent_ends():
    x = run(methods.dgd(0.05), 6000, DelayedMixer(RING, 3)).x
    assert near(x, awc_point(0.05), 1e-10)


def test_without_delay_it_is_the_mixer_itself_and_negative_delays_are_refused():
    x = torch.randn(N, 2, dtype=torch.float64)
    one, other = DelayedMixer(RING, 0)(x, 2 * x), mixer()(x, 2 * x)
    assert all(near(a, b, 1e-15) for a, b in zip(one, other, strict=True))
    with pytest.raises(ArgumentError, match="delay is -1"):
        DelayedMixer(RING, -1)
