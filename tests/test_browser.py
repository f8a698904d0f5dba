"""Panels in a real JupyterLab: drawn, moving while a cell blocks the kernel, on loopback only.

One server and one browser serve all tests, and one page most of them: a run of made-up ranks with
all views. The tests on that page leave it as they found it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import lab
import pytest
from lab import assert_alone

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(lab.missing()), reason=lab.missing() or "nothing is missing"),
]
TUTORIAL = Path(__file__).parent.parent / "tutorials/00_start.ipynb"

FEED = """
import threading
from ifog.telemetry import EventLog, now
from ifog.widgets import Dashboard
from runs import graph_event, ring_matrix, tracking

def play(log, events):
    pause = threading.Event()
    for event in events:
        pause.wait(max(getattr(event, "t1", getattr(event, "t", 0.0)) - now(), 0.0))
        log.write([event])

log, cells = EventLog(), 0
page = Dashboard(log, title="Played")
page
"""
RUN = """
cells += 1
begin = now() + 0.5
events = [graph_event(ring_matrix(8), "ring")]
events += tracking(8, 60, seq=cells, seed=cells, t=begin, round_time=0.12)
player = threading.Thread(target=play, args=(log, events))
player.start()
player.join(30)
"""
LAST = "() => /round\\s60/.test(document.querySelector('.ifog-dashboard')?.innerText)"
MOVING = ["consensus", "graph", "throughput", "timeline", "traffic", "training", "watch"]
# What each panel shows, by name.
PANELS = """() => Object.fromEntries(
    [...document.querySelectorAll('.ifog-panel:not(.ifog-folded)')].map(panel =>
        [panel.dataset.view, panel.querySelector('.ifog-body').innerHTML]))"""
MOVED = f"""([before, names]) => {{ const now = ({PANELS})();
    return names.every(name => now[name] && now[name] !== before[name]); }}"""
MARKS = [".node", ".series", ".part", ".bar-compute", ".train-mean", ".eigen", ".lamp-ok"]
DRAWN = """marks => marks.every(mark =>
    document.querySelector('.ifog-dashboard')?.querySelector(`.ifog-panel ${mark}`))"""
# The page scrolls to the cell that runs, and panels out of sight stand still.
SEEN = "() => document.querySelector('.ifog-dashboard').scrollIntoView({block: 'start'})"
NARROW = """() => [...document.querySelectorAll('.ifog-grid > *')].every(
    panel => panel.clientWidth > 200 && panel.clientWidth < 600)"""
LEFT_EDGES = """() => [...document.querySelectorAll('.ifog-grid > *')]
    .map(panel => Math.round(panel.getBoundingClientRect().left))"""
# Pairs of texts of one part of the page whose ink boxes overlap.
OVERLAPS = """() => {
    const box = text => {
        const range = document.createRange();
        range.selectNodeContents(text);
        return range.getBoundingClientRect();
    };
    const apart = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1
        || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
    const parts = {'.ifog-bar': 'span span, b, span', '.ifog-head': 'span, button',
        '.ifog-body svg': 'text:not([visibility])'};
    return Object.entries(parts).flatMap(([part, kind]) =>
        [...document.querySelectorAll(`.ifog-dashboard ${part}`)].flatMap(root => {
            const texts = [...root.querySelectorAll(kind)].filter(
                text => text.textContent && !text.childElementCount);
            return texts.flatMap((a, i) => texts.slice(i + 1)
                .filter(b => !apart(box(a), box(b)))
                .map(b => `${a.textContent} | ${b.textContent}`));
        }));
}"""
BEYOND = """() => {
    const page = document.querySelector('.ifog-dashboard').getBoundingClientRect();
    return [...document.querySelectorAll('.ifog-dashboard :is(b, span, text)')].filter(text =>
        text.getBoundingClientRect().right > page.right + 1).map(text => text.textContent);
}"""


@pytest.fixture(scope="module")
def shared(page_of):
    with page_of(
        [FEED, RUN, "print([panel.asleep for panel in page.panels])"], height=2600
    ) as page:
        yield page


@pytest.fixture
def played(shared):
    """The page after a run, in the light theme."""
    if not shared.prompts()[1].isdigit():
        shared.run_all()
        shared.wait_until_run()
    shared.wait("the last round", LAST)
    shared.darken(dark=False)
    yield shared
    assert_alone(shared)


def panel(notebook, name):
    return notebook.page.locator(f".ifog-panel[data-view='{name}']")


def press(notebook, name, key):
    panel(notebook, name).focus()
    notebook.page.keyboard.press(key)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_view_moves_while_a_cell_blocks_the_kernel(shared, dark):
    shared.darken(dark=dark)
    shared.run_cell(0)
    shared.wait("the page", "() => !!document.querySelector('.ifog-panel')")
    shared.run_cell(1)
    shared.page.evaluate(SEEN)
    shared.wait("all panels to be drawn", DRAWN, MARKS)
    shared.page.evaluate(SEEN)
    before = shared.page.evaluate(PANELS)
    assert shared.prompts()[1] == "*"
    shared.wait("the panels to move", MOVED, [before, MOVING], timeout=7)
    assert shared.prompts()[1] == "*"
    assert sorted(before) == sorted([*MOVING, "spectrum"])
    shared.wait("the last round", LAST)
    shared.wait("the cell to end", "() => !document.body.innerText.includes('[*]')")
    assert "Played" in shared.outputs()
    assert_alone(shared)


def test_a_click_selects_a_rank_in_every_panel_and_escape_clears_it(played):
    node = panel(played, "graph").locator(".node[data-rank='3']")
    node.hover()
    tip = panel(played, "graph").locator(".ifog-tip")
    tip.get_by_text("hears 2 \N{MULTIPLICATION SIGN} 0.333, 4").wait_for(timeout=5000)
    panel(played, "consensus").locator(".sheet").hover()
    panel(played, "consensus").locator(".ifog-tip").get_by_text("mean drift").wait_for(timeout=5000)
    node.click()
    for name, mark in {"graph": ".ring.chosen", "consensus": ".chosen-line"}.items():
        panel(played, name).locator(mark).wait_for(state="attached", timeout=5000)
    steps_back = """() => ['timeline', 'throughput', 'traffic'].every(name => {
        const root = document.querySelector(`.ifog-panel[data-view='${name}']`);
        return /opacity(="|: )0.35/.test(root.innerHTML); })"""
    played.wait("the other ranks to step back", steps_back)
    played.page.keyboard.press("Escape")
    panel(played, "graph").locator(".ring.chosen").wait_for(state="detached", timeout=5000)
    panel(played, "timeline").locator(".sheet").click(position={"x": 200, "y": 15})
    panel(played, "graph").locator(".ring.chosen").wait_for(state="attached", timeout=5000)
    played.page.keyboard.press("Escape")


def test_a_panel_becomes_a_table_at_the_press_of_a_key(played):
    press(played, "consensus", "t")
    rows = panel(played, "consensus").locator("table tr")
    rows.nth(60).wait_for(state="attached", timeout=5000)
    assert rows.count() == 61
    press(played, "consensus", "t")
    panel(played, "consensus").locator(".series").first.wait_for(state="attached", timeout=5000)


def test_one_panel_fills_the_page_and_the_others_are_their_titles(played):
    press(played, "spectrum", "f")
    bodies = """() => [...document.querySelectorAll('.ifog-panel:not(.ifog-folded)')]
        .filter(panel => panel.querySelector('.ifog-body').offsetHeight > 0)
        .map(panel => [panel.dataset.view, panel.clientWidth > 800])"""
    played.wait(
        "one panel alone", f"() => JSON.stringify(({bodies})()) === '[[\"spectrum\",true]]'"
    )
    played.page.keyboard.press("Escape")
    played.wait("all panels again", f"() => ({bodies})().length === 8")


def test_a_pause_keeps_the_picture_while_the_run_goes_on(played):
    press(played, "graph", " ")
    pills = "[...document.querySelectorAll('.ifog-bar .ifog-pill:not([hidden])')]"
    played.wait("the pill", f"() => {pills}.some(pill => pill.textContent === 'paused')")
    before = played.page.evaluate(PANELS)["consensus"]
    played.run_cell(1)
    played.wait("the cell to end", "() => document.body.innerText.includes('[*]')")
    played.wait("the cell to end", "() => !document.body.innerText.includes('[*]')")
    assert played.page.evaluate(PANELS)["consensus"] == before
    press(played, "graph", " ")
    played.wait("the newest picture", MOVED, [{"consensus": before}, ["consensus"]])


def test_arrow_keys_of_a_paused_page_step_through_its_rounds(played):
    shown = "() => document.querySelector('.ifog-bar b').textContent"
    at = f"round => ({shown})() === String(round)"
    press(played, "graph", "ArrowLeft")  # means nothing while the page is live
    press(played, "graph", " ")
    curve = "() => document.querySelector('.series.main').getAttribute('d')"
    live, whole = played.page.evaluate(PANELS), played.page.evaluate(curve)
    for key, done in [("Left", 59), ("Left", 58), ("Right", 59), ("Left", 58)]:
        press(played, "graph", f"Arrow{key}")
        played.wait(f"round {done}", at, done, timeout=10)
    stepped = ["consensus", "timeline"]
    played.wait("other panels to follow", MOVED, [live, stepped], timeout=10)
    assert played.page.evaluate(curve) != whole
    press(played, "consensus", " ")
    played.wait("the present", at, 60, timeout=10)
    played.wait("its curve", f"whole => ({curve})() === whole", whole, timeout=10)


def test_a_paused_page_stands_still_until_a_busy_kernel_has_gone_back(played):
    shown = "() => document.querySelector('.ifog-bar b').textContent"
    played.run_cell(1)
    early = f"() => {{ const done = Number(({shown})()); return done > 5 && done < 40; }}"
    played.wait("an early round", early)
    press(played, "graph", " ")
    pills = "[...document.querySelectorAll('.ifog-bar .ifog-pill:not([hidden])')]"
    played.wait("the pill", f"() => {pills}.some(pill => pill.textContent === 'paused')")
    paused = int(played.page.evaluate(shown))
    played.page.evaluate("""() => {
        const seen = (window.seenRounds = new Set());
        const figure = document.querySelector('.ifog-bar b');
        const note = new MutationObserver(() => seen.add(figure.textContent));
        note.observe(figure, {childList: true, characterData: true, subtree: true});
    }""")
    press(played, "graph", "ArrowLeft")
    played.wait("the cell to end", "() => !document.body.innerText.includes('[*]')")
    played.wait("one round less", f"round => ({shown})() === round", str(paused - 1), timeout=10)
    assert played.page.evaluate("() => [...window.seenRounds]") == [str(paused - 1)]
    press(played, "graph", " ")
    played.wait("the present", f"() => ({shown})() === '60'", timeout=10)


def test_the_timeline_zooms_moves_and_shows_the_critical_path(played):
    key = panel(played, "timeline").locator(".ifog-key")
    whole = key.inner_text()
    sheet = panel(played, "timeline").locator(".sheet")
    sheet.hover()
    played.page.keyboard.down("Control")
    for _ in range(8):
        played.page.mouse.wheel(0, -100)
    played.page.keyboard.up("Control")
    panel(played, "timeline").get_by_role("button", name="show all").wait_for(timeout=5000)
    assert key.inner_text() != whole
    box = sheet.bounding_box()
    before = played.page.evaluate(PANELS)["timeline"]
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    played.page.mouse.move(*middle)
    played.page.mouse.down()
    played.page.mouse.move(middle[0] + 120, middle[1], steps=4)
    played.page.mouse.up()
    played.wait("the lanes to follow", MOVED, [{"timeline": before}, ["timeline"]])
    panel(played, "timeline").locator(".message.strong").first.wait_for(state="attached")
    press(played, "timeline", "c")
    critical = "() => document.querySelector('.critical')?.getAttribute('d')?.length > 10"
    played.wait("the critical path", critical)
    press(played, "timeline", "c")
    panel(played, "timeline").get_by_role("button", name="show all").click()
    played.wait("all of it", "([key, text]) => document.querySelector(key).innerText === text",
                [".ifog-panel[data-view='timeline'] .ifog-key", whole])  # fmt: skip


def test_a_link_is_dragged_in_and_used_by_the_next_command(played):
    spectrum = panel(played, "spectrum")
    spectrum.get_by_role("button", name="edit").click()
    nodes = [spectrum.locator(".plan-node").nth(rank).bounding_box() for rank in (0, 4)]
    start, end = [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in nodes]
    played.page.mouse.move(*start)
    played.page.mouse.down()
    played.page.mouse.move(*end, steps=4)
    played.page.mouse.up()
    # A ring of 8 has gap 2/3 (1 - cos 45 deg). With 0 - 4 Metropolis gives their links 1/4 each,
    # which makes it worse: 1 - |eigenvalue 2| of that matrix is 0.15176 by numpy.
    spectrum.get_by_text("gap 0.195 \N{RIGHTWARDS ARROW} 0.152").wait_for(timeout=5000)
    spectrum.get_by_role("button", name="Use").click()
    spectrum.get_by_text("%bf topology --from-widget").wait_for(timeout=5000)
    proposal = "page.panels[6].proposal"
    shown = evaluated(played, f"sorted(map(tuple, {proposal}['edges']))[:4]")
    assert shown == "[(0, 1), (0, 4), (0, 7), (1, 0)]"
    spectrum.get_by_role("button", name="Discard").click()
    spectrum.get_by_role("button", name="done").click()
    assert evaluated(played, proposal) == "{}"


def evaluated(notebook, expression):
    """What the kernel says of an expression, through the third cell."""
    notebook.page.evaluate(
        """text => window.jupyterapp.shell.currentWidget.content.widgets[2].model
            .sharedModel.setSource(text)""",
        f"print({expression})",
    )
    output = notebook.page.locator(".jp-CodeCell").nth(2).locator(".jp-OutputArea-output")
    notebook.run_cell(2)
    notebook.wait("the answer", "() => !document.body.innerText.includes('[*]')")
    return output.last.inner_text().strip()


def test_heights_and_pictures_survive_a_reload_and_a_reconnection(played):
    grip = panel(played, "consensus").locator(".ifog-grip")
    box = grip.bounding_box()
    played.page.mouse.move(box["x"] + 50, box["y"] + 4)
    played.page.mouse.down()
    played.page.mouse.move(box["x"] + 50, box["y"] + 84, steps=4)
    played.page.mouse.up()
    tall = """() => Math.abs(document.querySelector("[data-view='consensus'] svg")
        ?.getBoundingClientRect().height - 380) < 8"""
    played.wait("the panel to grow", tall)
    played.save()
    played.reload()
    played.wait("the panels after a reload", DRAWN, MARKS)
    played.wait("the height after a reload", tall)
    played.page.evaluate("() => window.jupyterapp.commands.execute('notebook:reconnect-to-kernel')")
    before = played.page.evaluate(PANELS)
    played.run_cell(1)
    played.wait("the panels to go on", MOVED, [before, MOVING], timeout=10)
    played.wait("the cell to end", "() => !document.body.innerText.includes('[*]')")
    panel(played, "consensus").locator(".ifog-grip").dblclick()
    played.wait("its own height", f"() => !({tall})()")


def test_below_620_pixels_panels_stand_below_each_other_and_no_text_on_another(played):
    for width in (800, 700):
        played.page.set_viewport_size({"width": width, "height": 3600})
        played.wait("the page to be narrow", NARROW)
        played.wait("it to be drawn anew", f"() => !({BEYOND})().length", timeout=10)
        played.wait("no text to lie on another", f"() => !({OVERLAPS})().length", timeout=10)
        assert played.page.evaluate(OVERLAPS) == []
        assert len(set(played.page.evaluate(LEFT_EDGES))) == 1
        assert played.page.evaluate(BEYOND) == []
    played.page.set_viewport_size({"width": 1280, "height": 2600})


def test_a_page_that_is_cleared_away_costs_nothing(played):
    asleep = "[panel.asleep for panel in page.panels]"
    assert evaluated(played, asleep) == str([False] * 9)
    played.page.evaluate(
        """() => window.jupyterapp.shell.currentWidget.content.widgets[0].model.outputs.clear()"""
    )
    played.wait("the page to go", "() => !document.querySelector('.ifog-panel')")
    assert evaluated(played, asleep) == str([True] * 9)
    played.run_cell(0)
    played.wait("a page", "() => !!document.querySelector('.ifog-panel')")
    played.run_cell(1)
    played.wait("the last round", LAST)


def test_a_saved_notebook_shows_its_last_pictures_without_its_kernel(played):
    played.save()
    name = played.page.url.split("/")[-1].split("?")[0]
    folder = played.server.folder
    shutil.copy(folder / name, folder / "copy.ipynb")
    with lab.opened(played.page.context.browser, played.server, "copy.ipynb", height=2600) as copy:
        copy.wait("the saved panels", DRAWN, MARKS)
        copy.wait("the last round", LAST)
        assert_alone(copy)


@pytest.mark.skipif(not lab.installed("notebook"), reason="notebook is not installed (ifog[test])")
def test_notebook_7_draws_moves_and_answers_too(page_of):
    with page_of([FEED, RUN], app="notebooks", height=2600) as notebook:
        notebook.errors.clear()  # what the application itself says as it starts
        notebook.run_all()
        notebook.wait("the panels to be drawn", DRAWN, MARKS)
        before = notebook.page.evaluate(PANELS)
        notebook.wait("the panels to move", MOVED, [before, MOVING], timeout=7)
        notebook.wait_until_run()
        panel(notebook, "graph").locator(".node[data-rank='3']").click()
        panel(notebook, "graph").locator(".ring.chosen").wait_for(state="attached", timeout=5000)
        assert_alone(notebook)


def test_the_tutorial_moves_its_panels_while_a_cell_runs(page_of):
    moving = ["consensus", "graph", "throughput", "timeline", "traffic"]
    with page_of(TUTORIAL, height=6000) as notebook:  # panels that are scrolled out are not drawn
        notebook.run_all()
        notebook.wait("the panels to be drawn", DRAWN, MARKS[:4], timeout=90)
        before = notebook.page.evaluate(PANELS)
        busy = running(notebook)
        notebook.wait("the panels to move", MOVED, [before, moving], timeout=5)
        assert busy
        assert running(notebook) == busy
        notebook.wait_until_run(timeout=180)
        assert_alone(notebook)


def running(notebook):
    """The number of the cell that runs, None when there is none."""
    prompts = notebook.prompts()
    return prompts.index("*") if "*" in prompts else None
