"""The strip under a cell: what state it is in, said in one line."""

from __future__ import annotations

import pytest
from outputs import RankError, Result, parsed

from ifog.magics.failures import released
from ifog.magics.render import strip_html, strip_text
from ifog.magics.strip import Strip
from ifog.numbers import number
from ifog.telemetry import (
    CellEnd,
    CellStart,
    OpEvent,
    WaitEvent,
    WatchEvent,
)
from ifog.why import State, explain, of_wait


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


def test_strip_says_who_holds_up_whom_and_its_glyphs_stay_calm():
    strip = Strip(1, range(4), 4, 100.0)
    strip.feed(start())
    waits = [WaitEvent(r, 101.5, "barrier", "", 0, (2,), 100.1) for r in (0, 1, 3)]
    strip.feed(waits)
    stall = explain({e.rank: of_wait(e) for e in waits} | {2: State("computing")}, 101.6)
    view = strip.view(101.6, stall)
    assert view.word == "slow"
    assert view.figures[-1] == ("", "3 ranks wait for rank 2, still computing")
    assert dict(view.glyphs) == {0: "waiting", 1: "waiting", 2: "computing", 3: "waiting"}
    assert strip.view(101.6).word == "running"


def test_strip_closes_a_stall_with_its_cause():
    waits = {r: State("waiting", 1.0, "barrier", "", 0, (2,)) for r in (0, 1, 3)}
    why = explain(waits | {2: State("finished")}, 3.0, over=True)
    errors = {r: RankError("PeerFailedError", "", peer=0) for r in waits}
    result = Result(seconds=2.5, rounds=0, status="stalled", errors=errors, why=why)
    assert plain(Strip(1, range(4), 4, 0.0).close(result)) == (
        "stopped  3 ranks waited for rank 2, which had finished this cell  2.50 s"
    )


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


def test_strip_of_an_interrupt_counts_who_came_back():
    strip = Strip(1, range(2), 2, 100.0)
    strip.feed(start(n=2) + rounds(n=2, steps=3)[:-1])
    stopped = {r: RankError("KeyboardInterrupt", "") for r in range(2)}
    result = Result((0, 1), 2.23, 3, 0, 0.0, "interrupted", stopped)
    assert plain(strip.close(result)) == ("interrupted  2 of 2 ranks came back  2.23 s")


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
