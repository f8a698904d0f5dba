"""Cells that get stuck, in a real kernel: what is shown, what is raised, what works afterwards."""

from __future__ import annotations

import asyncio
import time
from textwrap import indent

import pytest
from kernels import Session, text_of

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.faults,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

VARIABLES = "%%bf\nme, x = bf.rank(), torch.ones(4)\nkept = torch.full((3,), float(me))"
CONSENSUS = (
    "%%bf\ny = kept.clone()\nfor _ in range(40):\n    y = bf.neighbor_allreduce(y, name='y')\n"
    "bool(torch.allclose(y, torch.full((3,), 1.5))) and bool((kept == bf.rank()).all())"
)
RAISED = {
    "a rank raises": (
        "if me == 3:\n    raise ValueError('no luck')\nbf.neighbor_allreduce(x)",
        "rank 3 raised ValueError; ",
        "rank 3 raised cell line 3",
    ),
    "different shapes": (
        "bf.allreduce(torch.ones(2 + (me == 1)))",
        "MismatchError: allreduce: rank ",
        "",
    ),
    "different dtypes": (
        "bf.allreduce(x.double() if me == 1 else x)",
        "float64",
        "",
    ),
    "a mutex held by a rank that raised": (
        "bf.win_create(x, 'w')\n"
        "with bf.win_mutex('w', ranks=[0]):\n"
        "    if me == 1:\n        raise ValueError('holding')\n"
        "    bf.barrier()",
        "rank 1 raised ValueError",
        "",
    ),
    "an error in a handle that nobody waited for": (
        "handle = bf.allreduce_nonblocking(torch.ones(2 + (me == 1)), name='h')\nbf.barrier()",
        "whose handle was not waited for",
        "",
    ),
    "a rank outside of the cell": (
        "bf.neighbor_allreduce(x)",
        "ParticipationError",
        "",
    ),
}
STALLED = {
    "a rank skips an operation": (
        "if me != 2:\n    bf.barrier()",
        "Stopped: rank 2 had finished this cell; 3 ranks were waiting and have been released.",
        "ranks 0 1 3  waited for 2            cell line 3, barrier",
    ),
    "different operations": (
        "bf.allreduce(x) if me == 0 else bf.barrier()",
        "Stopped: rank 0 in allreduce, ranks 1-3 in barrier: they waited for one another",
        "ranks 1-3  waited for 0    cell line 2, barrier",
    ),
    "different names": (
        "bf.allreduce(x, name='a' if me == 0 else 'b')",
        "rank 0 in allreduce('a'), ranks 1-3 in allreduce('b'): they waited for one another",
        "rank 0     waited for 1-3  cell line 2, allreduce('a')",
    ),
    "a missing edge": (
        "to = [] if me == 1 else [(me + 1) % 4]\n"
        "bf.neighbor_allreduce(x, self_weight=0.5, src_weights={(me - 1) % 4: 0.5},\n"
        "                      dst_weights=to, enable_topo_check=False)",
        "rank 1 had finished this cell",
        "rank 2  waited for 1, round 1   cell line 3, neighbor_allreduce",
    ),
    "a cycle of waits": (
        "bf.pair_gossip(x, (me + 1) % 4)",
        "Stopped: ranks 0-3 waited for one another, which could not end by itself.",
        "rank 0  waited for 1, round 1  cell line 2, pair_gossip",
    ),
}
ENDLESS = {
    "a Python loop": "if me == 1:\n    while True: pass\nbf.barrier()",
    "a sleep in C": "import time\nif me == 1:\n    time.sleep(60)\nbf.barrier()",
    "a receive in MPI": (
        "from mpi4py import MPI\nMPI.COMM_WORLD.recv(source=0, tag=7) if me == 1 else bf.barrier()"
    ),
}


@pytest.fixture(scope="module")
def session():
    session = Session()
    session.run("%bf start -n 4")
    session.run(VARIABLES)
    yield session
    session.close()


@pytest.fixture
def notebook(session):
    yield session
    begun = time.monotonic()
    assert "[0-3] True" in plain(session.run(CONSENSUS))
    assert time.monotonic() - begun < 5.0
    session.run("%%bf\nbf.win_free();")


def plain(text):
    return " ".join(text.split())


@pytest.mark.parametrize("what", RAISED)
def test_an_error_is_told_once_and_frees_everybody(notebook, what):
    body, sentence, row = RAISED[what]
    ranks = " --ranks 0,1" if "outside" in what else ""
    begun = time.monotonic()
    error, shown = notebook.failed(f"%%bf{ranks}\n{body}")
    assert time.monotonic() - begun < 10.0
    assert error.ename == "CellError"
    assert sentence in shown
    assert plain(row) in plain(shown)
    assert error.traceback.strip().endswith("told above")


@pytest.mark.parametrize("what", STALLED)
def test_a_hopeless_stall_ends_with_its_report(notebook, what):
    body, sentence, row = STALLED[what]
    begun = time.monotonic()
    error, shown = notebook.failed(f"%%bf\n{body}")
    assert time.monotonic() - begun < 10.0
    assert error.ename == "CellError"
    assert sentence in shown
    assert sentence in error.evalue
    assert plain(row) in plain(shown)
    assert "All variables are intact; run the next cell." in shown


async def press(session, times, seen):
    """Interrupt the kernel ``times`` times, as fast as a finger, once ``seen()`` is true."""

    async def until():
        while not seen():
            await asyncio.sleep(0.05)

    await asyncio.wait_for(until(), 30)
    for _ in range(times):
        await session.client.km.interrupt_kernel()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("what", ENDLESS)
def test_an_interrupt_ends_what_would_not_end(notebook, what, times):
    if "MPI" in what:  # the last interrupt of such a wait took MPI's own world from the users
        notebook.run("%bf restart")
        notebook.run(VARIABLES)
    begun = time.monotonic()
    error, shown = notebook.failed(
        f"%%bf\n{ENDLESS[what]}",
        lambda cell: press(notebook, times, lambda: "wait for" in text_of(cell)),
    )
    assert time.monotonic() - begun < 15.0
    assert error.ename == "KeyboardInterrupt"
    assert "Interrupted: rank 1 still computed; 3 ranks were waiting" in shown
    assert "All variables are intact" in shown


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("what", RAISED | STALLED)
def test_an_interrupt_at_once_ends_every_case(notebook, what, times, tmp_path):
    body = RAISED[what][0] if what in RAISED else STALLED[what][0]
    options, ranks = ("--ranks 0,1", 2) if "outside" in what else ("--stall 30", 4)
    here = f"import pathlib, time\npathlib.Path({str(tmp_path)!r}, str(me)).touch()"
    body = f"try:\n{indent(body, '    ')}\nfinally:\n    if me == 0:\n        time.sleep(1)"
    begun = time.monotonic()
    error, _ = notebook.failed(
        f"%%bf {options}\n{here}\n{body}",
        lambda _: press(notebook, times, lambda: len(list(tmp_path.iterdir())) == ranks),
    )
    assert time.monotonic() - begun < 15.0
    assert error.ename in (
        {"KeyboardInterrupt", "CellError"} if what in RAISED else {"KeyboardInterrupt"}
    )


def test_a_timeout_returns_with_the_report(notebook):
    begun = time.monotonic()
    error, shown = notebook.failed(
        "%%bf --timeout 1\nif me == 1:\n    while True: pass\nbf.barrier()"
    )
    assert time.monotonic() - begun < 5.0
    assert error.ename == "DeadlineError"
    assert "rank 1 still computed; 3 ranks were waiting and have been released." in shown


def test_why_and_stacks_answer_while_a_cell_runs(notebook):
    notebook.run("%%bf --no-wait\nimport time\nif me == 2:\n    time.sleep(60)\nbf.barrier()")
    deadline = time.monotonic() + 20
    while "3 ranks wait for it" not in (shown := notebook.run("%bf why")):
        assert time.monotonic() < deadline, shown
    assert "ranks 0 1 3  wait for 2      cell line 5, barrier" in shown
    stacks = notebook.run("%bf stacks")
    assert "[0-1,3] line 5\n" in stacks
    assert "time.sleep(60)" in stacks
    assert "ifog" not in stacks
    assert "handle.py" in notebook.run("%bf stacks 0 --all")
    notebook.run("%bf interrupt 2")
    deadline = time.monotonic() + 20
    while "Interrupted" not in (shown := notebook.run("%bf why")):
        assert time.monotonic() < deadline, shown


def test_an_error_of_syntax_on_the_ranks_is_told_once(notebook):
    error, shown = notebook.failed("%%bf\nexec('y = = 2')")
    assert shown.count("invalid syntax") == 1
    assert "invalid syntax" in error.evalue


def test_a_semicolon_shows_no_value(notebook):
    assert "[0-3] 5" in plain(notebook.run("%%bf\n5"))
    assert "[0-3]" not in notebook.run("%%bf\n5;")
