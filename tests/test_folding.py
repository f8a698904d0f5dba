"""Folds that go back and forth in a run: bookmarks, and copies of states."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from dataclasses import dataclass

import numpy as np
import pytest
from test_replay import alone, heard, same, two_cells

from ifog import folding
from ifog.folding import Folding, copied
from ifog.folds import Status, fold_status
from ifog.playback import Replay
from ifog.tape import tape_of
from ifog.telemetry import EventLog
from ifog.widgets import PANELS, Consensus
from ifog.widgets.feed import Feed


@pytest.fixture
def run():
    log = EventLog()
    log.write(heard(two_cells()))
    return log


@pytest.mark.parametrize("panel", PANELS)
def test_any_place_reached_from_any_other_shows_the_same(panel, run, monkeypatch):
    monkeypatch.setattr(folding, "_LEAST", 40)
    tape, picture = tape_of(run), PANELS[panel].picture
    folded = Folding(picture.initial, picture.fold)
    random.seed(3)
    places = [0, len(tape), *(random.randrange(len(tape) + 1) for _ in range(25)), 1]
    for index, place in enumerate(places):
        if index > 8:
            folded.prepare(tape)
        folded.go(tape, place)
        time = float(tape.times[max(place - 1, 0)]) + 0.3
        told = alone(panel, tape.events(0, place), time)
        assert same(picture.view(folded.state, time), told)
    while folded.prepare(tape):
        pass
    assert len(folded._marks) == (len(tape) - 1) // 40


def test_going_back_folds_no_more_than_lies_between_two_bookmarks(run, monkeypatch):
    monkeypatch.setattr(folding, "_LEAST", 40)
    tape, folded = tape_of(run), []

    def fold(state, events):
        folded.append(len(events))
        return fold_status(state, events)

    status = Folding(Status, fold)
    while status.prepare(tape):
        pass
    for place in (len(tape), 10, 300, 299):
        folded.clear()
        status.go(tape, place)
        assert sum(folded) <= 40
        assert status.state.events == place


@dataclass(frozen=True)
class Frozen:
    items: list


class Slotted:
    __slots__ = ("items",)


def test_a_copy_of_a_state_shares_nothing_that_may_change():
    slotted, shared = Slotted(), [1]
    slotted.items = deque([[2]], maxlen=3)
    state = {
        "events": [(1, 2), (3,)],
        "arrays": [np.zeros(2)],
        "sets": {1},
        "frozen": Frozen([shared]),
        "slotted": slotted,
        "default": defaultdict(list, {0: shared}),
    }
    kept = copied(state)
    assert kept["default"][0] is kept["frozen"].items[0]
    assert kept["events"][0] is state["events"][0]
    state["events"].append(())
    state["arrays"][0][0] = 5
    state["sets"].add(2)
    shared.append(9)
    slotted.items[0].append(9)
    state["default"][7].append(9)
    assert kept["events"] == [(1, 2), (3,)]
    assert not kept["arrays"][0].any()
    assert (kept["sets"], kept["frozen"].items) == ({1}, [[1]])
    assert (kept["slotted"].items, kept["slotted"].items.maxlen) == (deque([[2]]), 3)
    assert kept["default"] == {0: [1]}
    assert kept["default"][8] == []


def fail(_state, _events):
    raise ZeroDivisionError


def test_a_feed_prepares_bookmarks_and_a_panel_that_fails_says_so(run, monkeypatch):
    monkeypatch.setattr(folding, "_LEAST", 40)
    panel = Consensus()
    played = Replay(run)
    feed = Feed(played, (panel,))
    feed.step()
    while feed._prepare():
        pass
    assert len(panel._folded._marks) == (len(played.tape) - 1) // 40
    broken = Consensus()
    broken._folded._fold = fail
    assert not broken.prepare(played)
    broken.follow(played, refresh=False)
    assert broken.state["error"].startswith("ZeroDivisionError")
