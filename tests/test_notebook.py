"""Notebooks in a real kernel, with ranks that are MPI processes: what a user does, headless."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from kernels import KERNEL_OPTIONS, Session, text_of
from nbclient import NotebookClient

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

TUTORIAL = Path(__file__).resolve().parent.parent / "tutorials" / "00_start.ipynb"


@pytest.fixture(scope="module")
def notebook():
    session = Session()
    yield session
    session.close()


def test_a_cell_starts_the_default_cluster_and_folds_equal_lines(notebook):
    shown = notebook.run("%%bf\nprint('hello')\nx = torch.ones(3) * bf.rank()\nbf.rank() * 1.5")
    assert "4 ranks started" in shown
    assert shown.count("hello") == 1
    # As wide as the widest prefix that was shown meanwhile.
    assert re.search(r"^\[0-3\] +hello$", shown, re.MULTILINE)
    assert re.search(r"^\[0-3\] +0\.0 … 4\.5$", shown, re.MULTILINE)
    assert "done  4 of 4 ranks" in shown


def test_the_closing_line_counts_rounds_and_bytes(notebook):
    shown = notebook.run(
        "%%bf\nfor _ in range(7):\n    bf.neighbor_allreduce(torch.ones(250), name='y')"
    )
    # 7 rounds x 4 ranks x 2 neighbours (exponential graph) x 250 x 4 bytes
    assert "7 rounds" in shown
    assert "56.0 kB sent" in shown


def test_an_exception_on_all_ranks_is_told_once_and_fails_the_notebook(notebook):
    error, shown = notebook.failed("%%bf\ndef f():\n    raise ValueError('lr is 0')\nf()")
    assert error.ename == "CellError"
    assert "[0-3] ValueError: lr is 0 (cell line 3, in f)" in error.evalue
    assert shown.count("ValueError: lr is 0") == 1
    assert "runner.py" not in error.traceback


def test_a_value_that_cannot_be_shown_shows_its_error(notebook):
    body = "class Broken:\n    def __repr__(self):\n        raise ValueError('no repr')\nBroken()"
    shown = notebook.run(f"%%bf\n{body}")
    assert re.search(r"\[0-3\] +ValueError: no repr", shown)


def test_markdown_is_rendered_by_the_notebook(notebook):
    notebook.run(
        "%%bf\nfrom IPython.display import Markdown, display\ndisplay(Markdown('**bold**'))"
    )
    shown = [
        o.data["text/markdown"]
        for o in notebook.notebook.cells[-1].outputs
        if "text/markdown" in o.data
    ]
    assert shown == ["`[0-3]`\n\n**bold**"]


def test_an_exception_on_one_rank_releases_the_waiting_ones_in_seconds(notebook):
    begun = time.monotonic()
    error, shown = notebook.failed("%%bf\nif bf.rank() == 3:\n    1 / 0\nbf.barrier()")
    assert time.monotonic() - begun < 15
    assert "[3] ZeroDivisionError: division by zero (cell line 3)" in error.evalue
    assert "Stopped: rank 3 raised ZeroDivisionError; 3 ranks were waiting" in shown
    assert "ranks 0-2  waited for 3  cell line 4, barrier" in shown


def test_variables_survive_an_error(notebook):
    shown = notebook.run("%%bf\nfloat(bf.allreduce(x, average=False)[0])")
    assert "[0-3] 6.0" in shown  # 0 + 1 + 2 + 3


def test_a_timeout_stops_the_ranks_and_names_who_was_late(notebook):
    error, _ = notebook.failed(
        "%%bf --timeout 1\nimport time\nif bf.rank() == 1:\n    time.sleep(60)\nbf.barrier()"
    )
    assert error.ename == "DeadlineError"
    assert "[1]" in error.evalue
    assert "[0-3] 6" in notebook.run("%%bf\nint(bf.allreduce(x, average=False)[0])")


def test_interrupting_the_kernel_interrupts_the_ranks_and_keeps_variables(notebook):
    async def interrupt(cell):
        async def begun():
            while "started" not in text_of(cell):
                await asyncio.sleep(0.05)

        await asyncio.wait_for(begun(), 30)
        await notebook.client.km.interrupt_kernel()

    begun = time.monotonic()
    error, shown = notebook.failed(
        "%%bf\nprint('started')\nwhile True:\n    x = bf.neighbor_allreduce(x, name='x')", interrupt
    )
    assert time.monotonic() - begun < 30
    assert error.ename == "KeyboardInterrupt"
    assert "interrupted  4 of 4 ranks came back" in shown
    assert "Last finished round" in shown
    assert "[0-3] (3,)" in notebook.run("%%bf\ntuple(bf.allreduce(x).shape)")


def test_a_no_wait_cell_lets_the_notebook_go_on_and_shows_its_end(notebook):
    listener = notebook.client.km.blocking_client()
    listener.start_channels()
    listener.wait_for_ready(timeout=30)
    source = "%%bf --no-wait --ranks 0\nimport time\ntime.sleep(3)\nprint('late')"
    assert "late" not in notebook.run(source)
    assert "early" in notebook.run("%%bf --ranks 1:\nprint('early')")
    error, _ = notebook.failed("%%bf\n1")
    assert "rank 0, on which a --no-wait cell still runs" in error.evalue
    parents = {}
    while not {"done  1 of 4 ranks", "[0] late"} <= parents.keys():
        message = listener.get_iopub_msg(timeout=30)
        text = message["content"].get("data", {}).get("text/plain", "")
        parents["  ".join(text.split("  ")[:2])] = message["parent_header"]["msg_id"]
    listener.stop_channels()
    assert parents["[0] late"] == parents["done  1 of 4 ranks"]
    assert parents["[0] late"] != parents["[1-3] early"]


def test_commands_reach_the_ranks(notebook):
    assert "ring: 4 ranks, 8 edges" in notebook.run("%bf topology ring")
    assert "[0] [1, 3]" in notebook.run("%%bf --ranks 0\nbf.in_neighbor_ranks()")
    notebook.run("gain = 0.25\n%bf push gain")
    assert "[0-3] 0.25" in notebook.run("%%bf\ngain")
    notebook.run("%bf pull gain")
    assert "[0.25, 0.25, 0.25, 0.25]" in notebook.run("print(gain)")
    assert "pid" in notebook.run("%bf status")


def test_ipython_lines_in_a_cell_run_on_the_ranks(notebook):
    assert "[0-3] 7" in notebook.run("%%bf\nfound = !echo 7\nint(found[0])")


def test_a_syntax_error_sends_nothing(notebook):
    error, _ = notebook.failed("%%bf\nmark = 1\ny = = 2")
    assert "cell line 3" in error.evalue
    error, _ = notebook.failed("%%bf\nmark")
    assert "NameError" in error.evalue


def test_what_a_rank_prints_cannot_become_part_of_the_page(notebook):
    notebook.run("%%bf\nprint('<script>alert(1)</script>')")
    html = "".join(o.data.get("text/html", "") for o in notebook.notebook.cells[-1].outputs)
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_the_dashboard_can_be_shown_and_is_bound(notebook):
    notebook.run("%bf dashboard")
    assert "Dashboard" in notebook.run("print(type(bf_dashboard).__name__)")


def test_two_clusters_are_refused_and_stop_leaves_no_process(notebook):
    error, _ = notebook.failed("%bf start -n 2")
    assert "%bf stop" in error.evalue
    ranks = [p for p in notebook.kernel.children(recursive=True) if "ifog" in " ".join(p.cmdline())]
    assert len(ranks) >= 4
    notebook.run("%bf stop")
    _, alive = psutil.wait_procs(ranks, timeout=10)
    assert alive == []
    error, _ = notebook.failed("%bf status")
    assert error.ename == "NoClusterError"


def tutorial(edit=lambda source: source):
    notebook = nbformat.read(TUTORIAL, as_version=4)
    for cell in notebook.cells:
        cell.source = edit(cell.source)
    NotebookClient(notebook, **KERNEL_OPTIONS).execute()
    return {cell.id: text_of(cell) for cell in notebook.cells if cell.cell_type == "code"}


def test_the_tutorial_is_valid_and_committed_without_outputs():
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_the_tutorial_runs_and_its_numbers_are_those_of_theory():
    shown = tutorial()
    assert "[0-3] I am rank 0 … 3 of 4" in shown["hello"]
    # W = I - gain L; the Laplacians' smallest non-zero eigenvalues are 1 (star), 2, 4.
    assert shown["theory"].split() == ["star", "0.95", "ring", "0.9", "complete", "0.8"]
    error = float(shown["same"].rsplit(maxsplit=1)[1])
    assert error < 4 * 0.9**300  # four values less than 4 apart
    assert "Not yet" in shown["check"]


def test_the_exercise_of_the_tutorial_is_solved_by_its_solution():
    def edit(source):
        solved = source.replace("gain = 0.05  # change this", "gain = 1 / 3")
        return solved.replace("pause=0.03", "pause=0").replace("pause=0.05", "pause=0")

    assert "Solved" in tutorial(edit)["check"]
