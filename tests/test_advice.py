"""What a step costs by the alpha-beta model, and what is advised from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ifog
from ifog import costs
from ifog.advice import Measured, advised
from ifog.errors import ArgumentError
from ifog.testing import run_ranks

GIGABIT = costs.Link(1e-4, 125e6)


def test_what_messages_cost_follows_the_model():
    link = costs.Link(0.5, 10.0)
    assert link.one_peer(20.0) == 2.5
    assert link.neighbors(20.0, 3) == 7.5
    # Six messages of a quarter each.
    assert link.allreduce(20.0, 4) == pytest.approx(6 * (0.5 + 0.5))


def test_a_link_is_found_again_from_what_it_costs():
    sizes = (0.0, 1e3, 1e6, 1e8)
    points = [(1, nbytes, GIGABIT.one_peer(nbytes)) for nbytes in sizes]
    points.append((6, 6 * 25.0, GIGABIT.allreduce(100.0, 4)))
    found = costs.fitted(points)
    assert found.latency == pytest.approx(GIGABIT.latency)
    assert found.rate == pytest.approx(GIGABIT.rate)


def test_the_fit_has_the_least_relative_errors():
    rng = np.random.default_rng(0)
    points = [
        (1, nbytes, GIGABIT.one_peer(nbytes) * rng.uniform(0.8, 1.2))
        for nbytes in (0.0, 1e4, 1e5, 1e6, 1e7)
    ]

    def error(link):
        return sum((link.one_peer(nbytes) / t - 1) ** 2 for _, nbytes, t in points)

    best = costs.fitted(points)
    for latency in (0.99, 1.01):
        for rate in (0.99, 1.01):
            other = costs.Link(best.latency * latency, best.rate * rate)
            assert error(best) < error(other)


def test_bytes_explain_all_where_noise_would_make_the_latency_negative():
    found = costs.fitted([(1, 1.0, 1.0), (1, 2.0, 3.0)])
    assert found.latency == 0.0
    # The least squares of M / (B t): 1 and 2/3 for B = 1.
    assert 1 / found.rate == pytest.approx((1 + 2 / 3) / (1 + 4 / 9))


def test_one_size_determines_no_link():
    with pytest.raises(ArgumentError, match="2 measurements of one kind"):
        costs.fitted([(1, 4.0, 1.0), (2, 8.0, 2.0)])


def measured(nbytes=100e6, computing=0.8, *, apart=True, between=None, link=GIGABIT):
    everybody = costs.Link(0.0, link.rate / 1.5)  # a ring of four
    return Measured(4, 4 if apart else 1, apart, int(nbytes), link, everybody, between, computing)


@pytest.mark.parametrize(
    ("computing", "regime", "way"),
    [
        (0.1, "sending", 'order="awc", overlap=True'),
        (0.79, "sending", 'order="awc", overlap=True'),
        (1.6, "balanced", 'order="awc", overlap=True'),
        (8.0, "computing", 'order="atc"'),
    ],
)
def test_the_regime_decides_what_to_choose(computing, regime, way):
    advice = advised(measured(computing=computing))
    assert advice.exchange == pytest.approx(0.8001)
    assert advice.regime == regime
    assert advice.code.endswith(way)


def test_steps_are_predicted_by_what_hides_behind_what():
    predicted = advised(measured(computing=0.9)).predicted
    assert predicted == {
        "gradient order, all-reduce": pytest.approx(0.3 + 1.2),
        "atc, one-peer": pytest.approx(0.3 + 0.8001),
        "awc, one-peer, overlap": pytest.approx(0.9),
    }


def test_nothing_hides_on_one_machine():
    advice = advised(measured(computing=0.9, apart=False))
    assert advice.predicted["awc, one-peer, overlap"] == pytest.approx(0.9 + 0.8001)
    assert advice.code.endswith('order="atc"')
    assert "nothing hides" in str(advice)


def test_machines_are_averaged_where_that_is_faster():
    fast, slow = costs.Link(0.0, 250e6), costs.Link(0.0, 60e6)
    assert advised(measured(between=fast)).code.startswith("hierarchical_mixer")
    assert advised(measured(between=fast)).exchange == pytest.approx(0.4)
    assert advised(measured(between=slow)).code.startswith("neighbor_mixer")


def test_where_sending_is_long_one_mixes_seldom():
    assert "every=4" in str(advised(measured(computing=0.2)))
    assert "every" not in str(advised(measured(computing=0.8)))


def test_all_ranks_are_advised_alike_and_gradients_stay():
    def work():
        model = torch.nn.Linear(3, 2)
        model.weight.grad = torch.full((2, 3), 7.0)
        calls = []

        def gradient():
            assert model.weight.grad is None
            calls.append(model(torch.ones(2, 3)).sum().backward())

        advice = ifog.advise(gradient, model)
        assert len(calls) == 5
        assert model.weight.grad.tolist() == [[7.0] * 3] * 2
        assert model.bias.grad is None
        return advice

    first, *others = run_ranks(3, work)
    assert others == [first] * 2
    assert first.measured.nbytes == 4 * (6 + 2)
    assert (first.measured.ranks, first.measured.apart) == (3, False)
    assert "3 ranks on 1 machine: latency" in str(first)


def test_a_model_that_is_not_trained_cannot_be_advised_on():
    model = torch.nn.Linear(1, 1).requires_grad_(False)
    with pytest.raises(ArgumentError, match="no parameter of the model requires"):
        run_ranks(1, lambda: ifog.advise(lambda: None, model))
