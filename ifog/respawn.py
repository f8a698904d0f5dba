"""Having all ranks again after deaths, as seen from the notebook; the others keep their variables.

*In place*: the living start one process for each dead rank and let it into their world. *Around
what was kept*: where MPI cannot do that, a new world of all ranks is started beside the old one,
every living rank's variables are brought there, and the old world ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ifog.errors import ClusterError, IfogError, NotAvailableError
from ifog.numbers import named

if TYPE_CHECKING:
    from ifog.hosts import Hosts
    from ifog.line import Line

__all__ = ["replaced", "require_one_machine"]

_TIMEOUT = 20.0
_KEEP_TIMEOUT = 60.0
_PAUSE = 0.02


def require_one_machine(hosts: Hosts | None) -> None:
    """Refuse what needs files and processes of this machine.

    Raises:
        NotAvailableError: the ranks are on several hosts.
    """
    if hosts is not None:
        raise NotAvailableError(
            "ranks on several hosts cannot be replaced yet; go on without those that died: "
            "%bf heal, or begin afresh: %bf restart"
        )


def replaced(
    line: Line,
    heal: Callable[[], object],
    names: Sequence[str],
    connect: Callable[..., Line],
    tell: Callable[[str], None],
    *,
    sealed: bool,
) -> tuple[Line, str]:
    """All ranks again; returns the line to them, which may be a new one, and what was done.

    Args:
        line: to the ranks, some of which are dead or do not answer.
        heal: lets the living go on.
        names: of the variables that a new rank gets from a neighbour of the dead one.
        connect: starts new ranks, as many as there were.
        tell: called with short lines about what is going on.
        sealed: the ranks cannot be joined by a new one.

    Raises:
        IfogError: neither way worked.
    """
    try:
        heal()
        sources = _givers(line, line.dead)
        if sealed:
            raise NotAvailableError("a sealed cluster lets no new process in")
        tell(f"starting {named(sources)} in the living world")
        told = in_place(line, sources, names)
    except IfogError as error:
        living = line.living
        if line.broken or not living:
            raise
        sources = dict.fromkeys(sorted(set(line.about) - set(living)), living[0])
        why = str(error).partition(";")[0]  # what it advises against that is done here
        tell(f"not in place ({why}): starting all ranks afresh around the variables")
        line, how = around(line, sources, names, connect)
        told = f"not in place ({why}): {how}"
    return line, told


def _givers(line: Line, dead: Iterable[int]) -> dict[int, int]:
    """For each dead rank a living neighbour, whose variables are to stand for its own."""
    first, task = line.living[0], "finding neighbours"
    return {r: line.call([first], task, "newcomer", "giver", r)[first] for r in sorted(dead)}


def in_place(line: Line, sources: Mapping[int, int], names: Sequence[str]) -> str:
    """Replace dead ranks one after the other; returns what was done.

    Args:
        line: to ranks that have healed.
        sources: for each dead rank, the one that gives its variables.
        names: of these variables.

    Raises:
        IfogError: it did not work; the ranks left may hang.
    """
    refused: dict[str, str] = {}
    for rank in sorted(sources):
        _replace(line, rank)
        if names:
            refused |= _hand_over(line, sources[rank], rank, names)
    ranks = named(sources)
    verb = "is" if len(sources) == 1 else "are"
    return f"{ranks} {verb} back in the living world{_given(sources, names, refused)}"


def _replace(line: Line, rank: int) -> None:
    living, task = line.living, f"replacing rank {rank}"
    image = line.call(living[:1], task, "newcomer", "portrait")[living[0]]
    death = line.expect(rank)
    try:
        _await(lambda: not line.registered(rank), f"the controller still counts rank {rank}")
        spawning = {r: line.apply(r, "request", "newcomer", "spawn", rank) for r in living}
        line.gather(spawning, _TIMEOUT, task)
        _await(lambda: line.registered(rank), f"the new process of rank {rank} did not come up")
        joining: dict[int, Any] = {rank: line.apply(rank, "start", rank, image)}
        joining |= {r: line.apply(r, "request", "newcomer", "admit") for r in living}
        about = line.gather(joining, _TIMEOUT, task)[rank]
    except BaseException:
        line.give_up(rank, death)
        raise
    line.watch(rank, about)
    line.gone.discard(rank)


def _await(condition: Callable[[], bool], otherwise: str) -> None:
    deadline, pause = time.monotonic() + _TIMEOUT, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(otherwise)
        pause.wait(_PAUSE)


def _hand_over(line: Line, source: int, rank: int, names: Sequence[str]) -> dict[str, str]:
    futures = {
        source: line.apply(source, "request", "hand_over", list(names), rank),
        rank: line.apply(rank, "request", "take_over", source),
    }
    refused: dict[str, str] = line.gather(futures, _KEEP_TIMEOUT, "handing variables over")[source]
    return refused


def around(
    line: Line,
    sources: Mapping[int, int],
    names: Sequence[str],
    connect: Callable[..., Line],
) -> tuple[Line, str]:
    """Bring the living ranks' variables into a new world; returns its line, and what was done.

    Args:
        line: to the old ranks, which may hang: their control threads write down the variables.
        sources: for each dead rank, the one that gives its variables.
        names: of these variables.
        connect: starts the new ranks.

    Raises:
        IfogError: there is no new world, or the variables did not arrive; the old one is still
            there then.
    """
    living, n = line.living, len(line.about)
    fresh = connect()
    try:
        folder = str(fresh.files)
        answers = line.ask(living, "keep", _KEEP_TIMEOUT, folder=folder)
        kept = {rank: answer for rank, answer in answers.items() if "refused" in answer}
        if not kept:
            raise ClusterError("no rank could write down its variables")
        futures = {}
        for rank in range(n):
            source = rank if rank in kept else sources.get(rank, -1)
            chosen = None if rank in kept else list(names)
            source = source if source in kept else min(kept)
            futures[rank] = fresh.apply(rank, "request", "regain", folder, source, chosen)
        bound = fresh.gather(futures, _KEEP_TIMEOUT, "bringing variables back")
        for path in fresh.files.iterdir():
            path.unlink()
    except BaseException:
        fresh.stop()
        raise
    line.stop()
    missing = {name for rank in sources for name in set(names) - set(bound[rank])}
    refused = dict.fromkeys(missing, "there is none")
    for answer in kept.values():
        refused |= answer["refused"]
    told = f"{n} fresh ranks have the variables of {named(kept)}"
    if lost := sorted(set(living) - set(kept)):
        told += f"; those of {named(lost)} are lost"
    return fresh, told + _given(sources, names, refused)


def _given(sources: Mapping[int, int], names: Sequence[str], refused: Mapping[str, str]) -> str:
    parts = []
    new, has = named(sources), "has" if len(sources) == 1 else "have"
    if given := [name for name in names if name not in refused]:
        pairs = ", ".join(f"rank {rank} from rank {source}" for rank, source in sources.items())
        parts.append(f"{', '.join(given)}: {pairs}; {new} {has} no other variables")
    elif not names:
        parts.append(f"{new} without variables (--state model,opt takes a neighbour's)")
    parts += [f"{name} could not be brought ({why})" for name, why in sorted(refused.items())]
    return "".join(f"; {part}" for part in parts)
