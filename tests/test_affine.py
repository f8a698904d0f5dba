"""What linear algebra predicts is what closed forms and long runs give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ifog import problems, schedules, simulate, topology, weights
from ifog.algorithms import (
    atc,
    choco_sgd,
    dgd,
    diging,
    dm_sgd,
    exact_diffusion,
    extra,
    gradient_tracking,
    k_gt,
    local_dgd,
    push_sum,
)
from ifog.compression import top_k
from ifog.sampling import Noisy

P8 = problems.reference_problem()
RING = topology.ring(8)


def small(n=6):
    return problems.least_squares(n, dimension=3, samples=10)


@pytest.mark.parametrize("lr", [0.1, 0.05])
def test_the_bias_of_diffusion_is_that_of_its_closed_form(lr):
    problem, W = small(), weights.matrix(topology.ring(6))
    h, c = (part.numpy() for part in problem.normal_form)
    blocks = np.zeros((18, 18))
    for i in range(6):
        blocks[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = h[i]
    mixing = np.kron(W, np.eye(3))
    awc = np.linalg.solve(np.eye(18) - mixing + lr * blocks, lr * c.ravel())
    combined = np.linalg.solve(
        np.eye(18) - mixing @ (np.eye(18) - lr * blocks), lr * mixing @ c.ravel()
    )
    for algorithm, expected, step in (
        (dgd(lr), awc, mixing - lr * blocks),
        (atc(lr), combined, mixing @ (np.eye(18) - lr * blocks)),
    ):
        trace = simulate.run(algorithm, problem, "ring", steps=3)
        predicted = trace.prediction()
        assert predicted.fixed.flatten().numpy() == pytest.approx(expected, abs=1e-10)
        assert predicted.rate == pytest.approx(np.abs(np.linalg.eigvals(step)).max(), abs=1e-9)


@pytest.mark.parametrize(("algorithm", "error"), [(dgd(0.05), 0.0877), (atc(0.1), 0.117)])
def test_biases_are_those_that_were_measured(algorithm, error):
    trace = simulate.run(algorithm, P8, RING, steps=3)
    assert trace.predicted_floor() == pytest.approx(error, rel=5e-3)


@pytest.mark.parametrize(
    ("algorithm", "graph", "steps"),
    [
        (extra(0.1), "ring", 1200),
        (exact_diffusion(0.1), "ring", 1200),
        (diging(0.1), "ring", 1500),
        (gradient_tracking(0.1), schedules.one_peer(6), 1500),
        (k_gt(0.05, every=3), "ring", 3000),
        (local_dgd(0.05, every=4), "exponential", 2000),
        (dm_sgd(0.01, momentum=0.9), "ring", 3000),
    ],
)
def test_predicted_rates_and_floors_are_measured_by_runs(algorithm, graph, steps):
    problem = small()
    trace = simulate.run(algorithm, problem, graph, steps=steps, every=1)
    predicted = trace.prediction()
    if trace.floor() is None:
        assert trace.rate() == pytest.approx(predicted.rate, abs=0.02)
        assert trace.predicted_floor() < 1e-9
    else:
        assert predicted.rate < 1
        # Local steps come to rest at the step at which they average.
        assert trace.main[0, -1] == pytest.approx(trace.predicted_floor(), rel=1e-6)


def test_what_diverges_has_a_rate_above_one_and_no_end():
    trace = simulate.run(diging(2.0), small(), "ring", steps=3)
    assert trace.prediction().rate > 1
    assert trace.prediction().fixed is None
    assert trace.predicted_floor() is None


@pytest.mark.parametrize(
    ("algorithm", "problem", "graph"),
    [
        (choco_sgd(0.02, top_k(0.5), gamma=0.4), small(), "ring"),
        (push_sum(), small(), "ring"),  # a ratio
        (diging(0.1), problems.logistic(6, dimension=3, samples=10), "ring"),
        (diging(0.1), Noisy(small(), 0.1), "ring"),
        (diging(0.1), small(), "random_pair"),
        (diging(0.1), problems.least_squares(6, dimension=80, samples=4), "ring"),  # large
    ],
)
def test_nothing_is_predicted_where_the_step_is_not_affine_or_chance_plays(
    algorithm, problem, graph
):
    assert simulate.run(algorithm, problem, graph, steps=3).prediction() is None


def test_losses_and_delays_are_not_predicted():
    assert simulate.run(diging(0.1), small(), "ring", steps=3, loss=0.1).prediction() is None


def test_each_run_of_a_sweep_has_its_own_prediction():
    trace = simulate.run(dgd, P8, RING, steps=3, sweep={"lr": [0.1, 0.05, 0.025]})
    floors = [trace.predicted_floor(r) for r in range(3)]
    assert floors == pytest.approx([0.148, 0.0877, 0.0484], rel=5e-3)
    assert trace.prediction(1) is trace.prediction(1)


def test_a_curve_that_still_falls_has_no_floor():
    trace = simulate.run(extra(0.02), P8, RING, steps=60)
    assert trace.floor() is None
    assert 0.8 < trace.rate() < 1
    assert torch.isfinite(trace.x).all()
