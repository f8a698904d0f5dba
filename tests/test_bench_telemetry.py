"""``ifog bench telemetry``: what it makes of the costs of loops, and that it measures them."""

from __future__ import annotations

import math
import subprocess
import sys
from statistics import NormalDist

import pytest

from ifog.bench import telemetry


def test_an_estimate_is_the_median_and_outliers_do_not_widen_it():
    pairs = [(1.0, 1.0 + k / 100) for k in range(9)]
    found = telemetry.estimate(pairs)
    assert found.ratio == pytest.approx(1.04)
    wild = telemetry.estimate([*pairs[:-1], (1.0, 50.0)])
    assert wild.ratio == found.ratio
    assert wild.error == pytest.approx(found.error, rel=0.01)


def test_the_error_is_that_of_a_median_of_normal_numbers():
    # Quantiles of a normal distribution with a spread of one percent, the even sample of 1000.
    normal = NormalDist(0.0, 0.01)
    pairs = [(1.0, math.exp(normal.inv_cdf((k + 0.5) / 1000))) for k in range(1000)]
    expected = 0.01 * math.sqrt(math.pi / 2 / 1000)
    assert telemetry.estimate(pairs).error == pytest.approx(expected, rel=0.01)


def test_a_loop_ends_with_its_slowest_rank_and_uses_the_processors_of_all():
    rows = [[(1.0, 0.5, 1.0, 0.6)] * 3, [(2.0, 0.5, 3.0, 0.5)] * 3]  # by rank, then by pair
    report = telemetry._report(2, 1000, rows)
    assert (report.pairs, report.silent_us, report.watched_us) == (3, 2000.0, 3000.0)
    assert report.wall_ratio == pytest.approx(1.5)
    assert report.processor_ratio == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("ratio", "error", "verdict"),
    [(1.01, 0.004, "met"), (1.01, 0.01, "not decided"), (1.05, 0.01, "missed")],
)
def test_the_aim_is_judged_with_two_standard_errors(ratio, error, verdict):
    report = telemetry.TelemetryReport(4, 10**6, 1000, 9, 1.0, 1.0, 1.0, 0.1, ratio, error)
    assert report.lines()[-1].endswith(f": {verdict}")


@pytest.mark.mpi
def test_both_loops_are_measured_on_real_ranks():
    # In a process of its own: this one may have a cluster, and a process has one at a time.
    program = "from ifog.bench import telemetry as t; print(*t.run(2, pairs=2, rounds=20))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    report = telemetry.TelemetryReport(*map(float, done.stdout.split()))
    assert (report.ranks, report.pairs, report.rounds) == (2, 2, 20)
    assert min(report.silent_us, report.watched_us, report.processor_ratio) > 0
