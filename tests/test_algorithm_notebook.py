"""The tutorial on your own algorithm: in a real kernel, on real ranks, it shows what it says."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from kernels import KERNEL_OPTIONS, text_of
from nbclient import NotebookClient

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.mpi,
    pytest.mark.timeout(360),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TUTORIAL = Path(__file__).resolve().parent.parent / "tutorials" / "02_your_own_algorithm.ipynb"


@pytest.fixture(scope="module")
def shown():
    """What each cell shows when the exercise is solved by its solution."""
    notebook = nbformat.read(TUTORIAL, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("lr = 0.1  # change this", "lr = 0.4")
    NotebookClient(notebook, **KERNEL_OPTIONS).execute()
    return {cell.id: text_of(cell) for cell in notebook.cells if cell.cell_type == "code"}


def errors(text):
    return [float(found) for found in re.findall(r"error (\d\S*),", text)]


def test_it_is_valid_and_committed_without_outputs():
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


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
