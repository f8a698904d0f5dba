"""Requests outside of cells that get stuck: they end, say who waits for whom, and harm nothing."""

from __future__ import annotations

import os
import signal
import time

import pytest

from ifog import line
from ifog.errors import ClusterError

pytestmark = pytest.mark.faults
PLANT = """
import os, time
import ifog.neighborhood as planted
real = planted.set_topology
def set_topology(*arguments, **options):
    {fault}
    return real(*arguments, **options)
if bf.rank() == 2:
    planted.set_topology = set_topology
"""
PLUCK = "planted.set_topology = real"


@pytest.fixture
def plant(cluster):
    """Give rank 2 a ``set_topology`` that does something else before."""
    planted = []

    def into(fault):
        cluster.run(PLANT.format(fault=fault), timeout=20).raise_for_error()
        planted.append(fault)

    yield into
    if planted and not cluster.status().trouble:
        cluster.run(PLUCK, timeout=20).raise_for_error()


@pytest.fixture
def kept(cluster):
    """The cluster, which must work as before after the test."""
    cluster.run("kept = bf.rank()", timeout=20).raise_for_error()
    yield cluster
    assert cluster.pull("kept") == {rank: rank for rank in range(4)}
    code = "total = bf.allreduce(torch.tensor([1.0 + kept]), average=False).item()"
    cluster.run(code, timeout=20).raise_for_error()
    assert cluster.pull("total") == dict.fromkeys(range(4), 10.0)


def test_a_value_that_needs_other_ranks_is_given_up_and_they_are_named(kept):
    begun = time.monotonic()
    with pytest.raises(ClusterError, match="Ranks 2 and 3 are not in this request") as caught:
        kept.pull("bf.allreduce(torch.ones(1)).item()", [0, 1])
    assert time.monotonic() - begun < line._REQUEST_TIMEOUT / 2
    assert "ranks 0 1  wait for 2 3             allreduce" in str(caught.value)


def test_an_error_on_one_rank_frees_the_others_and_is_what_is_told(kept):
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=r"\[3\] NameError: name 'nobody' is not defined"):
        kept.pull("nobody if bf.rank() == 3 else bf.allreduce(torch.ones(1)).item()")
    assert time.monotonic() - begun < line._REQUEST_TIMEOUT / 2


def test_a_topology_that_one_rank_refuses_frees_the_others(kept, plant):
    plant("1 / 0")
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=r"topology 'ring': \[2\] ZeroDivisionError"):
        kept.set_topology("ring")
    assert time.monotonic() - begun < line._REQUEST_TIMEOUT / 2


def test_who_is_late_is_named_when_the_time_is_over(kept, plant, monkeypatch):
    plant("time.sleep(6)")
    monkeypatch.setattr(line, "_REQUEST_TIMEOUT", 3.0)
    with pytest.raises(ClusterError, match=r"did not answer within 3 s; if they still") as caught:
        kept.set_topology("ring")
    assert "Rank 2 still computes; 3 ranks wait for it." in str(caught.value)
    assert "ranks 0 1 3  wait for 2" in str(caught.value)


def test_a_stopped_rank_is_not_waited_for(kept, plant):
    pid = kept.status().rows[2].pid
    plant("os.kill(os.getpid(), 19)")
    begun = time.monotonic()
    try:
        with pytest.raises(ClusterError, match=f"rank 2 is stopped .*kill -CONT {pid}"):
            kept.set_topology("ring")
        assert time.monotonic() - begun < line._REQUEST_TIMEOUT / 2
    finally:
        os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while kept.status().trouble:
        assert time.monotonic() < deadline
