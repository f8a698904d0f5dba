"""Keyboard interrupts that are counted."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from ifog.presses import Presses


def press():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def raising():
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, former)


def test_presses_are_counted_and_none_is_raised(raising):
    with Presses() as presses:
        press()
        press()
    assert presses.count == 2
    assert signal.getsignal(signal.SIGINT) is raising


def test_an_inner_one_takes_the_presses_of_its_time_only(raising):
    with Presses() as outer:
        with Presses() as inner:
            press()
        press()
    assert (outer.count, inner.count) == (1, 1)


def test_a_late_press_is_dropped_and_a_later_one_is_raised(raising, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("ifog.presses.time.monotonic", lambda: clock[0])
    with Presses() as presses:
        presses.late = True
    press()
    clock[0] += 1.0
    with pytest.raises(KeyboardInterrupt):
        press()


def test_in_another_thread_it_leaves_the_signal_alone(raising):
    seen = []

    def work():
        with Presses() as presses:
            seen.append((presses.count, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=5.0)
    assert seen == [(0, raising)]
