"""The tutorial on your own algorithm: in a real kernel, on real ranks, it shows what it says."""

from __future__ import annotations

import re

import pytest
from kernels import require_clean, shown_by

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.timeout(360),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TUTORIAL = "02_your_own_algorithm.ipynb"


@pytest.fixture(scope="module")
def shown():
    """What each cell shows when the exercise is solved by its solution."""
    return shown_by(TUTORIAL, "lr = 0.1  # change this", "lr = 0.4")


def errors(text):
    """Those of the results, not of the progress that is shown before."""
    return [float(found) for found in re.findall(r"^ +error (\d\S*),", text, re.MULTILINE)]


def test_it_is_valid_and_committed_without_outputs():
    require_clean(TUTORIAL)


def test_the_sound_algorithm_keeps_all_laws_and_the_broken_one_is_told_why(shown):
    assert "'equivalence'" in shown["check"]
    assert "'fixed point'" in shown["check"]
    assert "locality: state.x of an agent differs" in shown["broken"]
    assert "per_agent(function)" in shown["broken"]
    assert "'locality'" in shown["fixed"]


def test_ranks_compute_what_the_simulator_did(shown):
    told = re.search(r"differ by (\S+)", shown["on-ranks"])
    assert float(told[1]) < 1e-9
    assert errors(shown["on-ranks"])[0] < 1e-9


def test_lost_messages_cost_what_ten_thousand_agents_had_reached(shown):
    calm, lossy = errors(shown["many"])
    assert calm < 1e-9
    assert lossy > 1e-5


def test_the_exercise_is_solved_by_its_solution(shown):
    assert "Solved: lr = 0.4" in shown["judge"]
