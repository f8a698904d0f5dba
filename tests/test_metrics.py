"""What ranks report of their work: every rank's part, and refusals that say what to pass."""

from __future__ import annotations

import math

import pytest
import torch

import ifog
from ifog.errors import ArgumentError
from ifog.telemetry import EventLog, LawEvent, LogEvent, decode, encode
from ifog.testing import run_ranks


def events_of(n, function, kind):
    log = EventLog()
    run_ranks(n, function, sink=log)
    _, events = log.since(0)
    return [event for event in events if isinstance(event, kind)]


def test_log_tells_figures_with_the_call_and_the_finished_rounds():
    def work():
        x = torch.zeros(3)
        for k in range(2):
            x = ifog.neighbor_allreduce(x)
            x = ifog.neighbor_allreduce(x)
            ifog.log(loss=torch.tensor(0.5, requires_grad=True) * k, test_accuracy=0.25, samples=32)

    told = events_of(4, work, LogEvent)
    assert {(e.rank, e.step, e.round) for e in told} == {
        (rank, k, 2 * k + 2) for rank in range(4) for k in (0, 1)
    }
    assert {e.values for e in told if e.step == 1} == {
        (("loss", 0.5), ("test_accuracy", 0.25), ("samples", 32.0))
    }


def test_log_shows_what_is_no_number_and_refuses_what_is_not_one_number():
    def work():
        ifog.log(loss=float("nan"))
        for wrong in (torch.zeros(2), "0.5x", None):
            with pytest.raises(ArgumentError, match="log: loss must be a number"):
                ifog.log(loss=wrong)

    (told,) = events_of(1, work, LogEvent)
    assert math.isnan(told.values[0][1])


def test_laws_are_told_by_equal_entries_of_both_sides():
    x = torch.arange(1000, dtype=torch.float64)

    def work():
        ifog.check_sums("tracking", x, 2 * x)
        ifog.check_sums("mass", torch.ones(2), 1.0)
        ifog.check_copies("copies", x, owner=1)

    told = events_of(2, work, LawEvent)
    tracking, mass, copies = [e for e in told if e.rank == 0]
    assert tracking.right == tuple(2 * entry for entry in tracking.left)
    assert len(tracking.left) == 64
    assert (mass.left, mass.right, mass.owner) == ((1.0, 1.0), (1.0, 1.0), -1)
    assert (copies.owner, copies.left, copies.right) == (1, tracking.left, ())


def test_laws_refuse_what_cannot_be_compared():
    def work():
        with pytest.raises(ArgumentError, match=r"left is \[2\] and right \[3\]"):
            ifog.check_sums("law", torch.zeros(2), torch.zeros(3))
        with pytest.raises(ArgumentError, match=r"floating-point .* got torch.int64"):
            ifog.check_sums("law", torch.zeros(2, dtype=torch.int64), 0.0)
        with pytest.raises(ArgumentError, match="got float"):
            ifog.check_copies("law", 1.0, owner=0)
        with pytest.raises(ArgumentError, match=r"owner is 2, but the ranks are 0\.\.1"):
            ifog.check_copies("law", torch.zeros(2), owner=2)

    run_ranks(2, work)


def test_the_new_events_survive_a_trip_through_json():
    import json

    for event in (
        LogEvent(1, 2.0, 3, 4, (("loss", 0.5),)),
        LawEvent(1, 2.0, "law", -1, 3, 1e-16, (1.0,), (2.0,)),
    ):
        assert decode(json.loads(json.dumps(encode(event)))) == event
