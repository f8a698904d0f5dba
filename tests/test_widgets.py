from __future__ import annotations

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from runs import (
    cell,
    graph_event,
    numbered,
    one_peer_matrix,
    ring_matrix,
    ring_run,
    star_matrix,
)

from ifog.errors import ArgumentError
from ifog.telemetry import CellEnd, CellStart, EventLog, OpEvent, WaitEvent

pytest.importorskip("anywidget", reason="anywidget is not installed (ifog[lab])")

from ifog.widgets import (
    PANELS,
    Consensus,
    Dashboard,
    Graph,
    Panel,
    Picture,
    Throughput,
    Waiting,
)
from ifog.widgets.bundle import STATIC, module
from ifog.widgets.feed import Feed
from ifog.widgets.layout import positions

MODULES = sorted(path.name for path in STATIC.glob("*.js"))
ENTRIES = ("bar.js", *(f"{name}.js" for name in PANELS))


@pytest.fixture
def log():
    return EventLog()


def still(panel, source):
    """Panels that are read when the test says so."""
    return Feed(source, panel)


def test_panels_show_what_the_folds_say(log):
    panels = Graph(), Consensus(), Throughput()
    feed = still(panels, log)
    log.write(ring_run())
    feed.step()
    graph, consensus, throughput = (panel.state for panel in panels)
    assert {(u, v) for u, v, _, on in graph["edges"] if on} == {
        (u, (u + hop) % 4) for u in range(4) for hop in (1, 3)
    }
    assert consensus["curves"][0]["rounds"] == list(range(21))
    assert consensus["say"].startswith("Error ")
    assert throughput["figures"][0][1] == "rounds/s"


def test_panels_are_empty_before_the_first_event(log):
    panels = [panel() for panel in PANELS.values()]
    still(panels, log).step()
    assert [panel.state["empty"] for panel in panels] == [True] * len(PANELS)


def test_panels_that_have_much_to_read_say_so_until_it_is_their_turn(log, monkeypatch):
    monkeypatch.setattr("ifog.widgets.panel._MUCH", 10)
    panels, told = [Graph(), Consensus()], []
    log.write(ring_run())
    panels[0].observe(lambda _: told.append(panels[1].state.get("why")), "state")
    feed = still(panels, log)
    feed.step()
    assert told[-1] == ["Reading the run", "the picture comes soon"]  # as the first one was drawn
    assert panels[1].state["empty"] is False
    few = EventLog()
    panel = Consensus()
    few.write(ring_run()[:3])
    still([panel], few).step()
    assert "why" not in panel.state


def test_the_names_of_panels_are_those_of_the_magic():
    from ifog.magics import commands

    assert tuple(PANELS) == commands.PANELS
    assert [panel.__name__.lower() for panel in PANELS.values()] == list(PANELS)


def test_the_magic_completes_the_panels_not_named_yet_and_refuses_others():
    from ifog.magics.commands import command
    from ifog.magics.complete import complete_line

    assert complete_line("%bf dashboard graph ", (), ()) == [n for n in PANELS if n != "graph"]
    with pytest.raises(ArgumentError, match=r"'wating' \(did you mean 'waiting'\?\)"):
        command(None, "dashboard wating")


def test_a_stall_that_ended_by_itself_folds_without_news(log, monkeypatch):
    clock = [104.0]
    monkeypatch.setattr("ifog.widgets.panel.now", lambda: clock[0])
    log.write([CellStart(rank, 100.0, 1, 2, (0, 1)) for rank in (0, 1)])
    log.write([WaitEvent(0, 102.0, "barrier", "", 0, (1,), 100.0)])
    log.write([OpEvent(0, 0, 0, "barrier", "", 100.0, 103.0, 3.0, 1, 0, (1,), (1,), ())])
    log.write([CellEnd(rank, 103.0, 1, "ok", 0, 0, 0.0, 0, None) for rank in (0, 1)])
    panel = Waiting()
    panel.follow(log, refresh=False)
    assert not panel.state["empty"]
    clock[0] = 108.1
    panel.follow(log, refresh=False)
    assert not panel.state["empty"]
    panel.follow(log, refresh=True)
    assert panel.state["empty"]
    folded = panel.state
    panel.follow(log, refresh=True)
    assert panel.state is folded


def test_a_dashboard_follows_its_source_by_itself(log):
    page = Dashboard(log)
    try:
        log.write(ring_run())
        wait_for(page.panels[1], lambda state: state.get("round") == 20)
        assert page.bar.state["pill"] == "ended"
    finally:
        page.close()


def wait_for(panel, done, timeout=10.0):
    """Block until the panel's state satisfies ``done``."""
    import threading

    reached = threading.Event()
    panel.observe(lambda change: done(change["new"]) and reached.set(), names="state")
    if done(panel.state):
        return
    assert reached.wait(timeout), f"the panel's state stayed {str(panel.state)[:200]}"


def test_nothing_new_sets_no_trait(log):
    panel = Consensus()
    feed = still((panel,), log)
    log.write(ring_run())
    feed.step()
    changes = []
    panel.observe(changes.append, names="state")
    feed.step()
    feed.step()
    assert changes == []


def test_a_closed_dashboard_reads_no_more(log):
    page = Dashboard(log)
    page.close()
    log.write(ring_run())
    assert page._feed.closed
    assert not page._feed._thread.is_alive()
    assert page.panels[1].state.get("round") is None


def test_a_page_that_nobody_shows_any_more_costs_nothing_until_it_is_shown_again(log):
    panels = Consensus(), Throughput()
    feed = still(panels, log)
    feed.step()
    assert feed in log.followers
    for panel in panels:
        panel.views = ["a"]
        panel.views = []
    log.write(ring_run())
    feed.step()
    assert feed not in log.followers
    assert panels[0].state.get("round") is None
    panels[0].views = ["b"]
    feed.step()
    assert panels[0].state["round"] == 20
    assert panels[1].asleep
    assert feed in log.followers


def test_what_fell_out_of_the_log_before_it_was_read_is_left_out_cleanly():
    log, panel = EventLog(capacity=120), Consensus()
    feed = still((panel,), log)
    log.write(ring_run(rounds=2))
    feed.step()
    log.write(list(cell(ring_matrix(4), numbered(4), 40, seq=2, t=300.0)))
    feed.step()
    assert "error" not in panel.state
    assert panel.state["round"] == 40


def test_two_dashboards_of_one_source_show_the_same(log):
    log.write(ring_run())
    pages = Dashboard(log), Dashboard(log)
    try:
        for page in pages:
            wait_for(page.panels[1], lambda state: state.get("round") == 20)
        assert pages[0].panels[1].state == pages[1].panels[1].state
    finally:
        for page in pages:
            page.close()


def test_a_panel_can_stand_alone(log):
    log.write(ring_run())
    panel = Graph(log)
    try:
        wait_for(panel, lambda state: state.get("round") == 20)
    finally:
        panel.close()


class Third(Panel):
    """A panel of a third of a row."""

    _esm = module("graph.js")
    span = 4
    picture = Graph.picture


@pytest.mark.parametrize(
    ("panels", "columns"),
    [
        ((Graph, Consensus, Throughput), [5, 7, 12]),
        (None, [5, 7, 12, 5, 7, 4, 4, 4, 12]),
        ((Graph,), [12]),
        ((Graph, Throughput), [5, 7]),
        ((Consensus, Consensus), [12, 12]),
        ((Third, Third, Third, Third, Consensus), [4, 4, 4, 4, 8]),
    ],
)
def test_rows_fill_in_order_and_the_last_panel_of_a_row_grows(log, panels, columns):
    page = Dashboard(log, panels)
    try:
        names = [name for panel in page.panels for name in panel._dom_classes]
        assert names == [f"ifog-span-{width}" for width in columns]
        css = (STATIC / "ifog.css").read_text(encoding="utf-8")
        for name, width in zip(names, columns, strict=True):
            assert f".{name} {{ grid-column: span {width}; }}" in css
    finally:
        page.close()


class Cluster:
    """Something with events, which a restart replaces."""

    def __init__(self):
        self.events = EventLog()


def test_a_cluster_is_read_through_its_events_and_anew_after_a_restart():
    cluster, panel = Cluster(), Consensus()
    feed = still((panel,), cluster)
    cluster.events.write(ring_run(rounds=20))
    feed.step()
    cluster.events = EventLog()
    cluster.events.write(ring_run(rounds=7))
    feed.step()
    assert panel.state["round"] == 7


@pytest.mark.parametrize("source", [None, 7, "run.jsonl", [], object()])
def test_a_source_without_events_is_refused_with_what_to_pass(source):
    with pytest.raises(TypeError, match=r"pass the cluster, its \.events"):
        Dashboard(source)


def fail(_state, _batch):
    raise ZeroDivisionError("three ranks missing")


class Broken(Panel):
    _esm = module("graph.js")
    picture = Picture(dict, fail, fail)


def test_a_panel_that_fails_says_why_and_the_others_go_on(log):
    broken, healthy = Broken(), Consensus()
    feed = still((broken, healthy), log)
    log.write(ring_run())
    feed.step()
    assert broken.state == {"error": "ZeroDivisionError: three ranks missing"}
    assert healthy.state["round"] == 20


def test_retry_reads_the_source_again_from_its_beginning(log):
    panel = Consensus()
    feed = still((panel,), log)
    log.write(ring_run())
    feed.step()
    before = panel.state
    panel.state = {"error": "anything"}
    panel._handle_custom_msg({"retry": True}, [])
    feed.step()
    assert panel.state == before


def test_what_a_panel_draws_is_json():
    import json

    log = EventLog()
    panels = [panel() for panel in PANELS.values()]
    x = numbered(4)
    x[1] = np.nan
    log.write([graph_event(star_matrix(4), "star"), *cell(star_matrix(4), x, 5)])
    still(panels, log).step()
    for panel in panels:
        json.dumps(panel.state, allow_nan=False)


def test_panels_need_no_torch():
    code = "import sys, ifog.widgets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_circulant_graphs_stand_on_a_circle_with_rank_0_on_top():
    edges = tuple((u, (u + hop) % 8) for u in range(8) for hop in (1, 2, 4))
    on_circle, spots = positions(8, edges, "exponential")
    assert on_circle
    assert spots[0] == pytest.approx([0, -1])
    assert spots[2] == pytest.approx([1, 0])


def test_a_grid_is_numbered_row_by_row():
    links = [(r, r + 3) for r in range(3)] + [(r, r + 1) for r in (0, 1, 3, 4)]
    edges = tuple(links + [(v, u) for u, v in links])
    on_circle, spots = positions(6, edges, "grid")
    assert not on_circle
    assert spots == [[-1, -1], [0, -1], [1, -1], [-1, 1], [0, 1], [1, 1]]


def test_a_star_has_its_centre_in_the_middle():
    edges = tuple(edge for leaf in (0, 1, 3, 4) for edge in ((2, leaf), (leaf, 2)))
    _, spots = positions(5, edges, "star")
    assert spots[2] == [0, 0]


def test_trees_hang_from_rank_0_and_other_graphs_keep_their_place():
    chain = tuple(edge for u in range(4) for edge in ((u, u + 1), (u + 1, u)))
    _, spots = positions(5, chain, "chain")
    assert [y for _, y in spots] == [-1, -0.5, 0, 0.5, 1]
    odd = (*chain, (0, 4), (1, 3))
    assert positions(5, odd, "custom") == positions.__wrapped__(5, odd, "custom")


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_smallest_graphs_have_places(n):
    edges = tuple((u, v) for u in range(n) for v in range(n) if u != v)
    for label in ("complete", "ring", "star", "grid", "custom"):
        _, spots = positions(n, edges, label)
        assert len(spots) == n
        assert np.isfinite(spots).all()


def test_panels_of_a_changing_graph_know_where_its_nodes_stand(log):
    panel = Graph()
    log.write(list(cell(lambda k: one_peer_matrix(8, k), numbered(8), 3)))
    still((panel,), log).step()
    assert len(panel.state["positions"]) == 8


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_short_and_ask_for_nothing_outside(name):
    source = (STATIC / name).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 180
    assert not re.search(r"http|cdn|import\(|//\w+\.", source, re.IGNORECASE)


def test_the_style_sheet_asks_for_nothing_outside():
    css = (STATIC / "ifog.css").read_text(encoding="utf-8")
    assert not re.search(r"http|cdn|@import|url\(", css, re.IGNORECASE)


@pytest.mark.parametrize("name", ENTRIES)
def test_bundles_are_modules_with_one_render(name, tmp_path):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    path = tmp_path / "bundle.mjs"
    path.write_text(module(name), encoding="utf-8")
    done = subprocess.run(["node", "--check", path], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert "import " not in re.sub(r"//.*", "", module(name))
