"""Progress bars: one for all ranks, whatever draws them, and lines that may still change."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import zip_longest

import pytest
from outputs import Output
from tqdm import tqdm

import ifog
from ifog import fitting
from ifog.context import current
from ifog.magics.bars import parsed, together
from ifog.magics.fold import Fold
from ifog.magics.render import output_html
from ifog.magics.rows import Rows
from ifog.testing import run_ranks


class Tape:
    """A file that keeps each piece that is written."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)

    def flush(self) -> None:
        pass


def drawn(done, total=100, title="train", rate="10.00it/s", rest=""):
    return f"{title}: {done}%|###   | {done}/{total} [00:04<00:06, {rate}{rest}]"


@pytest.mark.parametrize(
    ("total", "options", "expected"),
    [
        (8, {"desc": "train"}, ("train", 5.0, "8", False)),
        (5, {}, ("", 5.0, "5", True)),
        (None, {"desc": "a: b", "unit": "batch"}, ("a: b", 5.0, "", False)),
        (8000, {"initial": 3995, "unit": "B", "unit_scale": True}, ("", 4000.0, "8.00k", False)),
    ],
)
def test_what_tqdm_draws_is_understood(total, options, expected):
    tape = Tape()
    bar = tqdm(total=total, file=tape, mininterval=0, **options)
    bar.set_postfix(loss=0.25)
    bar.update(5)
    bar.refresh()
    found = parsed(tape.pieces[-1].strip("\r"))
    assert (found.title, found.amount, found.total, found.complete) == expected
    assert found.rest == ", loss=0.25"
    bar.close()


@pytest.mark.parametrize(
    "line",
    ["", "loss 3 [1, 2]", "x: 5 [3, 4]", "[00:01, 3it/s]", "50%|## | of it", "a" * 2000 + drawn(3)],
)
def test_other_lines_are_no_bars(line):
    assert parsed(line) is None


def test_one_bar_shows_the_slowest_and_the_fastest():
    lines = {
        0: drawn(40, rate="9.80it/s", rest=", loss=0.5"),
        1: drawn(60, rate="10.20it/s", rest=", loss=0.3"),
        2: drawn(40, rate="10.00it/s", rest=", loss=0.4"),
    }
    assert together(lines) == (
        "train: 40 … 60%|████████▒▒▒▒        | 40 … 60/100 "
        "[00:04<00:06, 9.80 … 10.2it/s, loss=0.3 … 0.5] ranks 0,2 behind"
    )


def test_equal_bars_are_one_without_a_spread():
    assert together({0: drawn(50), 3: drawn(50)}) == (
        "train: 50%|██████████          | 50/100 [00:04<00:06, 10.0it/s]"
    )


def test_seconds_an_item_are_items_a_second_and_what_is_unlike_is_that_of_the_last():
    shown = together({0: drawn(1, rate="4.00s/it", rest=", a=1"), 1: drawn(2, rest=", b=1")})
    assert "0.250 … 10.0it/s, a=1]" in shown


def played(*tapes) -> Iterator[Fold]:
    """The fold after each piece, written by the ranks in turn."""
    fold = Fold()
    for pieces in zip_longest(*tapes):
        for rank, piece in enumerate(pieces):
            if piece is not None:
                kind, text = piece
                fold.feed([Output(rank, kind, text)])
        yield fold
    fold.finish()
    yield fold


def texts(fold):
    return [(block.ranks, block.text.split("|")[0]) for block in [*fold.blocks, *fold.tail()]]


def epochs(seconds, count=2):
    """What one rank writes that trains some epochs, each with a bar and a line."""
    tape, pieces = Tape(), []
    for epoch in range(count):
        for _ in tqdm(range(4), "train", file=tape, mininterval=0):
            time.sleep(seconds)
        pieces += [("stderr", piece) for piece in tape.pieces]
        tape.pieces.clear()
        pieces.append(("stdout", f"epoch {epoch}\n"))
    return pieces


def test_tqdm_on_several_ranks_is_one_bar_that_stays_above_what_follows():
    tapes = epochs(0.001), epochs(0.002), epochs(0.001)
    for fold in played(*tapes):
        assert all(ranks == (0, 1, 2) for ranks, _ in texts(fold))
        assert len(fold.tail()) <= 1
    assert [text for _, text in texts(fold)] == [
        "train: 100%",
        "epoch 0",
        "train: 100%",
        "epoch 1",
    ]


def test_a_rank_that_is_a_line_ahead_still_meets_the_others_bar():
    first, second = epochs(0.001), epochs(0.001)
    *_, fold = played(first, [("stderr", "")] * 3 + second)
    assert [ranks for ranks, _ in texts(fold)] == [(0, 1)] * 4


@pytest.mark.parametrize("leave", [False, True])
def test_a_bar_within_a_bar_is_two_lines_and_no_more(leave):
    tape = Tape()
    for _ in tqdm(range(3), "epochs", file=tape, mininterval=0):
        for _ in tqdm(range(4), "batches", file=tape, mininterval=0, leave=leave):
            pass
    pieces = [("stderr", piece) for piece in tape.pieces]
    for fold in played(pieces, pieces):
        assert len(fold.tail()) <= 2
        assert all(ranks == (0, 1) for ranks, _ in texts(fold))
    last = [text for _, text in texts(fold)]
    assert last == [*["batches: 100%"] * (3 if leave else 0), "epochs: 100%"]


def test_a_bar_is_not_amber():
    fold = Fold()
    fold.feed([Output(rank, "stderr", "\r" + drawn(50 + rank)) for rank in range(2)])
    assert 'class="ifog-cell-stderr"' not in output_html(fold.tail())
    fold.feed([Output(0, "stderr", "\nwarning\n")])
    assert 'class="ifog-cell-stderr"' in output_html(fold.blocks)


@pytest.mark.parametrize("cut", range(1, 12))
def test_pieces_may_be_cut_anywhere(cut):
    outer, inner = [drawn(d, title="o") for d in (1, 2)], [drawn(d, title="i") for d in (3, 4)]
    text = "".join(f"\r{o}\n\r{i}\x1b[A" for o, i in zip(outer, inner, strict=True))
    whole, parts = Rows(), Rows()
    finished = whole.feed(text)
    pieces = [text[at : at + cut] for at in range(0, len(text), cut)]
    assert [line for piece in pieces for line in parts.feed(piece)] == finished
    assert parts.open() == whole.open() == [outer[1], inner[1]]


def test_plain_lines_are_finished_by_their_ends_and_blank_ones_are_kept():
    rows = Rows()
    assert rows.feed("a\n\nb\r\nc") == ["a", "", "b"]
    assert rows.open() == ["c"]
    assert rows.close() == ["c"]
    assert rows.open() == []


def test_bars_of_ever_new_titles_do_not_pile_up():
    rows, finished = Rows(), []
    for title in range(100):
        finished += rows.feed(f"\r{drawn(50, title=title)}\n")
    assert len(rows.open()) <= 16
    assert len(finished) + len(rows.open()) == 100


def test_fit_progress_draws_what_is_understood_and_gives_each_item_once(monkeypatch):
    tape = Tape()
    monkeypatch.setattr(sys, "stderr", tape)
    monkeypatch.setattr(fitting, "_EVERY", 0.0)
    progress = ifog.fit_progress([5, 6, 7], "train")
    seen = []
    for item in progress:
        progress.show(loss=item / 4)
        seen.append(item)
    assert seen == [5, 6, 7]
    bars = [parsed(piece.strip("\r\n")) for piece in tape.pieces]
    assert [bar.done for bar in bars] == ["0", "1", "2", "3", "3"]
    assert (bars[-1].title, bars[-1].total, bars[-1].rest) == ("train", "3", ", loss=1.75")
    assert tape.pieces[-1].endswith("]\n")


def test_without_a_length_there_is_no_end(monkeypatch):
    tape = Tape()
    monkeypatch.setattr(sys, "stderr", tape)
    list(ifog.fit_progress(iter("ab")))
    assert (parsed(tape.pieces[-1].strip()).done, parsed(tape.pieces[-1].strip()).total) == (
        "2",
        "",
    )


@pytest.mark.parametrize("in_cell", [False, True])
def test_in_a_script_the_lowest_rank_draws_and_in_a_cell_all_do(monkeypatch, in_cell):
    tape = Tape()
    monkeypatch.setattr(sys, "stderr", tape)

    def work():
        if in_cell:
            current().begin_cell(1, range(3))
        list(ifog.fit_progress([1], f"rank {ifog.rank()}"))

    run_ranks(3, work)
    drawing = {parsed(piece.strip()).title for piece in tape.pieces}
    assert drawing == ({"rank 0", "rank 1", "rank 2"} if in_cell else {"rank 0"})


@pytest.mark.mpi
@pytest.mark.parametrize(
    "draw", ["tqdm.tqdm(range(30), 'train')", "bf.fit_progress(range(30), 'train')"]
)
def test_a_cell_of_real_ranks_shows_one_bar(cluster, draw):
    code = f"import time, tqdm\nfor k in {draw}:\n    time.sleep(0.01 + 0.004 * (bf.rank() == 2))"
    result = cluster.run(code, timeout=60)
    result.raise_for_error()
    *_, fold = played(
        *([(o.kind, o.text) for o in result.outputs if o.rank == rank] for rank in range(4))
    )
    assert texts(fold) == [((0, 1, 2, 3), "train: 100%")]
