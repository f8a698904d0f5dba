"""How ifog writes numbers, wherever a person reads them.

Three significant digits, SI units with a no-break space before them, a narrow no-break space
between thousands from 10 000 on, an ASCII minus so that a number pastes into Python. Only the
standard library is used.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

__all__ = [
    "count",
    "counted",
    "duration",
    "floored",
    "named",
    "number",
    "percent",
    "rank_ranges",
    "size",
]

SPACE = "\N{NO-BREAK SPACE}"
THIN = "\N{NARROW NO-BREAK SPACE}"


def _grouped(digits: str) -> str:
    whole, dot, rest = digits.partition(".")
    wide = len(whole.lstrip("-")) >= 5
    return (f"{int(whole):,}".replace(",", THIN) if wide else whole) + dot + rest


def number(value: float, digits: int = 3) -> str:
    """The value with ``digits`` significant digits; in exponent form below 1e-3 and from 1e6 on.

    Example:
        >>> number(94.87), number(0.03768), number(2.281e-6), number(0.0)
        ('94.9', '0.0377', '2.28e-6', '0')
    """
    if not math.isfinite(value):
        return str(float(value))
    if value == 0:
        return "0"
    mantissa, exponent_text = f"{value:.{digits - 1}e}".split("e")
    exponent = int(exponent_text)
    if not -3 <= exponent < 6:
        return f"{mantissa}e{exponent}"
    rounded = float(f"{mantissa}e{exponent}")
    return _grouped(f"{rounded:.{max(0, digits - 1 - exponent)}f}")


def count(value: int) -> str:
    """A whole number, all its digits shown."""
    return _grouped(str(value))


def floored(value: int, digits: int = 2) -> int:
    """The value with all but its first digits made 0: at least so many there are.

    Example:
        >>> floored(76_804), floored(42)
        (76000, 42)
    """
    unit = int(10 ** max(len(str(value)) - digits, 0))
    return value // unit * unit


def _scaled(value: float, units: Sequence[str]) -> str:
    unit = 0
    while unit + 1 < len(units) and float(f"{value:.2e}") >= 1000:
        value /= 1000
        unit += 1
    return f"{number(value)}{SPACE}{units[unit]}"


def size(nbytes: float) -> str:
    """An amount of bytes in SI units: ``9.60 MB``."""
    if nbytes < 1000:
        return f"{round(nbytes)}{SPACE}B"
    return _scaled(nbytes / 1000, ("kB", "MB", "GB", "TB", "PB"))


def duration(seconds: float) -> str:
    """A time span: ``12.4 ms``, ``0.135 s``, ``3.16 s``, ``2 min 14 s``, ``1 h 03 min``."""
    if seconds >= 3600:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours}{SPACE}h {minutes:02d}{SPACE}min"
    if seconds >= 99.95:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}{SPACE}min {rest:02d}{SPACE}s"
    if seconds >= 0.1:
        return f"{number(seconds)}{SPACE}s"
    return f"0{SPACE}s" if seconds <= 0 else _scaled(seconds * 1e6, ("µs", "ms"))


def percent(share: float) -> str:
    """A share of one as a percentage without decimals: ``27 %``."""
    return f"{round(100 * share)}{SPACE}%" if math.isfinite(share) else f"nan{SPACE}%"


def rank_ranges(ranks: Iterable[int]) -> str:
    """Ranks in ascending order as ranges: ``0-2,4-7``; two neighbours are a range too."""
    runs: list[list[int]] = []
    for rank in sorted(set(ranks)):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def counted(ranks: int) -> str:
    """How many ranks: ``1 rank``, ``4 ranks``."""
    return f"{ranks} rank{'' if ranks == 1 else 's'}"


def named(ranks: Collection[int]) -> str:
    """Which ranks: ``rank 3``, ``ranks 0-2,5``."""
    return f"rank{'' if len(ranks) == 1 else 's'} {rank_ranges(ranks)}"
