"""Blocks, failures and strips as text and as HTML that says the same.

The text is complete by itself, for terminals and headless runs; the HTML folds what the text
spells out. Text that ranks print, raise or show is escaped, so it never becomes part of the page.
HTML, Markdown and pictures that a value makes of itself are passed on as they are: the notebook
trusts them as it trusts the outputs of its own cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from ifog.magics.failures import Failure
from ifog.magics.fold import Block, Spread
from ifog.magics.look import STYLE, edge_color, glyph, spark, ticks
from ifog.magics.strip import StripView
from ifog.numbers import count, rank_ranges

__all__ = [
    "Released",
    "folded",
    "markdown",
    "output_html",
    "output_text",
    "prefix_width",
    "strip_html",
    "strip_text",
]

_MOST = 20_000  # characters of a block that are shown
_SHORT = 40  # characters of a figure that is not broken into two lines

Released = tuple[tuple[int, ...], str]


def _label(ranks: Sequence[int]) -> str:
    return f"[{rank_ranges(ranks)}]"


def prefix_width(ranks: Sequence[Sequence[int]]) -> int:
    """Columns of the widest prefix, its space included."""
    return max((len(_label(r)) + 1 for r in ranks), default=0)


def _spread_caption(spread: Spread) -> str:
    return "" if spread.whole else f"highest on rank {spread.high}; "


def _values_text(spread: Spread) -> list[str]:
    if all(value == str(rank) for rank, value in spread.values.items()):
        return []  # "rank 0 … 3": the prefix says it already
    values = " ".join(spread.values.values())
    return [f"{_spread_caption(spread)}by rank {values}"]


def _indented(label: str, lines: Sequence[str], width: int) -> list[str]:
    first, *rest = lines or [""]
    return [f"{label:<{width}}{first}", *(" " * width + line for line in rest)]


def _shortened(text: str) -> str:
    """A very long text without its middle."""
    left_out = len(text) - _MOST
    if left_out <= 0:
        return text
    gap = f" … {count(left_out)} characters left out … "
    return text[: _MOST // 2] + gap + text[-_MOST // 2 :]


def _gap(left_out: int) -> str:
    return f"… {count(left_out)} line{'s' * (left_out != 1)} left out …"


def output_text(
    blocks: Sequence[Block],
    failures: Sequence[Failure] = (),
    released: Sequence[Released] = (),
    width: int = 0,
    left_out: int = 0,
) -> str:
    """The folded output as plain text, prefixed by the ranks, below ``left_out`` unshown lines."""
    lines = [_gap(left_out)] if left_out else []
    for block in blocks:
        below = _values_text(block.spread) if block.spread else []
        lines += _indented(
            _label(block.ranks), [*_shortened(block.text).split("\n"), *below], width
        )
    for failure in failures:
        below = [failure.place] if failure.place else []
        body = [*failure.headline.split("\n"), *below, *failure.traceback.splitlines()]
        lines += _indented(_label(failure.ranks), body, width)
    for ranks, reason in released:
        lines += _indented(_label(ranks), [reason], width)
    return "\n".join(line.rstrip() for line in lines)


def output_html(
    blocks: Sequence[Block],
    failures: Sequence[Failure] = (),
    released: Sequence[Released] = (),
    width: int = 0,
    left_out: int = 0,
) -> str:
    """The folded output as HTML; ranges and tracebacks unfold by a click."""
    rows = [f'<div class="ifog-cell-muted">{_gap(left_out)}</div>'] if left_out else []
    rows += [_row(block.ranks, _block_html(block), width) for block in blocks]
    rows += [_row(failure.ranks, _failure_html(failure), width) for failure in failures]
    rows += [
        _row(ranks, f'<span class="ifog-cell-muted">{escape(reason)}</span>', width)
        for ranks, reason in released
    ]
    return f'{STYLE}<div class="ifog-cell ifog-cell-out">{"".join(rows)}</div>'


def _row(ranks: Sequence[int], content: str, width: int) -> str:
    label = f'<span class="ifog-cell-muted">{_label(ranks):<{width}}</span>'
    return f'<div style="padding-left:{width}ch;text-indent:-{width}ch">{label}{content}</div>'


def _block_html(block: Block) -> str:
    if block.data and not markdown(block):
        return f'<div class="ifog-cell-rich">{_rich_html(block.data)}</div>'
    text = escape(_shortened(block.text))
    if block.kind == "stderr" and not block.is_bar:
        text = f'<span class="ifog-cell-stderr">{text}</span>'
    spread = block.spread
    if spread is None:
        return text
    width = prefix_width([(rank,) for rank in block.ranks])
    lines = "\n".join(f"{_label((rank,)):<{width}}{line}" for rank, line in block.in_order())
    caption = f"{_spread_caption(spread)}{len(spread.values)} values, click to unfold"
    return text + folded(caption, lines)


def _failure_html(failure: Failure) -> str:
    head = f'<span class="ifog-cell-error">{escape(failure.headline)}</span>'
    if not failure.traceback:
        return head + (f'<div class="ifog-cell-muted">{escape(failure.place)}</div>')
    place = f"{failure.place}; " if failure.place else ""
    return head + folded(f"{place}full traceback folded, click to open", failure.traceback)


def markdown(block: Block) -> str:
    """The Markdown of a block that is best shown so, below its ranks; else the empty string."""
    if "text/html" in block.data or "text/markdown" not in block.data:
        return ""
    return f"`{_label(block.ranks)}`\n\n{block.data['text/markdown']}"


def folded(caption: str, body: str) -> str:
    """A caption that opens what is beneath it."""
    return f"<details><summary>{escape(caption)}</summary>{escape(body.rstrip())}</details>"


def _rich_html(data: Any) -> str:
    """A picture or the HTML of a value, as the rank's own display hook made it."""
    if "text/html" in data:
        return str(data["text/html"])
    for mime in ("image/png", "image/jpeg"):
        if mime in data:
            payload = escape("".join(str(data[mime]).split()))
            return f'<img src="data:{mime};base64,{payload}" alt="">'
    return f'<img src="data:image/svg+xml,{quote(str(data["image/svg+xml"]))}" alt="">'


def strip_text(view: StripView) -> str:
    """The strip in words, two spaces between its parts."""
    figures = [f"{label} {value}".strip() for label, value in view.figures]
    error = [f"error {view.error}"] if view.error else []
    return "  ".join(part for part in (view.word, *figures, *error, view.elapsed) if part)


def strip_html(view: StripView) -> str:
    """The strip as one line of 30 px."""
    wash = "background:var(--ifog-stall-wash);" if view.word == "stopped" else ""
    edge = f"border-left-color:{edge_color(view.word)};"
    figures = "".join(map(_figure_html, view.figures))
    role = "" if view.word in ("starting", "running") else ' role="status"'
    return (
        f'{STYLE}<div class="ifog-cell ifog-cell-strip"{role} style="{edge}{wash}">'
        f'<span class="ifog-cell-word">{glyph(view.word)}{view.word}</span>'
        f'{_glyphs_html(view)}<span class="ifog-cell-figures">{figures}{_spark_html(view)}</span>'
        f'<span class="ifog-cell-end">{escape(view.elapsed)}</span></div>'
    )


def _figure_html(figure: tuple[str, str]) -> str:
    label, value = figure
    muted = f'<span class="ifog-cell-muted">{escape(label)} </span>' if label else ""
    short = ' class="ifog-cell-short"' if len(value) <= _SHORT else ""
    return f"<span{short}>{muted}{escape(value)}</span>"


def _glyphs_html(view: StripView) -> str:
    if not view.glyphs:
        return ""
    states = [state for _, state in view.glyphs]
    words = ", ".join(f"{rank} {state}" for rank, state in view.glyphs)
    if len(states) <= 16:
        drawn = "".join(glyph(state) for state in states)
    elif len(states) <= 64:
        drawn = ticks(states)
    else:
        drawn = escape(", ".join(f"{count(k)} {s}" for s, k in Counter(states).most_common()))
        words = f"{len(states)} ranks"
    return f'<span class="ifog-cell-glyphs" title="{words}">{drawn}</span>'


def _spark_html(view: StripView) -> str:
    if not view.error:
        return ""
    drawn = f"{spark(view.spark)}{escape(view.error)}"
    return f'<span class="ifog-cell-word ifog-cell-spark">{drawn}</span>'
