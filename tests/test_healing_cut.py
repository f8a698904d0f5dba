"""Healing within a cell from which a rank is called away: the others come back, and all go on."""

from __future__ import annotations

import threading
import time

import pytest

pytestmark = pytest.mark.faults
HEAL = """
import os, pathlib, time
from ifog.errors import PeerFailedError
kept, folder = bf.rank() + 0.5, pathlib.Path({folder!r})
def there(name):
    (folder / f"{{name}} {{bf.rank()}}").touch()
def until(name):
    deadline = time.monotonic() + 30
    while not list(folder.glob(name)) and time.monotonic() < deadline:
        time.sleep(0.01)
if bf.rank() == 3:
    os.kill(os.getpid(), 9)
try:
    bf.barrier()
except PeerFailedError:
    pass
if bf.rank() == {last}:
    until("go *")
there("heals")
{act}
bf.heal()
there("healed")
bf.barrier()
"""


def until(condition, seconds=30.0):
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        pause.wait(0.02)


@pytest.fixture
def ringed(cluster):
    cluster.set_topology("ring")
    return cluster


def agree(cluster):
    """The living heal, come to their mean, and have their variables."""
    cluster.heal()
    code = "x = torch.tensor([kept])\nfor _ in range(100): x = bf.neighbor_allreduce(x)"
    cluster.run(code, timeout=20).raise_for_error()
    assert cluster.pull("kept") == {0: 0.5, 1: 1.5, 2: 2.5}
    assert {round(v, 4) for v in cluster.pull("x.item()").values()} == {1.5}


def test_a_rank_interrupted_while_it_waits_to_heal_leaves_nobody_inside(ringed, tmp_path):
    cell = ringed.submit(HEAL.format(folder=str(tmp_path), last=2, act=""))
    until(lambda: len(list(tmp_path.glob("heals *"))) == 2)
    ringed.interrupt([0])
    until(lambda: 0 not in cell.missing())
    (tmp_path / "go on").touch()
    begun = time.monotonic()
    result = cell.wait(60)
    assert time.monotonic() - begun < 15.0
    assert result.errors[0].ename == "KeyboardInterrupt"
    assert {result.errors[rank].peer for rank in (1, 2)} == {0}
    assert not list(tmp_path.glob("healed *"))
    agree(ringed)


def test_an_error_instead_of_healing_ends_the_wait_of_those_that_heal(ringed, tmp_path):
    act = "if bf.rank() == 0: raise ValueError('no')"
    begun = time.monotonic()
    result = ringed.run(HEAL.format(folder=str(tmp_path), last=9, act=act), timeout=60)
    assert time.monotonic() - begun < 20.0
    assert result.errors[0].ename == "ValueError"
    assert {result.errors[rank].peer for rank in (1, 2)} == {0}
    assert "rank 0 has left the cell (ValueError)" in result.errors[1].evalue
    agree(ringed)


def test_interrupts_on_all_ranks_as_they_heal_end_the_cell(ringed, tmp_path):
    cell = ringed.submit(HEAL.format(folder=str(tmp_path), last=2, act=""))
    until(lambda: len(list(tmp_path.glob("heals *"))) == 2)
    (tmp_path / "go on").touch()
    cell.interrupt()
    begun = time.monotonic()
    result = cell.wait(60)
    assert time.monotonic() - begun < 15.0
    assert result.status in ("interrupted", "error")
    agree(ringed)
