"""What is typed behind ``%%bf`` and ``%bf``, turned into values or into an error that helps."""

from __future__ import annotations

import difflib
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ifog.errors import ArgumentError
from ifog.numbers import rank_ranges

__all__ = ["CellOptions", "closest", "parse_cell_line", "parse_ranks", "split_options", "whole"]

_CELL_USAGE = "%%bf [--ranks 0,2:4] [--timeout SECONDS] [--stall SECONDS] [--no-wait]"


class CellOptions(NamedTuple):
    """The options of a ``%%bf`` cell; ``ranks`` is resolved when the cluster is known.

    ``stall`` is how long a wait may last before it is spoken of, and ended if nobody else can.
    """

    ranks: str | None
    timeout: float | None
    wait: bool
    stall: float | None = None


def closest(word: str, choices: Sequence[str]) -> str:
    """`` (did you mean 'status'?)`` for a near miss, else nothing."""
    found = difflib.get_close_matches(word, choices, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def split_options(
    line: str, options: Mapping[str, bool], usage: str
) -> tuple[list[str], dict[str, str]]:
    """The plain words of a line, and its options with their values ("" for a flag).

    Args:
        line: what was typed.
        options: every allowed option, and whether it takes a value.
        usage: shown with every error.

    Raises:
        ArgumentError: an unknown option, a missing value, or an open quote.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise ArgumentError(f"cannot read {line!r}: {error}. Usage: {usage}") from None
    plain: list[str] = []
    found: dict[str, str] = {}
    queue = iter(words)
    for word in queue:
        name, equals, value = word.partition("=")
        if re.fullmatch(r"-n\d+", word):
            name, equals, value = "-n", "=", word[2:]
        if not name.startswith("-") or re.fullmatch(r"-[\d.].*", name):
            plain.append(word)
        elif name not in options:
            raise ArgumentError(
                f"unknown option {name!r}{closest(name, list(options))}. Usage: {usage}"
            )
        elif options[name] and not equals:
            following = next(queue, None)
            if following is None:
                raise ArgumentError(f"{name} needs a value. Usage: {usage}")
            found[name] = following
        else:
            found[name] = value
    return plain, found


def parse_cell_line(line: str) -> CellOptions:
    """The options behind ``%%bf``.

    Raises:
        ArgumentError: something else than the options stands there.
    """
    allowed = {"--ranks": True, "--timeout": True, "--stall": True, "--no-wait": False}
    plain, found = split_options(line, allowed, _CELL_USAGE)
    if plain:
        raise ArgumentError(
            f"%%bf does not know {plain[0]!r}: code goes below the first line, commands such as "
            f"%bf status have one percent sign. Usage: {_CELL_USAGE}"
        )
    timeout = _seconds(found, "--timeout", 30)
    stall = math.inf if found.get("--stall") == "off" else _seconds(found, "--stall", 5)
    return CellOptions(found.get("--ranks"), timeout, "--no-wait" not in found, stall)


def _seconds(found: Mapping[str, str], name: str, example: int) -> float | None:
    if name not in found:
        return None
    try:
        seconds = float(found[name])
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ArgumentError(
            f"{name} is {found[name]!r}; give seconds above 0, such as {name} {example}"
        )
    return seconds


def whole(text: str, name: str) -> int:
    """A whole number.

    Raises:
        ArgumentError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise ArgumentError(f"{name} is {text!r}; give a whole number, such as {name} 4") from None


def parse_ranks(text: str | None, n: int) -> tuple[int, ...] | None:
    """Ranks as typed (``0,2:4``, ``1-3``, ``::2``) among ``0..n-1``; None stands for all.

    A slice ``a:b`` ends before b, as in Python; a range ``a-b`` includes b.

    Raises:
        ArgumentError: not ranks, or none of this cluster.
    """
    if text is None or text == "all":
        return None
    ranks: set[int] = set()
    for part in text.split(","):
        ranks.update(_part(part.strip(), text, n))
    beyond = sorted(rank for rank in ranks if rank >= n)
    if beyond:
        word = "rank" if len(beyond) == 1 else "ranks"
        raise ArgumentError(
            f"--ranks {text} names {word} {rank_ranges(beyond)}, but this cluster has the ranks "
            f"{rank_ranges(range(n))}"
        )
    if not ranks:
        raise ArgumentError(f"--ranks {text} names no rank of {rank_ranges(range(n))}")
    return tuple(sorted(ranks))


def _part(part: str, text: str, n: int) -> range:
    if re.fullmatch(r"\d+", part):
        return range(int(part), int(part) + 1)
    if ends := re.fullmatch(r"(\d+)-(\d+)", part):
        return range(int(ends[1]), int(ends[2]) + 1)
    if re.fullmatch(r"-?\d*:-?\d*(:-?\d*)?", part):
        bounds = [int(bound) if bound else None for bound in part.split(":")]
        if bounds[2:] != [0]:
            return range(n)[slice(*bounds)]
    raise ArgumentError(
        f"--ranks {text}: {part!r} is neither a rank nor a range; write --ranks 0,2:4 or "
        f"--ranks 0-2; the ranks are {rank_ranges(range(n))}"
    )
