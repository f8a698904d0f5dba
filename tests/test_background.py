"""Operations that a thread moves forward while the rank computes."""

from __future__ import annotations

import threading
import time

import pytest
import torch

import ifog
from ifog import background
from ifog.context import current
from ifog.errors import MismatchError, NotInitializedError
from ifog.testing import run_ranks

PATIENCE = 20.0


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(1e-3)


def threads():
    return [t for t in threading.enumerate() if t.name == "ifog-background"]


def test_what_is_under_way_gets_through_while_nobody_asks():
    def work():
        x = torch.full((1 << 12,), float(ifog.rank()))
        handle = ifog.allreduce_nonblocking(x)
        current().progress.background.serve()
        until(lambda: handle.finished)  # neither waits nor asks
        return handle.wait()[0].item()

    assert run_ranks(3, work) == [1.0, 1.0, 1.0]


def test_it_serves_again_after_it_had_nothing_to_do_and_then_ends(monkeypatch):
    monkeypatch.setattr(background, "_PATIENCE", 0.05)

    def work():
        progress = current().progress
        for round_ in range(3):
            handle = ifog.allreduce_nonblocking(torch.ones(1))
            progress.background.serve()
            until(lambda: handle.finished)  # noqa: B023
            if round_ == 1:
                until(lambda: progress.background._thread is None)

    run_ranks(2, work)
    until(lambda: not threads())


def test_an_error_found_meanwhile_is_raised_where_one_waits():
    def work():
        handle = ifog.allreduce_nonblocking(torch.ones(1 + ifog.rank()))
        current().progress.background.serve()
        until(lambda: handle.finished)
        with pytest.raises(MismatchError, match="shape"):
            handle.wait()

    run_ranks(2, work)


def test_nothing_is_moved_forward_after_shutdown():
    def work():
        progress = current().progress
        # Nobody else takes part: it would be under way for good.
        handle = ifog.allreduce_nonblocking(torch.ones(1)) if ifog.rank() == 0 else None
        if handle is not None:
            progress.background.serve()
        ifog.shutdown()
        assert not progress.active
        if handle is not None:
            with pytest.raises(NotInitializedError, match="under way at shutdown"):
                handle.wait()

    run_ranks(2, work)
