from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from runs import cell, graph_event, one_peer_matrix, ring_matrix, star_matrix, tracking

from ifog.consensus import Consensus, fold_consensus, view_consensus
from ifog.folds import (
    Status,
    Throughput,
    fold_status,
    fold_throughput,
    view_status,
    view_throughput,
)
from ifog.spectrum import Prediction, contraction_rate, matrix_of_rows
from ifog.telemetry import (
    CellEnd,
    CellStart,
    WatchEvent,
    read_jsonl,
)
from ifog.traffic import Traffic, fold_traffic, view_traffic

DATA = Path(__file__).parent / "data"
FOLDS = [
    (Consensus, fold_consensus, view_consensus),
    (Traffic, fold_traffic, view_traffic),
    (Throughput, fold_throughput, view_throughput),
    (Status, fold_status, view_status),
]


def numbered(n, d=1):
    """x_i = i in each of d entries."""
    return np.repeat(np.arange(float(n))[:, None], d, axis=1)


def run(matrix, n, rounds, d=1, **options):
    """The folded consensus of one cell, and every round's dense W @ x."""
    x = numbered(n, d)
    truth = [x.copy()]
    for k in range(rounds):
        truth.append((matrix(k) if callable(matrix) else matrix) @ truth[-1])
    events = list(cell(matrix, x, rounds, **options))
    return fold_consensus(Consensus(), events), truth


def error(x):
    return float(np.linalg.norm(x - x.mean(axis=0)))


def rate_of(view):
    """The measured factor in the sentence."""
    return float(view["say"].split("factor ")[1].split(",")[0])


def test_error_is_the_distance_to_the_mean_at_every_round():
    state, truth = run(ring_matrix(8), 8, 60)
    curve = state.curves["x"]
    assert curve.rounds == list(range(61))
    assert curve.errors == pytest.approx([error(x) for x in truth], rel=1e-9, abs=1e-14)


def test_a_sample_stands_for_the_whole_tensor():
    state, truth = run(ring_matrix(8), 8, 10, d=1000)
    assert state.curves["x"].errors == pytest.approx([error(x) for x in truth])


def test_ring_of_8_contracts_by_its_second_eigenvalue():
    state, _ = run(ring_matrix(8), 8, 60)
    expected = 1 - (2 / 3) * (1 - math.cos(2 * math.pi / 8))
    curve, prediction = state.curves["x"], state.predictions["x"]
    assert expected == pytest.approx(0.804738, abs=1e-6)
    assert prediction.rate == pytest.approx(expected, rel=1e-12)
    measured = contraction_rate(curve.rounds, curve.errors, 1e-13)
    assert measured == pytest.approx(expected, rel=1e-4)
    assert view_consensus(state, 0.0)["key"] == "\N{MULTIPLICATION SIGN} 0.805, predicted 0.805"


def test_one_peer_on_8_ranks_is_exact_after_3_rounds():
    state, _ = run(lambda k: one_peer_matrix(8, k), 8, 12)
    assert state.predictions["x"].exact_after == 3
    assert view_consensus(state, 0.0)["key"] == "exact after 3 rounds"


@pytest.mark.parametrize(("n", "left"), [(6, 0.2165), (7, 0.1250), (10, 0.1924), (12, 0.2091)])
def test_one_peer_on_other_sizes_leaves_what_theory_says_after_a_period(n, left):
    state, _ = run(lambda k: one_peer_matrix(n, k), n, 60)
    prediction = state.predictions["x"]
    period = math.ceil(math.log2(n))
    assert prediction.factors[prediction.rounds.index(period)] == pytest.approx(left, abs=5e-5)
    assert prediction.exact_after is None
    assert view_consensus(state, 0.0)["prediction"] is not None


def test_prediction_bounds_the_error_of_a_changing_graph():
    state, truth = run(lambda k: one_peer_matrix(6, k), 6, 30)
    prediction = state.predictions["x"]
    product = np.eye(6)
    for k in range(30):
        product = one_peer_matrix(6, k) @ product
        factor = np.linalg.norm(product - 1 / 6, 2)
        assert prediction.factors[k + 1] == pytest.approx(factor, rel=1e-6)
        assert error(truth[k + 1]) <= error(truth[0]) * factor * (1 + 1e-9)


def test_star_that_averages_evenly_moves_the_mean():
    state, truth = run(star_matrix(8), 8, 40)
    drift = abs(truth[-1].mean() - truth[0].mean()) / truth[0].mean()
    view = view_consensus(state, 0.0)
    assert state.curves["x"].drifts[-1] == pytest.approx(drift)
    assert drift > 0.01
    assert view["alarm"]
    assert view["drift"]["moved"]
    assert view["key"].startswith("the mean moved by")


def test_doubly_stochastic_mixing_keeps_the_mean():
    state, _ = run(ring_matrix(8), 8, 60)
    view = view_consensus(state, 0.0)
    assert not view["alarm"]
    assert view["say"].endswith("mean kept.")


def test_rounds_that_only_some_ranks_looked_at_do_not_count():
    events = [
        event
        for event in cell(ring_matrix(4), numbered(4), 16)
        if not isinstance(event, WatchEvent) or event.step % (2 ** (event.rank % 3)) == 0
    ]
    state = fold_consensus(Consensus(), events)
    assert state.curves["x"].rounds == [0, 4, 8, 12, 16]


def test_cutting_events_into_batches_changes_nothing():
    events = [
        graph_event(ring_matrix(5), "ring"),
        *cell(ring_matrix(5), numbered(5), 30),
    ]
    for initial, fold, view in FOLDS:
        whole = view(fold(initial(), events), 0.0)
        state = initial()
        for start in range(0, len(events), 7):
            state = fold(state, events[start : start + 7])
        assert view(state, 0.0) == whole


def test_order_between_ranks_changes_no_curve():
    events = list(cell(lambda k: one_peer_matrix(4, k), numbered(4), 20))
    by_rank = sorted(events, key=lambda event: event.rank)
    starts = [event for event in by_rank if isinstance(event, CellStart)]
    rest = [event for event in by_rank if not isinstance(event, CellStart)]
    mixed = view_consensus(fold_consensus(Consensus(), events), 0.0)
    assert view_consensus(fold_consensus(Consensus(), starts + rest), 0.0) == mixed


def test_gradients_between_rounds_hide_the_prediction():
    x, events = numbered(4), []
    for event in cell(ring_matrix(4), x, 40):
        if isinstance(event, WatchEvent) and event.step > 0:
            pushed = tuple(value + event.rank for value in event.sample)
            events.append(event._replace(sample=pushed))
        else:
            events.append(event)
    view = view_consensus(fold_consensus(Consensus(), events), 0.0)
    assert view["prediction"] is None
    assert "mixing alone" in view["key"]
    assert not view["alarm"]


def test_long_runs_keep_a_bounded_number_of_points():
    state, _ = run(ring_matrix(2), 2, 5000)
    curve = state.curves["x"]
    assert len(curve.rounds) <= 2001
    assert (curve.rounds[0], curve.rounds[-1]) == (0, 5000)
    assert len(view_consensus(state, 0.0)["curves"][0]["rounds"]) <= 400


def test_values_that_are_not_finite_end_the_line_and_nothing_fails():
    x = numbered(4)
    x[2] = math.nan
    state = fold_consensus(Consensus(), list(cell(ring_matrix(4), x, 5)))
    view = view_consensus(state, 0.0)
    assert view["curves"][0]["errors"][-1] is None
    assert view["curves"][0]["value"] == "nan"


def test_a_lost_round_ends_the_prediction_of_a_changing_graph_only():
    rows = matrix_rows(one_peer_matrix(4, 0)), matrix_rows(one_peer_matrix(4, 1))
    changing, constant = Prediction(), Prediction()
    for step in (0, 1, 3):
        changing.follow(step, rows[step % 2], range(4))
        constant.follow(step, rows[0], range(4))
    assert changing.broken
    assert not constant.broken
    assert constant.done == 4


def matrix_rows(W):
    return tuple(
        (
            tuple(int(u) for u in np.flatnonzero(row) if u != rank),
            (float(row[rank]), *(float(row[u]) for u in np.flatnonzero(row) if u != rank)),
        )
        for rank, row in enumerate(W)
    )


def test_rows_give_back_the_matrix():
    W = star_matrix(5)
    assert np.array_equal(matrix_of_rows(matrix_rows(W), range(5)), W)


def test_used_edges_are_those_of_the_last_round_and_the_others_stay_idle():
    declared = sum(one_peer_matrix(8, k) > 0 for k in range(3)) / 4
    events = [
        graph_event(declared, "exponential"),
        *cell(lambda k: one_peer_matrix(8, k), numbered(8), 5),
    ]
    view = view_traffic(fold_traffic(Traffic(), events), 0.0)
    used = {(u, v): weight for u, v, weight, on in view["edges"] if on}
    hop = 2 ** (4 % 3)
    assert used == {(u, (u + hop) % 8): 0.5 for u in range(8)}
    assert len(view["edges"]) == 24
    assert "8 edges in use" in view["say"]


def test_a_changing_graph_is_shown_without_any_declared_one():
    events = list(cell(lambda k: one_peer_matrix(8, k), numbered(8), 6))
    view = view_traffic(fold_traffic(Traffic(), events), 0.0)
    assert {(v - u) % 8 for u, v, _, _ in view["edges"]} == {1, 2, 4}


def test_bytes_are_counted_at_both_ends():
    d, rounds = 10, 7
    events = list(cell(ring_matrix(6), numbered(6, d), rounds))
    view = view_traffic(fold_traffic(Traffic(), events), 0.0)
    assert view["out"] == pytest.approx([8 * d * 2 * rounds] * 6)
    assert view["in"] == pytest.approx(view["out"])
    assert view["message"] == [8 * d] * 6


def test_node_values_are_distances_to_the_mean():
    x = numbered(8)
    events = list(cell(ring_matrix(8), x, 3))
    view = view_traffic(fold_traffic(Traffic(), events), 0.0)
    assert view["distances"] == pytest.approx(np.abs(x - x.mean())[:, 0], rel=1e-3)


def test_more_than_64_ranks_are_drawn_as_a_matrix():
    n = 256
    events = [graph_event(ring_matrix(n), "ring")]
    view = view_traffic(fold_traffic(Traffic(), events), 0.0)
    levels = np.array([int(digit, 16) for digit in view["declared"]]).reshape(128, 128)
    rows, columns = np.nonzero(levels)
    assert {(int(c) - int(r)) % 128 for r, c in zip(rows, columns, strict=True)} == {0, 1, 127}


def test_rates_are_rounds_and_bytes_of_the_last_seconds():
    d, gap = 100, 0.02
    events = list(cell(ring_matrix(4), numbered(4, d), 400, round_time=gap))
    live = [event for event in events if not isinstance(event, CellEnd)]
    view = view_throughput(fold_throughput(Throughput(), live), 100.0 + 400 * gap)
    rounds, sent, _ = (figure[0] for figure in view["figures"])
    assert float(rounds) == pytest.approx(1 / gap, rel=0.03)
    number, unit = sent.split("\N{NO-BREAK SPACE}")
    assert unit == "kB/s"
    assert float(number) == pytest.approx(4 * 8 * d * 2 / gap / 1000, rel=0.03)


def test_the_straggler_is_named_with_what_it_costs():
    compute = [0.002, 0.002, 0.008, 0.002]
    events = cell(ring_matrix(4), numbered(4), 100, slow=lambda rank, _: compute[rank])
    view = view_throughput(fold_throughput(Throughput(), events), 0.0)
    assert view["loss"] == "straggler loss 56\N{NO-BREAK SPACE}%"  # 1 - 3.5 / 8
    assert view["culprit"] == "rank 2 computes longest"
    assert view["busiest"] == 2
    assert view["shares"][0] == pytest.approx([0.2, 0.2, 0.6], abs=0.01)
    assert view["shares"][2] == pytest.approx([0.8, 0.2, 0.0], abs=0.01)


def test_rates_need_two_rounds():
    one = list(cell(ring_matrix(4), numbered(4), 1))
    assert view_throughput(fold_throughput(Throughput(), one), 0.0)["empty"]


def test_a_recorded_run_of_real_ranks_gives_the_ring_of_4():
    events = list(read_jsonl(DATA / "ring4.jsonl"))
    state = fold_consensus(Consensus(), events)
    expected = 1 - (2 / 3) * (1 - math.cos(2 * math.pi / 4))
    assert state.predictions["x"].rate == pytest.approx(expected, rel=1e-9)
    assert rate_of(view_consensus(state, 0.0)) == pytest.approx(expected, abs=1e-3)
    edges = view_traffic(fold_traffic(Traffic(), events), 0.0)["edges"]
    assert {(u, v) for u, v, _, _ in edges} == {
        (u, (u + hop) % 4) for u in range(4) for hop in (1, 3)
    }


def test_steps_between_rounds_may_move_the_mean_whatever_the_matrix():
    W = ring_matrix(8)
    W[2, 1], W[2, 6] = 0.0, W[2, 1]  # its errors stay below what mixing alone allows
    view = view_consensus(fold_consensus(Consensus(), tracking(8, 60, matrix=W)), 0.0)
    assert not view["alarm"]
    assert not view["drift"]["kept"]
    assert "mixing alone" in view["key"]


def test_the_drift_of_what_begins_at_zero_is_compared_with_the_first_mean_that_is_not():
    began = [CellStart(rank, 0.0, 1, 2, (0, 1)) for rank in (0, 1)]
    glances = [
        WatchEvent(rank, float(step), "x", step, 1, 0.0, 2.2e-16, (0.25 * step * (1 + rank),))
        for step in (0, 1, 2)
        for rank in (0, 1)
    ]
    state = fold_consensus(Consensus(), [*began, *glances])
    (curve,) = state.curves.values()
    assert curve.drifts == [0.0, 1.0, 2.0]  # the means are 0, 0.375 and 0.75
