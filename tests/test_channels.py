"""What happens to messages and agents in the simulator leaves alone what must not change."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import ifog
from ifog import schedules, topology, weights
from ifog.channels import Channel, Churn, Presence, Rounds, Weather, frozen
from ifog.errors import ArgumentError


def rounds(schedule, seeds=(0,), weigh=None, presence=None, **weather):
    n = schedules.links_of(schedule, 0).n
    conditions = Weather(**weather)
    there = presence or Presence(n, seeds, conditions.churn)
    return Rounds(schedule, seeds, conditions, there, weigh)


def channel(schedule, seeds=(0,), **weather):
    return Channel(rounds(schedule, seeds, **weather))


def test_runs_side_by_side_are_blocks_of_one_matrix():
    schedule = schedules.one_peer(8)
    made = rounds(schedule, seeds=(0, 0, 0))
    assert made.period == 3
    for step in range(4):
        W = weights.matrix(schedule(step))
        assert np.array_equal(weights.matrix(made(step)), np.kron(np.eye(3), W))


def test_seeds_read_a_random_schedule_at_different_places():
    schedule = schedules.random_pair(8)
    made = rounds(schedule, seeds=(0, 5))
    assert made.period is None
    W = weights.matrix(made(3))
    assert np.array_equal(W[:8, :8], weights.matrix(schedule(3)))
    assert not np.array_equal(W[8:, 8:], W[:8, :8])
    assert np.array_equal(W[8:, 8:], weights.matrix(rounds(schedule, seeds=(5,))(3)))


@pytest.mark.parametrize("loss", [0.2, 1.0])
def test_what_is_lost_the_receiver_makes_up_for(loss):
    made, W = (
        rounds(schedules.constant(topology.ring(12)), loss=loss),
        weights.matrix(topology.ring(12)),
    )
    lost = 0
    for step in range(40):
        now = weights.matrix(made(step))
        assert np.allclose(now.sum(axis=1), 1, atol=1e-15)
        off = ~np.eye(12, dtype=bool)
        assert set(np.unique(now[off] - W[off]).round(12)) <= {0.0, round(-1 / 3, 12)}
        lost += int((now[off] < W[off]).sum())
    assert lost / (40 * 24) == pytest.approx(loss, abs=0.06)


def test_what_is_lost_the_sender_keeps_where_sums_matter():
    graph = weights.column_stochastic(topology.exponential(7))
    graph.remove_edge(0, 1)
    graph = weights.column_stochastic(graph)
    made = rounds(schedules.constant(graph), loss=0.4)
    for step in range(10):
        assert np.allclose(weights.matrix(made(step)).sum(axis=0), 1, atol=1e-15)


def test_both_kinds_of_weights_lose_the_same_messages():
    schedule = schedules.constant(topology.exponential(8))
    pull = rounds(schedule, loss=0.3, weigh=weights.row_stochastic)(4)
    push = rounds(schedule, loss=0.3, weigh=weights.column_stochastic)(4)
    assert set(zip(*pull.without_loops(), strict=True)) == set(
        zip(*push.without_loops(), strict=True)
    )


def test_who_is_away_is_left_out_and_the_rest_keeps_its_mean():
    presence = Presence(10, (0,), Churn(0.3, 0.4))
    made = rounds(
        schedules.constant(topology.random_regular(10)),
        presence=presence,
        churn=Churn(0.3, 0.4),
    )
    seen = []
    for step in range(30):
        presence.step(step)
        here = presence.here
        seen.append(here.copy())
        W = weights.matrix(made(step))
        assert np.allclose(W, W.T)
        assert weights.is_doubly_stochastic(W)
        assert np.array_equal(W[~here], np.eye(10)[~here])
    assert not np.all(seen)
    assert np.any(seen[-1] & ~np.all(seen, axis=0))  # somebody came back


def test_coming_and_going_has_the_probabilities_asked_for():
    presence = Presence(2000, (3,), Churn(0.1, 0.25))
    left, returned = [], []
    for step in range(40):
        before = presence.here.copy()
        presence.step(step)
        left.append((before & ~presence.here).sum() / before.sum())
        if step > 5:
            returned.append((~before & presence.here).sum() / (~before).sum())
    assert np.mean(left) == pytest.approx(0.1, abs=0.01)
    assert np.mean(returned) == pytest.approx(0.25, abs=0.02)


class Inner(NamedTuple):
    a: Tensor
    k: int


class Outer(NamedTuple):
    x: Tensor
    inner: Inner
    past: tuple[Tensor, ...]
    table: Tensor | None


def test_agents_that_are_away_keep_their_state():
    def state(value, k, table):
        rows = torch.full((3, 2), float(value))
        return Outer(rows, Inner(rows[:, :1], k), (rows, rows), table)

    here = torch.tensor([True, False, True])
    kept = frozen(state(7, 5, torch.ones(3, 1)), state(1, 4, None), here)
    expected = torch.tensor([[7.0, 7], [1, 1], [7, 7]])
    assert torch.equal(kept.x, expected)
    assert torch.equal(kept.inner.a, expected[:, :1])
    assert kept.inner.k == 5
    assert all(torch.equal(past, expected) for past in kept.past)
    assert torch.equal(kept.table, torch.ones(3, 1))  # there was none before


def test_delays_tend_to_the_weighted_mean_of_their_theory():
    n, mix = 8, channel(schedules.constant(topology.ring(8)), delay=4)
    x = torch.arange(8.0, dtype=torch.float64)[:, None]
    for _ in range(3000):
        mix.begin()
        x = mix(x)
    lags = mix._delayed[0].delays
    late = np.zeros((n, n))
    for (i, j), lag in lags.items():
        late[i, j] = lag
    W = weights.matrix(topology.ring(8))
    assert len(set(lags.values())) > 2
    limit = (np.arange(8) * (1 + (W * late).sum(0))).sum() / (n + (W * late).sum())
    assert x.flatten().tolist() == pytest.approx([limit] * 8, abs=1e-9)


def test_messages_of_one_step_have_pasts_of_their_own():
    mix = channel(schedules.constant(topology.ring(4)), delay=2)
    for step in range(6):
        mix.begin()
        ones, twos = mix(torch.ones(4, 1)), mix(torch.full((4, 1), 2.0 + step))
        assert torch.equal(ones, torch.ones(4, 1))
        assert bool((twos >= 2).all())


def test_delay_is_also_modelled_on_changing_graphs():
    schedule = schedules.one_peer(8)
    mix, x = channel(schedule, delay=1), torch.arange(8.0, dtype=torch.float64)[:, None]
    past, current = [x.numpy()[:, 0]], x
    lags = None
    for step in range(5):
        mix.begin()
        expected = np.zeros(8)
        links = schedule.links(step)
        current = mix(current)
        late = mix._delayed[0]
        lags = late._lags(links)
        for u, v, w, lag in zip(links.source, links.target, links.weight, lags, strict=True):
            expected[v] += w * past[max(len(past) - 1 - lag, 0)][u]
        past.append(expected)
        assert current.flatten().tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    assert set(lags) == {0, 1}


def test_means_are_those_of_each_run():
    mix = channel(schedules.constant(topology.ring(3)), seeds=(0, 1))
    x = torch.tensor([[0.0], [1], [2], [10], [20], [30]])
    assert mix.mean(x).flatten().tolist() == [1, 1, 1, 20, 20, 20]
    assert mix.total == 3
    assert mix.agents.tolist() == [0, 1, 2, 3, 4, 5]
    assert channel(schedules.constant(topology.ring(3)), seeds=(7,)).agents.tolist() == [21, 22, 23]


def test_slots_name_agents_as_they_draw():
    slots = channel(schedules.constant(topology.path(3)), seeds=(2,)).slots()
    assert slots.ids.tolist() == [[7, -1], [6, 8], [7, -1]]
    mix = channel(schedules.constant(topology.path(3)), delay=1)
    with pytest.raises(ArgumentError, match="knows no delay"):
        mix.gather(torch.zeros(3, 1))


def test_weather_that_cannot_be_is_refused():
    for wrong in ({"loss": 1.5}, {"churn": Churn(-0.1)}, {"churn": Churn(0.1, 2.0)}):
        with pytest.raises(ArgumentError, match=r"must lie in 0\.\.1"):
            Weather(**wrong).check()


def test_a_channel_with_fair_weather_is_the_plain_mixer():
    x = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mix, plain = channel(schedules.one_peer(8)), ifog.MatrixMixer(ifog.one_peer(8))
    for _ in range(4):
        mix.begin()
        assert torch.equal(mix(x), plain(x))
