"""Colours, type and glyphs of what stands under a cell, as inline CSS and SVG.

Every output carries its own style, so that it looks the same in a live notebook, in a saved one
and in an exported page; the notebook's own theme variables decide between light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["STYLE", "edge_color", "glyph", "spark", "themed", "ticks"]

_LIGHT = {
    "bg": "var(--jp-layout-color1, #fff)",
    "ink": "var(--jp-ui-font-color1, rgba(0,0,0,.87))",
    "muted": "#5f6670",
    "grid": "#eaecef",
    "idle": "#c3c9d0",
    "compute": "#8593a2",
    "transfer": "#0b6bcb",
    "wait": "#f0b13c",
    "wait-wash": "#fdf0d3",
    "wait-ink": "#8a5a00",
    "stall": "#cc3311",
    "stall-wash": "#fdeae5",
    "dead": "#24292f",
    "series-1": "#0b6bcb",
    "series-1-wash": "#d6e6f8",
}
_DARK = {
    "bg": "var(--jp-layout-color1, #212121)",
    "ink": "var(--jp-ui-font-color1, #fff)",
    "muted": "#a9b0b8",
    "grid": "#31353a",
    "idle": "#555c64",
    "compute": "#8593a2",
    "transfer": "#58a6ff",
    "wait": "#ecc85c",
    "wait-wash": "#40351d",
    "wait-ink": "#f0c869",
    "stall": "#f65a3c",
    "stall-wash": "#472720",
    "dead": "#f0f3f6",
    "series-1": "#58a6ff",
    "series-1-wash": "#263d58",
}


def _tokens(table: dict[str, str]) -> str:
    return "".join(f"--ifog-{name}:{value};" for name, value in table.items())


def themed(selector: str) -> str:
    """Rules that give what ``selector`` names its colours, in the light and the dark theme."""
    return (
        f"{selector}{{{_tokens(_LIGHT)}color:var(--ifog-ink)}}"
        f'[data-jp-theme-light="false"] {selector},.vscode-dark {selector}{{{_tokens(_DARK)}}}'
    )


STYLE = (
    "<style>"
    f"{themed('.ifog-cell')}"
    ".ifog-cell-strip{display:flex;align-items:center;gap:16px;min-height:30px;"
    "padding:0 10px 0 12px;border-left:3px solid;"
    "font:13px var(--jp-ui-font-family,system-ui,sans-serif);"
    "font-variant-numeric:tabular-nums;line-height:18px}"
    ".ifog-cell-strip svg{display:block;flex:none}"
    ".ifog-cell-strip .ifog-cell-word{display:flex;align-items:center;gap:8px;flex:0 0 106px;"
    "font-weight:700}"
    ".ifog-cell-strip .ifog-cell-figures{display:flex;flex-wrap:wrap;align-items:center;"
    "gap:2px 16px}"
    ".ifog-cell-strip .ifog-cell-short{white-space:nowrap}"
    ".ifog-cell-strip .ifog-cell-glyphs{display:flex;align-items:center;gap:3px;flex:none}"
    ".ifog-cell-strip .ifog-cell-spark{flex:none;font-weight:400}"
    ".ifog-cell-strip .ifog-cell-end{margin-left:auto;color:var(--ifog-muted);white-space:nowrap}"
    ".ifog-cell .ifog-cell-muted{color:var(--ifog-muted)}"
    ".ifog-cell-out{font:13px/1.45 var(--jp-code-font-family,monospace);padding:2px 10px 4px 12px;"
    "white-space:pre-wrap;overflow-wrap:anywhere}"
    ".ifog-cell-out summary{cursor:pointer;color:var(--ifog-muted);list-style:none;text-indent:0}"
    ".ifog-cell-out summary::-webkit-details-marker{display:none}"
    ".ifog-cell-out summary:hover{text-decoration:underline}"
    ".ifog-cell-out details,.ifog-cell-out div div{text-indent:0}"
    ".ifog-cell-out .ifog-cell-rich{white-space:normal;overflow-x:auto}"
    ".ifog-cell-out .ifog-cell-rich img{max-width:100%}"
    ".ifog-cell-out .ifog-cell-stderr{color:var(--ifog-wait-ink)}"
    ".ifog-cell-out .ifog-cell-error{color:var(--ifog-stall);font-weight:700}"
    ".ifog-cell-out .ifog-cell-strong{font-weight:700}"
    ".ifog-cell-out .ifog-cell-report{white-space:pre;overflow-x:auto;padding:8px 0}"
    "</style>"
)

_EDGES = {"running": "transfer", "slow": "wait", "stopped": "stall"}


def edge_color(word: str) -> str:
    """The colour of the strip's left edge."""
    return f"var(--ifog-{_EDGES.get(word, 'idle')})"


def _square(fill: str, stroke: str, inside: str = "") -> str:
    return (
        f'<rect x="1.25" y="1.25" width="11.5" height="11.5" rx="2" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="1.5"/>{inside}'
    )


_CROSS = (
    '<path d="M4.4 4.4 9.6 9.6M9.6 4.4 4.4 9.6" stroke="var(--ifog-bg)" stroke-width="1.75" '
    'fill="none"/>'
)
_ARROW = (
    '<path d="M3.6 7h6M7.2 4.4 9.9 7 7.2 9.6" stroke="var(--ifog-bg)" stroke-width="1.5" '
    'fill="none"/>'
)
_SHAPES = {
    "absent": _square("none", "var(--ifog-idle)"),
    "finished": _square("none", "var(--ifog-idle)"),
    "computing": _square("var(--ifog-compute)", "var(--ifog-compute)"),
    "transferring": _square("var(--ifog-transfer)", "var(--ifog-transfer)", _ARROW),
    "waiting": _square("var(--ifog-wait-wash)", "var(--ifog-wait)"),
    "stalled": '<path d="M7 1 13.5 13H.5Z" fill="var(--ifog-stall)"/>',
    "dead": _square("var(--ifog-dead)", "var(--ifog-dead)", _CROSS),
    "done": '<path d="M2 7.6 5.4 11 12 3" stroke="var(--ifog-ink)" stroke-width="2" fill="none"/>',
}
_OF_WORD = {
    "starting": "absent",
    "running": "transferring",
    "slow": "waiting",
    "stopped": "stalled",
    "interrupted": "finished",
    "done": "done",
}
_TICK_COLORS = {
    "computing": "compute",
    "transferring": "transfer",
    "waiting": "wait",
    "stalled": "stall",
    "dead": "dead",
}


def glyph(state: str) -> str:
    """The shape of a rank's state, or of the strip's word, 14 px."""
    shape = _SHAPES[_OF_WORD.get(state, state)]
    return f'<svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">{shape}</svg>'


def ticks(states: Sequence[str]) -> str:
    """Many ranks: a tick of 4 px each in groups of eight, the troubled ones taller."""
    bars = []
    for i, state in enumerate(states):
        tall = state in ("waiting", "stalled", "dead")
        height = 16 if tall else 10
        color = _TICK_COLORS.get(state, "idle")
        bars.append(
            f'<rect x="{5 * i + 4 * (i // 8)}" y="{8 - height // 2}" width="4" '
            f'height="{height}" fill="var(--ifog-{color})"/>'
        )
    width = 5 * len(states) + 4 * (len(states) // 8)
    return f'<svg width="{width}" height="16" aria-hidden="true">{"".join(bars)}</svg>'


def spark(values: Sequence[float]) -> str:
    """A small curve of positive values on a log axis, 76 x 20 px; exact zeros lie on its floor."""
    logs = [math.log10(v) for v in values if v > 0 and math.isfinite(v)]
    if len(logs) < 2:
        return ""
    low, high = min(logs), max(logs)
    scale = 16 / max(high - low, 1e-9)
    points = []
    for i, value in enumerate(values):
        level = math.log10(value) if value > 0 and math.isfinite(value) else low
        points.append(f"{76 * i / (len(values) - 1):.1f},{2 + (high - level) * scale:.1f}")
    return (
        '<svg width="76" height="20" viewBox="0 0 76 20" aria-hidden="true"><polyline '
        f'points="{" ".join(points)}" fill="none" stroke="var(--ifog-transfer)" '
        'stroke-width="1.75"/></svg>'
    )
