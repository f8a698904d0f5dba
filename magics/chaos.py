"""``%bf chaos``: a single fault, to see what it does."""

from __future__ import annotations

import os
import platform
import re
import signal
import sys
from typing import TYPE_CHECKING

from ifog.errors import ArgumentError, ClusterError
from ifog.magics.options import parse_ranks, split_options
from ifog.magics.runner import Runner
from ifog.numbers import duration, named

if TYPE_CHECKING:
    from ifog.cluster import Cluster

__all__ = ["chaos"]

_USAGE = "%bf chaos kill 2 | freeze 2 | thaw 2 | delay 1 200ms | drop 0->3 | off"
_SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}
_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


def chaos(runner: Runner, line: str) -> None:
    """Kill or freeze a rank, slow it down, or let an edge lose its messages."""
    plain, _ = split_options(line, {}, _USAGE)
    what, *words = plain or [""]
    cluster = runner.cluster()
    if what in _SIGNALS and len(words) == 1:
        told = _send(cluster, what, words[0])
    elif what == "delay" and len(words) == 2:
        told = _delay(runner, words[0], words[1])
    elif what == "drop" and (edge := re.fullmatch(r"(\d+)\s*->\s*(\d+)", " ".join(words))):
        told = _drop(runner, int(edge[1]), int(edge[2]))
    elif what == "off" and not words:
        _plant(runner, "off()", None)
        told = "no delays, no lost messages any more"
    else:
        raise ArgumentError(f"{line.strip()!r} is no fault. Usage: {_USAGE}")
    sys.stdout.write(f"{told}\n")


def _send(cluster: Cluster, what: str, text: str) -> str:
    ranks = parse_ranks(text, cluster.n)
    rows = {row.rank: row for row in cluster.status().rows}
    for rank in range(cluster.n) if ranks is None else ranks:
        row = rows[rank]
        if row.state == "dead":
            raise ClusterError(f"rank {rank} is dead already; %bf respawn brings it back")
        if row.host != platform.node():
            raise ClusterError(f"rank {rank} runs on {row.host}; only ranks here can get a signal")
        os.kill(row.pid, _SIGNALS[what])
    done = {"kill": "killed", "freeze": "frozen until %bf chaos thaw", "thaw": "running again"}
    return f"{named(range(cluster.n) if ranks is None else ranks)}: {done[what]}"


def _delay(runner: Runner, text: str, time: str) -> str:
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(|s|ms|us)", time)
    if found is None:
        raise ArgumentError(f"{time!r} is no time; write 200ms or 0.2s. Usage: {_USAGE}")
    seconds = float(found[1]) * _UNITS[found[2]]
    ranks = parse_ranks(text, runner.cluster().n)
    _plant(runner, f"delay({seconds!r})", ranks)
    who = named(range(runner.cluster().n) if ranks is None else ranks)
    return f"{who}: every operation begins {duration(seconds)} late, until %bf chaos off"


def _drop(runner: Runner, source: int, destination: int) -> str:
    ranks = parse_ranks(str(source), runner.cluster().n)
    _plant(runner, f"drop({destination})", ranks)
    return f"what rank {source} sends to rank {destination} is lost, until %bf chaos off"


def _plant(runner: Runner, call: str, ranks: tuple[int, ...] | None) -> None:
    cluster = runner.cluster()
    runner.require_idle(ranks or range(cluster.n), "%bf chaos")
    code = f"__import__('ifog.sabotage', fromlist=['*']).{call}"
    cluster.run(code, ranks, timeout=30).raise_for_error()
