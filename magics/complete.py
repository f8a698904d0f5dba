"""Tab completion behind ``%bf`` and ``%%bf``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["COMMANDS", "complete_line"]

COMMANDS: Mapping[str, str] = {
    "start": "start [-n 4]               start a cluster of n ranks",
    "stop": "stop                       stop it; its variables are gone",
    "restart": "restart                    the same number of ranks, empty",
    "status": "status                     ranks, processes, what they do",
    "topology": "topology NAME              use this graph on all ranks: ring, exponential, ...",
    "pull": "pull NAME [--ranks 0,2:4]  bring a variable of the ranks into the notebook",
    "push": "push NAME...               copy variables of the notebook to all ranks",
    "dashboard": "dashboard                  live panels: graph, consensus error, throughput",
    "interrupt": "interrupt                  interrupt what the ranks do",
    "help": "help                       this list",
}
_OPTIONS = {"start": ("-n",), "pull": ("--ranks",), "push": ("--ranks",)}
_CELL_OPTIONS = ("--ranks", "--timeout", "--no-wait")


def complete_line(line: str, namespace: Mapping[str, Any]) -> list[str]:
    """What may follow in a line that begins with ``%bf`` or ``%%bf``, its last word half typed."""
    words = line.split()
    if not line.endswith((" ", "\t")):
        words = words[:-1]
    if line.lstrip().startswith("%%"):
        return [option for option in _CELL_OPTIONS if option not in words]
    if len(words) < 2:
        return list(COMMANDS)
    command = words[1]
    options = [option for option in _OPTIONS.get(command, ()) if option not in words]
    if command == "topology":
        return topology_names() if len(words) == 2 else []
    if command == "push":
        return sorted(name for name in namespace if not name.startswith("_")) + options
    return options


def topology_names() -> list[str]:
    """The graphs that ``%bf topology`` knows."""
    from ifog import topology

    return list(topology.names())
