"""``%bf save`` and ``%bf load``: the ranks' variables on the disk, and back on any number."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ifog import manifest
from ifog.errors import ArgumentError, ClusterError, NoClusterError
from ifog.magics.options import closest, split_options, whole
from ifog.magics.runner import Runner
from ifog.manifest import Manifest
from ifog.numbers import counted

__all__ = ["load", "save"]

_SAVE = "%bf save DIR [NAME...]"
_LOAD = "%bf load DIR [NAME...] [-n 4] [--rule assign|average]"
_RULES = ("assign", "average")


def save(runner: Runner, line: str) -> None:
    """Keep variables of all ranks; by default all that can be kept."""
    plain, _ = split_options(line, {}, _SAVE)
    target, names = _where(plain, _SAVE)
    cluster = runner.cluster()
    runner.require_idle(range(cluster.n), "%bf save")
    cluster.run(f"_kept = bf.save({str(target)!r}, {names or None!r})").raise_for_error()
    kept = next(iter(cluster.pull("_kept").values()))
    runner.saved = target
    sys.stdout.write(f"{', '.join(kept)}: kept in {target}\n")


def load(runner: Runner, line: str) -> None:
    """Give the ranks variables of a checkpoint, if need be to another number of ranks."""
    plain, found = split_options(line, {"-n": True, "--rule": True}, _LOAD)
    target, names = _where(plain, _LOAD)
    rule = found.get("--rule", "assign")
    if rule not in _RULES:
        raise ArgumentError(f"--rule is {rule!r}{closest(rule, _RULES)}. Usage: {_LOAD}")
    saved = manifest.read(target)
    unknown = [name for name in names if name not in saved.names]
    if unknown:
        near = closest(unknown[0], saved.names)
        raise ArgumentError(f"{target} has no {unknown[0]!r}{near}, only {', '.join(saved.names)}")
    _have_ranks(runner, whole(found["-n"], "-n") if "-n" in found else None, saved, names)
    cluster = runner.cluster()
    runner.require_idle(range(cluster.n), "%bf load")
    call = f"bf.load({str(target)!r}, {names or None!r}, rule={rule!r})"
    cluster.run(f"globals().update({call})").raise_for_error()
    loaded = names or list(saved.names)
    runner.names |= set(loaded)
    sys.stdout.write(f"{', '.join(loaded)}: loaded {_as(saved, cluster.n, rule)}\n")


def _where(plain: list[str], usage: str) -> tuple[Path, list[str]]:
    if not plain:
        raise ArgumentError(f"which folder? Usage: {usage}")
    folder, *names = plain
    wrong = [name for name in names if not name.isidentifier()]
    if wrong:
        raise ArgumentError(f"{wrong[0]!r} is not the name of a variable. Usage: {usage}")
    return Path(folder).expanduser().absolute(), names


def _have_ranks(runner: Runner, n: int | None, saved: Manifest, names: list[str]) -> None:
    """Start ranks where there are none, or not as many as asked for.

    Raises:
        ClusterError: fresh ranks would lack the objects that something belongs into.
    """
    try:
        running = runner.cluster().n
    except NoClusterError:
        running = None
    wanted = n or running or saved.n
    if wanted == running:
        return
    needing = [name for name in saved.needing_objects() if not names or name in names]
    if needing:
        raise ClusterError(
            f"{', '.join(needing)} must exist before the checkpoint is loaded into it, and fresh "
            f"ranks have nothing: %bf {'start' if running is None else 'stop, %bf start'} -n "
            f"{wanted}, run the cell that makes it, then %bf load without -n"
        )
    if running is not None:
        runner.cluster().stop()
    runner.start(wanted)


def _as(saved: Manifest, n: int, rule: str) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(saved.time))
    told = f"as {counted(saved.n)} saved it on {when}"
    if rule == "average":
        return f"{told}, tensors averaged over those ranks"
    return told if n == saved.n else f"{told}, rank r has what rank r mod {saved.n} had"
