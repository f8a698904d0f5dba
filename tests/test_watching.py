"""Glances at watched tensors: all at first, then as many a second as anybody can look at."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ifog import watching
from ifog.watching import Watcher


class Loop:
    """Rounds of a named tensor on one rank, on a clock of its own."""

    def __init__(self, monkeypatch, numel, rounds_per_second):
        self.events, self.t, self.step = [], 100.0, 0
        monkeypatch.setattr(watching, "now", lambda: self.t)
        context = SimpleNamespace(sink=self, rank=0, emit=self.events.append)
        self.watcher = Watcher(context)
        self.x, self.speed = torch.ones(numel), rounds_per_second

    def run(self, rounds):
        """The rounds that were looked at."""
        self.events.clear()
        for _ in range(rounds):
            self.watcher.look(self.x, "x", self.step)
            self.t += 1 / self.speed
            self.step += 1
        return [event.step for event in self.events]


@pytest.mark.parametrize(("numel", "first"), [(100, 256), (100_000, 8)])
@pytest.mark.parametrize("speed", [300.0, 3000.0, 50_000.0])
def test_the_first_rounds_are_all_seen_and_later_ten_a_second_at_most(
    monkeypatch, numel, first, speed
):
    loop = Loop(monkeypatch, numel, speed)
    seen = loop.run(int(10 * speed))
    assert seen[:first] == list(range(first))
    later = len([step for step in seen if step >= first]) / 10
    assert 2.5 <= later <= 10.5


def test_a_slow_loop_is_seen_in_every_round(monkeypatch):
    assert Loop(monkeypatch, 100_000, 5.0).run(500) == list(range(500))


def test_a_loop_that_slows_down_is_soon_seen_as_often(monkeypatch):
    loop = Loop(monkeypatch, 100_000, 100.0)
    loop.run(1000)
    loop.speed = 20.0
    loop.run(2000)
    assert len(loop.run(200)) >= 25  # in ten seconds


def test_ranks_of_different_speed_share_the_rounds_of_the_slower_to_look(monkeypatch):
    slow = set(Loop(monkeypatch, 100_000, 900.0).run(20_000))
    fast = set(Loop(monkeypatch, 100_000, 1100.0).run(20_000))
    assert min(slow, fast, key=len) <= max(slow, fast, key=len)


def test_looking_at_a_tensor_that_is_not_mixed_ends_never_in_an_error(monkeypatch):
    loop = Loop(monkeypatch, 10, 1e6)
    for _ in range(1000):
        loop.watcher.look(loop.x, "x", 0)
    assert len(loop.events) == 1000


def test_the_last_round_is_seen(monkeypatch):
    loop = Loop(monkeypatch, 100_000, 50_000.0)
    loop.run(1001)
    loop.watcher.flush()
    assert loop.events[-1].step == 1000
