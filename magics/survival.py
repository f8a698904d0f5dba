"""The commands of ``%bf`` for ranks that died: going on without them, or having them again."""

from __future__ import annotations

import sys

from ifog.errors import ArgumentError, IfogError
from ifog.magics.live import notice
from ifog.magics.options import split_options
from ifog.magics.runner import Runner
from ifog.numbers import duration
from ifog.telemetry import now

__all__ = ["heal", "respawn"]

_RESPAWN = "%bf respawn [--state model,opt]"


def heal(runner: Runner, line: str) -> None:
    """``%bf heal``: the living go on without the dead."""
    plain, _ = split_options(line, {}, "%bf heal")
    if plain:
        raise ArgumentError(f"%bf heal takes nothing more, found {plain[0]!r}")
    cluster = runner.cluster()
    runner.require_idle(range(cluster.n), "%bf heal")
    sys.stdout.write(f"{cluster.heal()}\n")


def respawn(runner: Runner, line: str) -> None:
    """``%bf respawn``: all ranks again, those that lived with their variables."""
    plain, found = split_options(line, {"--state": True}, _RESPAWN)
    names = [name.strip() for name in found.get("--state", "").split(",") if name.strip()]
    wrong = [name for name in [*plain, *names] if name in plain or not name.isidentifier()]
    if wrong:
        raise ArgumentError(f"{wrong[0]!r} is not the name of a variable. Usage: {_RESPAWN}")
    cluster = runner.cluster()
    runner.require_idle(range(cluster.n), "%bf respawn")
    begun = now()
    display = runner.screen.show(*notice("starting", "having all ranks again", duration(0.0)))

    def tell(text: str) -> None:
        if runner.screen.moves:
            display.update(*notice("starting", text, duration(now() - begun)))

    try:
        told = cluster.respawn(names, tell)
    except (IfogError, KeyboardInterrupt) as error:
        display.update(*notice("stopped", type(error).__name__))
        raise
    display.update(*notice("done", told, duration(now() - begun)))
