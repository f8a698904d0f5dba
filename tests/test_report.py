"""The report below a stopped cell: few lines, all of them true, however many ranks there are."""

from __future__ import annotations

import pytest
from outputs import RankError, Result, parsed

from ifog.magics.report import report_html, report_of, report_text
from ifog.results import RankError as Told
from ifog.results import at_release, ending
from ifog.status import WAYS_OUT
from ifog.why import State, explain


def waits(*peers, step=11, name="x"):
    return State("waiting", 1.0, "neighbor_allreduce", name, step, peers, 3)


def drawn():
    """The example of the design: rank 3 raised, the seven others waited."""
    states = {
        3: State("raised", name="grad", line=3, rounds=11, detail="ValueError"),
        **{r: waits(3) for r in (4, 5, 7)},
        **{r: waits(7, step=12) for r in (0, 1)},
        6: waits(5, step=12),
        2: waits(1, step=13),
    }
    released = {r: RankError("PeerFailedError", "rank 3 stopped", 3, "", 3) for r in range(8)}
    own = RankError("ValueError", "shapes (300, 2000) and (1999,)", 3, "grad", None, "line 3")
    finished = {3: 11, 4: 11, 5: 11, 7: 11, 0: 12, 1: 12, 6: 12, 2: 13}
    why = explain(states, 1.1, over=True)
    return Result(tuple(range(8)), 0.135, 12, status="error", errors=released | {3: own},
                  finished=finished, why=why)  # fmt: skip


def test_the_report_is_the_one_of_the_design():
    text = report_text(report_of(drawn())).splitlines()
    assert text[:10] == [
        "Stopped in round 12: rank 3 raised ValueError; "
        "7 ranks were waiting and have been released.",
        "",
        "rank 3       raised in round 12      cell line 3, in grad",
        "             ValueError: shapes (300, 2000) and (1999,)",
        "ranks 4 5 7  waited for 3, round 12  cell line 3, neighbor_allreduce('x')",
        "ranks 0 1    waited for 7, round 13",
        "rank 6       waited for 5, round 13",
        "rank 2       waited for 1, round 14",
        "",
        "Last finished round: 11 on 3-5 7, 12 on 0 1 6, 13 on 2. All variables are intact; "
        "run the next cell.",
    ]


def test_the_report_says_how_long_was_waited_where_that_is_long():
    states = {0: waits(1), 1: State("finished")}
    for now, told in ((1.1, "All"), (3.4, "Longest wait: 2.40\xa0s (rank 0). All")):
        errors = {0: RankError("PeerFailedError", "", peer=1)}
        why = explain(states, now, over=True)
        text = report_text(report_of(Result((0, 1), status="stalled", errors=errors, why=why)))
        assert text.splitlines()[-1].startswith(told)


def test_errors_that_nobody_waited_for_need_no_report():
    errors = dict.fromkeys(range(4), RankError("ValueError", "no"))
    assert report_of(Result(status="error", errors=errors)) is None
    assert report_of(Result()) is None


def test_an_interrupt_says_where_it_came_and_that_nothing_is_lost():
    errors = dict.fromkeys(range(4), RankError("KeyboardInterrupt", ""))
    result = Result(status="interrupted", errors=errors, finished=dict.fromkeys(range(4), 6))
    assert report_text(report_of(result)).splitlines() == [
        "Interrupted in round 7.",
        "Last finished round: 6. All variables are intact; run the next cell.",
    ]


def test_a_dead_rank_is_named_with_the_ways_out():
    why = explain({1: State("dead", detail="signal 9"), 0: waits(1)}, 5.0, over=True)
    died = RankError("RankDied", f"rank 1 died: signal 9; {WAYS_OUT}")
    errors = {0: RankError("PeerFailedError", "", peer=1), 1: died}
    text = report_text(report_of(Result((0, 1), status="error", errors=errors, why=why)))
    assert text.startswith("Stopped: the process of rank 1 is gone (signal 9); 1 rank was waiting")
    assert "The variables of all but rank 1 are intact: go on without with %bf heal" in text
    assert "RankDied" not in text


def test_a_stopped_rank_and_one_that_cannot_be_stopped_are_told_once_with_what_helps():
    what = {"RankStopped": "rank 1 is stopped by a signal; let it go on with kill -CONT 77"}
    what["NoAnswer"] = f"was computing and could not be stopped; {WAYS_OUT}"
    for ename, evalue in what.items():
        error = Told(ename, evalue, None, "", None, f"{ename}: {evalue}")
        why = explain({1: ending(error), 0: waits(1)}, 1.5, over=True)
        result = Result((0, 1), status="error", errors={1: error}, why=why)
        text = report_text(report_of(result))
        assert text.count(evalue.partition("; ")[2]) == 1
        assert ename not in text
    assert "rank 1  did not answer\n" in text


@pytest.mark.parametrize("n", [2, 8, 64, 256])
def test_any_number_of_ranks_is_reported_in_twelve_lines(n):
    states = {
        0: State("raised", line=2, detail="ValueError"),
        1: State("raised", detail="KeyError"),
    }
    states |= {r: waits(r - 1, step=r, name=str(r)) for r in range(2, n)}
    states |= {n: waits(0)}
    own = {0: RankError("ValueError", "a\nb\nc"), 1: RankError("KeyError", "k" * 3000)}
    finished = {rank: rank for rank in range(n)}
    result = Result(tuple(range(n)), status="error", errors=own, finished=finished,
                    why=explain(states, 5.0, over=True))  # fmt: skip
    report = report_of(result)
    assert 1 + 1 + len(report.lines) + 1 + 1 <= 12
    assert all(len(line) < 300 for line, _ in report.lines)
    tags = parsed(report_html(report))
    assert any("ranks were waiting" in text or "rank was waiting" in text for text in tags.texts)


def test_what_a_rank_says_cannot_become_part_of_the_page():
    why = explain({0: State("raised", detail="E"), 1: waits(0, name="<b>")}, 5.0, over=True)
    errors = {0: RankError("ValueError", "<script>", None, "", None, "<i>")}
    html = report_html(report_of(Result((0, 1), status="error", errors=errors, why=why)))
    assert not {"script", "b", "i"} & set(parsed(html).seen)


def test_ranks_of_one_round_that_were_released_had_sent_each_other():
    states = {
        0: State("waiting", op="neighbor_allreduce", name="x", step=11, peers=(2, 3)),
        1: State("raised", detail="ValueError", rounds=11),
        2: State("waiting", op="neighbor_allreduce", name="x", step=11, peers=(0, 1)),
        3: State("waiting", op="neighbor_allreduce", name="x", step=11, peers=(2,)),
    }
    told = explain(at_release(states), 0.0, over=True)
    assert told.kind == "absent"
    assert told.causes == (1,)
    assert "one another" not in told.sentence


def test_ranks_in_different_operations_had_sent_nothing():
    states = {
        0: State("waiting", op="neighbor_allreduce", name="x", peers=(1,)),
        1: State("waiting", op="neighbor_allreduce", name="y", peers=(0,)),
    }
    assert at_release(states) == states
