"""An exported run opened from the disk: drawn, played and scrubbed without Python or a network."""

from __future__ import annotations

import lab
import pytest
from test_replay import Trace, two_cells

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(lab.missing()), reason=lab.missing() or "nothing is missing"),
]

HALF = "0.5\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}"
ROUND = "document.querySelector('.ifog-bar b').textContent"
AT = "Number(document.querySelector('.ifog-scrub').getAttribute('aria-valuenow'))"
INK = "getComputedStyle(document.querySelector('.ifog-title')).color"
GROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def program():
    with lab.browser() as program:
        yield program


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    pytest.importorskip("anywidget", reason="anywidget is not installed (ifog[lab])")
    from ifog.widgets import export

    return export(
        Trace(two_cells(8)), tmp_path_factory.mktemp("page") / "run.html", title="Lecture"
    )


class Opened:
    """The page, what it asked for and what it complained of."""

    def __init__(self, program, path, *, dark=False, hash="", script=""):
        scheme = "dark" if dark else "light"
        self.page = program.new_page(viewport={"width": 1000, "height": 3000}, color_scheme=scheme)
        self.asked, self.errors = [], []
        self.page.on("request", lambda request: self.asked.append(request.url.split("#")[0]))
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        if script:
            self.page.add_init_script(script)
        self.page.goto(f"file://{path}{hash}")
        self.page.wait_for_selector(".ifog-panel .series", timeout=10_000)
        self.path = path

    def wait(self, condition):
        self.page.wait_for_function(f"() => {condition}", timeout=10_000, polling=50)

    def wait_for_pill(self, text):
        shown = "text => document.querySelector('button.ifog-pill').textContent === text"
        self.page.wait_for_function(shown, arg=text, timeout=10_000, polling=50)

    def assert_alone(self):
        assert self.asked == [f"file://{self.path}"]
        assert self.errors == []


def test_a_page_from_the_disk_plays_and_is_scrubbed(program, saved):
    opened = Opened(program, saved)
    page = opened.page
    words = page.inner_text(".ifog-dashboard")
    for word in ("Lecture", "8 ranks", "modelled", "paused", "Rank 3 raised ValueError"):
        assert word in words
    for mark in (".node", ".series", ".bar-compute", ".eigen", ".waiter", ".ifog-ticks i"):
        assert page.locator(f".ifog-dashboard {mark}").count()
    track = page.locator(".ifog-scrub")
    box = track.bounding_box()
    at = page.evaluate(AT)
    assert box["height"] == 24
    track.click(position={"x": box["width"] * 0.29 / at, "y": 12})
    opened.wait(f"{ROUND} === '14' || {ROUND} === '15'")
    first = int(page.evaluate(ROUND))
    page.locator(".part").first.wait_for(state="attached", timeout=5000)
    page.keyboard.press("ArrowRight")
    opened.wait(f"{ROUND} === '{first + 1}'")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    opened.wait(f"{ROUND} === '{first - 1}'")
    opened.wait_for_pill(f"paused, {HALF}")  # it would be over too soon
    page.keyboard.press("+")
    opened.wait_for_pill("paused")
    page.keyboard.press("-")
    opened.wait_for_pill(f"paused, {HALF}")
    page.mouse.click(500, 2990)  # beside all panels: keys reach the run from anywhere
    page.keyboard.press(" ")
    opened.wait_for_pill(f"replay {HALF}")
    opened.wait(f"{AT} > 0.6")
    page.click(".ifog-play")
    opened.wait_for_pill(f"paused, {HALF}")
    stopped = page.evaluate(AT)
    assert 0.6 < stopped < at
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 12)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 12, steps=5)
    page.mouse.up()
    opened.wait(f"Math.abs({AT} - {at / 4}) < 0.01")
    page.keyboard.press("End")
    page.keyboard.press(" ")  # at its end a run plays from its beginning
    opened.wait(f"{AT} > 0.1 && {AT} < 2")
    page.locator(".node[data-rank='3']").click()
    page.wait_for_selector(".ring.chosen", state="attached", timeout=5000)
    page.locator(".ifog-panel .ifog-title", has_text="Spectrum").dblclick()
    shown = "document.querySelector('.ifog-shown svg').getBoundingClientRect()"
    opened.wait(f"{shown}.height > 300")  # one panel on the whole page
    page.keyboard.press("f")
    opened.wait("!document.querySelector('.ifog-shown')")
    page.locator(".ifog-panel", has_text="Spectrum").get_by_text("edit").click()
    page.locator(".ifog-panel", has_text="Spectrum").get_by_text("done").wait_for(timeout=5000)
    page.click("#words summary")
    assert "Consensus Error " in page.inner_text("#words")
    opened.assert_alone()
    page.close()


def test_a_page_follows_the_readers_theme_and_begins_where_its_address_says(program, saved):
    opened = Opened(program, saved, dark=True, hash="#1.2")
    page = opened.page
    assert page.evaluate(INK) == "rgb(255, 255, 255)"
    assert page.evaluate(GROUND) == "rgb(33, 33, 33)"
    assert page.evaluate(AT) == pytest.approx(1.2)
    page.emulate_media(color_scheme="light")
    assert page.evaluate(GROUND) == "rgb(255, 255, 255)"
    opened.wait("document.body.dataset.jpThemeLight === 'true'")
    opened.assert_alone()
    page.close()


# Elements that were there before stand before new ones, so the order of words may differ.
SHOWN = "document.querySelector('.ifog-dashboard').innerText.split('\\n').sort().join('\\n')"


def test_an_old_browser_without_decompression_shows_the_same(program, saved):
    new = Opened(program, saved)
    new.wait(f"{SHOWN}.includes('Rank 3 raised')")
    text = new.page.evaluate(SHOWN)
    old = Opened(program, saved, hash="#2.45play", script="delete window.DecompressionStream")
    old.wait(f"{AT} > 2.6")
    old.page.keyboard.press("End")
    old.page.wait_for_function(f"text => {SHOWN} === text", arg=text, timeout=10_000)
    for opened in (new, old):
        opened.assert_alone()
        opened.page.close()
