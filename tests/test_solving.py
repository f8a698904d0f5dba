"""``solve`` gives the same numbers on ranks and in the simulator, and counts what was sent."""

from __future__ import annotations

import pytest
import torch

import ifog
from ifog import problems, schedules, topology
from ifog.algorithms import (
    choco_sgd,
    clipped_gossip,
    gradient_tracking,
    gt_saga,
    local_sgd,
    push_pull,
    relay_sgd,
)
from ifog.compression import top_k
from ifog.errors import ArgumentError, NoClusterError
from ifog.networks import digits
from ifog.sampling import Sampled
from ifog.solving import run_task
from ifog.telemetry import EventLog, OpEvent, WatchEvent
from ifog.testing import run_ranks

P8 = problems.reference_problem()
CASES = {
    "tracking": (gradient_tracking(0.05), P8, schedules.one_peer(8), 1e-9),
    "two mixers": (push_pull(0.02), P8, topology.exponential(8), 1e-9),
    "neighbours": (clipped_gossip(0.05, radius=5.0), P8, topology.ring(8), 1e-9),
    "edges": (relay_sgd(0.05), P8, topology.path(8), 1e-9),
    "mean": (local_sgd(0.05, every=3), P8, topology.ring(8), 1e-9),
    "samples": (gt_saga(0.01), P8, topology.ring(8), 1e-9),
    "compressed": (choco_sgd(0.02, top_k(0.2), gamma=0.4), P8, topology.ring(8), 1e-6),
    "chance": (gradient_tracking(0.02), Sampled(P8, 4), schedules.random_pair(8), 1e-9),
}


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("case", CASES)
def test_ranks_and_simulator_give_the_same_curves(case, ranks):
    algorithm, problem, graph, tolerance = CASES[case]
    given = {"steps": 30, "every": 7, "seed": 3 if case == "chance" else 0}
    simulated = ifog.solve(algorithm, problem, graph, carrier="simulate", **given)
    traces = run_ranks(ranks, lambda: ifog.solve(algorithm, problem, graph, **given))
    for trace in traces:
        assert trace.steps.tolist() == simulated.steps.tolist() == [0, 7, 14, 21, 28, 30]
        assert trace.error == pytest.approx(simulated.error, abs=tolerance)
        assert trace.consensus == pytest.approx(simulated.consensus, abs=10 * tolerance)
        assert float((trace.x - simulated.x).abs().max()) < tolerance
    if case != "mean":
        assert traces[0].messages.tolist() == simulated.messages.tolist()
    if ranks == 8 and case not in ("mean", "compressed"):
        # What was sent is what the simulator counts, to the byte.
        assert traces[0].nbytes.tolist() == simulated.nbytes.tolist()
    assert not traces[0].modelled
    assert "modelled" not in repr(traces[0])


def test_a_run_on_ranks_is_watched_and_predicted():
    log = EventLog()
    algorithm = gradient_tracking(0.05)
    (trace, *_) = run_ranks(
        4,
        lambda: ifog.solve(algorithm, problems.quadratics(4), "ring", steps=40),
        sink=log,
    )
    events = log.since(0)[1]
    assert {e.name for e in events if isinstance(e, WatchEvent)} == {"x"}
    mixing = [e for e in events if isinstance(e, OpEvent) and e.op == "neighbor_allreduce"]
    assert len(mixing) == 4 * 40
    assert all(len(e.weights) == 3 for e in mixing)
    simulated = ifog.solve(algorithm, problems.quadratics(4), "ring", carrier="simulate", steps=40)
    assert trace.prediction().rate == pytest.approx(simulated.prediction().rate, rel=1e-12)


def test_without_a_topology_the_one_in_use_is_taken():
    def work():
        ifog.set_topology(ifog.star(4))  # not weighted: even shares
        even = ifog.solve(gradient_tracking(0.05), problems.quadratics(4), steps=20)
        ifog.set_topology("one_peer")
        return even, ifog.solve(gradient_tracking(0.05), problems.quadratics(4), steps=20)

    even, peers = run_ranks(4, work)[0]
    given = (gradient_tracking(0.05), problems.quadratics(4))
    uniform = ifog.weights.uniform(ifog.star(4))
    for trace, graph in ((even, uniform), (peers, "one-peer")):
        simulated = ifog.solve(*given, graph, carrier="simulate", steps=20)
        assert trace.error[0, -1] == pytest.approx(simulated.error[0, -1], rel=1e-9)


def test_networks_train_on_ranks_as_in_the_simulator():
    problem = digits(4, hidden=8, skew="label")
    simulated = ifog.solve(gradient_tracking(0.1), problem, "ring", carrier="simulate", steps=30)
    trace = run_ranks(4, lambda: ifog.solve(gradient_tracking(0.1), problem, "ring", steps=30))[0]
    assert float((trace.x - simulated.x).abs().max()) < 1e-4
    ends = [t.measures["accuracy"][0, -1] for t in (trace, simulated)]
    assert ends[0] == pytest.approx(ends[1], abs=0.01)


def test_ranks_may_bring_the_problem_of_their_own_agents():
    def work():
        mine = problems.least_squares(torch.tensor([ifog.rank()]), dimension=5, seed=2)
        return ifog.solve(gradient_tracking(0.05), mine, ifog.ring(4), steps=20)

    whole = problems.least_squares(4, dimension=5, seed=2)
    simulated = ifog.solve(gradient_tracking(0.05), whole, "ring", carrier="simulate", steps=20)
    trace = run_ranks(4, work)[0]
    assert float((trace.x - simulated.x).abs().max()) < 1e-9


def test_all_ranks_end_together():
    traces = run_ranks(
        3, lambda: ifog.solve(gradient_tracking(0.1), P8, "ring", steps=3000, until=1e-3, every=5)
    )
    assert {trace.ended for trace in traces} == {"until"}
    assert len({int(trace.steps[-1]) for trace in traces}) == 1
    assert traces[0].error[0, -1] <= 1e-3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ifog.solve(gradient_tracking(0.1), P8, "ring", carrier="pigeon"),
            ArgumentError,
            "'ranks' or 'simulate'",
        ),
        (
            lambda: ifog.solve(gradient_tracking(0.1), P8, carrier="simulate"),
            ArgumentError,
            "needs a topology",
        ),
        (lambda: ifog.solve(gradient_tracking(0.1), P8, "ring"), NoClusterError, "%bf start"),
        (
            lambda: run_ranks(2, lambda: ifog.solve(gradient_tracking(0.1), P8, ifog.ring(6))),
            ArgumentError,
            "graph has 6 agents, 3 of them here, but the problem is of 8",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(monkeypatch, call, error, message):
    monkeypatch.setattr("ifog.cluster._current", None)  # other tests may have started one
    with pytest.raises(error, match=message):
        call()


class ThreadCluster:
    """A cluster as the notebook sees it, whose ranks are threads of this process."""

    def push(self, variables):
        (self.task,) = variables.values()

    def run(self, code):
        assert "run_task(_ifog_task)" in code
        self.found = run_ranks(4, lambda: run_task(self.task))
        return self

    def raise_for_error(self):
        pass

    def pull(self, name, ranks):
        assert name == "_ifog_solved"
        return {rank: self.found[rank] for rank in ranks}


def test_the_notebook_sends_an_algorithm_of_its_own_to_the_cluster(monkeypatch):
    def mine(lr):
        inner = gradient_tracking(lr)
        return inner._replace(init=lambda x: inner.init(x + 1))  # a closure of its own

    monkeypatch.setattr("ifog.cluster.current", ThreadCluster)
    trace = ifog.solve(mine(0.05), P8, ifog.ring(8), steps=30, every=10)
    simulated = ifog.solve(mine(0.05), P8, ifog.ring(8), carrier="simulate", steps=30, every=10)
    assert trace.error == pytest.approx(simulated.error, abs=1e-9)
    assert float((trace.x - simulated.x).abs().max()) < 1e-9
