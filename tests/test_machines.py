"""Which machine a rank is on: what the environment may say, and when it is asked."""

from __future__ import annotations

import warnings

import pytest

import ifog
from ifog.context import current
from ifog.errors import ArgumentError
from ifog.layout import Layout, arranged
from ifog.testing import run_ranks

IFOG, BLUEFOG = "IFOG_RANKS_PER_MACHINE", "BLUEFOG_NODES_PER_MACHINE"


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv(IFOG, raising=False)
    monkeypatch.delenv(BLUEFOG, raising=False)


def place():
    return (
        ifog.machine_rank(),
        ifog.machine_size(),
        ifog.local_rank(),
        ifog.local_size(),
        ifog.is_homogeneous(),
    )


def test_without_a_word_the_machines_are_those_of_the_wire():
    assert run_ranks(3, place) == [(0, 1, r, 3, True) for r in range(3)]
    assert arranged((0, 1, 0)) == Layout((0, 1, 0))


@pytest.mark.parametrize("variable", [IFOG, BLUEFOG])
def test_the_environment_puts_k_consecutive_ranks_on_a_machine(variable, monkeypatch):
    monkeypatch.setenv(variable, "2")
    assert run_ranks(4, place) == [(r // 2, 2, r % 2, 2, True) for r in range(4)]
    monkeypatch.setenv(variable, "1")
    assert run_ranks(2, place) == [(r, 2, 0, 1, True) for r in range(2)]


def test_ifogs_own_variable_goes_first(monkeypatch):
    monkeypatch.setenv(IFOG, "4")
    monkeypatch.setenv(BLUEFOG, "2")
    assert arranged((0,) * 4) == Layout((0,) * 4)


def test_machines_that_do_not_come_out_even_are_warned_about_once(monkeypatch):
    monkeypatch.setenv(BLUEFOG, "2")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        places = run_ranks(5, place)
    assert places == [(r // 2, 3, r % 2, 2 if r < 4 else 1, False) for r in range(5)]
    assert len(caught) == 1
    for word in (BLUEFOG, "5 ranks", "not homogeneous"):
        assert word in str(caught[0].message)


@pytest.mark.parametrize("text", ["0", "-2", "2.5", "two", ""])
def test_what_is_no_number_of_ranks_is_refused(text, monkeypatch):
    monkeypatch.setenv(BLUEFOG, text)
    with pytest.raises(ArgumentError, match=f"{BLUEFOG} is {text!r}.*positive integer"):
        arranged((0, 0))


def test_init_asks_the_environment_anew(monkeypatch):
    def work():
        before = place()
        ifog.barrier()
        if ifog.rank() == 0:
            monkeypatch.setenv(BLUEFOG, "2")
        ifog.barrier()
        unasked = place()
        ifog.init()
        ifog.set_machine_topology("ring")
        ifog.init()
        kept = ifog.load_machine_topology() is not None
        return before, unasked, place(), kept

    for rank, (before, unasked, after, kept) in enumerate(run_ranks(4, work)):
        assert before == unasked == (0, 1, rank, 4, True)
        assert after == (rank // 2, 2, rank % 2, 2, True)
        assert kept


def test_machines_out_of_order_or_of_unequal_sizes_are_not_homogeneous():
    assert Layout((0, 0, 1, 1)).homogeneous
    assert not Layout((0, 1, 0, 1)).homogeneous
    assert not Layout((0, 0, 1)).homogeneous
    assert Layout((0, 1, 0, 1)).leaders() == {0: 0, 1: 1}
    assert Layout((0, 1, 0, 1, 2)).sizes() == (2, 2, 1)


def test_the_topology_stays_while_windows_exist_unless_it_is_the_same(monkeypatch):
    def work():
        ifog.set_topology("ring")
        monkeypatch.setitem(current().windows, "w", None)
        ifog.init()
        assert ifog.load_topology().graph["label"] == "ring"
        assert ifog.set_topology("ring")
        with pytest.raises(ArgumentError, match=r"\['w'\].*win_free"):
            ifog.set_topology("star")

    run_ranks(3, work)
