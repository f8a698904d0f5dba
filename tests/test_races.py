"""The races of training and the growth of averages: reports of given times, and their figures."""

from __future__ import annotations

import json

import pytest
from fakes import given

from ifog import cli
from ifog.bench import learning, namespaces, race, scale, straggler, train
from ifog.bench.contestants import (
    ALONE,
    ATC_ONE_PEER,
    AWC_HALF,
    AWC_MACHINES,
    AWC_ONE_PEER,
    DDP,
    DDP_HALF,
    EXCHANGE,
    MOMENTUM,
    PUSH_SUM,
    PUT,
)
from ifog.bench.race import Setting
from ifog.costs import Link
from ifog.errors import ArgumentError
from ifog.widgets import bench_figure

OBSTACLE = namespaces.obstacle()
on_hosts = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))
HERE, APART = Setting(0, 4, None), Setting(4, 1, 1000.0)


def raced(computing=1.0, **times):
    names = {
        "ddp": DDP,
        "atc": ATC_ONE_PEER,
        "awc": AWC_ONE_PEER,
        "machines": AWC_MACHINES,
        "ddp_half": DDP_HALF,
        "awc_half": AWC_HALF,
    }
    found = {ALONE: [computing] * 3, EXCHANGE: [2.0] * 3}
    found |= {names[name]: taken for name, taken in times.items()}
    return {
        "title": "dense",
        "batch": 8,
        "parameters": 1000,
        "times": found,
        "sent": dict.fromkeys(found, 7.0),
    }


def test_ratios_are_to_ddp_of_equal_precision_round_by_round():
    found = raced(ddp=[3.0, 6.0, 9.0], awc=[2.0, 3.0, 9.0], ddp_half=[2.0] * 3, awc_half=[1.0] * 3)
    told = race.described(found, APART)
    assert told["ratio"][AWC_ONE_PEER]["median"] == 1.5
    assert told["ratio"][AWC_HALF]["median"] == 2.0
    assert told["ratio"][DDP]["median"] == told["ratio"][DDP_HALF]["median"] == 1.0
    assert ALONE not in told["ratio"]
    assert told["regime"] == 2.0
    # Eight images on each of four ranks in 3 seconds.
    assert told["samples"][AWC_ONE_PEER] == pytest.approx(32 / 3)


def test_what_gloo_sends_on_one_machine_is_that_of_a_ring():
    times = {"ddp": [1.0], "awc": [1.0], "ddp_half": [1.0]}
    assert race.described(raced(**times), HERE)["sent"] == {
        DDP: 2 * 3 / 4 * 4000,
        AWC_ONE_PEER: 7.0,
        DDP_HALF: 2 * 3 / 4 * 2000,
    }
    assert race.described(raced(**times), APART)["sent"][DDP] == 7.0


def targets_of(setting, **times):
    return list(race.targets([race.described(raced(**times), setting)], setting))


def test_targets_follow_the_regime_and_the_hosts():
    times = {"ddp": [3.0], "awc": [2.0], "atc": [2.5], "machines": [1.5]}
    (sending,) = targets_of(APART, **times)
    assert (sending["aim"], sending["measured"]["median"], sending["met"]) == (
        "at least 1.5",
        1.5,
        True,
    )
    (eight,) = targets_of(Setting(8, 1, 1000.0), **times)
    assert (eight["aim"], eight["met"]) == ("at least 1.7", False)
    (machines,) = targets_of(Setting(4, 2, 1000.0), **times)
    assert (machines["aim"], machines["measured"]["median"]) == ("at least 1.3", 2.0)
    assert targets_of(HERE, **times) == []
    computing = targets_of(HERE, computing=4.0, **times)
    assert [row["aim"] for row in computing] == ["at least 0.95"] * 2


def test_each_ratio_stands_beside_its_regime():
    found = raced(ddp=[3.0] * 3, awc=[2.0] * 3, ddp_half=[2.0] * 3, awc_half=[1.0] * 3)
    head, *rows = race.lines(race.described(found, APART))[1:]
    assert "communication / computation 2.0" in head
    assert [row.split()[-3] for row in rows[1:]] == ["2", "2", "1", "1"]


def lesson(accuracies, skew="none", seconds=1.0):
    epochs = [
        {"seconds": seconds * (k + 1), "accuracy": a, "worst": a - 0.1, "distance": 0.01}
        for k, a in enumerate(accuracies)
    ]
    return {"skew": skew, "epochs": epochs}


def taught(**seeds):
    names = {"ddp": DDP, "awc": AWC_ONE_PEER, "momentum": MOMENTUM}
    (count,) = {len(each) for each in seeds.values()}
    return [
        {
            "skew": next(iter(seeds.values()))[seed]["skew"],
            "seed": seed,
            "ways": {
                names[name]: {"epochs": each[seed]["epochs"], "sent": 5.0}
                for name, each in seeds.items()
            },
        }
        for seed in range(count)
    ]


def test_accuracies_are_compared_seed_by_seed():
    found = taught(
        ddp=[lesson([0.9, 0.97]), lesson([0.9, 0.95]), lesson([0.9, 0.96])],
        awc=[lesson([0.96, 0.965]), lesson([0.9, 0.955]), lesson([0.9, 0.94])],
    )
    lessons = learning.described(found)
    assert lessons[1]["accuracy"] == pytest.approx([96.5, 95.5, 94.0])
    # When the model first got 95 percent right: in the first epoch, in the second, never.
    assert lessons[1]["seconds"] == [1.0, 2.0, None]
    (row,) = learning.targets(lessons)
    assert row["measured"]["median"] == pytest.approx(0.5)  # of 0.5, -0.5 and 2
    text = "\n".join(learning.lines(lessons))
    assert "96.0 %" in text
    assert "2 of 3" in text


def test_sorted_digits_are_judged_with_the_momentum_mixed():
    found = taught(
        ddp=[lesson([0.97], "label")],
        awc=[lesson([0.8], "label")],
        momentum=[lesson([0.965], "label")],
    )
    (row,) = learning.targets(learning.described(found))
    assert row["work"].startswith(MOMENTUM)
    assert (row["measured"]["median"], row["met"]) == (pytest.approx(0.5), True)


def stepped(steps, loss=0.5):
    curve = [{"loss": 2.0, "distance": 0.0}, {"loss": loss, "distance": 0.1}]
    return {
        "steps": steps,
        "seconds": 2.0,
        "computing": [0.01] * 2,
        "accuracy": 0.9,
        "curve": curve,
    }


def straggled():
    rounds = [
        {DDP: stepped([10, 10]), PUT: stepped([10, 30]), PUSH_SUM: stepped([8, 32], 0.25)},
        {DDP: stepped([10, 10]), PUT: stepped([20, 40]), PUSH_SUM: stepped([8, 32], 0.25)},
    ]
    return [{straggler.SLOW: each} for each in rounds]


def test_steps_of_all_ranks_together_are_compared():
    runs = straggler.described(straggled())
    by = {run["name"]: run for run in runs}
    assert (by[DDP]["rate"], by[PUT]["rate"]) == (10.0, 25.0)
    assert by[PUT]["ratio"] == {"median": 2.5, "low": 2.25, "high": 2.75}
    assert by[PUSH_SUM]["loss"] == 0.25
    assert [row["met"] for row in straggler.targets(runs)] == [True, False]
    assert "10 10" in "\n".join(straggler.lines(runs))


def test_a_report_of_the_race_is_told_drawn_and_json(monkeypatch):
    times = {"ddp": [3.0] * 3, "awc": [2.0] * 3, "atc": [2.5] * 3}
    lessons = taught(ddp=[lesson([0.9, 0.95])], awc=[lesson([0.9, 0.96])])
    asked = given(monkeypatch, train, [[raced(**times)], lessons, straggled()])
    report = train.run(4, quick=True)
    assert asked == [4, 4, 4]
    text = "\n".join(report.lines())
    for word in ("4 ranks on one machine", AWC_ONE_PEER, "Horovod does not race", "points lost"):
        assert word in text
    figure = bench_figure(json.loads(json.dumps(report._asdict())))
    bars, *curves = figure.data
    assert dict(zip(bars.y, bars.x, strict=True))[AWC_ONE_PEER] == 1.5
    assert [curve.name.split(":")[0] for curve in curves] == [
        DDP,
        AWC_ONE_PEER,
        DDP,
        PUT,
        PUSH_SUM,
    ]
    assert list(curves[1].y) == pytest.approx([90.0, 96.0])


def exact(links, counts=(2, 4, 8), sizes=(1000, 100_000)):
    """Times that follow the model to the letter."""

    def seconds(name, n, nbytes):
        rounds = {2: 1, 4: 2, 8: 3}[n]
        ring = 2 * (n - 1)
        messages, sent = {
            scale.ONE_PEER: (1, nbytes),
            scale.STATIC: (rounds, rounds * nbytes),
            scale.ALLREDUCE: (3, ring / n * nbytes),
            scale.GLOO: (ring, ring / n * nbytes),
        }[name]
        return messages * links[name].latency + sent / links[name].rate

    return {
        n: [{name: [seconds(name, n, nbytes)] * 3 for name in links} for nbytes in sizes]
        for n in counts
    }


def test_growth_that_follows_the_model_is_predicted_exactly():
    names = (scale.ONE_PEER, scale.STATIC, scale.ALLREDUCE, scale.GLOO)
    links = {name: Link(1e-3 * (k + 1), 1e6 * (k + 1)) for k, name in enumerate(names)}
    report = scale.report(exact(links), (1000, 100_000), 8.0)
    for name in names:
        assert report.links[name].latency == pytest.approx(links[name].latency)
        assert report.links[name].rate == pytest.approx(links[name].rate)
        assert report.off[name]["high"] == pytest.approx(1.0)
    known = {point["ranks"] for point in report.points if point["fitted"]}
    assert known == {2, 4}
    (beyond,) = (
        point
        for point in report.points
        if (point["name"], point["ranks"], point["bytes"]) == (scale.ONE_PEER, 1024, 1000)
    )
    assert (beyond["measured"], beyond["predicted"]) == (None, pytest.approx(1e-3 + 1e-3))
    text = "\n".join(report.lines())
    assert "beyond, predicted" in text
    assert "1.00 (1.00 to 1.00)" in text
    figure = bench_figure(json.loads(json.dumps(report._asdict())))
    assert {trace.mode for trace in figure.data} == {"lines", "markers"}
    assert len(figure.data) == 4 * 2 * 2


def test_other_reports_have_no_figure(tmp_path):
    (tmp_path / "ops.json").write_text('{"cases": []}')
    with pytest.raises(ArgumentError, match="this one has cases"):
        bench_figure(tmp_path / "ops.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "-n", "1"), "bench train needs at least 2 ranks; got -n 1"),
        (("train", "-n", "1000000"), "bench train: 1000000 ranks need about"),
        (("train", "--hosts", "1"), "bench train needs at least 2 hosts; got 1"),
        (("train", "--rate", "250"), "of emulated --hosts"),
        (("scale", "--hosts", "6"), "needs a power of two from 4 hosts on; got 6"),
        (("scale", "--slots", "2"), "one rank on each host; --slots goes with train"),
        (("ops", "--hosts", "2"), "bench ops runs on one host"),
    ],
)
def test_what_these_benches_cannot_do_is_one_line_and_status_1(capsys, arguments, message):
    assert cli.main(["bench", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.mpi
@pytest.mark.timeout(300)
def test_everybody_trains_on_one_machine():
    report = train.run(2, rounds=1, quick=True)
    (small,) = report.races
    everybody = {DDP, ATC_ONE_PEER, AWC_ONE_PEER, DDP_HALF, AWC_HALF}
    assert everybody < set(small["ratio"])
    assert min(small["seconds"].values()) > 0
    by = {each["name"]: each for each in report.lessons}
    assert by[DDP]["distance"] == [0.0]
    assert by[AWC_ONE_PEER]["distance"][0] > 0
    # One peer hears all parameters in each step; with two ranks a ring sends as much.
    assert small["sent"][AWC_ONE_PEER] == pytest.approx(4 * small["parameters"], rel=0.01)
    assert by[DDP]["sent"] == pytest.approx(by[ATC_ONE_PEER]["sent"], rel=0.02)
    assert {run["name"] for run in report.runs} == {DDP, ATC_ONE_PEER, PUT, PUSH_SUM}
    assert all(min(run["steps"]) > 0 for run in report.runs)


@pytest.mark.mpi
@pytest.mark.timeout(300)
@on_hosts
def test_growth_is_measured_between_hosts():
    report = scale.run(4, mbit=500.0, rounds=1, quick=True)
    measured = [point for point in report.points if point["measured"] is not None]
    assert len(measured) == 4 * 2 * len(scale.QUICK_SIZES)
    assert min(point["measured"] for point in measured) > 0
