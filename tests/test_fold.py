"""Folding: what many ranks say alike is said once, and nothing is lost, moved or changed."""

from __future__ import annotations

import random
import time

import pytest
from outputs import Output, RankError, folded, text_of

from ifog.magics.failures import failures, message, released
from ifog.magics.fold import Fold
from ifog.magics.render import output_text
from ifog.numbers import count, duration, number, percent, rank_ranges, size


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


def test_equal_lines_after_a_differing_one_fold_again():
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        fold = folded(*((r, "stdout", f"{'abcd'[r]}\nsame1\nsame2\n") for r in order))
        differing = [f"[{r}]   {'abcd'[r]}" for r in range(4)]
        assert text_of(fold).splitlines() == [*differing, "[0-3] same1", "[0-3] same2"]


def test_a_line_of_one_rank_does_not_part_the_lines_around_it():
    fold = folded(
        (0, "stdout", "a\nb\n"), (1, "stdout", "a\nmine\nalso mine\nb\n"), (2, "stdout", "a\nb\n")
    )  # fmt: skip
    assert [(b.text, b.ranks) for b in fold.blocks] == [
        ("a", (0, 1, 2)), ("mine", (1,)), ("also mine", (1,)), ("b", (0, 1, 2)),
    ]  # fmt: skip


def test_equal_lines_fold_however_far_ranks_drift_apart():
    source = random.Random(0)
    left = {r: [f"line {k}" for k in range(4000)] for r in range(4)}
    fold = Fold()
    fold.feed([Output(0, "stdout", "\n".join(left.pop(0)) + "\n")])
    while left:
        rank = source.choice(list(left))
        cut = source.randint(1, 3000)
        fold.feed([Output(rank, "stdout", "".join(f"{line}\n" for line in left[rank][:cut]))])
        left[rank] = left[rank][cut:]
        left = {r: lines for r, lines in left.items() if lines}
    assert [(b.text, len(b.lines)) for b in fold.blocks] == [(f"line {k}", 4) for k in range(4000)]


LONG = ["a", "\x1b]", "\x1b[", "1", "1_", "/ipykernel_1", "1e", "\r", " 1"]


@pytest.mark.parametrize("part", LONG)
def test_the_cost_of_a_long_line_is_linear(part):
    begun = time.process_time()
    fold = Fold()
    for rank in range(4):
        fold.feed([Output(rank, "stdout", part * (200_000 // len(part)))])
    fold.tail()
    fold.feed([Output(rank, "stdout", "\n") for rank in range(4)])
    fold.finish()
    assert time.process_time() - begun < 2


def test_a_long_line_is_compared_as_a_whole():
    long = "x" * 5000
    assert text_of(folded(*((r, "stdout", f"{long}\n") for r in range(2)))) == f"[0-1] {long}"
    assert len(folded(*((r, "stdout", f"{long} {r}\n") for r in range(2))).blocks) == 2


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
    fold.finish()
    assert [b.place for b in fold.blocks] == sorted({b.place for b in fold.blocks})
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
        "[1-2] ValueError: bad 1 (and alike on 2) (cell line 3, in grad)\n"
        "[0] released: rank 1 raised ValueError"
    )


def test_numbers_of_an_error_message_are_no_range():
    text = "rank {0} has shape ({1},), rank 2 has shape (3,)"
    errors = {r: RankError("ShapeError", text.format(r, r + 1)) for r in (0, 1, 3)}
    (failure,) = failures(errors)
    assert failure.ranks == (0, 1, 3)
    assert failure.headline == f"ShapeError: {text.format(0, 1)} (and alike on 1,3)"
    errors[3] = RankError("ValueError", text.format(0, 1))
    assert [f.ranks for f in failures(errors)] == [(0, 1), (3,)]


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
