"""Ranks that die while a notebook's cell runs: what is shown, and how the notebook goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from kernels import Session

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.faults,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

VARIABLES = """%%bf
import os, pathlib
kept = torch.full((3,), float(bf.rank()), dtype=torch.float64)
mine = [bf.rank()]
"""
LOOP = """%%bf
pathlib.Path({folder!r}, str(bf.rank())).write_text(str(os.getpid()))
while True:
    bf.neighbor_allreduce(kept, name='x')
"""
CONSENSUS = """%%bf
y = kept.clone()
for _ in range(200):
    y = bf.neighbor_allreduce(y, name='y')
"""


@pytest.fixture(scope="module")
def session():
    session = Session()
    session.run("%bf start -n 4")
    yield session
    session.close()


@pytest.fixture
def notebook(session):
    if " dead" in session.run("%bf status"):
        session.run("%bf restart")
    session.run("%bf topology ring")
    session.run(VARIABLES)
    return session


def plain(text):
    return " ".join(text.split())


def killed(notebook, folder, rank):
    """Kill a rank while all of them average; the error of the cell, and what it showed."""

    async def shoot(_):
        async def until():
            while len(list(folder.iterdir())) < 4 or not (folder / str(rank)).read_text():
                await asyncio.sleep(0.05)

        await asyncio.wait_for(until(), 30)
        os.kill(int((folder / str(rank)).read_text()), signal.SIGKILL)

    return notebook.failed(LOOP.format(folder=str(folder)), shoot)


def values(notebook, name):
    """What each rank has under that name, as a dictionary."""
    notebook.run(f"%bf pull {name}")
    shown = notebook.run(
        f"print({{r: [round(float(v), 9) for v in {name}[r]] for r in "
        f"({name} if isinstance({name}, dict) else range(4))}})"
    )
    return eval(shown)


def test_the_living_go_on_after_heal_with_the_mean_of_theirs(notebook, tmp_path: Path):
    error, shown = killed(notebook, tmp_path, 1)
    assert error.ename == "CellError"
    assert "the process of rank 1 is gone (killed by signal 9 (SIGKILL))" in shown
    assert "The variables of all but rank 1 are intact" in shown
    assert shown.count("go on without with %bf heal, replace with %bf respawn") == 1
    error, _ = notebook.failed("%%bf\n1")
    assert (error.ename, "%bf heal" in error.evalue) == ("ClusterError", True)
    assert "rank 1 left out, ranks 0,2-3 go on" in notebook.run("%bf heal")
    status = notebook.run("%bf status")
    assert "the others go on without rank 1; %bf respawn has all ranks again" in status
    assert "done 3 of 4 ranks" in plain(notebook.run(CONSENSUS))
    mean = round((0 + 2 + 3) / 3, 9)
    assert values(notebook, "y") == {rank: [mean] * 3 for rank in (0, 2, 3)}
    assert values(notebook, "kept") == {rank: [rank] * 3 for rank in (0, 2, 3)}
    error, _ = notebook.failed("%%bf --ranks 0,1\n1")
    assert "rank 1 died" in error.evalue


@pytest.mark.parametrize("healed", [False, True], ids=["at once", "after heal"])
def test_all_ranks_are_back_after_respawn_and_the_new_one_has_what_was_named(
    notebook, tmp_path, healed
):
    killed(notebook, tmp_path, 2)
    if healed:
        notebook.run("%bf heal")
    told = plain(notebook.run("%bf respawn --state kept"))
    assert "kept: rank 2 from rank 1; rank 2 has no other variables" in told
    assert ("rank 2 is back in the living world" in told) != ("4 fresh ranks" in told)
    status = notebook.run("%bf status")
    assert status.count(" idle") == 4
    assert "dead" not in status
    assert values(notebook, "kept") == {0: [0.0] * 3, 1: [1.0] * 3, 2: [1.0] * 3, 3: [3.0] * 3}
    assert "done 4 of 4 ranks" in plain(notebook.run(CONSENSUS))
    mean = (0 + 1 + 1 + 3) / 4
    assert values(notebook, "y") == {rank: [mean] * 3 for rank in range(4)}
    error, shown = notebook.failed("%%bf\nmine")
    assert "[2] NameError: name 'mine' is not defined" in plain(shown)
    assert error.evalue.startswith("[2] NameError")


def test_without_names_the_new_rank_begins_empty_and_the_notebook_says_so(notebook, tmp_path):
    killed(notebook, tmp_path, 0)
    told = plain(notebook.run("%bf respawn"))
    assert "rank 0 without variables (--state model,opt takes a neighbour's)" in told
    shown = plain(notebook.run("%%bf\nsorted({'kept', 'mine'} & set(globals()))"))
    assert "[0] []" in shown
    assert "[1-3] ['kept', 'mine']" in shown
    assert "all ranks live" in notebook.run("%bf respawn")


def test_a_second_death_after_heal_is_named_and_the_rest_heal_again(notebook, tmp_path):
    killed(notebook, tmp_path, 3)
    notebook.run("%bf heal")
    error, shown = notebook.failed(
        "%%bf\nif bf.rank() == 0:\n    os._exit(1)\nbf.barrier()",
    )
    assert "the process of rank 0 is gone (left with exit status 1)" in shown
    assert "rank 3" not in error.evalue
    assert "ranks 0,3 left out, ranks 1-2 go on" in notebook.run("%bf heal")
    notebook.run(CONSENSUS)
    assert values(notebook, "y") == {rank: [1.5] * 3 for rank in (1, 2)}
    assert "ranks 0,3 are back" in plain(notebook.run("%bf respawn --state kept"))
    assert values(notebook, "kept")[1] == [1.0] * 3


def test_the_words_behind_heal_and_respawn_are_checked(notebook):
    error, _ = notebook.failed("%bf heal 3")
    assert "takes nothing more, found '3'" in error.evalue
    error, _ = notebook.failed("%bf respawn --state a-b")
    assert "'a-b' is not the name of a variable" in error.evalue
    error, _ = notebook.failed("%bf respawn kept")
    assert "Usage: %bf respawn [--state model,opt]" in error.evalue
    assert "all ranks live" in notebook.run("%bf heal")


def test_ranks_are_not_replaced_under_a_running_cell(notebook):
    notebook.run("%%bf --no-wait\nimport time\ntime.sleep(30)")
    for command in ("heal", "respawn"):
        error, _ = notebook.failed(f"%bf {command}")
        assert f"%bf {command} needs ranks 0-3, on which a --no-wait cell still runs" in (
            error.evalue
        )
    notebook.run("%bf interrupt")
