"""The comparison shows what runs gave beside what theory says, each curve named at its end."""

from __future__ import annotations

import numpy as np
import pytest

import ifog
from ifog import problems, simulate
from ifog.algorithms import atc, choco_sgd, dgd, diging, extra
from ifog.comparison import lines_of
from ifog.compression import top_k
from ifog.errors import ArgumentError

P8 = problems.reference_problem()


@pytest.fixture(scope="module")
def traces():
    made = (dgd(0.05), diging(0.1), choco_sgd(0.02, top_k(0.2), gamma=0.4))
    return [simulate.run(method, P8, "ring", steps=800) for method in made]


def test_biased_runs_have_floors_exact_ones_rates_and_others_neither(traces):
    lines = lines_of(traces)
    assert [(line.kind, line.group) for line in lines] == [
        ("measured", 0),
        ("floor", 0),
        ("measured", 1),
        ("predicted", 1),
        ("measured", 2),
    ]
    assert lines[1].y == pytest.approx([0.0877, 0.0877], rel=5e-3)
    assert lines[0].text == "dgd  0.0877, floor 0.0877"
    assert "\N{MULTIPLICATION SIGN} 0.927 a step, predicted 0.926" in lines[2].text
    assert lines[4].text.startswith("choco_sgd  0.07")


def test_the_predicted_line_has_the_predicted_slope_and_touches_the_curve(traces):
    measured, predicted = lines_of(traces)[2:4]
    slope = np.polyfit(predicted.x, np.log(predicted.y), 1)[0]
    assert np.exp(slope) == pytest.approx(traces[1].prediction().rate, rel=1e-9)
    at = np.searchsorted(measured.x, predicted.x)
    gap = np.abs(np.log(measured.y[at]) - np.log(predicted.y))
    assert gap.min() < 1e-9
    assert np.median(gap) < 0.5


def test_curves_can_be_drawn_against_what_they_cost(traces):
    for against in ("seconds", "messages", "nbytes"):
        line = lines_of(traces, against=against, theory=False)[0]
        assert line.x.tolist() == getattr(traces[0], against).tolist()
    assert all(line.kind == "measured" for line in lines_of(traces, theory=False))


def test_few_runs_are_named_and_many_are_a_band():
    few = simulate.run(dgd, P8, "ring", steps=20, sweep={"lr": [0.1, 0.05]})
    named = [line.text for line in lines_of([few]) if line.text]
    assert named[0].startswith("dgd lr=0.1  ")
    many = simulate.run(diging(0.05), P8, "random_pair", steps=20, seed=[*range(9)])
    (line,) = lines_of([many])
    assert line.text.startswith("diging, 9 runs  ")
    assert (line.band[0] <= line.y).all()
    assert (line.y <= line.band[1]).all()
    assert line.band[1][-1] == pytest.approx(many.error[:, -1].max())


def test_curves_that_reach_zero_or_nothing_can_be_drawn():
    still = problems.quadratics(4)
    start = still.optimum().expand(4, 1)
    trace = simulate.run(diging(0.1), still, "ring", steps=5, start=start.clone())
    assert trace.error[0, 0] == 0
    assert (lines_of([trace], theory=False)[0].y > 0).all()
    lost = simulate.run(diging(3.0), P8, "ring", steps=2000)
    assert ifog.compare(lost).data


def test_the_figure_has_every_line_and_every_name(traces):
    figure = ifog.compare(traces)
    lines = lines_of(traces)
    assert len(figure.data) == len(lines)
    assert [note.text for note in figure.layout.annotations] == [
        line.text for line in sorted(lines, key=lambda line: line.y[-1]) if line.text
    ]
    heights = [note.y for note in figure.layout.annotations]
    assert min(np.diff(heights)) > 15 / 330 - 1e-9
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.yaxis.ticktext[0] == "1"
    assert "How far from the optimum?" in figure.layout.title.text
    dashes = [trace.line.dash for trace in figure.data]
    assert dashes == [None, "dot", None, "5px 4px", None]
    assert figure.data[0].line.color == figure.data[1].line.color != figure.data[2].line.color


def test_names_that_would_meet_are_pushed_apart_inside_the_picture():
    same = [simulate.run(atc(0.05), P8, "ring", steps=400, label=f"run {k}") for k in range(9)]
    notes = ifog.compare(same, theory=False).layout.annotations
    heights = [note.y for note in notes]
    assert len(notes) == 9
    assert min(np.diff(heights)) > 15 / 330 - 1e-9
    assert max(heights) <= 1


def test_both_themes_and_bands_are_drawn():
    many = simulate.run(diging(0.05), P8, "random_pair", steps=20, seed=[*range(9)])
    figure = ifog.compare([many], theme="dark")
    assert len(figure.data) == 3
    assert figure.layout.paper_bgcolor == "#212121"
    assert figure.data[1].fill == "tonexty"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ifog.compare([]), "at least one trace"),
        (
            lambda: ifog.compare(simulate.run(extra(0.1), P8, "ring", steps=3), against="joules"),
            "'steps', 'seconds', 'messages' or 'nbytes'",
        ),
    ],
)
def test_what_cannot_be_compared_is_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
