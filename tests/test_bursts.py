"""What is told of averages that are posted together, and the thread that sends them."""

from __future__ import annotations

import threading
import time

import pytest
import torch

import ifog
from ifog import bursts, postman
from ifog.context import current
from ifog.errors import NotInitializedError
from ifog.telemetry import OpEvent, WatchEvent
from ifog.testing import run_ranks

PATIENCE = 20.0
post = ifog.neighbor_allreduce_nonblocking


class Kept:
    """A sink that keeps everything."""

    def __init__(self):
        self.events = []

    def write(self, events):
        self.events += events


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(1e-3)


def test_each_posted_average_has_its_event():
    def work():
        ifog.set_topology(ifog.ring(3, style="right"), is_weighted=True)
        for _ in range(2):
            handles = [post(torch.ones(k + 1), name=f"x{k}") for k in range(4)]
            handles += [post(torch.ones(2, dtype=torch.float64)) for _ in range(2)]
            for handle in handles:
                handle.wait()

    sink = Kept()
    run_ranks(3, work, sink=sink)
    for rank in range(3):
        events = [e for e in sink.events if isinstance(e, OpEvent) and e.rank == rank]
        events = [e for e in events if e.op == "neighbor_allreduce"]
        told = sorted((e.name, e.step, e.nbytes) for e in events)
        named = [(f"x{k}", step, 4 * (k + 1)) for k in range(4) for step in range(2)]
        assert told == sorted(named + [("", step, 16) for step in range(4)])
        assert len({e.seq for e in events}) == 12
        for event in events:
            assert (event.src, event.dst) == (((rank - 1) % 3,), ((rank + 1) % 3,))
            assert event.weights == (0.5, 0.5)
            assert len(event.arrived) == 1
            assert event.t0 <= event.t1


def test_posted_tensors_with_names_are_watched():
    def work():
        ifog.set_topology("complete")
        x = torch.full((3,), float(ifog.rank()))
        handles = [post(x, name="x"), post(2 * x, name="y")]
        for handle in handles:
            handle.wait()

    sink = Kept()
    run_ranks(2, work, sink=sink)
    glances = {(e.rank, e.name, e.step): e.sample for e in sink.events if isinstance(e, WatchEvent)}
    assert glances == {
        (rank, name, step): ((factor * rank, factor * 0.5)[step],) * 3
        for rank in range(2)
        for name, factor in (("x", 1.0), ("y", 2.0))
        for step in range(2)
    }


def test_what_is_posted_and_never_waited_for_is_sent_and_ends_with_the_context():
    def work():
        ifog.set_topology("complete")
        xs = [torch.full((2,), float(ifog.rank())) for _ in range(3)]
        handles = [post(x) for x in xs]
        if ifog.rank():
            return [handle.wait().tolist() for handle in handles]
        progress = current().progress
        ifog.shutdown()
        assert not progress.active
        for handle in handles:
            if not handle.finished or handle._error is not None:
                with pytest.raises(NotInitializedError, match="under way at shutdown"):
                    handle.wait()
        return None

    assert run_ranks(2, work)[1] == [[0.5, 0.5]] * 3


def test_the_thread_that_sends_ends_when_nothing_is_posted(monkeypatch):
    monkeypatch.setattr(postman, "_PATIENCE", 0.05)

    def work():
        for _ in range(2):
            for handle in [post(torch.ones(2)) for _ in range(3)]:
                handle.wait()
            until(lambda: current().posting._postman._thread is None)

    run_ranks(2, work)
    until(lambda: not [t for t in threading.enumerate() if t.name == "ifog-postman"])


def test_a_burst_that_matches_is_combined_at_once(monkeypatch):
    combined, combine = [], bursts.combine

    def counted(x, *arguments):
        combined.append(x.numel())
        return combine(x, *arguments)

    def work():
        ifog.set_topology("complete")
        with current().progress.lock:  # nothing is sent before all has been posted
            handles = [post(torch.ones(5)) for _ in range(20)]
        for handle in handles:
            assert torch.equal(handle.wait(), torch.ones(5))

    monkeypatch.setattr(bursts, "combine", counted)
    run_ranks(2, work)
    assert combined == [100, 100]
