"""Panels in a real JupyterLab: drawn, moving while a cell blocks the kernel, on loopback only."""

from __future__ import annotations

import shutil
from pathlib import Path

import lab
import pytest

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(lab.missing()), reason=lab.missing() or "nothing is missing"),
]
TUTORIAL = Path(__file__).parent.parent / "tutorials/00_start.ipynb"

FEED = """
import threading
import numpy as np
from ifog.telemetry import EventLog, now
from ifog.widgets import Dashboard
from runs import cell, graph_event, one_peer_matrix, ring_matrix

def play(log, events):
    pause = threading.Event()
    for event in events:
        pause.wait(max(getattr(event, "t1", getattr(event, "t", 0.0)) - now(), 0.0))
        log.write([event])

log = EventLog()
page = Dashboard(log, title="Played")
page
"""
LAST = "() => /round\\s80/.test(document.querySelector('.ifog-dashboard')?.innerText)"
RUN = """
begin = now() + 0.5
x = np.arange(8.0)[:, None]
slow = lambda rank, k: 0.003 * (1 + rank) + 0.0002 * k
events = cell(ring_matrix(8), x, 80, t=begin, round_time=0.06, slow=slow)
player = threading.Thread(target=play, args=(log, [graph_event(ring_matrix(8), "ring"), *events]))
player.start()
player.join(30)
"""
# What each of the first page's panels shows: its words, and the ends of its curves and bars.
PANELS = """() => [...document.querySelectorAll('.ifog-panel:not(.ifog-folded)')]
    .map(panel => panel.innerText + [...panel.querySelectorAll('.series, .part, .node')].map(
        mark => [mark.getAttribute('d')?.slice(-40), mark.getAttribute('width'), mark.style.fill]
    ))"""
MOVED = f"before => {{ const now = ({PANELS})(); return before.every((t, i) => t !== now[i]); }}"
DRAWN = """() => ['.node', '.series', '.part'].every(mark =>
    document.querySelector('.ifog-dashboard')?.querySelector(`.ifog-panel ${mark}`))"""

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
    const parts = {'.ifog-bar': 'span span, b, span', '.ifog-head': 'span',
        '.ifog-figures': 'b, span', '.ifog-body svg': 'text:not([visibility])'};
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


@pytest.fixture
def page_of(tmp_path, monkeypatch):
    """Opens a notebook, given as a file or as cells; closes browser and server after the test."""
    from contextlib import ExitStack

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    folder, home = tmp_path / "notebooks", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    with ExitStack() as stack:

        def open_page(content, *, dark=False, height=1400):
            if isinstance(content, Path):
                shutil.copy(content, folder / "page.ipynb")
            else:
                lab.write_notebook(folder / "page.ipynb", content)
            server = stack.enter_context(lab.lab(folder, home, dark=dark))
            chromium = stack.enter_context(lab.browser())
            return stack.enter_context(lab.opened(chromium, server, "page.ipynb", height=height))

        yield open_page


def assert_alone(notebook):
    assert notebook.outside == []
    assert notebook.errors == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_panels_move_while_a_cell_blocks_the_kernel(page_of, dark):
    notebook = page_of([FEED, RUN], dark=dark)
    notebook.run_all()
    notebook.wait("the panels to be drawn", DRAWN)
    before = notebook.page.evaluate(PANELS)
    assert notebook.prompts()[1] == "*"
    notebook.wait("the panels to move", MOVED, before, timeout=5)
    assert notebook.prompts()[1] == "*"
    assert len(before) == 3
    notebook.wait_until_run()
    notebook.wait("the last round", LAST)
    assert "Played" in notebook.outputs()
    assert_alone(notebook)


def test_a_click_selects_a_rank_in_every_panel_and_escape_clears_it(page_of):
    notebook = page_of([FEED, RUN])
    notebook.run_all()
    notebook.wait_until_run()
    page = notebook.page
    node = page.locator(".ifog-panel .node[data-rank='3']")
    node.hover()
    tip = page.locator(".ifog-panel .ifog-tip").first
    tip.get_by_text("hears 2 \N{MULTIPLICATION SIGN} 0.333, 4").wait_for(timeout=5000)
    page.locator(".ifog-panel rect[fill='transparent']").hover()
    page.locator(".ifog-panel .ifog-tip").nth(1).get_by_text("predicted").wait_for(timeout=5000)
    node.click()
    page.locator(".ifog-panel .ring.chosen").wait_for(state="attached", timeout=5000)
    page.locator(".ifog-panel .chosen-line").wait_for(state="attached", timeout=5000)
    notebook.wait(
        "the other bars to step back",
        """() => document.querySelector(".part.compute[data-rank='0']").style.opacity === '0.35'""",
    )
    page.keyboard.press("Escape")
    page.locator(".ifog-panel .ring.chosen").wait_for(state="detached", timeout=5000)
    assert_alone(notebook)


def test_a_panel_becomes_a_table_at_the_press_of_a_key(page_of):
    notebook = page_of([FEED, RUN])
    notebook.run_all()
    notebook.wait_until_run()
    panel = notebook.page.locator(".ifog-panel").nth(1)
    panel.focus()
    notebook.page.keyboard.press("t")
    rows = panel.locator("table tr")
    rows.nth(80).wait_for(state="attached", timeout=5000)
    assert rows.count() == 82
    notebook.page.keyboard.press("t")
    panel.locator("svg .series").first.wait_for(state="attached", timeout=5000)
    assert_alone(notebook)


def test_below_620_pixels_panels_stand_below_each_other_and_no_text_on_another(page_of):
    notebook = page_of([FEED, RUN])
    notebook.run_all()
    notebook.wait_until_run()
    notebook.wait("the last round", LAST)
    for width in (800, 700):
        notebook.page.set_viewport_size({"width": width, "height": 1800})
        notebook.wait("the page to be narrow", NARROW)
        notebook.wait("no text to lie on another", f"() => !({OVERLAPS})().length", timeout=10)
        assert notebook.page.evaluate(OVERLAPS) == []
        assert len(set(notebook.page.evaluate(LEFT_EDGES))) == 1
        assert notebook.page.evaluate(BEYOND) == []
    assert_alone(notebook)


def test_a_saved_notebook_shows_its_last_pictures_without_its_kernel(page_of):
    notebook = page_of([FEED, RUN])
    notebook.run_all()
    notebook.wait_until_run()
    notebook.wait("the last round", LAST)
    notebook.save()
    folder = notebook.server.folder
    shutil.copy(folder / "page.ipynb", folder / "copy.ipynb")
    with lab.opened(notebook.page.context.browser, notebook.server, "copy.ipynb") as copy:
        copy.wait("the saved panels", DRAWN)
        copy.wait("the last round", LAST)
        assert_alone(copy)


@pytest.mark.mpi
def test_the_tutorial_moves_its_three_panels_while_a_cell_runs(page_of):
    notebook = page_of(TUTORIAL, height=6000)  # panels that are scrolled out are not drawn
    notebook.run_all()
    notebook.wait("the panels to be drawn", DRAWN, timeout=90)
    before = notebook.page.evaluate(PANELS)
    busy = running(notebook)
    notebook.wait("the panels to move", MOVED, before, timeout=5)
    assert len(before) == 3
    assert busy
    assert running(notebook) == busy
    notebook.wait_until_run(timeout=180)
    assert_alone(notebook)


STALL = [
    "%load_ext ifog\n%bf start -n 4",
    "%bf dashboard",
    """%%bf
import time
x = bf.neighbor_allreduce(torch.ones(3), name="x")
if bf.rank() == 3: time.sleep(4)
for _ in range(2): x = bf.neighbor_allreduce(x, name="x")""",
    """%%bf
import time
if bf.rank() == 3:
    time.sleep(1.5)
    raise ValueError("no gradient")
for _ in range(2): x = bf.neighbor_allreduce(x, name="x")""",
    "%%bf\nx = bf.neighbor_allreduce(x, name='x')",
]
WAITING = """() => {
    const panel = document.querySelector('.ifog-risen');
    if (!panel) return null;
    const look = node => node.classList[2];
    const marks = [...panel.querySelectorAll('.waiter')];
    const looks = Object.fromEntries(marks.map(node => [node.dataset.rank, look(node)]));
    const red = panel.querySelectorAll('.needs.stalled').length;
    const grid = panel.closest('.ifog-grid');
    const first = [...grid.children].every(
        child => child.getBoundingClientRect().top >= panel.getBoundingClientRect().top - 1);
    return {sentence: panel.querySelector('.ifog-sentence').textContent,
        key: panel.querySelector('.ifog-key').textContent, looks, red, first};
}"""
SAYS = f"words => ({WAITING})()?.sentence.startsWith(words)"
ALL_WAIT = f"""() => {{ const seen = ({WAITING})();
    return seen && Object.values(seen.looks).filter(look => look === 'waiting').length === 3; }}"""


@pytest.mark.mpi
def test_the_panel_says_who_waits_and_keeps_it_when_a_rank_raised(page_of):
    notebook = page_of(STALL, height=3000)
    prompts = "i => /\\d/.test(document.querySelectorAll('.jp-InputPrompt')[i].textContent)"
    for index in (0, 1):
        notebook.run_cell(index)
        notebook.wait(f"cell {index} to end", prompts, index, timeout=60)
    notebook.run_cell(2)
    notebook.wait("the straggler", SAYS, "Rank 3 still computes", timeout=30)
    notebook.wait("all who wait", ALL_WAIT, timeout=3)
    seen = notebook.page.evaluate(WAITING)
    assert seen["looks"].pop("3") == "computing"
    assert seen["first"]
    assert seen["red"] == 2  # of the exponential graph, only ranks 0 and 1 hear from rank 3
    notebook.wait("cell 2 to end", prompts, 2)
    notebook.wait("the panel to fold", "() => !document.querySelector('.ifog-risen')", timeout=10)
    notebook.run_cell(3)
    notebook.wait("the raise", SAYS, "Rank 3 raised ValueError; 3 ranks were", timeout=30)
    seen = notebook.page.evaluate(WAITING)
    assert seen["looks"] == {"0": "waiting", "1": "waiting", "2": "waiting", "3": "gone"}
    assert seen["key"] == "at the moment of release"
    notebook.wait("its node in the graph to be crossed", "() => !!document.querySelector('.cross')")
    notebook.wait("missing messages", "() => !!document.querySelector('.missing')")
    notebook.run_cell(4)
    notebook.wait("cell 4 to end", prompts, 4)
    notebook.wait("the panel to fold", "() => !document.querySelector('.ifog-risen')", timeout=10)
    assert_alone(notebook)


RECORDED = [
    "%load_ext ifog\n%bf start -n 4\n%bf record on run.ifog",
    """%%bf
import time
x = torch.arange(4.0) + bf.rank()
for _ in range(40):
    x = bf.neighbor_allreduce(x, name="x")
    time.sleep(0.02)""",
    "%bf record off\n%bf stop",
    "import ifog\npage = ifog.replay('run.ifog', title='Again', paused=True)\npage",
]
ROUND = "document.querySelector('.ifog-bar b')?.textContent"


@pytest.mark.mpi
def test_a_run_is_recorded_in_a_cell_replayed_and_scrubbed(page_of):
    notebook = page_of(RECORDED, height=3000)
    notebook.run_all()
    notebook.wait_until_run(timeout=180)
    page = notebook.page
    track = page.locator(".ifog-scrub")
    track.wait_for(timeout=30_000)
    assert "Again" in notebook.outputs()
    assert page.inner_text("button.ifog-pill") == "paused"
    box = track.bounding_box()
    track.click(position={"x": 0.8 * box["width"], "y": 12})
    middle = f"() => Number({ROUND}) > 15 && Number({ROUND}) < 40"
    notebook.wait("the middle of the run", middle, timeout=10)
    drawn = "() => !!document.querySelector('.ifog-dashboard .series.main')"
    notebook.wait("its curve", drawn, timeout=10)
    before = int(page.inner_text(".ifog-bar b"))
    page.keyboard.press("ArrowRight")
    notebook.wait("one round more", f"round => {ROUND} === String(round + 1)", before, timeout=5)
    page.keyboard.press("Home")
    notebook.wait("the beginning", f"() => Number({ROUND} || 0) === 0", timeout=5)
    page.keyboard.press(" ")
    notebook.wait("the end", f"() => {ROUND} === '40'", timeout=20)
    paused = "() => document.querySelector('button.ifog-pill').textContent === 'paused'"
    notebook.wait("it to stop there", paused, timeout=10)
    assert_alone(notebook)


def running(notebook):
    """The number of the cell that runs, None when there is none."""
    prompts = notebook.prompts()
    return prompts.index("*") if "*" in prompts else None
