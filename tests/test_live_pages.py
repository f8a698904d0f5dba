"""What live pages send to the browser, and what a paused one shows of the rounds before."""

from __future__ import annotations

import json

import numpy as np
import pytest
from runs import cell, numbered, ring_matrix, ring_run

from ifog.telemetry import EventLog

pytest.importorskip("anywidget", reason="anywidget is not installed (ifog[lab])")
from ifog.widgets import Consensus, Dashboard
from ifog.widgets.feed import Feed


@pytest.fixture
def log():
    return EventLog()


def carried(page):
    """What the bar sends from now on: [([ids of panels], [their states])]."""
    sent = []
    page.bar.send = lambda content, buffers: sent.append(
        (content["states"], [json.loads(part) for part in buffers])
    )
    return sent


def test_all_states_of_a_page_travel_in_one_message_once_it_is_shown(log):
    page = Dashboard(log)
    page._feed.close()
    feed = Feed(log, (page.bar, *page.panels), page._feed._deliver)
    try:
        sent = carried(page)
        feed.step()
        assert sent == []  # nothing in the browser hands states on yet
        page.bar.views = ["a"]
        log.write(ring_run())
        alone = []
        for panel in page.panels:
            panel.send_state = alone.append
        feed.step()
        ((ids, states),) = sent
        shown = dict(zip(ids, states, strict=True))
        assert shown[page.panels[1].model_id]["round"] == 20
        assert shown[page.bar.model_id]["round"] == 20
        assert page.panels[1].state["round"] == 20
        assert "state" not in alone
        feed.step()
        assert len(sent) == 1  # nothing new
    finally:
        page.close()


def test_a_page_that_is_shown_anew_is_told_every_state(log):
    page = Dashboard(log)
    page._feed.close()
    try:
        told = []
        for panel in page.panels:
            panel.send_state = lambda key, panel=panel: told.append((panel, key))
        page.bar.views = ["a"]
        assert told == [(panel, "state") for panel in page.panels]
        page.bar.views = []
        assert len(told) == len(page.panels)
    finally:
        page.close()


def test_arrow_keys_of_a_paused_page_show_the_rounds_before_and_space_the_present(log):
    def pressed(**content):
        panel._receive(None, content, [])
        feed.step()
        return panel.state["round"], other.state["round"]

    log.write(ring_run(rounds=20))
    panel, other = Consensus(), Consensus()
    feed = panel.feed = Feed(log, (panel, other))
    feed.step()
    assert pressed(step=-1, cell=1, round=12) == (11, 11)
    assert pressed(step=-1) == (10, 10)
    x = np.linalg.matrix_power(ring_matrix(4), 10) @ numbered(4)
    error = np.log10(np.linalg.norm(x - x.mean(axis=0)))
    assert panel.state["curves"][0]["errors"][-1] == pytest.approx(error, abs=1e-3)
    assert pressed(step=1) == (11, 11)
    second = list(cell(ring_matrix(4), numbered(4), 5, seq=2, t=300.0))
    log.write(second)  # news does not move a page that looks back
    feed.step()
    assert panel.state["round"] == 11
    assert pressed(step=9) == (20, 20)
    assert pressed(step=1) == (1, 1)  # of the next cell, which has come since
    assert pressed(step=-100) == (1, 1)
    assert pressed(step=0) == (5, 5)
    assert panel.state["ranks"] == other.state["ranks"] == [0, 1, 2, 3]
