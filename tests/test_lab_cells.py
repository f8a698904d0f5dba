"""Cells of real ranks in a real JupyterLab: who waits for whom, and a run that is played again."""

from __future__ import annotations

import lab
import pytest
from lab import assert_alone

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(lab.missing()), reason=lab.missing() or "nothing is missing"),
]


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
    const said = [...panel.querySelectorAll('.sentence:not([visibility])')];
    return {sentence: said.map(line => line.textContent).join(' '),
        key: panel.querySelector('.ifog-key').textContent, looks, red, first};
}"""
SAYS = f"words => ({WAITING})()?.sentence.startsWith(words)"
ALL_WAIT = f"""() => {{ const seen = ({WAITING})();
    return seen && Object.values(seen.looks).filter(look => look === 'waiting').length === 3; }}"""


def test_the_panel_says_who_waits_and_keeps_it_when_a_rank_raised(page_of):
    with page_of(STALL, height=4000) as notebook:
        _stall(notebook)


def _stall(notebook):
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


def test_a_run_is_recorded_in_a_cell_replayed_and_scrubbed(page_of):
    with page_of(RECORDED, height=4000) as notebook:
        _scrub(notebook)


def _scrub(notebook):
    notebook.run_all()
    notebook.wait_until_run(timeout=180)
    page = notebook.page
    track = page.locator(".ifog-scrub")
    track.wait_for(timeout=30_000)
    notebook.wait("its title", "() => document.body.innerText.includes('Again')")
    assert page.inner_text("button.ifog-pill").startswith("paused")
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
    paused = "() => document.querySelector('button.ifog-pill').textContent.startsWith('paused')"
    notebook.wait("it to stop there", paused, timeout=10)
    assert_alone(notebook)
