"""Lines of text as the words around their numbers, so that they can be compared and joined."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

__all__ = ["NUMBER", "order_of", "plain", "ranged", "template"]

NUMBER = re.compile(
    r"((?<![\w.])[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\d_]|\.\d)"
    r"|(?<![\w.])(?:nan|[-+]?inf)(?!\w))"
)
# No part may run past the next escape: a line of nothing but escapes must cost linear time.
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_LONG = 4000  # characters from which on a line is compared as a whole


def plain(text: str) -> str:
    """The text without colours and other escapes."""
    return _ESCAPE.sub("", text) if "\x1b" in text else text


def template(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A line as the text around its numbers and the numbers; a very long one as all text."""
    if len(text) > _LONG:
        return (text,), ()
    pieces = NUMBER.split(text)
    return tuple(pieces[::2]), tuple(pieces[1::2])


def order_of(value: str) -> tuple[bool, float]:
    """By what numbers are sorted as they were written: NaN last."""
    as_float = float(value)
    nan = math.isnan(as_float)
    return nan, 0.0 if nan else as_float


def ranged(texts: Sequence[str]) -> str | None:
    """Texts that are equal but for their numbers as one, with ranges; None where they are not."""
    frames, numbers = zip(*map(template, texts), strict=True)
    if any(frame != frames[0] for frame in frames):
        return None
    shown = [frames[0][0]]
    for after, values in zip(frames[0][1:], zip(*numbers, strict=True), strict=True):
        low, *_, high = [*sorted(values, key=order_of)] * 2
        shown += [low if low == high else f"{low} … {high}", after]
    return "".join(shown)
