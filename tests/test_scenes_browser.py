"""Views of made-up runs on a page of Chromium: what hovering tells, what fits, what many cost."""

from __future__ import annotations

import re

import gallery
import lab
import pytest
from runs import graph_event, ring_matrix, star_matrix, tracking

from ifog.telemetry import CellEnd, CellStart, GraphEvent, OpEvent, WaitEvent

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(lab.missing()), reason=lab.missing() or "nothing is missing"),
]
BEYOND = """() => {
    const panel = document.querySelector("[data-view='traffic']").getBoundingClientRect();
    return [...document.querySelectorAll("[data-view='traffic'] text:not([visibility])")]
        .filter(text => { const box = text.getBoundingClientRect();
            return box.right > panel.right + 1 || box.bottom > panel.bottom + 1; })
        .map(text => text.textContent); }"""
WORDS = """() => [...document.querySelectorAll(
    "[data-view='traffic'] text.muted:not([visibility])")]
    .map(text => text.textContent).join(' ')"""


@pytest.fixture(scope="module")
def program():
    pytest.importorskip("anywidget", reason="anywidget is not installed (ifog[lab])")
    with lab.browser() as program:
        yield program


@pytest.fixture
def show(program):
    """Shows the panels of some states; whatever the page complains of fails the test."""
    sheets, troubles = [], []

    def shown(states, width=864, theme="light"):
        view = {"width": width + 36, "height": 1500}
        sheet = program.new_page(viewport=view)
        sheets.append(sheet)
        sheet.on("pageerror", lambda error: troubles.append(str(error)))
        sheet.set_content(gallery.page(states, theme, width))
        sheet.wait_for_function("document.body.dataset.ready === 'true'", timeout=10_000)
        sheet.wait_for_selector(".ifog-body svg", timeout=10_000)
        return sheet

    yield shown
    for sheet in sheets:
        troubles += sheet.locator(".ifog-fault").all_inner_texts()
        sheet.close()
    assert troubles == []


def tip(sheet, view):
    return sheet.locator(f"[data-view='{view}'] .ifog-tip")


def test_an_edge_tells_its_weight_its_bytes_and_its_last_round(show):
    events = [graph_event(star_matrix(4), "star"), *tracking(4, 12, matrix=ring_matrix(4))]
    sheet = show(gallery.states_of(events, ["graph"]))
    used = sheet.locator("[data-tip^='1 ↔ 2']")
    used.dispatch_event("pointermove", {"bubbles": True})
    # Of a ring each rank keeps a third and takes a third of each neighbour.
    assert tip(sheet, "graph").inner_text().splitlines()[1] == "weight 0.333"
    assert tip(sheet, "graph").inner_text().splitlines()[-1] == "last in round 12"
    idle = sheet.locator("[data-tip^='0 → 2']")
    idle.dispatch_event("pointermove", {"bubbles": True})
    assert tip(sheet, "graph").inner_text().splitlines()[-1] == "not used in this cell"


def test_the_timeline_tells_the_line_of_the_cell_where_it_is_known(show):
    events = [e for e in tracking(4, 6, matrix=ring_matrix(4)) if not isinstance(e, CellEnd)]
    last = max(getattr(e, "t1", getattr(e, "t", 0.0)) for e in events)
    wait = WaitEvent(2, last + 0.4, "neighbor_allreduce", "x", 6, (1,), last + 0.1, line=5)
    states = gallery.states_of([*events, wait], ["timeline"], now=last + 0.4)
    sheet = show(states)
    box = sheet.locator("[data-view='timeline'] .sheet").bounding_box()
    pitch = 30
    sheet.mouse.move(box["x"] + box["width"] - 5, box["y"] + 2.5 * pitch)
    told = tip(sheet, "timeline").inner_text().splitlines()
    assert told[0].startswith("rank 2 waits for rank 1")
    assert told[1] == "neighbor_allreduce('x'), round 6, line 5"


@pytest.mark.parametrize("width", [864, 400])
@pytest.mark.parametrize("declared", [star_matrix(8), None], ids=["star", "none"])
def test_words_below_the_traffic_stay_inside_the_view(show, declared, width):
    events = gallery.healthy(8, 30)[1:]
    if declared is not None:
        events = [graph_event(declared, "star"), *events]
    sheet = show(gallery.states_of(events, ["traffic", "spectrum", "watch"]), width)
    words = "18 used, not in the graph: 1→2" if declared is not None else "no graph declared"
    assert words in sheet.evaluate(WORDS)
    assert sheet.evaluate(BEYOND) == []


SHOW_OTHER = """state => { const panel = document.querySelector("[data-view='graph']");
    const before = Number(panel.dataset.draws);
    window.models.graph.set('state', state);
    return before; }"""


def ring_of(n, hop):
    """A ring in which everybody hears from who is ``hop`` before, and a round of it."""
    edges = [(v, v, 0.5) for v in range(n)] + [((v - hop) % n, v, 0.5) for v in range(n)]
    ranks = tuple(range(n))
    yield GraphEvent(0, 100.0, n, "ring", tuple(edges))
    yield from (CellStart(rank, 100.0, 1, n, ranks) for rank in ranks)
    for v in ranks:
        to, come = (v + hop) % n, (v - hop) % n
        yield OpEvent(v, 0, 0, "neighbor_allreduce", "x", 100.0, 100.1, 0.0, -1, 8, (to,), (come,),
                      (0.5, 0.5))  # fmt: skip


def test_ten_thousand_agents_are_a_matrix_that_follows_each_state(show):
    n, hop = 10_000, 2500
    first, second = (
        gallery.states_of(ring_of(n, far), ["graph"], now=100.2) for far in (hop, 2 * hop)
    )
    sheet = show(first)
    assert sheet.locator("[data-view='graph'] svg text.end").first.text_content() == "9999"
    box = sheet.locator("[data-view='graph'] .band").bounding_box()

    def bins():
        """The cells of the matrix that are blue, as [row, column]."""
        paths = [each.get_attribute("d") for each in sheet.locator(".bits-used").all()]
        corners = re.findall(r"M([\d.]+),([\d.]+)h([\d.]+)", "".join(paths))
        side = box["width"] / 128
        return {
            (round(float(y) / side), round(float(x) / side) + k)
            for x, y, wide in corners
            for k in range(round(float(wide) / side))
        }

    for far, state in ((hop, first), (2 * hop, second)):
        before = sheet.evaluate(SHOW_OTHER, state["graph"])
        drawn = "before => Number(document.querySelector('.ifog-panel').dataset.draws) > before"
        sheet.wait_for_function(drawn, arg=before, timeout=10_000)
        # Rank u sends to u + far: bins of the matrix are 128 x 128, and both ends fall into one.
        expected = {(128 * u // n, 128 * ((u + far) % n) // n) for u in range(n)}
        assert bins() == expected
