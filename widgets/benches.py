"""Plotly figures of what ``ifog bench train`` and ``ifog bench scale`` wrote by ``--json``.

``python -m ifog.widgets.benches race.json race.html`` writes a page that needs no network.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ifog.errors import ArgumentError

__all__ = ["bench_figure"]

_COLORS = ("#8593a2", "#0b6bcb", "#0f7b6c", "#b35900", "#7b4fa6", "#24292f", "#c43a31", "#d6a400")

_SPLITS = {"none": "digits, dealt out at random", "label": "digits, sorted"}


def bench_figure(report: str | Path | Mapping[str, Any]) -> Any:
    """The Plotly figure of a report: ratios, accuracies and losses, or predicted and measured cost.

    Args:
        report: a file that ``--json`` wrote, or what is in it.

    Raises:
        ArgumentError: it is of another bench.
    """
    if not isinstance(report, Mapping):
        report = json.loads(Path(report).read_text(encoding="utf-8"))
    assert isinstance(report, Mapping)
    if "races" in report:
        return _drawn([*_races(report), *_lessons(report), *_runs(report)])
    if "links" in report:
        return _drawn([*_scaling(report)])
    raise ArgumentError(
        "there is a figure for the reports of ifog bench train and ifog bench scale; this one has "
        f"{', '.join(report)}"
    )


_Draw = Callable[[Any, dict[str, int]], None]


def _drawn(charts: Sequence[tuple[str, _Draw]]) -> Any:
    """All charts, two in a row."""
    from plotly.subplots import make_subplots

    rows = -(-len(charts) // 2)
    figure = make_subplots(
        rows=rows,
        cols=min(2, len(charts)),
        subplot_titles=[title for title, _ in charts],
        horizontal_spacing=0.16,
        vertical_spacing=0.22 / rows,
    )
    for number, (_, draw) in enumerate(charts):
        draw(figure, {"row": number // 2 + 1, "col": number % 2 + 1})
    figure.update_layout(
        template="plotly_white",
        height=380 * rows,
        font={"family": "system-ui, sans-serif", "size": 12},
        margin={"l": 180, "r": 20, "t": 60, "b": 50},
    )
    return figure


def _curve(figure: Any, x: Any, y: Any, *, name: str, color: str, at: dict[str, int]) -> None:
    line = {"color": color, "width": 2}
    figure.add_scatter(x=x, y=y, name=name, line=line, mode="lines", **at)


def _color(names: Sequence[str], name: str) -> str:
    return _COLORS[names.index(name) % len(_COLORS)]


def _races(report: Mapping[str, Any]) -> list[tuple[str, _Draw]]:
    def drawing(race: Mapping[str, Any]) -> _Draw:
        def draw(figure: Any, at: dict[str, int]) -> None:
            names = list(reversed(race["ratio"]))
            found = [race["ratio"][name] for name in names]
            figure.add_bar(
                x=[each["median"] for each in found],
                y=names,
                orientation="h",
                marker={"color": [_COLORS["DDP" not in name] for name in names]},
                text=[f"{each['median']:.2f}" for each in found],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [each["high"] - each["median"] for each in found],
                    "arrayminus": [each["median"] - each["low"] for each in found],
                },
                **at,
            )
            figure.add_vline(x=1.0, line={"dash": "dash", "width": 1}, **at)
            figure.update_xaxes(title="times faster than DDP of equal precision", **at)

        return draw

    return [
        (f"{race['title']}: communication / computation {race['regime']:.2g}", drawing(race))
        for race in report["races"]
    ]


def _lessons(report: Mapping[str, Any]) -> list[tuple[str, _Draw]]:
    def drawing(lessons: Sequence[Mapping[str, Any]]) -> _Draw:
        names = [lesson["name"] for lesson in lessons]

        def draw(figure: Any, at: dict[str, int]) -> None:
            for lesson in lessons:
                seeds = lesson["curve"]
                mean = [sum(each) / len(seeds) for each in zip(*seeds, strict=True)]
                epochs = list(range(1, len(mean) + 1))
                name = lesson["name"]
                _curve(figure, epochs, mean, name=name, color=_color(names, name), at=at)
            figure.update_xaxes(title="epoch", **at)
            figure.update_yaxes(title="test accuracy of the averaged model, %", **at)

        return draw

    skews = dict.fromkeys(lesson["skew"] for lesson in report["lessons"])
    return [
        (_SPLITS[skew], drawing([each for each in report["lessons"] if each["skew"] == skew]))
        for skew in skews
    ]


def _runs(report: Mapping[str, Any]) -> list[tuple[str, _Draw]]:
    def drawing(runs: Sequence[Mapping[str, Any]]) -> _Draw:
        names = [run["name"] for run in runs]

        def draw(figure: Any, at: dict[str, int]) -> None:
            for run in runs:
                losses = [point["loss"] for point in run["curve"]]
                step = run["seconds"] / (len(losses) - 1)
                seconds = [step * place for place in range(len(losses))]
                name = f"{run['name']}: {run['ratio']['median']:.2f} x DDP's steps/s"
                color = _color(names, run["name"])
                _curve(figure, seconds, losses, name=name, color=color, at=at)
            figure.update_xaxes(title="seconds", **at)
            figure.update_yaxes(title="test loss of the averaged model", type="log", **at)

        return draw

    labels = dict.fromkeys(run["label"] for run in report["runs"])
    return [
        (label, drawing([run for run in report["runs"] if run["label"] == label]))
        for label in labels
    ]


def _scaling(report: Mapping[str, Any]) -> list[tuple[str, _Draw]]:
    points, largest = report["points"], max(report["hosts"])
    names = list(report["links"])

    def over(key: str, chosen: Callable[[Mapping[str, Any]], bool], title: str) -> _Draw:
        def draw(figure: Any, at: dict[str, int]) -> None:
            for name in names:
                mine = [point for point in points if point["name"] == name and chosen(point)]
                seen = [point for point in mine if point["measured"] is not None]
                color, places = _color(names, name), [point[key] for point in mine]
                predicted = [point["predicted"] for point in mine]
                told = f"{name}, predicted"
                _curve(figure, places, predicted, name=told, color=color, at=at)
                figure.add_scatter(
                    x=[point[key] for point in seen],
                    y=[point["measured"] for point in seen],
                    name=f"{name}, measured",
                    mode="markers",
                    marker={"color": color, "size": 8},
                    **at,
                )
            figure.update_xaxes(title=title, type="log", **at)
            figure.update_yaxes(title="seconds", type="log", **at)

        return draw

    biggest = max(report["sizes"])
    return [
        (f"{biggest:,} bytes", over("ranks", lambda p: p["bytes"] == biggest, "ranks")),
        (f"{largest} ranks", over("bytes", lambda p: p["ranks"] == largest, "bytes")),
    ]


def main(source: str, target: str) -> None:
    """Write the figure of a report as a page that needs no network."""
    bench_figure(source).write_html(target, include_plotlyjs=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
