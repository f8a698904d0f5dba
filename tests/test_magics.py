"""``%%bf`` and ``%bf`` in an IPython shell of this process, over a cluster that only pretends."""

from __future__ import annotations

import math
import time

import pytest
from benches import BAD, FREE, fail, new_bench, new_shell
from fakes import go, hold

from ifog import schedules, topology
from ifog.cell import Output, RankError
from ifog.errors import ArgumentError, CellError, ClusterError
from ifog.magics import load_ipython_extension, unload_ipython_extension
from ifog.magics.options import parse_cell_line, parse_ranks
from ifog.magics.source import prepare
from ifog.telemetry import WaitEvent
from ifog.why import State, explain, of_wait


@pytest.fixture(scope="module")
def shell():
    return new_shell()


@pytest.fixture
def bench(shell):
    return new_bench(shell)


# Options


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        (None, None),
        ("all", None),
        ("0", (0,)),
        ("0,2:4", (0, 2, 3)),
        ("1-3", (1, 2, 3)),
        ("::2", (0, 2)),
        ("2:", (2, 3)),
        ("-1:", (3,)),
        ("3,0,0", (0, 3)),
    ],
)
def test_ranks_are_read_as_lists_slices_and_ranges(text, ranks):
    assert parse_ranks(text, 4) == ranks


@pytest.mark.parametrize("text", ["4", "0,7", "2-9", "x", "1;2", "", "2:2", "::0", "-1"])
def test_wrong_ranks_are_refused_naming_those_there_are(text):
    with pytest.raises(ArgumentError, match="0-3"):
        parse_ranks(text, 4)


def test_cell_options_are_read_in_any_order():
    line = "--no-wait --timeout 2.5 --stall 9 --ranks=0,2:4"
    assert parse_cell_line(line) == ("0,2:4", 2.5, False, 9.0)
    assert parse_cell_line("") == (None, None, True, None)
    assert parse_cell_line("--stall off").stall == math.inf


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--rank 0", "did you mean '--ranks'"),
        ("--timeout", "needs a value"),
        ("--timeout 0", "above 0"),
        ("--timeout soon", "above 0"),
        ("--stall 0", "--stall is '0'; give seconds above 0"),
        ("print(1)", "below the first line"),
        ("'", "cannot read"),
    ],
)
def test_wrong_cell_options_are_refused_with_what_to_type(line, message):
    with pytest.raises(ArgumentError, match=message):
        parse_cell_line(line)


# Cells


def test_a_cell_without_cluster_starts_four_ranks_and_says_so(bench):
    bench.cell("", "x = 1")
    assert bench.home.cluster.n == 4
    assert "4 ranks started" in bench.screen.displays[0].text
    assert "%bf start -n N" in bench.screen.displays[0].text


def test_a_cell_reaches_the_chosen_ranks_with_its_timeout(bench):
    bench.cell("--ranks 0,2:4 --timeout 5", "x = 1\n")
    cell = bench.home.cluster.cells[0]
    assert (cell.ranks, cell.timeout) == ((0, 2, 3), 5.0)


def test_line_numbers_on_the_ranks_are_those_of_the_notebook_cell(bench):
    bench.cell("", "a\nb\n")
    assert bench.home.cluster.cells[0].code.splitlines()[1] == "a"


def test_output_of_a_cell_is_folded_below_its_strip(bench):
    bench.line("start -n 3")
    bench.home.cluster.prepare = lambda cell: cell.outputs.extend(
        Output(r, "stdout", "hello\n", {}) for r in cell.ranks
    )
    bench.cell("", "print('hello')")
    strip, output = (display.text for display in bench.screen.displays[1:])
    assert strip.startswith("done  3 of 3 ranks")
    assert output == "[0-2] hello"


def test_a_cell_raises_when_a_rank_raised_and_names_rank_and_message(bench):
    bench.line("start")
    bench.home.cluster.prepare = fail(r1=BAD, r0=FREE)
    with pytest.raises(CellError, match=r"1.*ValueError: lr must be positive"):
        bench.cell("", "x")
    assert "[0] released: rank 1 raised ValueError" in bench.screen.text
    assert bench.screen.text.count("ValueError: lr must be positive") == 1


def test_the_next_cell_runs_after_an_error(bench):
    bench.line("start")
    bench.home.cluster.prepare = fail(r1=BAD)
    with pytest.raises(CellError):
        bench.cell("", "x")
    bench.home.cluster.prepare = go
    bench.cell("", "x")


def test_an_error_of_a_cell_shows_no_frame_of_ifog(bench, capsys):
    bench.line("start")
    bench.home.cluster.prepare = fail(r1=BAD)
    result = bench.shell.run_cell("%%bf\nx")
    assert isinstance(result.error_in_exec, CellError)
    shown = capsys.readouterr().out
    assert "CellError\x1b[0m, told above" in shown
    assert "lr must be positive" not in shown  # it stands in the output already
    assert "lr must be positive" in str(result.error_in_exec)
    assert "runner.py" not in shown


def test_an_interrupted_cell_raises_keyboard_interrupt(bench):
    bench.line("start")

    def stop(cell):
        cell.status = "interrupted"
        cell.errors = {r: RankError("KeyboardInterrupt", "", 2, "", None, "") for r in cell.ranks}

    bench.home.cluster.prepare = stop
    with pytest.raises(KeyboardInterrupt, match="variables are intact"):
        bench.cell("", "x")
    assert "interrupted  4 of 4 ranks came back" in bench.screen.text


@pytest.mark.parametrize(
    "body", ["x = = 1", "def f(:\n  pass", "return 1", "await f()", "if x:\n", "x = '\n"]
)
def test_a_syntax_error_is_found_before_anything_is_sent(bench, body):
    bench.line("start")
    with pytest.raises(CellError, match="Nothing was sent"):
        bench.cell("", body)
    assert bench.home.cluster.cells == []


def test_a_syntax_error_names_the_line_of_the_notebook_cell():
    with pytest.raises(CellError, match="cell line 3"):
        prepare("x = 1\ny = = 2\n", lambda code: code)


def test_indented_cells_and_leading_empty_lines_keep_their_line_numbers(shell):
    with pytest.raises(CellError, match="cell line 5"):
        prepare("\n\n    x = 1\n    y = = 2\n", shell.transform_cell)


@pytest.mark.parametrize("body", ["%timeit x", "!ls", "files = !ls", "%%timeit\nx", "x?", "'\\d'"])
def test_what_ipython_understands_is_sent_to_the_ranks(bench, body):
    bench.cell("", body)
    assert len(bench.home.cluster.cells) == 1


@pytest.mark.parametrize(("body", "last"), [("x = 1\n5;", "None"), ("5; # no", "None"), ("5", "5")])
def test_a_semicolon_keeps_a_value_from_being_shown(bench, body, last):
    bench.cell("", body)
    assert bench.home.cluster.cells[0].code.splitlines()[-1] == last


def test_a_stall_is_shown_live_reported_and_raised_in_few_words(bench):
    bench.line("start")
    wait = WaitEvent(0, 5.0, "barrier", "", 0, (1,), 1.0, line=3)
    why = explain({0: of_wait(wait), 1: State("finished")}, 5.0, over=True)

    def stall(cell):
        cell.status, cell.explained = "stalled", why
        cell.errors = {0: RankError("PeerFailedError", "stopped", 3, "", 0, "", wait)}
        cell.stall, cell.finished = why, {0: 0, 1: 0}

    bench.home.cluster.prepare = stall
    with pytest.raises(CellError, match=r"^Stopped: rank 1 had finished this cell; 1 rank"):
        bench.cell("", "x")
    assert "stopped  1 rank waited for rank 1, which had finished this cell" in bench.screen.text
    assert bench.screen.displays[-1].text.splitlines() == [
        "Stopped: rank 1 had finished this cell; 1 rank was waiting and has been released.",
        "",
        "rank 1  had finished this cell",
        "rank 0  waited for 1            cell line 3, barrier",
        "",
        "Longest wait: 4.00\xa0s (rank 0). All variables are intact; run the next cell.",
    ]


def test_the_patience_of_a_cell_reaches_the_cluster(bench):
    bench.cell("--stall 7", "x")
    bench.cell("", "x")
    assert [cell.patience for cell in bench.home.cluster.cells] == [7.0, 1.0]


# --no-wait


def test_a_no_wait_cell_returns_at_once_and_shows_its_end_later(bench):
    bench.line("start")
    bench.home.cluster.prepare = hold
    bench.cell("--no-wait", "x")
    assert "starting" in bench.screen.displays[1].text
    bench.home.cluster.cells[0].held = False
    deadline = time.monotonic() + 10
    while not bench.screen.displays[1].text.startswith("done"):
        assert time.monotonic() < deadline, "the strip never said done"


def test_a_second_cell_needs_other_ranks_while_one_runs(bench):
    bench.line("start")
    bench.home.cluster.prepare = hold
    bench.cell("--no-wait --ranks 0,1", "x")
    bench.home.cluster.prepare = go
    with pytest.raises(ClusterError, match=r"rank 1, on which a --no-wait cell still runs"):
        bench.cell("--ranks 1:", "x")
    with pytest.raises(ClusterError, match="%bf interrupt"):
        bench.line("pull x")
    bench.cell("--ranks 2:", "x")
    bench.line("interrupt")
    bench.cell("", "x")


# Completion


def test_commands_topologies_and_options_are_completed(bench):
    assert bench.complete("%bf sta") == ["stacks", "start", "status"]
    assert bench.complete("%bf topology ri") == ["ring"]
    assert set(bench.complete("%bf topology ")) == set(schedules.names())
    assert "one_peer_grid" in bench.complete("%bf topology one_")
    assert set(topology.names()) < set(schedules.names())
    assert set(bench.complete("%bf start -")) == {"-n", "--hosts", "--network", "--sealed"}
    assert bench.complete("%%bf --r") == ["--ranks"]
    assert bench.complete("%%bf --ranks 0 --t") == ["--timeout"]


def test_push_completes_names_of_the_notebook_and_pull_those_of_the_ranks(bench):
    bench.shell.user_ns["learning_rate"] = 0.1
    bench.cell("", "weights = 1\nfor step in range(3):\n    pass\ndef gradient():\n    inner = 2")
    assert "learning_rate" in bench.complete("%bf push lea")
    assert bench.complete("%bf pull we") == ["weights"]
    assert bench.complete("%bf pull gra") == ["gradient"]
    assert bench.complete("%bf pull inn") == []


def test_the_extension_can_be_loaded_and_unloaded(shell):
    load_ipython_extension(shell)
    assert "bf" in shell.magics_manager.magics["cell"]
    unload_ipython_extension(shell)
    assert "bf" not in shell.magics_manager.magics["cell"]
