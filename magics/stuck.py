"""The commands of ``%bf`` for ranks that are stuck: why, where, and stop it."""

from __future__ import annotations

import sys
import time

from ifog.errors import ArgumentError
from ifog.magics.options import parse_ranks, split_options
from ifog.magics.report import report_of, report_text
from ifog.magics.runner import Runner
from ifog.numbers import rank_ranges
from ifog.why import aligned, spelled

__all__ = ["interrupt", "stacks", "why"]

_ANSWER_DUE = 2.0


def why(runner: Runner, line: str) -> None:
    """``%bf why``: who waits for whom, in every cell that runs, else in the last one."""
    _no_words(line, "why")
    cluster = runner.cluster()
    cells = cluster.running_cells()
    if not cells:
        report = None if runner.last is None else report_of(runner.last)
        _say("no cell runs, so no rank waits" if report is None else report_text(report))
    for cell in cells:
        found = cell.why()
        head = f"cell {cell.seq}: " if len(cells) > 1 else ""
        if found is None:
            _say(f"{head}nobody waits: {spelled(cell.missing())} compute")
        else:
            told = [f"{head}{found.sentence}", "", *aligned(found.rows)]
            _say("\n".join([*told, *(["", found.longest] if found.longest else [])]))


def stacks(runner: Runner, line: str) -> None:
    """``%bf stacks``: where the main threads are, equal stacks once."""
    usage = "stacks [RANKS] [--all]"
    plain, found = split_options(line, {"--all": False}, f"%bf {usage}")
    cluster = runner.cluster()
    ranks = _ranks(plain, cluster.n, usage) or range(cluster.n)
    cluster.require_reachable()
    futures = cluster.ask(list(ranks), "stacks", every="--all" in found)
    deadline = time.monotonic() + _ANSWER_DUE
    where: dict[str, list[int]] = {}
    for rank in ranks:
        text = "no answer"
        future = futures.get(rank)
        if future is None:
            text = "dead"
        elif future.wait(max(0.0, deadline - time.monotonic())):
            answer = future.result()["content"]
            idle = answer.get("cell") is None and "--all" not in found
            text = "idle" if idle else answer.get("stack") or "in no code of yours"
        where.setdefault(text, []).append(rank)
    for text, alike in where.items():
        below = text.replace("\n", "\n    ")
        _say(f"[{rank_ranges(alike)}] {below}")


def interrupt(runner: Runner, line: str) -> None:
    """``%bf interrupt``: a keyboard interrupt for these ranks, or for all."""
    usage = "interrupt [RANKS]"
    plain, _ = split_options(line, {}, f"%bf {usage}")
    cluster = runner.cluster()
    ranks = _ranks(plain, cluster.n, usage)
    told = cluster.interrupt(ranks)
    if told:
        whose = "its" if len(told) == 1 else "their"
        _say(f"interrupt sent to {spelled(told)}; {whose} variables stay")
    else:
        _say(
            f"no cell runs{'' if ranks is None else f' on {spelled(ranks)}'}, nothing to interrupt"
        )


def _ranks(plain: list[str], n: int, usage: str) -> tuple[int, ...] | None:
    if len(plain) > 1:
        raise ArgumentError(f"found {plain[1]!r} behind the ranks. Usage: %bf {usage}")
    return parse_ranks(plain[0], n) if plain else None


def _no_words(line: str, usage: str) -> None:
    plain, _ = split_options(line, {}, f"%bf {usage}")
    if plain:
        raise ArgumentError(f"%bf {usage} takes nothing more, found {plain[0]!r}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
