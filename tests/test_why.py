"""Tables of what ranks do, and what is to be said of them."""

from __future__ import annotations

import pytest

from ifog.why import State, aligned, explain, spelled

NOW = 100.0


def waits(*peers: int, op="neighbor_allreduce", name="x", step=11, line=3, moving=False) -> State:
    return State("waiting", NOW - 2, op, name, step, peers, line, moving)


def why(states, **options):
    found = explain(states, NOW, **options)
    assert found is not None
    return found


def test_where_nobody_waits_there_is_nothing_to_explain():
    assert explain({0: State("computing"), 1: State("finished")}, NOW) is None


def test_the_report_of_a_raising_rank_is_the_one_that_was_drawn():
    states = {
        3: State("raised", name="grad", line=3, rounds=11, detail="ValueError"),
        **{r: waits(3) for r in (4, 5, 7)},
        **{r: waits(7, step=12) for r in (0, 1)},
        6: waits(5, step=12),
        2: waits(1, step=13),
    }
    found = why(states, over=True)
    assert (found.kind, found.causes, found.hopeless) == ("absent", (3,), True)
    assert (
        found.sentence == "Rank 3 raised ValueError; 7 ranks were waiting and have been released."
    )
    assert aligned(found.rows) == [
        "rank 3       raised in round 12      cell line 3, in grad",
        "ranks 4 5 7  waited for 3, round 12  cell line 3, neighbor_allreduce('x')",
        "ranks 0 1    waited for 7, round 13",
        "rank 6       waited for 5, round 13",
        "rank 2       waited for 1, round 14",
    ]


def test_the_longest_wait_is_told_with_who_waits_so_long():
    states = {
        0: waits(2)._replace(since=NOW - 2.4),
        1: waits(0)._replace(since=NOW - 1.5),
        3: waits(2)._replace(since=NOW - 2.35),
        2: State("finished"),
    }
    assert why(states).longest == "Longest wait so far: 2.40\xa0s (ranks 0 3)."
    assert why(states, over=True).longest == "Longest wait: 2.40\xa0s (ranks 0 3)."
    unknown = {0: State("waiting", peers=(1,)), 1: State("computing")}
    assert why(unknown).longest == ""


def test_indirect_waiters_are_counted():
    states = {2: State("computing", NOW - 3.4), 1: waits(2), 3: waits(2), 0: waits(1)}
    found = why(states)
    assert (found.kind, found.hopeless, found.stuck) == ("straggler", False, ())
    assert found.sentence == "Rank 2 still computes, 3.40\xa0s so far; 3 ranks wait for it."
    assert found.short == "3 ranks wait for rank 2, still computing"
    assert found.held == (0, 1, 3)
    assert set(found.edges) == {(0, 1), (1, 2), (3, 2)}


@pytest.mark.parametrize(
    ("kind", "said", "explained"),
    [
        (
            "finished",
            "Rank 2 has finished this cell; 2 ranks still expect a message from it.",
            "absent",
        ),
        (
            "outside",
            "Rank 2 is not in this cell; 2 ranks still expect a message from it.",
            "absent",
        ),
        ("dead", "The process of rank 2 is gone (signal 9); 2 ranks wait for it.", "dead"),
        ("interrupted", "Rank 2 was interrupted; 2 ranks wait for it.", "absent"),
    ],
)
def test_a_rank_that_will_never_answer_makes_waits_hopeless(kind, said, explained):
    found = why({2: State(kind, detail="signal 9"), 0: waits(2), 1: waits(0)})
    assert (found.kind, found.hopeless, found.stuck) == (explained, True, (0, 1))
    assert found.sentence == said


@pytest.mark.parametrize("kind", ["computing", "starting", "elsewhere", "silent"])
def test_a_rank_that_may_still_answer_does_not(kind):
    found = why({2: State(kind, NOW - 2.0), 0: waits(2), 1: waits(0)})
    assert not found.hopeless
    assert found.kind == ("silent" if kind == "silent" else "straggler")


def test_a_rank_that_does_not_answer_is_not_guessed_about():
    found = why({6: State("silent", NOW - 2.0), 0: waits(6)})
    assert found.sentence == "Rank 6 does not answer (2.00\xa0s); 1 rank waits for it."


def test_a_peer_that_nobody_knows_of_is_not_in_the_cell():
    assert why({0: waits(9)}).sentence.startswith("Rank 9 is not in this cell")


def test_waits_need_all_of_their_peers():
    states = {0: waits(1, 2), 1: State("computing"), 2: State("finished")}
    found = why(states)
    assert (found.kind, found.causes, found.hopeless) == ("absent", (2,), True)


def test_a_cycle_is_drawn_as_one_and_what_hangs_on_it_is_counted():
    states = {1: waits(4, op="pair_gossip"), 4: waits(6, op="pair_gossip"),
              6: waits(1, op="pair_gossip"), 2: waits(1)}  # fmt: skip
    found = why(states)
    assert (found.kind, found.causes, found.stuck) == ("cycle", (1, 4, 6), (1, 2, 4, 6))
    assert found.sentence == (
        "Ranks 1, 4 and 6 wait for one another, and this cannot end by itself; "
        "1 more rank behind them."
    )
    assert [row.distance for row in found.rows] == [0, 0, 0, 1]


def test_ranks_in_different_operations_have_diverged():
    states = {0: waits(1, 2, 3, op="allreduce", line=2)}
    states |= {r: waits(0, op="barrier", name="", step=0) for r in (1, 2, 3)}
    found = why(states)
    assert (found.kind, found.hopeless) == ("diverged", True)
    assert (
        found.short == "rank 0 in allreduce('x'), ranks 1-3 in barrier: they wait for one another"
    )


def test_one_sided_operations_on_different_windows_are_a_cycle_not_a_divergence():
    states = {0: waits(1, op="win_mutex", name="a"), 1: waits(0, op="win_put", name="b")}
    assert why(states).kind == "cycle"


def test_a_rank_may_wait_for_itself():
    assert why({0: waits(0)}).short == "rank 0 waits for itself"


def test_data_under_way_is_no_stall_unless_its_sender_is_gone():
    states = {0: waits(1, moving=True), 1: waits(0)}
    found = why(states)
    assert (found.kind, found.hopeless) == ("straggler", False)
    assert found.sentence == "Rank 0 is receiving data; 1 rank waits for it."
    assert why({0: waits(1, moving=True), 1: State("finished")}).hopeless


def test_an_earlier_operation_of_the_same_rank_ends_by_itself():
    found = why({0: waits(moving=True), 1: waits(0)})
    assert (found.kind, found.hopeless) == ("straggler", False)


def test_the_gravest_of_several_causes_comes_first_and_all_are_named():
    states = {
        0: State("computing", NOW - 5), 1: waits(0),
        2: State("dead"), 3: waits(2),
        4: State("finished"), 5: waits(4),
        6: waits(7), 7: waits(6),
    }  # fmt: skip
    found = why(states)
    assert (found.kind, found.hopeless) == ("dead", True)
    assert found.causes == (2, 4, 6, 7)
    assert found.stuck == (3, 5, 6, 7)
    assert found.sentence == (
        "The process of rank 2 is gone; 1 rank waits for it; "
        "rank 4 has finished this cell; 1 rank still expects a message from it; "
        "ranks 6 and 7 wait for one another, and this cannot end by itself."
    )


def test_a_cycle_that_also_waits_for_an_absent_rank_is_the_fault_of_that_rank():
    states = {0: waits(1, 2), 1: waits(0, 2), 2: State("finished")}
    assert why(states).causes == (2,)


@pytest.mark.parametrize("n", [2, 4, 16, 64, 256])
def test_any_number_of_ranks_is_told_in_few_rows_that_name_each_rank_once(n):
    chain = {0: State("computing", NOW - 1)} | {r: waits(r - 1) for r in range(1, n)}
    ring = {r: waits((r + 1) % n) for r in range(n)}
    fan = {0: State("finished")} | {r: waits(0, step=r) for r in range(1, n)}
    halves = {r: waits(*range(n // 2, n), op="barrier") for r in range(n // 2)}
    halves |= {r: waits(*range(n // 2), op="allreduce") for r in range(n // 2, n)}
    for states in (chain, ring, fan, halves):
        found = why(states)
        assert len(found.rows) <= 8
        assert sorted(rank for row in found.rows for rank in row.ranks) == list(range(n))
    assert why(chain).causes == (0,)
    assert why(ring).kind == "cycle"
    assert why(halves).kind == "diverged"


def test_a_wide_fan_over_two_levels_is_merged_by_distance():
    states = {0: State("computing", NOW - 1)} | {r: waits(0, step=r) for r in range(1, 9)}
    states |= {r: waits(r - 8, step=r) for r in range(9, 17)}
    rows = why(states).rows
    assert [(row.ranks, row.did) for row in rows] == [
        ((0,), "still computes"),
        (tuple(range(1, 9)), "wait for it"),
        (tuple(range(9, 17)), "wait for it through 1 other"),
    ]


def test_ranks_are_spelled_with_ranges_from_three_on():
    assert spelled((5,)) == "rank 5"
    assert spelled((1, 2)) == "ranks 1 and 2"
    assert spelled((0, 1, 2, 5, 7, 8)) == "ranks 0-2, 5, 7 and 8"
