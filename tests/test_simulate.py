"""The simulator gives the numbers of the theory, and those that ranks compute."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from ifog import problems, schedules, simulate, topology, weights
from ifog.algorithms import (
    ad_psgd,
    admm,
    atc,
    choco_sgd,
    dgd,
    diging,
    extra,
    gradient_tracking,
    k_gt,
    local_sgd,
    push_diging,
    push_pull,
    relay_sgd,
    scheduled,
    sgp,
)
from ifog.carriers import agent_mixer
from ifog.compression import random_k, top_k
from ifog.costs import Link
from ifog.errors import ArgumentError
from ifog.sampling import Noisy, Sampled
from ifog.testing import run_ranks

RING = topology.ring(8)
P8 = problems.reference_problem()


@pytest.mark.parametrize(
    ("algorithm", "steps", "error"),
    [
        (dgd(0.1), 4000, 0.148),
        (dgd(0.05), 8000, 0.0877),
        (atc(0.1), 4000, 0.117),
        (atc(0.05), 8000, 0.0682),
    ],
)
def test_biased_methods_end_at_the_bias_of_their_closed_form(algorithm, steps, error):
    trace = simulate.run(algorithm, P8, RING, steps=steps)
    assert trace.error[0, -1] == pytest.approx(error, rel=5e-3)
    assert trace.floor() == pytest.approx(error, rel=5e-3)


@pytest.mark.parametrize(
    ("algorithm", "steps"),
    [(extra(0.1), 1500), (diging(0.1), 3000), (gradient_tracking(0.1), 3000)],
)
def test_exact_methods_end_at_the_optimum(algorithm, steps):
    trace = simulate.run(algorithm, P8, RING, steps=steps)
    assert trace.error[0, -1] < 1e-12
    assert trace.floor() is None


def test_directed_methods_take_the_weights_they_need():
    graph = weights.column_stochastic(topology.exponential(8))
    graph.remove_edge(0, 1)
    columns = weights.column_stochastic(graph)
    assert simulate.run(push_diging(0.02), P8, columns, steps=6000).error[0, -1] < 1e-12
    # Two mixers are made of one graph.
    assert simulate.run(push_pull(0.02), P8, graph, steps=6000).error[0, -1] < 1e-12
    biased = simulate.run(sgp(0.02), P8, columns, steps=4000)
    assert 1e-3 < biased.error[0, -1] < 0.1


def test_figures_are_root_mean_squares_over_agents():
    trace = simulate.run(atc(0.05), P8, RING, steps=7, every=3)
    assert trace.steps.tolist() == [0, 3, 6, 7]
    x, optimum = trace.x, P8.optimum()
    error = ((x - optimum) ** 2).sum(1).mean().sqrt() / optimum.norm()
    assert trace.error[0, -1] == pytest.approx(float(error), rel=1e-12)
    consensus = ((x - x.mean(0)) ** 2).sum(1).mean().sqrt()
    assert trace.consensus[0, -1] == pytest.approx(float(consensus), rel=1e-12)
    assert trace.error[0, 0] == pytest.approx(1.0)  # from zeros


@pytest.mark.parametrize("n", [2, 4, 8])
@pytest.mark.parametrize(
    ("algorithm", "graph", "tolerance"),
    [
        (gradient_tracking(0.05), schedules.one_peer(8), 1e-9),
        (choco_sgd(0.02, top_k(0.2), gamma=0.4), topology.ring(8), 1e-6),
        (k_gt(0.02, every=3), topology.grid2d(8), 1e-9),
    ],
    ids=["tracking", "compressed", "local"],
)
def test_ranks_compute_what_the_simulator_does(algorithm, graph, tolerance, n):
    trace = simulate.run(algorithm, P8, graph, steps=60)

    def work():
        mix = agent_mixer(graph)
        problem = P8.take(mix.agents)
        state = algorithm.init(problem.zeros())
        for _ in range(60):
            state = algorithm.step(state, problem, mix)
        return state.x

    ranks = torch.cat(run_ranks(n, work))
    assert float((ranks - trace.x).abs().max()) < tolerance


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"schedule": schedules.random_pair(8)},
        {"problem": Sampled(P8, 4, seed=2), "loss": 0.1},
        {"problem": Noisy(P8, 0.1), "churn": 0.02},
        {"delay": 2},
        {"algorithm": choco_sgd(0.02, random_k(0.3), gamma=0.2)},
    ],
    ids=lambda case: "-".join(case) or "plain",
)
def test_seeds_side_by_side_are_the_runs_of_each_seed(case):
    given = {"algorithm": gradient_tracking(0.03), "problem": P8, "schedule": RING} | case
    together = simulate.run(**given, steps=40, seed=[0, 3])
    alone = [simulate.run(**given, steps=40, seed=seed) for seed in (0, 3)]
    for r, trace in enumerate(alone):
        assert together.error[r] == pytest.approx(trace.error[0], rel=1e-9)
        assert torch.allclose(together.x[r], trace.x, rtol=1e-9)
    if case and "delay" not in case:
        assert not np.allclose(alone[0].consensus, alone[1].consensus, rtol=1e-3)


def test_a_sweep_is_the_runs_of_its_parameters():
    trace = simulate.run(diging, P8, RING, steps=50, sweep={"lr": [0.1, 0.02]}, seed=[0, 1])
    assert [dict(run) for run in trace.runs] == [
        {"lr": lr, "seed": seed} for lr in (0.1, 0.02) for seed in (0, 1)
    ]
    for r, run in enumerate(trace.runs):
        alone = simulate.run(diging(run["lr"]), P8, RING, steps=50, seed=run["seed"])
        assert trace.error[r] == pytest.approx(alone.error[0], rel=1e-9)
        assert torch.allclose(trace.x[r], alone.x, rtol=1e-9)
    assert trace.run_label(2) == "lr=0.02, seed=0"


def test_parameters_that_are_no_numbers_run_apart():
    trace = simulate.run(k_gt, P8, RING, steps=40, sweep={"lr": [0.02, 0.01], "every": [2, 5]})
    for r, run in enumerate(trace.runs):
        alone = simulate.run(k_gt(run["lr"], every=run["every"]), P8, RING, steps=40)
        assert trace.error[r] == pytest.approx(alone.error[0], rel=1e-9)
    # Batches of two each, whose runs are put back into the order of the sweep.
    assert [places for places, _ in trace.states] == [(0, 2), (1, 3)]


def test_algorithms_that_take_numbers_only_run_one_by_one():
    def picky(lr):
        if lr <= 0:  # a tensor of several numbers has no truth
            raise ArgumentError("lr")
        return dgd(lr)

    trace = simulate.run(picky, P8, RING, steps=20, sweep={"lr": [0.1, 0.05]})
    assert len(trace.states) == 2
    assert trace.error[1] == pytest.approx(
        simulate.run(dgd(0.05), P8, RING, steps=20).error[0], rel=1e-12
    )


def test_a_run_ends_when_it_is_good_enough_or_lost():
    trace = simulate.run(extra(0.1), P8, RING, steps=5000, until=1e-6, every=10)
    assert trace.ended == "until"
    assert trace.steps[-1] < 1000
    assert trace.error[0, -1] <= 1e-6 < trace.error[0, -2]
    asked = simulate.run(
        extra(0.1), P8, RING, steps=500, until=lambda figures: figures["error"] < 1e-3
    )
    assert asked.error[0, -1] < 1e-3 <= asked.error[0, -2]
    lost = simulate.run(diging(3.0), P8, RING, steps=5000)
    assert lost.ended == "diverged"
    assert lost.steps[-1] < 1000
    assert "diverged" in repr(lost)


def test_lost_messages_and_churn_cost_accuracy_but_not_agreement():
    calm = simulate.run(atc(0.05), P8, RING, steps=800)
    rough = simulate.run(atc(0.05), P8, RING, steps=800, loss=0.3)
    assert calm.error[0, -1] < rough.error[0, -1] < 1
    gone = simulate.run(atc(0.02), P8, RING, steps=800, churn=simulate.Churn(0.05, 0.2))
    assert np.isfinite(gone.error).all()
    assert gone.error[0, -1] < 1


def test_other_precisions_starts_and_labels():
    given = {"dtype": torch.float32, "start": torch.full((20,), 2.0), "label": "mine"}
    trace = simulate.run(diging(0.1), P8, RING, steps=300, **given)
    assert trace.x.dtype is torch.float32
    assert trace.label == "mine"
    assert trace.error[0, -1] < 1e-5
    distance = float((torch.full((20,), 2.0) - P8.optimum()).norm() / P8.optimum().norm())
    assert trace.error[0, 0] == pytest.approx(distance, rel=1e-5)
    assert simulate.run(diging(0.1), P8, RING, steps=2).label == "diging"
    assert simulate.run(scheduled(lambda k: dgd(1 / (k + 9))), P8, RING, steps=2).label


def test_messages_are_counted_as_the_codec_sends_them():
    plain = simulate.run(atc(0.05), P8, RING, steps=10)
    assert plain.messages[-1] == 10 * 16
    assert plain.nbytes[-1] == 10 * 16 * 20 * 8
    short = simulate.run(
        choco_sgd(0.02, top_k(0.2), gamma=0.4), P8, RING, steps=10, codec=top_k(0.2)
    )
    assert short.nbytes[-1] == 10 * 16 * top_k(0.2).nbytes(P8.zeros())
    assert simulate.run(local_sgd(0.05, every=5), P8, RING, steps=10).messages[-1] == 2 * 14 * 8
    both = simulate.run(push_pull(0.02), P8, RING, steps=10)
    assert both.messages[-1] == 2 * 10 * 16


def test_modelled_time_grows_with_what_is_computed_and_sent():
    cost = simulate.CostModel(compute=1.0, link=Link(0.5, 320.0))
    trace = simulate.run(atc(0.05), P8, RING, steps=10, cost=cost)
    # Two messages of 160 bytes, one after the other, take a second each.
    assert trace.seconds[-1] == pytest.approx(10 * (1.0 + 2.0))
    slow = simulate.run(
        atc(0.05), P8, RING, steps=10, cost=simulate.CostModel(compute=1.0, slow={3: 4.0})
    )
    assert slow.seconds[-1] >= 40.0


def test_needs_of_algorithms_are_met_or_named():
    assert simulate.run(admm(0.5), P8, RING, steps=500).error[0, -1] < 1e-10
    assert simulate.run(relay_sgd(0.05), P8, topology.tree(8), steps=3000).error[0, -1] < 1e-10
    walk = simulate.run(ad_psgd(0.01, delay=2), P8, "random_pair", steps=2000)
    assert walk.error[0, -1] < 0.2
    with pytest.raises(ArgumentError, match="admm asks the problem for prox"):
        simulate.run(admm(0.5), Noisy(P8, 0.1), RING, steps=5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate.run(dgd(0.1), lambda x: x, "ring", steps=1), "of how many agents"),
        (
            lambda: simulate.run(dgd(0.1), P8, topology.ring(9)),
            "graph has 9 agents, but by the problem",
        ),
        (lambda: simulate.run(dgd(0.1), P8, "ring", agents=9), "by the problem there are 8"),
        (lambda: simulate.run(dgd(0.1), P8, 7), "is no graph and no schedule"),
        (lambda: simulate.run(dgd(0.1), P8, "rign"), "did you mean 'ring'"),
        (lambda: simulate.run(dgd(0.1), lambda x: x, RING), "where do agents start"),
        (lambda: simulate.run(dgd, P8, RING), "without one it must be made"),
        (lambda: simulate.run(dgd(0.1), P8, RING, sweep={"lr": [1.0]}), "a sweep needs what makes"),
        (lambda: simulate.run(dgd, P8, RING, sweep={"lr": 0.1}), "give a list of values"),
        (lambda: simulate.run(dgd(0.1), P8, RING, loss=2.0), r"loss is 2\.0"),
        (
            lambda: simulate.run(dgd(0.1), P8, RING, start=torch.zeros(8, 20).long()),
            "floating-point",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_a_function_is_a_problem_and_a_function_of_the_step_a_schedule():
    target = torch.arange(6.0, dtype=torch.float64)[:, None]
    trace = simulate.run(
        gradient_tracking(0.2),
        lambda x: x - target,
        lambda step: topology.ring(6, style="left" if step % 2 else "right"),
        start=torch.zeros(6, 1, dtype=torch.float64),
        steps=300,
        optimum=torch.tensor([2.5]),
    )
    assert trace.error[0, -1] < 1e-9
    alone = simulate.run(
        gradient_tracking(0.2),
        lambda x: x - target,
        "ring",
        agents=6,
        start=torch.zeros(1, dtype=torch.float64),
        steps=5,
    )
    assert alone.error is None
    assert alone.main is alone.consensus


def test_an_unknown_optimum_leaves_the_loss():
    trace = simulate.run(atc(0.05), P8, RING, steps=300, optimum=False)
    assert trace.error is None
    mean = trace.x.mean(0).expand(8, -1)
    assert trace.measures["loss"][0, -1] == pytest.approx(float(P8.loss(mean).mean()))
    assert trace.main is trace.measures["loss"]


def test_ten_thousand_agents_agree_with_one_matrix():
    n = 10_000
    made = topology.random_regular.links(n, degree=8, seed=1)
    x = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    still = problems.Quadratics(
        torch.zeros(n, 2).double(), torch.zeros(n, 2).double(), torch.arange(n)
    )
    trace = simulate.run(dgd(0.1), still, made, steps=20, start=x, optimum=x.mean(0))
    expected = x.numpy()
    for _ in range(20):
        mixed = np.zeros_like(expected)
        np.add.at(mixed, made.target, made.weight[:, None] * expected[made.source])
        expected = mixed
    assert np.allclose(trace.x.numpy(), expected, atol=1e-12)
    # In the end Friedman's (1 + 2 sqrt 7)/9 of random 8-regular graphs; before, less.
    assert 0.5 < trace.rate() < (1 + 2 * 7**0.5) / 9 + 0.01


def test_progress_is_said_to_those_who_look(capsys):
    simulate.run(dgd(0.1), P8, RING, steps=5, progress=False)
    assert capsys.readouterr().err == ""
    from ifog.progress import Progress

    progress = Progress("dgd", 1000, True)
    progress._last -= 1
    progress._begun -= 10
    progress(250, {"error": 0.125})
    progress.close()
    said = capsys.readouterr().err
    assert "dgd: 250 of 1000, error 0.125, 30.0" in said
    assert said.endswith("\r\x1b[K")


def test_progress_in_a_notebook_is_an_output_that_is_empty_in_the_end(monkeypatch):
    from IPython import display

    from ifog import progress

    shown = []

    class Handle:
        def display(self, data, **_):
            shown.append(("new", data["text/plain"]))

        def update(self, data, **_):
            shown.append(("again", data["text/plain"]))

    monkeypatch.setattr(display, "DisplayHandle", Handle)
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    line = progress.Progress("dgd", 4, True)
    for step in (1, 2):
        line._last -= 1
        line(step, {})
    line.close()
    assert [kind for kind, _ in shown] == ["new", "again", "again"]
    assert [text[:11] for _, text in shown] == ["dgd: 1 of 4", "dgd: 2 of 4", ""]


def test_huge_pages_are_asked_for_before_torch_is_there():
    code = (
        "import os, sys; os.environ.pop('THP_MEM_ALLOC_ENABLE', None); import ifog; "
        "assert 'torch' not in sys.modules; ifog.simulate; "
        "sys.exit(os.environ['THP_MEM_ALLOC_ENABLE'] != '1')"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False, env=os.environ)
    assert done.returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_computes_the_same():
    here = simulate.run(gradient_tracking(0.05), P8, RING, steps=100, device="cpu")
    there = simulate.run(gradient_tracking(0.05), P8, RING, steps=100)
    assert there.x.is_cuda
    assert torch.allclose(there.x.cpu(), here.x, atol=1e-9)
