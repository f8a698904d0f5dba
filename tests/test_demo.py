"""The demo measures what theory predicts, and what it reports is what it measured."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from rich.console import Console

from ifog import demo, demo_ranks
from ifog.demo import Consensus, Digits, Report, measured_rate
from ifog.screen import LiveTables, PlainLines
from ifog.testing import run_ranks

IFOG = str(Path(sys.executable).with_name("ifog"))


def mixing(label, n, step):
    """The dense matrix of a round, from its definition."""
    hops = [2**k for k in range(20) if 2**k < n] or [0]
    offsets = {
        "ring": {0, 1 % n, -1 % n},
        "exponential": {0, *hops},
        "one-peer exponential": {0, hops[step % len(hops)]},
    }[label]
    W = np.zeros((n, n))
    for u in range(n):
        for offset in offsets:
            W[(u + offset) % n, u] = 1 / len(offsets)
    return W


@pytest.mark.parametrize("n", [1, 2, 4, 5])
@pytest.mark.parametrize("label", demo.TOPOLOGIES)
def test_consensus_on_ranks_is_the_dense_recursion(label, n):
    results = run_ranks(n, lambda: demo_ranks.consensus(label))
    assert all(errors == results[0] for errors in results)
    draws = [
        torch.randn(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))
        for rank in range(n)
    ]
    x = torch.stack(draws).numpy()
    mean, expected = x.mean(axis=0), [1.0]
    start = np.linalg.norm(x - mean)
    for step in range(len(results[0]) - 1):
        x = mixing(label, n, step) @ x
        expected.append(np.linalg.norm(x - mean) / start)
    if n == 1:
        expected = [0.0]
    assert results[0] == pytest.approx(expected, rel=1e-6, abs=1e-14)
    assert results[0][-1] <= 1e-8


@pytest.mark.parametrize("n", [1, 3, 4])
def test_neighbour_averaging_learns_all_digits_and_no_communication_does_not(n):
    accuracy = {}
    for method in demo.METHODS:
        own = run_ranks(n, lambda method=method: demo_ranks.train(method), timeout=60)
        accuracy[method] = sum(own) / n
    assert accuracy["global averaging"] > 0.95
    assert accuracy["neighbour averaging"] >= accuracy["global averaging"] - 0.01
    if n == 1:
        assert len(set(accuracy.values())) == 1
    else:
        # A rank cannot know more digits than it has seen.
        assert accuracy["no communication"] < 1 / n + 0.2


def test_measured_rate_is_the_factor_of_a_geometric_sequence():
    assert measured_rate([0.7**k for k in range(40)], 1) == pytest.approx(0.7)


def test_measured_rate_forgets_what_dies_out_early():
    errors = [0.9**k + 5 * 0.3**k for k in range(100)]
    assert measured_rate(errors, 1) == pytest.approx(0.9, rel=1e-6)


def test_measured_rate_averages_over_whole_periods():
    errors = [1.0]
    for k in range(30):
        errors.append(errors[-1] * (0.9 if k % 3 else 0.4))
    assert measured_rate(errors, 3) == pytest.approx((0.9 * 0.9 * 0.4) ** (1 / 3))


def test_measured_rate_of_an_exact_average_is_zero():
    assert measured_rate([1.0, 0.5, 3e-17], 2) == 0
    assert measured_rate([0.0], 1) == 0


def test_measured_rate_takes_what_there_is_of_a_long_period():
    assert measured_rate([1.0, 0.5], 7) == pytest.approx(0.5)


def report(neighbour=0.97, everyone=0.97, error=1e-9):
    return Report(
        4,
        12.5,
        (Consensus("ring", 17, error, 0.3333, 1 / 3),),
        (
            Digits("no communication", 0.34, 0),
            Digits("neighbour averaging", neighbour, 92_208_000),
            Digits("global averaging", everyone, 138_312_000),
        ),
    )


def test_the_json_report_has_the_promised_fields():
    content = json.loads(report().to_json())
    assert content == {
        "ranks": 4,
        "seconds": 12.5,
        "consensus": [
            {
                "topology": "ring",
                "rounds": 17,
                "error": 1e-9,
                "measured_rate": 0.3333,
                "spectral_rate": 1 / 3,
            }
        ],
        "digits": [
            {"method": "no communication", "accuracy": 0.34, "bytes": 0},
            {"method": "neighbour averaging", "accuracy": 0.97, "bytes": 92_208_000},
            {"method": "global averaging", "accuracy": 0.97, "bytes": 138_312_000},
        ],
    }


def test_shortfalls_name_what_did_not_come_out():
    assert report().shortfalls() == []
    assert report(neighbour=0.99).shortfalls() == []
    (missed,) = report(neighbour=0.95).shortfalls()
    assert "95.0%" in missed
    (missed,) = report(error=math.nan).shortfalls()
    assert "ring" in missed


def test_plain_lines_say_each_result_once():
    stream = io.StringIO()
    with PlainLines(stream) as screen:
        screen.note("starting")
        screen.running("ring", 3, 0.5)
        for row in (*report().consensus, Consensus("star", 1, 0.0, 0.0, 0.0), *report().digits):
            screen.finished(row)
    assert stream.getvalue().splitlines() == [
        "starting",
        "  ring: 17 rounds, error 1.00e-9, factor per round 0.333 (predicted 0.333)",
        "  star: 1 round, error 0, factor per round exact (predicted exact)",
        "  no communication: 34.0% of the test images, 0 B sent",
        "  neighbour averaging: 97.0% of the test images, 92.2 MB sent",
        "  global averaging: 97.0% of the test images, 138 MB sent",
    ]


def test_live_tables_end_with_every_number():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, height=40, color_system=None)
    with LiveTables(console) as screen:
        screen.note("averaging")
        screen.running("ring", 0, math.nan)
        screen.running("ring", 3, 0.5)
        screen.running("global averaging", 7, 2.3)
        for row in (*report().consensus, *report().digits):
            screen.finished(row)
    last = stream.getvalue()
    for text in ("1.00e-9", "0.333", "34.0%", "97.0%", "138", "one-peer exponential"):
        assert text in last


def run_demo(*arguments):
    return subprocess.run(
        [IFOG, "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.mpi
@pytest.mark.timeout(300)
@pytest.mark.parametrize("n", [1, 4, 5])
def test_the_demo_keeps_its_promises_on_real_ranks(n):
    done = run_demo("-n", str(n), "--json", "-")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert set(content) == {"ranks", "seconds", "consensus", "digits"}
    assert content["ranks"] == n
    consensus = {row["topology"]: row for row in content["consensus"]}
    digits = {row["method"]: row for row in content["digits"]}
    assert tuple(consensus) == demo.TOPOLOGIES
    assert tuple(digits) == demo.METHODS

    eigenvalues = np.linalg.eigvals(mixing("ring", n, 0))
    predicted = sorted(np.abs(eigenvalues))[-2] if n > 1 else 0.0
    assert consensus["ring"]["spectral_rate"] == pytest.approx(predicted, abs=1e-9)
    assert consensus["ring"]["measured_rate"] == pytest.approx(predicted, rel=0.02)
    assert all(row["error"] <= 1e-8 for row in consensus.values())
    if n == 4:
        assert consensus["one-peer exponential"]["rounds"] == 2
        assert consensus["one-peer exponential"]["measured_rate"] == 0

    everyone = digits["global averaging"]["accuracy"]
    assert digits["neighbour averaging"]["accuracy"] >= everyone - 0.01
    assert digits["no communication"]["bytes"] == 0
    if n > 1:
        assert digits["no communication"]["accuracy"] < everyone - 0.3
        assert 0 < digits["neighbour averaging"]["bytes"] < digits["global averaging"]["bytes"]
    assert "ring" in done.stderr


@pytest.mark.mpi
@pytest.mark.timeout(180)
@pytest.mark.parametrize("lines", [1, 4])
def test_a_reader_that_goes_away_ends_the_demo_quietly(lines):
    started = subprocess.Popen(
        [IFOG, "demo", "-n", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    family = set()
    try:
        for _ in range(lines):
            assert started.stdout.readline()
        family = set(psutil.Process(started.pid).children(recursive=True))
        started.stdout.close()
        complaint = started.stderr.read()
        assert (started.wait(timeout=60), complaint) == (141, b"")
        _, alive = psutil.wait_procs(family, timeout=15)
        assert alive == []
    finally:
        for process in family:
            if process.is_running():
                process.kill()
        if started.poll() is None:
            started.kill()
        started.stderr.close()
        started.wait(timeout=10)


@pytest.mark.mpi
@pytest.mark.timeout(180)
def test_ctrl_c_stops_every_rank():
    started = subprocess.Popen(
        [IFOG, "demo", "-n", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    family = []
    watchdog = threading.Timer(120, started.kill)
    watchdog.start()
    try:
        for line in started.stdout:
            if line.startswith("averaging"):
                break
        family = psutil.Process(started.pid).children(recursive=True)
        assert family
        os.kill(started.pid, signal.SIGINT)
        _, complaint = started.communicate(timeout=60)
        assert started.returncode == 130
        assert "interrupted" in complaint
        assert "Traceback" not in complaint
        _, alive = psutil.wait_procs(family, timeout=15)
        assert alive == []
    finally:
        watchdog.cancel()
        for process in family:
            if process.is_running():
                process.kill()
        if started.poll() is None:
            started.kill()
            started.communicate(timeout=10)
