"""HTML of what ranks showed: inert, well-formed, replaced in place."""

from __future__ import annotations

import re
from types import SimpleNamespace

from outputs import Output, RankError, Result, folded, parsed

from ifog.magics.failures import failures
from ifog.magics.live import Live
from ifog.magics.render import output_html, strip_html
from ifog.magics.strip import Strip
from ifog.telemetry import (
    EventLog,
)

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>&lt;"


def test_what_ranks_write_stays_text_in_html():
    fold = folded(
        (0, "stdout", HOSTILE + "\n"), (0, "stderr", HOSTILE + "\n"), (0, "result", HOSTILE)
    )
    errors = {0: RankError(HOSTILE, HOSTILE, 1, HOSTILE, None, HOSTILE)}
    tags = parsed(output_html(fold.blocks, failures(errors), [((1,), HOSTILE)], 4))
    assert "script" not in tags.seen
    assert "img" not in tags.seen
    assert "".join(tags.texts).count(HOSTILE) == 8


def test_strip_html_escapes_its_words():
    strip = Strip(1, (0,), 1, 0.0)
    failed = Result((0,), status="error", errors={0: RankError(HOSTILE, "x")})
    assert "script" not in parsed(strip_html(strip.close(failed))).seen


def test_a_range_unfolds_to_one_line_a_rank():
    fold = folded(*((r, "stdout", f"loss {r}.5\n") for r in range(3)))
    html = output_html(fold.blocks, width=6)
    inner = re.search(r"<details>.*</details>", html, re.S)[0]
    assert "".join(parsed(inner).texts) == (
        "highest on rank 2; 3 values, click to unfold[0] loss 0.5\n[1] loss 1.5\n[2] loss 2.5"
    )


def test_a_picture_is_shown_once_for_the_ranks_that_made_the_same():
    data = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
    fold = folded(*((r, "display", "<Figure>", data) for r in range(4)))
    html = output_html(fold.blocks, width=6)
    assert html.count("<img") == 1
    assert "[0-3]" in html


def test_different_pictures_stand_under_their_own_ranks():
    fold = folded(*((r, "display", "<Figure>", {"image/png": "AAA" + "A" * r}) for r in range(2)))
    html = output_html(fold.blocks, width=4)
    assert html.count("<img") == 2
    assert "[0]" in html
    assert "[1]" in html


# Strip


class FakeDisplay:
    def __init__(self, html, text, markdown=""):
        self.updates = 0
        self.update(html, text, markdown)

    def update(self, html, text, markdown=""):
        self.updates += 1
        self.html, self.text, self.markdown = html, text, markdown


class FakeScreen:
    moves = True

    def __init__(self):
        self.shown = []

    def show(self, html, text, markdown=""):
        self.shown.append(FakeDisplay(html, text, markdown))
        return self.shown[-1]


def live(screen, cell):
    return Live(screen, cell, 2, EventLog(), 0)


def test_live_shows_strip_first_then_output_and_replaces_both():
    screen, cell = (
        FakeScreen(),
        SimpleNamespace(seq=1, ranks=(0, 1), outputs=[], stall=None, stopping=""),
    )
    display = live(screen, cell)
    display.tick()
    cell.outputs.append(Output(0, "stdout", "hello\n"))
    cell.outputs.append(Output(1, "stdout", "hello\n"))
    display.finish(Result((0, 1)))
    assert [d.text.split()[0] for d in screen.shown] == ["done", "[0-1]"]


def test_long_output_is_shown_in_parts_and_loses_nothing():
    screen, cell = (
        FakeScreen(),
        SimpleNamespace(seq=1, ranks=(0, 1), outputs=[], stall=None, stopping=""),
    )
    display = live(screen, cell)
    cell.outputs.extend(Output(0, "stdout", f"line {k} a{k}\n") for k in range(1000))
    display.tick()
    display.finish(Result((0, 1)))
    outputs = screen.shown[1:]
    assert len(outputs) >= 4
    assert max(len(d.text.splitlines()) for d in outputs) <= 300
    lines = "\n".join(d.text for d in outputs).splitlines()
    assert lines == [f"[0] line {k} a{k}" for k in range(1000)]


def drawn(outputs, ticks=1):
    screen, cell = (
        FakeScreen(),
        SimpleNamespace(seq=1, ranks=(0, 1), outputs=[], stall=None, stopping=""),
    )
    display = live(screen, cell)
    for tick in range(ticks):
        cell.outputs.extend(
            outputs[tick * len(outputs) // ticks : (tick + 1) * len(outputs) // ticks]
        )
        display._due = 0.0
        display.tick()
    display.finish(Result((0, 1)))
    return screen.shown[1:]


def test_of_very_long_output_the_beginning_and_the_end_are_shown():
    shown = drawn([Output(0, "stdout", f"line {k} a{k}\n") for k in range(10_000)], ticks=5)
    lines = "\n".join(d.text for d in shown).splitlines()
    gap = lines.index("… 7000 lines left out …")
    assert lines[:gap] == [f"[0] line {k} a{k}" for k in range(2000)]
    assert lines[gap + 1 :] == [f"[0] line {k} a{k}" for k in range(9000, 10_000)]
    assert any("7000 lines left out" in d.html for d in shown)


def test_a_part_that_did_not_change_is_not_drawn_again():
    lines = [Output(0, "stdout", f"line {k} a{k}\n") for k in range(1000)]
    assert max(d.updates for d in drawn(lines, ticks=10)) <= 3


def test_markdown_is_a_display_of_its_own():
    data = {"text/markdown": "**bold**", "text/plain": "<Markdown>"}
    outputs = [
        ("stdout", "above\n", {}),
        ("display", "<Markdown>", data),
        ("stdout", "below\n", {}),
    ]
    shown = drawn([Output(r, *output) for r in range(2) for output in outputs])
    assert [d.markdown for d in shown] == ["", "`[0-1]`\n\n**bold**", ""]
    assert ["above" in shown[0].html, "below" in shown[2].html] == [True, True]


def test_an_open_line_that_vanishes_is_not_left_standing():
    screen, cell = (
        FakeScreen(),
        SimpleNamespace(seq=1, ranks=(0, 1), outputs=[], stall=None, stopping=""),
    )
    display = live(screen, cell)
    cell.outputs.append(Output(0, "stderr", "\r 10%"))
    display.tick()
    assert "10%" in screen.shown[1].text
    cell.outputs.append(Output(0, "stderr", "\r100%\r\n"))
    display.finish(Result((0, 1)))
    assert [d.text for d in screen.shown[1:]] == ["[0] 100%"]


def test_ranks_that_lag_by_thousands_of_lines_fold_with_those_ahead():
    lines = [Output(r, "stdout", f"line {k} a{k}\n") for r in range(2) for k in range(1500)]
    shown = "\n".join(d.text for d in drawn(lines, ticks=6)).splitlines()
    assert shown == [f"[0-1] line {k} a{k}" for k in range(1500)]


def test_the_middle_of_a_very_long_line_is_left_out():
    (shown,) = drawn([Output(0, "stdout", "a" * 3_000_000 + "\n")])
    assert "2 980 000 characters left out" in shown.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert len(shown.text) < 21_000
    assert len(shown.html) < 30_000
