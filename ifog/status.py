"""What ``%bf status`` says about a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ifog.numbers import named

__all__ = ["AFRESH", "WAYS_OUT", "ClusterStatus", "RankStatus"]

AFRESH = "start fresh ranks with %bf restart"
WAYS_OUT = "go on without with %bf heal, replace with %bf respawn, or begin afresh: %bf restart"


class RankStatus(NamedTuple):
    """One rank.

    ``wire`` says by what its messages travel. ``state`` is "idle", "running", "waiting", "stopped",
    "dead", "starting" in place of a dead one, "does not answer" outside of a cell, or for a rank
    that was given up and still runs "busy in cell 3, does not answer".
    """

    rank: int
    pid: int
    host: str
    device: str
    threads: int
    wire: str
    state: str


@dataclass(frozen=True, repr=False)
class ClusterStatus:
    """The ranks of a cluster; ``trouble`` is empty while cells can be run.

    ``forged`` counts messages that were dropped because nobody who may had signed them. ``devices``
    says how tensors of devices travel, once any did.
    """

    n: int
    running: bool
    trouble: str
    rows: tuple[RankStatus, ...]
    forged: int = 0
    devices: str = ""

    def __repr__(self) -> str:
        if not self.running:
            return "no cluster is running; start one with %bf start"
        table = [RankStatus._fields, *(tuple(map(str, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        if self.devices or any(row.device != "cpu" for row in self.rows):
            lines.append(f"device tensors: {self.devices or 'none used so far'}")
        if self.forged:
            plural = "" if self.forged == 1 else "s"
            lines.append(f"{self.forged} forged message{plural} dropped")
        dead = [row.rank for row in self.rows if row.state == "dead"]
        if dead and not self.trouble:
            lines.append(f"the others go on without {named(dead)}; %bf respawn has all ranks again")
        return "\n".join([*lines, self.trouble] if self.trouble else lines)
