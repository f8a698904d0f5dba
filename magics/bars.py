"""Progress bars in tqdm's format, one for all ranks that draw the same.

    train: 43 … 47%|████████▒           | 43 … 47/100 [00:04<00:06, 9.80 … 10.2it/s] rank 2 behind

The full part of the bar is what every rank has done, the grey one what some have. Times are those
of the rank that is behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ifog.magics.wording import ranged
from ifog.numbers import named, number

__all__ = ["Bar", "parsed", "together"]

_WIDTH = 20
_MOST = 1000  # characters of a line that can be one
_AMOUNT = r"(?P<done>\d+(?:\.\d+)?[kMGT]?)"
_REST = (
    r"(?P<elapsed>[\d:]+:\d\d)(?:<(?P<left>[^,\]]+))?,\s*"
    r"(?P<rate>[^,\]/]*/[^,\]]*)(?P<rest>.*)\]\s*"
)
_WITH_END = re.compile(
    rf"(?P<title>.*?)\s*\d{{1,3}}%\|[^|]*\|\s*{_AMOUNT}/(?P<total>\d+(?:\.\d+)?[kMGT]?) \[{_REST}"
)
_WITHOUT = re.compile(rf"(?:(?P<title>.*): )?{_AMOUNT}(?P<unit>\S*) \[{_REST}")
_RATE = re.compile(r"([\d.]+[kMGT]?)(?:(\S+?)/s|s/(\S+))")
_SCALES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


class Bar(NamedTuple):
    """What a bar says.

    Attributes:
        title: the text before it.
        done: how much is done, as it was written.
        total: of how much; empty where that is not known.
        unit: of what, where there is no total.
        elapsed: the time until now.
        left: the time that is left, as far as is known.
        rate: as it was written.
        rest: what stands behind that, such as the loss.
    """

    title: str
    done: str
    total: str
    unit: str
    elapsed: str
    left: str
    rate: str
    rest: str

    @property
    def amount(self) -> float:
        """How much is done."""
        return _value(self.done)

    @property
    def share(self) -> float:
        """How much of all; nothing where that is not known."""
        whole = _value(self.total) if self.total else 0.0
        return min(1.0, self.amount / whole) if whole else 0.0

    @property
    def complete(self) -> bool:
        """Whether all is done."""
        return bool(self.total) and self.amount >= _value(self.total)

    @property
    def speed(self) -> tuple[float, str] | None:
        """Units a second, and the unit; None where that is not known."""
        found = _RATE.fullmatch(self.rate)
        if found is None or not _value(found[1]):
            return None
        value = _value(found[1])
        return (value, found[2]) if found[2] else (1 / value, found[3])


def _value(text: str) -> float:
    scale = _SCALES.get(text[-1:], 0.0)
    return float(text[:-1]) * scale if scale else float(text)


def parsed(line: str) -> Bar | None:
    """The bar in a line, if it is nothing but one."""
    if "[" not in line or len(line) > _MOST:
        return None
    found = _WITH_END.fullmatch(line) or _WITHOUT.fullmatch(line)
    if found is None:
        return None
    known = {key: value or "" for key, value in found.groupdict().items()}
    known["title"] = known["title"].rstrip(": ")
    return Bar(*(known.get(name, "").strip() for name in Bar._fields))


def together(lines: Mapping[int, str]) -> str:
    """One bar for those of several ranks, or the bar of one as it is."""
    if len(lines) == 1:
        return next(iter(lines.values()))
    bars = [bar for bar in map(parsed, lines.values()) if bar is not None]
    last, first = (choose(bars, key=lambda bar: bar.amount) for choose in (min, max))
    behind = [rank for rank, bar in zip(lines, bars, strict=True) if bar.amount == last.amount]
    who = f" {named(behind)} behind" if last.amount < first.amount else ""
    title = f"{last.title}: " if last.title else ""
    done = _range((last.done, first.done))
    rest = ranged([bar.rest for bar in bars]) or last.rest
    if not last.total:
        return f"{title}{done}{last.unit} [{last.elapsed}, {_rates(bars) or last.rate}{rest}]{who}"
    low, high = (bar.share for bar in (last, first))
    percent = _range([f"{100 * share:.0f}" for share in (low, high)])
    full, grey = int(_WIDTH * low), int(_WIDTH * high)
    drawn = "█" * full + "▒" * (grey - full) + " " * (_WIDTH - grey)
    total = _range(sorted({bar.total for bar in bars}, key=_value))
    figures = f"{last.elapsed}<{last.left}, {_rates(bars) or last.rate}{rest}"
    return f"{title}{percent}%|{drawn}| {done}/{total} [{figures}]{who}"


def _range(texts: Iterable[str]) -> str:
    low, *others = texts
    high = others[-1] if others else low
    return low if low == high else f"{low} … {high}"


def _rates(bars: Iterable[Bar]) -> str:
    known = [speed for bar in bars if (speed := bar.speed) is not None]
    if not known or len({unit for _, unit in known}) > 1:
        return ""
    speeds = sorted(value for value, _ in known)
    return f"{_range([number(speeds[0]), number(speeds[-1])])}{known[0][1]}/s"
