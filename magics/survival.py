"""The commands of ``%bf`` for ranks that died: going on without them, or having them again."""

from __future__ import annotations

import sys

from ifog.errors import ArgumentError
from ifog.magics.options import split_options
from ifog.magics.runner import Runner

__all__ = ["heal"]


def heal(runner: Runner, line: str) -> None:
    """``%bf heal``: the living go on without the dead."""
    plain, _ = split_options(line, {}, "%bf heal")
    if plain:
        raise ArgumentError(f"%bf heal takes nothing more, found {plain[0]!r}")
    cluster = runner.cluster()
    runner.require_idle(range(cluster.n), "%bf heal")
    sys.stdout.write(f"{cluster.heal()}\n")
