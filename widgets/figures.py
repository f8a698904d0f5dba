"""The charts as Plotly figures, made from what their panels show: to zoom, restyle and export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ifog.errors import ArgumentError

__all__ = ["figure_of"]

_BLUE, _TEAL, _GREY, _INK, _WASH = "#0b6bcb", "#0f7b6c", "#8593a2", "#24292f", "#d6e6f8"
_WAIT = "#f0b13c"
_SERIES = (_BLUE, _TEAL, _GREY, _INK)
State = dict[str, Any]


def figure_of(name: str, state: State) -> Any:
    """The Plotly figure of the panel called ``name`` that shows ``state``.

    Raises:
        ArgumentError: the panel is no chart, or is empty.
    """
    if name not in _MAKERS:
        raise ArgumentError(f"{name} is no chart; figure() is for {', '.join(_MAKERS)}")
    if state.get("empty", True):
        raise ArgumentError(f"{name} shows nothing yet: {state.get('say', 'no events were read')}")
    figure = _MAKERS[name](state)
    figure.update_layout(
        template="plotly_white",
        title={"text": f"{name}: {state['say']}", "font": {"size": 14}},
        font={"family": "system-ui, sans-serif", "size": 12},
        margin={"l": 60, "r": 20, "t": 60, "b": 50},
    )
    return figure


def _new() -> Any:
    from plotly.graph_objects import Figure

    return Figure()


def _line(figure: Any, x: Any, y: Any, name: str, **line: Any) -> None:
    figure.add_scatter(x=x, y=y, name=name, mode="lines", line=line)


def _powers(logs: list[float | None]) -> list[float | None]:
    return [None if log is None else 0.0 if log < -300 else 10.0**log for log in logs]


def _consensus(state: State) -> Any:
    figure = _new()
    for rank, line in zip(state["ranks"], state["lines"], strict=False):
        _line(figure, state["at"], _powers(line), f"rank {rank}", color="#a9b2bd", width=0.9)
    for curve, color in zip(state["curves"], _SERIES * 2, strict=False):
        _line(
            figure, curve["rounds"], _powers(curve["errors"]), curve["name"], color=color, width=2.5
        )
    if state["prediction"]:
        rounds, errors = state["prediction"]["rounds"], _powers(state["prediction"]["errors"])
        _line(figure, rounds, errors, "predicted", color=_INK, width=1.25, dash="dash")
    figure.update_yaxes(type="log", title="distance to the mean", exponentformat="e")
    figure.update_xaxes(title="round")
    return figure


def _training(state: State) -> Any:
    from plotly.subplots import make_subplots

    charts = state["figures"]
    figure = make_subplots(rows=1, cols=len(charts), subplot_titles=[c["title"] for c in charts])
    for column, chart in enumerate(charts, start=1):
        place = {"row": 1, "col": column}
        around = {"x": chart["rounds"], "mode": "lines", "line": {"width": 0}, "showlegend": False}
        figure.add_scatter(y=chart["high"], name="highest", **around, **place)
        band = {"fill": "tonexty", "fillcolor": _WASH, "name": "lowest"}
        figure.add_scatter(y=chart["low"], **band, **around, **place)
        named = {"x": chart["rounds"], "mode": "lines", "showlegend": column == 1}
        line = {"color": _BLUE, "width": 2.25}
        figure.add_scatter(y=chart["mean"], name="mean", line=line, **named, **place)
        if chart["worst"]:
            rank, values = chart["worst"]
            figure.add_scatter(
                y=values, name=f"rank {rank}", line={"color": _INK}, **named, **place
            )
        figure.update_xaxes(title=chart["axis"], **place)
        if chart["log"]:
            figure.update_yaxes(type="log", **place)
    return figure


def _throughput(state: State) -> Any:
    figure = _new()
    names = [str(rank) for rank in state["ranks"]]
    for part, (name, color) in enumerate(
        (("compute", _GREY), ("transfer", _BLUE), ("wait", _WAIT))
    ):
        shares = [row[part] for row in state["shares"]]
        figure.add_bar(y=names, x=shares, name=name, orientation="h", marker_color=color)
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="share of the time", tickformat=".0%")
    figure.update_yaxes(title="rank", autorange="reversed", type="category")
    return figure


def _traffic(state: State) -> Any:
    figure, n = _new(), state["n"]
    if not state["edges"]:
        bins = state["bins"]
        levels = [int(digit, 16) for digit in state["levels"][1]]
        table = [levels[row * bins : (row + 1) * bins] for row in range(bins)]
        figure.add_heatmap(z=table, colorscale=[[0, "#ffffff"], [1, "#0b5cb0"]])
    else:
        table = [[0] * n for _ in range(n)]
        for u, v, _, _, total, _, _ in state["edges"]:
            table[u][v] = total
        scale = [[0, "#d9e8f9"], [1, "#0b5cb0"]]
        figure.add_heatmap(z=table, colorscale=scale, colorbar={"title": "bytes"})
    figure.update_xaxes(title="to", side="top", constrain="domain")
    figure.update_yaxes(title="from", autorange="reversed", scaleanchor="x")
    return figure


def _timeline(state: State) -> Any:
    """Bars in milliseconds since the cell began."""
    figure = _new()
    spans: dict[int, list[list[float]]] = {0: [], 1: [], 2: []}
    for rank, ops, runs in _lanes(state):
        for at, compute, wait, transfer, *_ in ops:
            start = at
            for kind, length in ((0, compute), (2, wait), (1, transfer)):
                spans[kind].append([rank, start, length])
                start += length
        for at, length, kind, _ in runs:
            spans[kind].append([rank, at, length])
    for kind, name, color in ((0, "compute", _GREY), (1, "transfer", _BLUE), (2, "wait", _WAIT)):
        rows = [row for row in spans[kind] if row[2] > 0]
        figure.add_bar(
            y=[row[0] for row in rows],
            base=[(state["from"] + row[1]) / 1000 for row in rows],
            x=[row[2] / 1000 for row in rows],
            name=name,
            orientation="h",
            marker={"color": color, "line": {"width": 0}},
        )
    figure.update_layout(barmode="overlay", bargap=0.4)
    figure.update_xaxes(title="ms since the cell began")
    figure.update_yaxes(title="rank", autorange="reversed", dtick=1)
    return figure


def _lanes(state: State) -> list[tuple[int, Any, Any]]:
    none: list[Any] = [[] for _ in state["ranks"]]
    return list(zip(state["ranks"], state["ops"] or none, state["runs"] or none, strict=True))


def _spectrum(state: State) -> Any:
    if not state["points"]:
        raise ArgumentError("Spectrum shows no eigenvalues of so many ranks; see its gap instead")
    figure = _new()
    real, imaginary, times = zip(*state["points"], strict=True)
    for radius, color, dash in ((1.0, _INK, "solid"), (state["rate"], _BLUE, "dash")):
        shape = {"type": "circle", "x0": -radius, "x1": radius, "y0": -radius, "y1": radius}
        figure.add_shape(**shape, line={"color": color, "dash": dash})
    size = [8 + 4 * min(many, 8) ** 0.5 for many in times]
    marker = {"size": size, "color": _GREY}
    text = [f"{many} times" for many in times]
    figure.add_scatter(x=real, y=imaginary, mode="markers", marker=marker, text=text, name="λ")
    figure.update_xaxes(title="real", range=[-1.1, 1.1], constrain="domain")
    figure.update_yaxes(title="imaginary", range=[-1.1, 1.1], scaleanchor="x")
    return figure


def _graph(state: State) -> Any:
    if "edges" not in state:
        raise ArgumentError("Graph is drawn as a matrix for so many ranks; use to_svg()")
    figure, spots = _new(), state["positions"]
    for used, color, name in ((0, "#c3c9d0", "declared, idle"), (1, _BLUE, "sent this round")):
        x: list[float | None] = []
        y: list[float | None] = []
        for u, v, _, on in state["edges"]:
            if on == used:
                x += [spots[u][0], spots[v][0], None]
                y += [-spots[u][1], -spots[v][1], None]
        figure.add_scatter(x=x, y=y, mode="lines", line={"color": color}, name=name)
    names = [str(rank) for rank in range(state["n"])]
    places = {"x": [spot[0] for spot in spots], "y": [-spot[1] for spot in spots]}
    marker = {"size": 26, "color": "#f3eefb", "line": {"color": "#a67ee3", "width": 1}}
    figure.add_scatter(**places, mode="markers+text", text=names, marker=marker, name="ranks")
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return figure


_MAKERS: Mapping[str, Callable[[State], Any]] = {
    "Graph": _graph,
    "Consensus": _consensus,
    "Timeline": _timeline,
    "Throughput": _throughput,
    "Training": _training,
    "Traffic": _traffic,
    "Spectrum": _spectrum,
}
