"""Folding, the strip, and their text and HTML, without ranks and without IPython."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from types import MappingProxyType, SimpleNamespace
from typing import NamedTuple

import pytest

from ifog.magics.failures import failures, message, released
from ifog.magics.fold import Fold
from ifog.magics.live import Live
from ifog.magics.render import output_html, output_text, prefix_width, strip_html, strip_text
from ifog.magics.strip import Strip, waiting_sentence
from ifog.numbers import count, duration, number, percent, rank_ranges, size
from ifog.telemetry import (
    CellEnd,
    CellStart,
    EventLog,
    OpEvent,
    WaitEvent,
    WatchEvent,
)


class Output(NamedTuple):
    rank: int
    kind: str
    text: str
    data: Mapping = MappingProxyType({})


class RankError(NamedTuple):
    ename: str
    evalue: str
    line: int | None = None
    where: str = ""
    peer: int | None = None
    traceback: str = "line 1"


class Result(NamedTuple):
    ranks: tuple[int, ...] = (0, 1, 2, 3)
    seconds: float = 3.16
    rounds: int = 300
    nbytes: int = 230_000_000
    wait: float = 0.23
    status: str = "ok"
    errors: Mapping = MappingProxyType({})


def folded(*outputs):
    fold = Fold()
    fold.feed([Output(*output) for output in outputs])
    fold.finish()
    return fold


def text_of(fold, errors=None, width=0):
    errors = errors or {}
    blocks = fold.blocks
    width = prefix_width([b.ranks for b in blocks])
    return output_text(blocks, failures(errors), released(errors), width)


# Numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (94.87, "94.9"),
        (0.03768, "0.0377"),
        (2.281e-6, "2.28e-6"),
        (0.0, "0"),
        (-0.0, "0"),
        (-12.34, "-12.3"),
        (9.999e5, "1.00e6"),
        (12345.0, "12\N{NARROW NO-BREAK SPACE}300"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_units_follow_a_no_break_space():
    gap = "\N{NO-BREAK SPACE}"
    assert size(9.6e6) == f"9.60{gap}MB"
    assert size(999_999) == f"1.00{gap}MB"
    assert size(12) == f"12{gap}B"
    assert duration(0.0124) == f"12.4{gap}ms"
    assert duration(3.16) == f"3.16{gap}s"
    assert duration(134) == f"2{gap}min 14{gap}s"
    assert percent(0.268) == f"27{gap}%"
    assert count(12345) == "12\N{NARROW NO-BREAK SPACE}345"


def test_rank_ranges_join_neighbours():
    assert rank_ranges([0, 1, 2, 4, 5, 6, 7]) == "0-2,4-7"
    assert rank_ranges([2, 0]) == "0,2"


# Folding


def test_equal_lines_of_all_ranks_are_one_block():
    fold = folded(*((r, "stdout", "hello\n") for r in range(4)))
    assert text_of(fold) == "[0-3] hello"


def test_lines_that_differ_in_one_number_become_a_range_with_the_highest_rank():
    losses = ["0.331", "0.340", "0.551", "0.325"]
    fold = folded(*((r, "stdout", f"loss {x}\n") for r, x in enumerate(losses)))
    assert text_of(fold) == (
        "[0-3] loss 0.325 … 0.551\n      highest on rank 2; by rank 0.331 0.340 0.551 0.325"
    )


def test_nan_counts_as_the_highest_value():
    fold = folded((0, "stdout", "loss 1.5\n"), (1, "stdout", "loss nan\n"))
    assert fold.blocks[0].spread.high == 1
    assert fold.blocks[0].text == "loss 1.5 … nan"


def test_lines_that_differ_in_two_numbers_stay_apart():
    fold = folded((0, "stdout", "a 1 b 2\n"), (1, "stdout", "a 3 b 4\n"))
    assert [b.ranks for b in fold.blocks] == [(0,), (1,)]


def test_a_block_that_varies_in_one_number_takes_no_line_that_differs_in_another():
    fold = folded(
        (0, "stdout", "a 1 b 2\n"), (1, "stdout", "a 3 b 2\n"), (2, "stdout", "a 1 b 9\n")
    )
    assert [b.ranks for b in fold.blocks] == [(0, 1), (2,)]


@pytest.mark.parametrize(
    ("one", "other"),
    [("conv1 ok", "conv2 ok"), ("v1.2.3", "v1.2.4"), ("<at 0x7f1>", "<at 0x7f2>"), ("a", "b")],
)
def test_digits_within_words_are_text_not_numbers(one, other):
    fold = folded((0, "stdout", one + "\n"), (1, "stdout", other + "\n"))
    assert len(fold.blocks) == 2


def test_stdout_and_stderr_are_never_joined():
    fold = folded((0, "stdout", "x\n"), (1, "stderr", "x\n"))
    assert [b.kind for b in fold.blocks] == ["stdout", "stderr"]


def test_the_prefix_is_padded_to_the_widest():
    everybody = [(r, "stdout", "epoch 3\n") for r in (0, 1, 2, 4, 5, 6, 7)]
    fold = folded(*everybody, (5, "stderr", "careful\n"))
    assert text_of(fold) == "[0-2,4-7] epoch 3\n[5]       careful"


def test_steps_of_a_loop_stay_in_step_although_one_rank_is_ahead():
    ahead = [(0, "stdout", f"loss {10 - k}.5\n") for k in range(5)]
    behind = [(1, "stdout", f"loss {10 - k}.25\n") for k in range(5)]
    fold = folded(*ahead, *behind)
    assert [b.ranks for b in fold.blocks] == [(0, 1)] * 5


def test_equal_step_numbers_meet_although_a_rank_began_later():
    fold = folded(
        *((0, "stdout", f"step {k}\n") for k in range(4)),
        *((1, "stdout", f"step {k}\n") for k in range(2, 4)),
    )
    assert [(b.text, b.ranks) for b in fold.blocks[2:]] == [
        ("step 2", (0, 1)),
        ("step 3", (0, 1)),
    ]


def test_a_progress_bar_keeps_its_last_state():
    fold = Fold()
    fold.feed([Output(0, "stderr", "\r 10%"), Output(0, "stderr", "\r 20%")])
    assert [b.text for b in fold.tail()] == [" 20%"]
    fold.feed([Output(0, "stderr", "\r100%\r"), Output(0, "stderr", "\n")])
    assert [b.text for b in fold.blocks] == ["100%"]
    assert fold.tail() == []


def test_terminal_colours_are_dropped_even_when_a_code_is_cut_in_two():
    fold = folded((0, "stdout", "\x1b[3"), (0, "stdout", "1mred\x1b[0m\n"))
    assert fold.blocks[0].text == "red"


def test_equal_values_of_many_lines_are_one_block():
    value = "tensor([[1., 2.],\n        [3., 4.]])"
    fold = folded(*((r, "result", value) for r in range(2)))
    assert text_of(fold) == ("[0-1] tensor([[1., 2.],\n              [3., 4.]])")


def test_values_come_last_in_the_order_of_the_ranks():
    fold = folded(
        (1, "stdout", "x\n"), (1, "result", "'b'"), (0, "result", "'a'"), (0, "stderr", "late\n"),
        (2, "stdout", "x\n"), (2, "result", "'b'"),
    )  # fmt: skip
    assert [(b.ranks, b.text) for b in fold.blocks] == [
        ((1, 2), "x"), ((0,), "'a'"), ((0,), "late"), ((1, 2), "'b'"),
    ]  # fmt: skip


def test_warnings_of_a_cell_are_equal_although_their_file_has_a_process_id():
    warning = "/tmp/ipykernel_{0}/123.py:3: UserWarning: careful\n"
    fold = folded(*((r, "stderr", warning.format(100 + r)) for r in range(3)))
    assert text_of(fold) == "[0-2] cell:3: UserWarning: careful"


def test_a_frozen_block_takes_no_further_line():
    fold = Fold()
    fold.feed([Output(0, "stdout", "hello\n")])
    fold.freeze(1)
    fold.feed([Output(1, "stdout", "hello\n")])
    assert [b.ranks for b in fold.blocks] == [(0,), (1,)]


WORDS = [
    "hello",
    "loss 0.5",
    "loss 0.25",
    "loss 1e-3",
    "step 1",
    "step 2",
    "",
    "a 1 b 2",
    "\x1b[1mx",
]


@pytest.mark.parametrize("seed", range(60))
def test_no_line_of_a_rank_is_lost_changed_or_moved(seed):
    source = random.Random(seed)
    ranks = source.choice([1, 2, 4, 7])
    lines = {r: [source.choice(WORDS) for _ in range(source.randint(0, 30))] for r in range(ranks)}
    streams = {r: "".join(line + "\n" for line in lines[r]) for r in lines}
    fold = Fold()
    while any(streams.values()):
        rank = source.choice([r for r in streams if streams[r]])
        cut = source.randint(1, 12)
        fold.feed([Output(rank, "stdout", streams[rank][:cut])])
        streams[rank] = streams[rank][cut:]
        if source.random() < 0.1:
            fold.freeze(len(fold.blocks))
    fold.finish()
    for rank, written in lines.items():
        kept = [block.lines[rank] for block in fold.blocks if rank in block.lines]
        assert kept == [line.replace("\x1b[1m", "") for line in written]


@pytest.mark.parametrize("seed", range(20))
def test_lines_of_one_block_are_equal_but_for_one_number(seed):
    source = random.Random(seed)
    fold = Fold()
    for _ in range(200):
        fold.feed([Output(source.randrange(4), "stdout", source.choice(WORDS) + "\n")])
    for block in fold.blocks:
        words = [line.split() for line in block.lines.values()]
        assert len({len(w) for w in words}) == 1
        different = [k for k, column in enumerate(zip(*words, strict=True)) if len(set(column)) > 1]
        assert len(different) <= 1


# Errors


def test_equal_errors_are_one_and_released_ranks_are_no_errors():
    bad = RankError("ValueError", "lr must be positive", 3, "grad", None, "line 3, in grad")
    errors = {1: bad, 2: bad, 0: RankError("PeerFailedError", "rank 1 failed", 3, "", 1)}
    assert [(f.ranks, f.headline, f.place) for f in failures(errors)] == [
        ((1, 2), "ValueError: lr must be positive", "cell line 3, in grad")
    ]
    assert released(errors) == [((0,), "released: rank 1 raised ValueError")]


def test_the_message_of_the_exception_names_ranks_lines_and_reasons():
    errors = {
        1: RankError("ValueError", "bad 1", 3, "grad"),
        2: RankError("ValueError", "bad 2", 3, "grad"),
        0: RankError("PeerFailedError", "rank 1 failed", 3, "", 1),
    }
    assert message(errors) == (
        "[1-2] ValueError: bad 1 … 2 (cell line 3, in grad)\n[0] released: rank 1 raised ValueError"
    )


def test_interrupts_are_no_errors():
    errors = {0: RankError("KeyboardInterrupt", ""), 1: RankError("PeerFailedError", "", peer=0)}
    assert failures(errors) == []


def test_text_of_an_error_names_line_and_holds_the_traceback():
    errors = {3: RankError("ValueError", "bad", 3, "grad", None, "line 3, in grad\n-->  3 x")}
    text = output_text([], failures(errors), released(errors), 4)
    assert text == (
        "[3] ValueError: bad\n    cell line 3, in grad\n    line 3, in grad\n    -->  3 x"
    )


# HTML


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []
        self.seen = []
        self.texts = []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002 - the base class's form
        self.seen.append(tag)
        if tag not in ("img", "rect", "path", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):  # noqa: ARG002 - the base class's form
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def parsed(html):
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags


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


def start(seq=1, n=4, t=100.0, ranks=None):
    ranks = tuple(range(n)) if ranks is None else ranks
    return [CellStart(r, t, seq, n, ranks) for r in ranks]


def rounds(n=4, steps=20, t=100.0, period=0.1, nbytes=1000):
    return [
        OpEvent(r, k, k, "neighbor_allreduce", "x", t + period * k, t + period * (k + 0.5), 0.0, -1,
                nbytes, ((r + 1) % n,), ((r - 1) % n,), (0.5, 0.5))
        for k in range(steps)
        for r in range(n)
    ]  # fmt: skip


def plain(view):
    text = strip_text(view)
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")


def test_strip_says_starting_until_the_ranks_report():
    strip = Strip(1, range(4), 4, 100.0)
    assert strip.view(100.5).word == "starting"
    strip.feed(start())
    assert strip.view(100.5).word == "running"


def test_strip_counts_rounds_of_the_slowest_rank_and_their_rate():
    strip = Strip(1, range(4), 4, 100.0)
    strip.feed(start() + rounds()[:-1])
    view = strip.view(102.0)
    assert view.figures[0] == ("round", "19")
    assert "9.9" in view.figures[1][1] or "10." in view.figures[1][1]
    assert "B/s" in view.figures[2][1]


def test_strip_passes_over_events_of_other_cells():
    strip = Strip(2, (0, 1), 4, 100.0)
    strip.feed(start(seq=2, ranks=(0, 1)) + start(seq=1, ranks=(2, 3)) + rounds())
    assert strip.view(102.0).glyphs[0][0] == 0
    assert [rank for rank, _ in strip.view(102.0).glyphs] == [0, 1]


def test_strip_shows_the_error_of_the_first_watched_tensor():
    strip = Strip(1, range(2), 2, 100.0)
    strip.feed(start(n=2))
    for step, gap in enumerate([3.0, 1.5]):
        strip.feed(
            WatchEvent(r, 100.1, "x", step, 1, 0.0, 1e-16, (gap * (-1) ** r,)) for r in range(2)
        )
    view = strip.view(100.2)
    expected = (1.5**2 + 1.5**2) ** 0.5  # the distances of both ranks to the mean 0
    assert view.error == number(expected)
    assert len(view.spark) == 2


def test_strip_turns_slow_when_a_wait_passes_a_second():
    strip = Strip(1, range(4), 4, 100.0)
    strip.feed(start())
    waits = [WaitEvent(r, 101.5, "barrier", "", 0, (2,), 100.1) for r in (0, 1, 3)]
    strip.feed(waits)
    view = strip.view(101.6)
    assert view.word == "slow"
    assert view.figures[-1] == ("", "3 ranks wait for rank 2, still computing")
    assert dict(view.glyphs) == {0: "waiting", 1: "waiting", 2: "computing", 3: "waiting"}


def wait_for(**peers):
    return {
        int(rank[1:]): WaitEvent(int(rank[1:]), 1.0, "op", "", 0, tuple(waited), 0.0)
        for rank, waited in peers.items()
    }


def test_indirect_waiters_are_counted():
    waits = wait_for(r0=[1], r1=[2], r3=[2])
    states = {0: "waiting", 1: "waiting", 2: "computing", 3: "waiting"}
    assert waiting_sentence(waits, states) == "3 ranks wait for rank 2, still computing"


def test_a_cycle_is_named_as_one():
    waits = wait_for(r0=[1], r1=[0])
    assert (
        waiting_sentence(waits, dict.fromkeys(range(2), "waiting")) == "2 ranks wait for each other"
    )


def test_a_rank_that_finished_is_named_before_one_that_computes():
    waits = wait_for(r0=[1, 2])
    states = {0: "waiting", 1: "computing", 2: "finished"}
    assert waiting_sentence(waits, states) == "1 rank waits for rank 2, which has finished the cell"


def test_strip_closes_with_totals():
    assert plain(Strip(1, range(4), 4, 0.0).close(Result())) == (
        "done  4 of 4 ranks  300 rounds  94.9 rounds/s  230 MB sent  wait 23 %  3.16 s"
    )


def test_strip_without_rounds_closes_with_ranks_and_time_only():
    quiet = Result((0, 2), 0.012, 0, 0, 0.0)
    assert plain(Strip(1, (0, 2), 4, 0.0).close(quiet)) == "done  2 of 4 ranks  12.0 ms"


def test_strip_of_an_error_names_the_culprit_and_counts_the_released():
    errors = {3: RankError("ValueError", "x")} | {
        r: RankError("PeerFailedError", "", peer=3) for r in range(3)
    }
    view = Strip(1, range(4), 4, 0.0).close(Result(rounds=12, status="error", errors=errors))
    assert plain(view) == "stopped  round 12  rank 3 raised ValueError; 3 ranks released  3.16 s"
    assert dict(view.glyphs)[3] == "dead"


def test_a_rank_that_died_did_not_raise():
    errors = {1: RankError("RankDied", "rank 1 died"), 0: RankError("PeerFailedError", "", peer=1)}
    view = Strip(1, range(2), 2, 0.0).close(Result((0, 1), 1.0, 0, status="error", errors=errors))
    assert plain(view) == "stopped  rank 1 died; 1 rank released  1.00 s"
    assert released(errors) == [((0,), "released: rank 1 died")]


def test_strip_of_an_interrupt_names_the_last_rounds():
    strip = Strip(1, range(2), 2, 100.0)
    strip.feed(start(n=2) + rounds(n=2, steps=3)[:-1])
    stopped = {r: RankError("KeyboardInterrupt", "") for r in range(2)}
    result = Result((0, 1), 2.23, 3, 0, 0.0, "interrupted", stopped)
    assert plain(strip.close(result)) == (
        "interrupted  2 of 2 ranks came back  last finished round 2 or 3  2.23 s"
    )


def test_strip_of_a_raising_rank_is_red_before_the_others_have_ended():
    strip = Strip(1, range(4), 4, 100.0)
    strip.feed(start())
    strip.feed([CellEnd(3, 100.2, 1, "error", 0, 0, 0.0, 0, {"ename": "ValueError", "peer": None})])
    view = strip.view(100.3)
    assert view.word == "stopped"
    assert view.figures[-1][1].startswith("rank 3 raised ValueError")


@pytest.mark.parametrize("n", [1, 4, 16, 64, 200])
def test_strip_draws_any_number_of_ranks_as_well_formed_html(n):
    strip = Strip(1, range(n), n, 100.0)
    strip.feed(start(n=n))
    parsed(strip_html(strip.view(101.0)))


# Live


class FakeDisplay:
    def __init__(self, html, text):
        self.updates = 0
        self.update(html, text)

    def update(self, html, text):
        self.updates += 1
        self.html, self.text = html, text


class FakeScreen:
    moves = True

    def __init__(self):
        self.shown = []

    def show(self, html, text):
        self.shown.append(FakeDisplay(html, text))
        return self.shown[-1]


def live(screen, cell):
    return Live(screen, cell, 2, EventLog(), 0)


def test_live_shows_strip_first_then_output_and_replaces_both():
    screen, cell = FakeScreen(), SimpleNamespace(seq=1, ranks=(0, 1), outputs=[])
    display = live(screen, cell)
    display.tick()
    cell.outputs.append(Output(0, "stdout", "hello\n"))
    cell.outputs.append(Output(1, "stdout", "hello\n"))
    display.finish(Result((0, 1)))
    assert [d.text.split()[0] for d in screen.shown] == ["done", "[0-1]"]


def test_long_output_is_frozen_in_blocks_and_loses_nothing():
    screen, cell = FakeScreen(), SimpleNamespace(seq=1, ranks=(0, 1), outputs=[])
    display = live(screen, cell)
    cell.outputs.extend(Output(0, "stdout", f"line {k} a{k}\n") for k in range(1000))
    display.tick()
    display.finish(Result((0, 1)))
    outputs = screen.shown[1:]
    assert len(outputs) >= 4
    assert max(len(d.text.splitlines()) for d in outputs) <= 300
    lines = "\n".join(d.text for d in outputs).splitlines()
    assert lines == [f"[0] line {k} a{k}" for k in range(1000)]
