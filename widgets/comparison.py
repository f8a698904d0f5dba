"""The picture of ``ifog.compare``: curves on a logarithmic scale, named at their ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ifog.comparison import Line

__all__ = ["figure"]

_SERIES = {
    "light": ("#0b6bcb", "#0f7b6c", "#501d7a", "#8a5a00", "#2b439d", "#5f6670"),
    "dark": ("#58a6ff", "#4cc2ad", "#8959ba", "#f0c869", "#6383e4", "#a9b0b8"),
}
_GROUND = {
    "light": {"ground": "#ffffff", "ink": "#212121", "muted": "#5f6670", "grid": "#eaecef"},
    "dark": {"ground": "#212121", "ink": "#ffffff", "muted": "#a9b0b8", "grid": "#31353a"},
}
_STROKES: dict[str, dict[str, Any]] = {
    "measured": {"width": 2.25},
    "predicted": {"width": 1.25, "dash": "5px 4px"},
    "floor": {"width": 1.25, "dash": "dot"},
}
_TITLES = {
    "error": "How far from the optimum?",
    "loss": "Does it learn?",
    "consensus": "Do the agents agree?",
}
_AXES = {
    "steps": "steps",
    "seconds": "modelled seconds",
    "messages": "messages of all agents",
    "nbytes": "bytes of all agents",
}
_HEIGHT, _PLOT = 440, 330  # pixels
_APART = 15  # pixels between two names
_LETTER = 6.4  # pixels of a name, where they are as wide as they come
_MARGIN = (100, 440)  # pixels beside the plot, for the names


def figure(lines: Sequence[Line], *, measure: str, against: str, theme: str) -> go.FigureWidget:
    """The picture.

    Args:
        lines: what is drawn.
        measure: what the curves are.
        against: what they are drawn against.
        theme: "light" or "dark".
    """
    colors, ground = _SERIES[theme], _GROUND[theme]
    low, high = _decades(lines)
    drawn = go.FigureWidget()
    for line in lines:
        color = colors[line.group % len(colors)]
        if line.band is not None:
            drawn.add_traces(_band(line, color))
        drawn.add_scatter(
            x=line.x,
            y=line.y,
            mode="lines",
            line={**_STROKES[line.kind], "color": color},
            name=line.text or line.kind,
            hovertemplate=f"{line.kind} %{{y:.3g}} at %{{x}}<extra></extra>",
        )
    for line, place in _names(lines, low, high):
        drawn.add_annotation(
            x=1.01,
            xref="paper",
            y=place,
            yref="paper",
            text=line.text,
            showarrow=False,
            xanchor="left",
            yanchor="middle",
            font={"size": 12, "color": colors[line.group % len(colors)]},
        )
    drawn.update_layout(**_layout(measure, ground, max(len(line.text) for line in lines)))
    axis: dict[str, Any] = {
        "gridcolor": ground["grid"],
        "linecolor": ground["grid"],
        "zeroline": False,
    }
    drawn.update_xaxes(**{**axis, "showgrid": False}, title_text=_AXES[against])
    drawn.update_yaxes(**axis, **_ticks(low, high))
    return drawn


def _ticks(low: int, high: int) -> dict[str, Any]:
    """A logarithmic axis of whole decades, every one of them or every second, third, ..."""
    powers = range(high, low - 1, -max(1, math.ceil((high - low) / 8)))
    return {
        "type": "log",
        "range": [low, high],
        "tickvals": [10.0**power for power in powers],
        "ticktext": ["1" if power == 0 else f"1e{power}" for power in powers],
    }


def _layout(measure: str, ground: dict[str, str], longest: int) -> dict[str, Any]:
    beside = min(max(_LETTER * longest + 20, _MARGIN[0]), _MARGIN[1])
    told = "solid: measured; dashed: predicted rate; dotted: floor of the bias"
    return {
        "title": {
            "text": f"<b>{_TITLES[measure]}</b>  <span style='font-size:12px;"
            f"color:{ground['muted']}'>{measure}; {told}</span>",
            "font": {"size": 14},
            "x": 0.01,
        },
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": ground["ink"]},
        "paper_bgcolor": ground["ground"],
        "plot_bgcolor": ground["ground"],
        "height": _HEIGHT,
        "margin": {"l": 60, "r": beside, "t": 50, "b": 50},
        "showlegend": False,
        "hovermode": "closest",
    }


def _band(line: Line, color: str) -> list[go.Scatter]:
    assert line.band is not None
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    low, high = line.band
    return [
        go.Scatter(x=line.x, y=low, **edge),
        go.Scatter(
            x=line.x, y=high, fill="tonexty", fillcolor=f"rgba({red},{green},{blue},0.2)", **edge
        ),
    ]


def _decades(lines: Sequence[Line]) -> tuple[int, int]:
    """Whole decades around all that is finite."""
    values = np.concatenate([line.y for line in lines if line.kind != "predicted"])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return -1, 0
    low, high = math.floor(math.log10(values.min())), math.ceil(math.log10(values.max()))
    return low, max(high, low + 1)


def _names(lines: Sequence[Line], low: int, high: int) -> list[tuple[Line, float]]:
    """Each named line with the height of its name, 0 to 1, pushed apart where they would meet."""
    named = [line for line in lines if line.text]
    ends = []
    for line in named:
        finite = line.y[np.isfinite(line.y)]
        last = math.log10(finite[-1]) if len(finite) else high
        ends.append(min(max((last - low) / (high - low), 0.0), 1.0))
    gap = _APART / _PLOT
    order = sorted(range(len(named)), key=ends.__getitem__)
    places = [ends[i] for i in order]
    for upper in range(1, len(places)):
        places[upper] = max(places[upper], places[upper - 1] + gap)
    # What would stand above the top pushes the others down again.
    ceiling = 1.0
    for at in reversed(range(len(places))):
        places[at] = min(places[at], ceiling)
        ceiling = places[at] - gap
    return [(named[i], place) for i, place in zip(order, places, strict=True)]
