"""The commands of ``%bf``: what they ask of the cluster, what they say, and what they refuse."""

from __future__ import annotations

import pytest
from benches import BAD, FREE, fail, new_bench, new_shell
from fakes import hold

from ifog.errors import ArgumentError, CellError, ClusterError, NoClusterError
from ifog.magics.commands import COMMANDS
from ifog.runfile import read_run
from ifog.telemetry import CellStart, WaitEvent
from ifog.why import State, explain, of_wait


@pytest.fixture(scope="module")
def shell():
    return new_shell()


@pytest.fixture
def bench(shell):
    return new_bench(shell)


def test_no_words_mean_help_with_every_command(bench, capsys):
    bench.line("")
    shown = capsys.readouterr().out
    for name in ("start", "stop", "status", "topology", "pull", "push", "dashboard", "interrupt"):
        assert f"%bf {name}" in shown
    assert "No cluster is running" in shown


def test_what_commands_do_stands_in_one_column_apart_from_them(bench, capsys):
    bench.line("help")
    lines = capsys.readouterr().out.splitlines()
    for _, _, what in COMMANDS.values():
        line = next(line for line in lines if line.endswith(what))
        assert line.index(what) == 34
        assert line.removesuffix(what).endswith(" ")


def test_an_unknown_command_suggests_the_closest(bench):
    with pytest.raises(ArgumentError, match="did you mean 'status'"):
        bench.line("statsu")


@pytest.mark.parametrize("line", ["status", "stop", "restart", "pull x", "interrupt"])
def test_commands_before_any_cluster_say_what_to_type(bench, line):
    with pytest.raises(NoClusterError, match="%bf start"):
        bench.line(line)


@pytest.mark.parametrize(
    "line",
    [
        *("start 4", "start -n x", "start --m 3", "stop now", "topology", "topology rnig"),
        *("pull", "pull a.b", "push", "push nothing"),
    ],
)
def test_wrong_words_are_refused(bench, line):
    bench.line("start")
    with pytest.raises(ArgumentError):
        bench.line(line)
    assert bench.home.cluster.calls == []


def test_two_clusters_and_no_ranks_are_refused(bench):
    with pytest.raises(ArgumentError, match="0 ranks"):
        bench.line("start -n 0")
    bench.line("start -n2")
    assert bench.home.cluster.n == 2
    with pytest.raises(ClusterError, match="%bf stop"):
        bench.line("start")


def test_a_start_beside_a_running_cluster_shows_its_message_only(bench):
    bench.line("start")
    shown = len(bench.screen.displays)
    with pytest.raises(ClusterError, match="%bf stop"):
        bench.line("start")
    assert len(bench.screen.displays) == shown


def test_an_unknown_topology_starts_no_cluster(bench):
    with pytest.raises(ArgumentError, match="rnig"):
        bench.line("topology rnig")
    assert bench.home.cluster is None
    assert bench.screen.displays == []


def test_a_drawn_graph_is_set_once_it_was_chosen(bench, capsys):
    spectrum = pytest.importorskip("ifog.widgets").Spectrum()
    bench.line("start -n 3")
    with pytest.raises(ArgumentError, match=r"no graph was chosen.*press Use"):
        bench.line("topology --from-widget")
    bench.shell.user_ns["drawn"] = spectrum
    chain = [[0, 1], [1, 0], [1, 2], [2, 1]]
    spectrum.proposal = {"n": 4, "edges": chain}
    with pytest.raises(ArgumentError, match="the chosen graph has 4 ranks, the cluster 3"):
        bench.line("topology --from-widget")
    spectrum.proposal = {"n": 3, "edges": chain}
    bench.line("topology --from-widget")
    # Metropolis on a chain of 3: rows (2/3, 1/3, 0), (1/3, 1/3, 1/3), (0, 1/3, 2/3).
    ((what, graph),) = bench.home.cluster.calls
    assert what == "topology"
    assert round(graph.edges[0, 0]["weight"], 3) == 0.667
    assert {round(graph.edges[edge]["weight"], 3) for edge in [(0, 1), (1, 1), (2, 1)]} == {0.333}
    # Its eigenvalues are 1, 2/3 and 0.
    shown = capsys.readouterr().out
    assert "edited: 3 ranks, 4 edges, spectral rate 0.667" in shown
    assert spectrum.proposal == {}


def test_topology_is_set_and_described_in_one_line(bench, capsys):
    bench.line("topology ring")
    assert bench.home.cluster.calls == [("topology", "ring")]
    # W of the 4-ring with weights 1/3 has the eigenvalues 1, 1/3, 1/3, -1/3.
    assert capsys.readouterr().out.startswith("ring: 4 ranks, 8 edges, spectral rate 0.333")


def test_pull_gives_a_list_of_all_ranks_or_a_dictionary_of_some(bench, capsys):
    bench.line("start")
    bench.home.cluster.variables["x"] = [10, 11, 12, 13]
    bench.line("pull x")
    assert bench.shell.user_ns["x"] == [10, 11, 12, 13]
    bench.line("pull x --ranks 1,3")
    assert bench.shell.user_ns["x"] == {1: 11, 3: 13}
    assert "from ranks 1,3" in capsys.readouterr().out


def test_push_copies_variables_of_the_notebook(bench):
    bench.shell.user_ns.update(a=1, b="two")
    bench.line("push a b")
    assert bench.home.cluster.calls == [("push", {"a": 1, "b": "two"}, None)]


def test_why_explains_running_cells_and_repeats_the_last_report(bench, capsys):
    bench.line("start")
    bench.line("why")
    assert capsys.readouterr().out == "no cell runs, so no rank waits\n"
    bench.home.cluster.prepare = fail(r1=BAD, r0=FREE)
    with pytest.raises(CellError):
        bench.cell("", "x")
    bench.home.cluster.prepare = hold
    bench.cell("--no-wait", "x")
    states = {0: of_wait(WaitEvent(0, 5.0, "barrier", "", 0, (1,), 1.0, line=3))}
    cell = bench.home.cluster.cells[-1]
    cell.stall = explain(states | {1: State("computing")}, 5.0)
    capsys.readouterr()
    bench.line("why")
    assert capsys.readouterr().out.splitlines() == [
        "Rank 1 still computes; 1 rank waits for it.",
        "",
        "rank 1  still computes",
        "rank 0  waits for 1     cell line 3, barrier",
        "",
        "Longest wait so far: 4.00\xa0s (rank 0).",
    ]
    bench.line("interrupt")


def test_stacks_that_are_equal_are_shown_once(bench, capsys):
    bench.line("start")
    stack = {"cell": 1, "stack": "line 2\n-->    2 bf.barrier()"}
    bench.home.cluster.answers = {0: stack, 1: stack, 2: {"cell": None, "stack": ""}, 3: None}
    bench.line("stacks")
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "[0-1] line 2",
        "    -->    2 bf.barrier()",
        "[2] idle",
        "[3] no answer",
    ]
    bench.line("stacks 2: --all")
    assert bench.home.cluster.calls[-1] == ("stacks", (2, 3), {"every": True})


def test_an_interrupt_may_name_its_ranks(bench, capsys):
    bench.line("start")
    bench.line("interrupt")
    assert capsys.readouterr().out.endswith("no cell runs, nothing to interrupt\n")
    bench.home.cluster.prepare = hold
    bench.cell("--no-wait", "x")
    bench.line("interrupt 1,3")
    assert bench.home.cluster.calls[-1] == ("interrupt", (1, 3))
    assert "interrupt sent to ranks 1 and 3" in capsys.readouterr().out
    with pytest.raises(ArgumentError, match="0-3"):
        bench.line("interrupt 7")


def recorded(path):
    file = read_run(path)
    return [event for part in range(file.parts) for event in file.events(part)[0]]


def test_a_recording_goes_over_the_clusters_of_a_notebook_until_it_is_ended(
    bench, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    starts = [CellStart(0, float(t), t, 1, (0,)) for t in (1, 2)]
    bench.line("record")
    bench.line("record on run.ifog")
    with pytest.raises(ClusterError, match=r"run\.ifog is being recorded; end that first"):
        bench.line("record on other.ifog")
    bench.line("start")
    bench.home.cluster.events.write(starts)
    bench.line("record")
    bench.line("record off")
    bench.line("record off")
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "nothing is recorded; %bf record on [PATH] begins"
    assert told[1] == "recording into run.ifog until %bf record off"
    assert told[2].startswith("recording into run.ifog: ")
    assert told[3].startswith("run.ifog: 2 events, ")
    assert told[3].endswith("; ifog.replay('run.ifog') plays it")
    assert told[4] == told[0]
    assert recorded("run.ifog") == starts


def test_a_recording_without_a_name_is_called_by_its_time(bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bench.line("record on")
    bench.line("record off")
    (path,) = tmp_path.iterdir()
    assert path.match("run-2*-*.ifog")


@pytest.mark.parametrize(
    "line", ["record onn", "record on a b", "record off a", "record --past on"]
)
def test_wrong_words_of_record_are_refused(bench, line):
    with pytest.raises(ArgumentError, match=r"Usage: %bf record on\|off"):
        bench.line(line)


def test_record_completes_its_words():
    from ifog.magics.complete import complete_line

    assert complete_line("%bf record ", (), ()) == ["on", "off"]
    assert complete_line("%bf record on ", (), ()) == []
