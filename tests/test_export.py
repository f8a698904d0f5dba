from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import re
import shutil
import subprocess
import zlib

import numpy as np
import pytest
from runs import cell, graph_event, ring_matrix
from test_replay import Trace, two_cells

from ifog import cli
from ifog.errors import ArgumentError, RecordingError
from ifog.folds import Status, fold_status, view_status
from ifog.frames import Track, change, film, moments, packed
from ifog.recordings import record
from ifog.tape import Tape, tape_of
from ifog.telemetry import CellStart, EventLog

pytest.importorskip("anywidget", reason="anywidget is not installed (ifog[lab])")

from ifog.widgets import PANELS, Consensus, Dashboard, Graph, export
from ifog.widgets.bundle import STATIC
from ifog.widgets.page import LIMIT

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def in_node(tmp_path, name, script):
    """What a module of ours makes of JSON from standard input, as JSON."""
    module = tmp_path / f"{name}.mjs"
    module.write_text((STATIC / f"{name}.js").read_text())
    text = f"import * as it from './{name}.mjs';\nimport fs from 'fs';\n{script}"
    (tmp_path / "main.mjs").write_text(text)

    def run(given):
        done = subprocess.run(
            ["node", tmp_path / "main.mjs"],
            input=json.dumps(given).encode(), capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    return run


def made_up(depth=3):
    """Any JSON."""
    kind = random.randrange(7 if depth else 4)
    if kind < 4:
        return (None, random.randrange(5), random.random(), "µ" * random.randrange(3))[kind]
    items = [made_up(depth - 1) for _ in range(random.randrange(6))]
    return items if kind < 6 else dict(zip("abcdef", items, strict=False))


def varied(value):
    """Nearly the same JSON."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        key = random.choice(list(value))
        return value | {key: varied(value[key])}
    if isinstance(value, list) and value and random.random() < 0.8:
        cut, end = random.randrange(len(value)), random.randrange(3)
        middle = [varied(value[cut])] if random.random() < 0.5 else [made_up(1)] * end
        return (value[:cut] + middle + value[cut + 1 :] + [made_up(1)] * end)[end:]
    return made_up(2)


@needs_node
def test_the_browser_makes_of_changes_what_they_were_made_from(tmp_path):
    random.seed(11)
    window = [*range(40)]
    pairs = [(window, [*range(5, 45)]), (window, window[:-1]), ([], [1]), ({"a": 1}, {"b": 1})]
    pairs += [(old, varied(old)) for old in (made_up() for _ in range(500))]
    script = (
        "const cases = JSON.parse(fs.readFileSync(0));"
        "console.log(JSON.stringify(cases.map(([old, change]) => it.changed(old, change))));"
    )
    told = [[old, change(old, new)] for old, new in pairs]
    assert in_node(tmp_path, "changes", script)(told) == [new for _, new in pairs]


def test_a_change_is_as_small_as_what_changed():
    old = {"curve": list(range(500)), "name": "x", "bars": [[0, 1], [2, 3], [4, 5]]}
    new = {"curve": [*range(1, 500), 7], "name": "x", "bars": [[0, 1], [2, 9], [4, 5]]}
    assert change(old, new) == {
        "curve": [0, 1, [], 499, 0, [7]],
        "bars": {"1": {"1": [9]}},
    }
    assert change(old["curve"], [*range(500), 1, 2]) == [500, 0, [1, 2]]
    assert change(old, old) is None
    assert change([old], [new]) == {"0": change(old, new)}


@needs_node
def test_the_browser_finds_the_newest_state_at_any_time(tmp_path):
    script = (
        "const [track, times] = JSON.parse(fs.readFileSync(0));"
        "const found = new it.Track(track);"
        "console.log(JSON.stringify(times.map((time) => found.at(time))));"
    )
    track = [[0.0, 1.0, 2.5], {"a": 0}, [{"a": [1]}, {"a": [2]}]]
    found = in_node(tmp_path, "changes", script)([track, [9.0, 0.0, 0.5, 1.0, 2.4, 2.5]])
    assert [state["a"] for state in found] == [2, 0, 0, 1, 1, 2]


@needs_node
def test_what_gzip_packed_is_unpacked_without_the_help_of_the_browser(tmp_path):
    noise = np.random.default_rng(2).bytes(30_000)
    texts = [b"", b"abc", b"0123456789" * 5000, noise, base64.b64encode(noise)]
    script = (
        "const texts = JSON.parse(fs.readFileSync(0));"
        "const out = texts.map((text) => it.inflate(new Uint8Array(Buffer.from(text, 'base64'))));"
        "console.log(JSON.stringify(out.map((bytes) => Buffer.from(bytes).toString('base64'))));"
    )
    packs = [gzip.compress(text, level, mtime=0) for text in texts for level in (1, 9)]
    fixed = zlib.compressobj(9, zlib.DEFLATED, 31, 9, zlib.Z_FIXED)
    packs.append(fixed.compress(texts[2]) + fixed.flush())
    stored = zlib.compressobj(0, zlib.DEFLATED, 31)
    packs.append(stored.compress(noise * 5) + stored.flush())
    given = [base64.b64encode(pack).decode() for pack in packs]
    out = in_node(tmp_path, "inflate", script)(given)
    expected = [gzip.decompress(pack) for pack in packs]
    assert [base64.b64decode(text) for text in out] == expected


@pytest.fixture
def tape():
    log = EventLog()
    log.write(two_cells())
    return tape_of(log)


def test_frames_are_taken_at_rounds_where_these_are_few_and_evenly_else(tape):
    taken = moments(tape)
    assert taken == sorted(taken)
    assert set(tape.rounds) <= set(taken)
    assert {tape.cells[2].begin, tape.cells[2].end} <= set(taken)
    few = moments(tape, most=20)
    assert len(few) == 21 + 2 * len(tape.cells) - 1  # the run ends with its last cell
    assert moments(Tape([list])) == [0.0]


def test_a_film_shows_what_the_views_say_and_keeps_what_differs(tape):
    picture = (Status, fold_status, view_status)
    taken = moments(tape)
    (track,) = film(tape, [picture], taken)
    expected = {}
    for moment in taken:
        state = fold_status(Status(), tape.events(0, tape.place(moment)))
        told = view_status(state, moment)
        if told not in expected.values():
            expected[moment] = told
    assert len(expected) > 60
    assert list(map(json.loads, track.frames)) == list(expected.values())
    assert track.seconds == pytest.approx(list(map(tape.played, expected)), abs=5.1e-4)


def fail(_state, _time):
    raise ZeroDivisionError("no ranks")


def test_a_panel_that_fails_is_told_in_its_place(tape):
    fine, broken = (Status, fold_status, view_status), (Status, fold_status, fail)
    good, bad = film(tape, [fine, broken], moments(tape))
    assert len(good.frames) > 60
    assert bad.frames == ['{"error":"ZeroDivisionError: no ranks"}']


def opened(data):
    seconds, first, changes = json.loads(gzip.decompress(base64.b64decode(data)))
    return seconds, first, changes


def test_of_a_long_track_as_many_frames_are_kept_as_fit():
    frames = [json.dumps({"noise": list(np.random.default_rng(k).random(20))}) for k in range(101)]
    track = Track([float(k) for k in range(101)], frames)
    whole, half = packed(track, 10**9), packed(track, 20_000)
    assert opened(whole)[0] == track.seconds
    assert len(half) <= 20_000
    kept = opened(half)[0]
    assert kept[0] == 0.0
    assert kept[-1] == 100.0
    assert 20 <= len(kept) <= 60
    assert opened(packed(track, 1))[0] == [0.0, 100.0]


def test_a_page_lets_nothing_in_and_nothing_out(tmp_path):
    log = EventLog()
    log.write(two_cells())
    page = Dashboard(log, title="</script><b>1 & 2")
    try:
        path = page.save(tmp_path / "run.html")
    finally:
        page.close()
    text = path.read_text()
    assert not re.search(r"https?:|src=|href=|@import|url\(|eval\(|Function\(", text)
    code = re.search(r'<script type="module">(.*?)</script>', text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in text
    assert text.count("<script") == 2
    assert "<title>&lt;/script&gt;&lt;b&gt;1 &amp; 2</title>" in text
    data = json.loads(re.search(r'id="run">(.*?)</script>', text, re.DOTALL)[1])
    assert [panel["module"] for panel in data["panels"]] == [
        "bar.js", *(f"{name}.js" for name in PANELS)
    ]  # fmt: skip
    assert data["panels"][0]["traits"]["title"] == "</script><b>1 & 2"
    assert [panel["span"] for panel in data["panels"][1:3]] == [5, 7]
    assert "<noscript>" in text
    for words in ("3 cells", "no event lost", "Rank 3 raised ValueError"):
        assert words in text


def test_five_minutes_of_eight_ranks_fit_into_three_megabytes(tmp_path):
    x = np.random.default_rng(4).normal(size=(8, 64))

    def noisy(_k):
        x[:] += np.random.default_rng(_k).normal(size=x.shape)
        return ring_matrix(8)

    events = cell(noisy, x, 3000, round_time=0.1, slow=lambda rank, k: 0.01 + (k * rank % 7) / 100)
    trace = Trace([graph_event(ring_matrix(8), "ring", 99.0), *events])
    path = export(trace, tmp_path / "run.html")
    assert tape_of(trace).seconds == pytest.approx(301)
    assert path.stat().st_size <= LIMIT
    data = json.loads(re.search(r'id="run">(.*?)</script>', path.read_text(), re.DOTALL)[1])
    for panel in data["panels"]:
        if panel["module"] in ("bar.js", "graph.js", "consensus.js", "throughput.js"):
            assert len(opened(panel["track"])[0]) > 100
    assert data["panels"][0]["traits"]["modelled"]


def test_what_cannot_be_saved_is_refused_and_leaves_what_was_there(tmp_path):
    log = EventLog()
    path = tmp_path / "run.html"
    path.write_text("old")
    page = Dashboard(log, [Graph])
    try:
        with pytest.raises(ArgumentError, match="no event yet"):
            page.save(path)
        log.write([CellStart(0, 1.0, 1, 1, (0,))])
        with pytest.raises(ArgumentError, match=r"saved as HTML: run\.html, not 'run\.png'"):
            page.save(tmp_path / "run.png")
        with pytest.raises(RecordingError, match="cannot be written"):
            page.save(tmp_path / "no" / "run.html")
        assert path.read_text() == "old"
        page.save(path)
        assert path.read_text().startswith("<!DOCTYPE html>")
    finally:
        page.close()
    assert [found.name for found in tmp_path.iterdir()] == ["run.html"]


@pytest.fixture
def recording(tmp_path):
    with record(tmp_path / "run.ifog", Trace(two_cells()), past=True, title="Ring") as recording:
        pass
    return recording.path


def test_the_command_line_says_what_is_in_a_recording(recording, capsys):
    assert cli.main(["replay", str(recording)]) == 0
    first, second, *cells = capsys.readouterr().out.splitlines()
    assert "'Ring': 4 ranks, 2\N{NO-BREAK SPACE}min" not in first
    assert "'Ring': 4 ranks, 3\N{NO-BREAK SPACE}min 23\N{NO-BREAK SPACE}s modelled" in first
    assert second == f"{len(two_cells())} events, 0 lost"
    assert cells[0] == "cell 1: 0.300\N{NO-BREAK SPACE}s, 30 rounds"
    assert [line.split(":")[0] for line in cells] == ["cell 1", "cell 2", "cell 3"]


def test_the_command_line_makes_a_page(recording, tmp_path, capsys):
    assert cli.main(["export", str(recording)]) == 0
    assert (tmp_path / "run.html").is_file()
    out = tmp_path / "other.html"
    arguments = ["export", str(recording), "-o", str(out), "--panels", "consensus", "--title", "A"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"{out}: ")
    assert "<title>A</title>" in out.read_text()
    data = json.loads(re.search(r'id="run">(.*?)</script>', out.read_text(), re.DOTALL)[1])
    assert [panel["module"] for panel in data["panels"]] == ["bar.js", "consensus.js"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "{}", "--panels", "consesus"], "there is no panel 'consesus'"),
        (["export", "{}", "-o", "run.pdf"], "saved as HTML"),
        (["export", "none.ifog"], "cannot be read"),
        (["replay", "none.ifog"], "cannot be read"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_named(recording, capsys, arguments, message):
    assert cli.main([word.format(recording) for word in arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_panel_of_one_kind_can_be_exported_alone(tmp_path):
    path = export(Trace(two_cells()), tmp_path / "run.html", [Consensus], title="Alone")
    assert "Alone" in path.read_text()
