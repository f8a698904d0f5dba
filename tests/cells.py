"""Waiting for cells and ranks, with a limit to each wait."""

from __future__ import annotations

import threading
import time

from ifog.cluster import Cell, CellResult, Cluster
from ifog.telemetry import CellStart


def wait_until(cell: Cell, condition, timeout: float = 20.0) -> CellResult:
    """Let the cell run until the condition holds, then interrupt it."""
    deadline = time.monotonic() + timeout

    def look() -> None:
        if condition() or time.monotonic() > deadline:
            cell.interrupt()

    return cell.wait(timeout + 5.0, on_tick=look)


def begun(cluster: Cluster, cell: Cell) -> bool:
    _, events = cluster.events.since(0)
    return sum(isinstance(e, CellStart) and e.seq == cell.seq for e in events) == len(cell.ranks)


def wait_for_deaths(cluster: Cluster) -> None:
    deadline = time.monotonic() + 10
    while {row.state for row in cluster.status().rows} != {"dead"}:
        assert time.monotonic() < deadline
        threading.Event().wait(0.1)


def come_back(cluster: Cluster) -> None:
    """Return once no rank is lost in a cell."""
    deadline = time.monotonic() + 20
    while cluster.status().trouble:
        assert time.monotonic() < deadline
        threading.Event().wait(0.1)
