"""Chance per agent: the documented generator, the same for whoever hosts the agent."""

from __future__ import annotations

import torch

from ifog.algorithms.draws import coin, integers, keys, normal, uniform

WORD = (1 << 64) - 1


def split_mix(state, count):
    """The generator as published (Steele, Lea, Flood 2014), in whole numbers."""
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & WORD
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
        yield z ^ (z >> 31)


def test_the_numbers_of_a_key_are_those_of_split_mix():
    key = keys(3, torch.arange(5), 2)
    for mine, numbers in zip(key.tolist(), uniform(key, 2, 3).flatten(1).tolist(), strict=True):
        assert numbers == [(z >> 11) * 2.0**-53 for z in split_mix(mine & WORD, 6)]


def test_keys_differ_by_seed_agent_and_step_and_not_by_who_else_is_here():
    agents = torch.arange(100)
    every = torch.cat([keys(seed, agents, step) for seed in range(10) for step in range(10)])
    assert len(every.unique()) == 10_000
    assert torch.equal(keys(4, torch.tensor([7, 90]), 6), keys(4, agents, 6)[[7, 90]])


def test_draws_look_uniform_and_normal():
    key = keys(0, torch.arange(1000), 0)
    for dtype in (torch.float32, torch.float64):
        u, z = uniform(key, 1000, dtype=dtype), normal(key, 1000, dtype=dtype)
        assert u.dtype is z.dtype is dtype
        assert 0 <= float(u.min()) < float(u.max()) < 1
        # 10^6 numbers: five standard errors of each moment.
        assert abs(float(u.double().mean()) - 1 / 2) < 5 * (1 / 12) ** 0.5 / 1000
        assert abs(float(z.double().mean())) < 5 / 1000
        assert abs(float(z.double().square().mean()) - 1) < 5 * 2**0.5 / 1000
        # Agents are independent of one another, and so are places.
        for pairs in (z[0::2] * z[1::2], z[:, 0::2] * z[:, 1::2]):
            assert abs(float(pairs.double().mean())) < 5 / 707


def test_integers_and_coins_stay_in_their_range():
    found = integers(keys(1, torch.arange(50), 0), 7, 100)
    assert found.shape == (50, 100)
    assert found.unique().tolist() == list(range(7))
    coins = [coin(5, step) for step in range(2000)]
    assert abs(sum(c < 0.3 for c in coins) / 2000 - 0.3) < 5 * (0.21 / 2000) ** 0.5
    assert coins[:10] == [coin(5, step) for step in range(10)]
