"""The training tutorial runs in a real kernel on real ranks, and shows what it says."""

from __future__ import annotations

import re

import pytest
from kernels import require_clean, shown_by

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.timeout(360),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TUTORIAL = "01_training.ipynb"


@pytest.fixture(scope="module")
def shown():
    """What each cell shows when the exercise is solved by its solution."""
    return shown_by(TUTORIAL, "every = 1  # change this", "every = 8")


def numbers(line):
    return [float(number) for number in re.findall(r"\d+\.\d+", line)]


def test_it_is_valid_and_committed_without_outputs():
    require_clean(TUTORIAL)


def test_ranks_that_mix_learn_what_they_have_not_seen(shown):
    rows = {line.split()[0]: numbers(line) for line in shown["compare"].splitlines() if "%" in line}
    assert max(rows["alone"]) < 50
    for name in ("one_peer", "static", "all_reduce"):
        assert min(rows[name]) > 96
        assert len(rows[name]) == 4


def test_nobody_waits_for_the_slow_rank_through_windows(shown):
    rows = {
        line.split()[0]: numbers(line) for line in shown["seconds"].splitlines() if " s" in line
    }
    # 60 steps with 20 ms of sleep each: who waits takes as long.
    assert min(rows["waiting"]) > 1.1
    assert min(rows["not_waiting"]) < min(rows["waiting"])


def test_the_exercise_is_solved_by_its_solution(shown):
    assert "Solved: they mixed 37 times" in shown["check"]
