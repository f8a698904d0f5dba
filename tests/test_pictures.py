"""Panels as SVG, PNG and Plotly figures, from the same states and drawn by the same modules."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

pytest.importorskip("anywidget", reason="anywidget is not installed (ifog[lab])")

import gallery

from ifog.errors import ArgumentError
from ifog.widgets import PANELS

CHARTS = ["graph", "consensus", "timeline", "throughput", "training", "traffic", "spectrum"]


@pytest.fixture(scope="module")
def states():
    return {
        "healthy": gallery.states_of(gallery.healthy(8, 40, live=True)),
        "faulty": gallery.states_of(gallery.faulty()),
        "stalled": gallery.states_of(gallery.stalled()),
        "many": gallery.states_of(gallery.many(256, 3)),
        "empty": gallery.states_of([]),
    }


def shown(name, state):
    panel = PANELS[name]()
    panel.state = state
    return panel


def texts(svg):
    return [node.text for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("run", ["healthy", "faulty", "stalled", "many", "empty"])
@pytest.mark.parametrize("name", PANELS)
def test_every_view_of_every_run_is_drawn_with_its_colours_written_out(states, name, run, theme):
    pytest.importorskip("py_mini_racer", reason="mini-racer is not installed (ifog[pictures])")
    svg = shown(name, states[run][name]).to_svg(theme=theme)
    assert texts(svg)[0] == name.capitalize()
    assert not re.search(r'var\(|color-mix|="[^"]*(NaN|undefined)', svg)
    assert len(svg) < 400_000


def test_a_drawing_says_what_the_panel_says(states):
    pytest.importorskip("py_mini_racer", reason="mini-racer is not installed (ifog[pictures])")
    words = texts(shown("watch", states["faulty"]["watch"]).to_svg())
    assert "3 broken" in words
    assert "broke at round 46 on rank 2: loss" in words
    assert "Nothing watched" in texts(shown("consensus", states["empty"]["consensus"]).to_svg())
    # Eight lanes with their numbers, and the rounds in rank 0's.
    words = texts(shown("timeline", states["healthy"]["timeline"]).to_svg())
    assert {*map(str, range(8)), "now", "38"} <= set(words)


def test_colours_mix_as_browsers_do_it():
    from ifog.widgets.paper import _coloured

    mix = "color-mix(in {}, #ff0000 50%, #0000ff)"
    # The CSS Color 5 specification's mixtures of red and blue.
    assert _coloured(mix.format("srgb"), "light") == "#800080"
    assert _coloured(mix.format("oklab"), "light") == "#8c53a2"


def test_a_picture_becomes_a_png(states):
    pytest.importorskip("py_mini_racer", reason="mini-racer is not installed (ifog[pictures])")
    pytest.importorskip("resvg_py", reason="resvg-py is not installed (ifog[pictures])")
    png = shown("spectrum", states["healthy"]["spectrum"]).to_png(width=300, scale=2)
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") == 2 * (300 + 36)


@pytest.mark.parametrize("name", CHARTS)
def test_charts_become_figures(states, name):
    figure = shown(name, states["healthy"][name]).figure()
    assert figure.data
    assert figure.layout.title.text.startswith(name.capitalize())


def test_a_figure_has_the_values_of_its_panel(states):
    state = states["healthy"]["training"]
    figure = shown("training", state).figure()
    mean = next(trace for trace in figure.data if trace.name == "mean")
    assert list(mean.y) == state["figures"][0]["mean"]
    bars = shown("throughput", states["healthy"]["throughput"]).figure().data
    assert [round(sum(shares), 2) for shares in zip(*(bar.x for bar in bars), strict=True)] == [
        1
    ] * 8


def test_what_is_no_chart_or_empty_says_so(states):
    with pytest.raises(ArgumentError, match=r"Watch is no chart; figure\(\) is for Graph"):
        shown("watch", states["healthy"]["watch"]).figure()
    with pytest.raises(ArgumentError, match="Training shows nothing yet: No metrics"):
        shown("training", states["empty"]["training"]).figure()
    with pytest.raises(ArgumentError, match="use 'light' or 'dark'"):
        shown("watch", states["healthy"]["watch"]).to_svg(theme="grey")
