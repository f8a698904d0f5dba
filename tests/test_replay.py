from __future__ import annotations

import copy
import json
import sys

import numpy as np
import pytest
from runs import cell, graph_event, one_peer_matrix, ring_matrix
from test_recording import written

from ifog.errors import ArgumentError, RecordingError
from ifog.playback import Replay, replay
from ifog.recordings import record
from ifog.tape import Tape, tape_of
from ifog.telemetry import CellEnd, CellStart, EventLog, OpEvent, WaitEvent

pytest.importorskip("anywidget", reason="anywidget is not installed (ifog[lab])")

from ifog.widgets import PANELS, Consensus, Dashboard
from ifog.widgets.feed import Feed

STALL = [
    *(CellStart(rank, 300.0, 3, 4, (0, 1, 2, 3)) for rank in range(4)),
    *(WaitEvent(0, 300.0 + t, "barrier", "", 0, (3,), 300.0) for t in (0.5, 1.0, 1.5, 2.0)),
    CellEnd(3, 302.1, 3, "error", 0, 0, 0.0, 0, {"ename": "ValueError", "peer": None}),
    CellEnd(0, 302.2, 3, "error", 0, 0, 0.0, 0, {"ename": "PeerFailedError", "peer": 3}),
    *(CellEnd(rank, 302.2, 3, "ok", 0, 0, 0.0, 0, None) for rank in (1, 2)),
]  # fmt: skip


def two_cells(n=4, rounds=30):
    """What four ranks did, in the order of time, with 90 idle seconds and a stall at the end."""
    x = np.arange(float(n))[:, None]
    first = cell(ring_matrix(n), x, rounds, seq=1, t=100.0)
    second = cell(lambda k: one_peer_matrix(n, k), x + 1, rounds, seq=2, t=190.0)
    return [graph_event(ring_matrix(n), "ring", 99.0), *first, *second, *STALL]


def when(event):
    return getattr(event, "t1", None) or event.t


def heard(events, every=0.1):
    """The same events as a notebook hears them: each rank tells of a tenth of a second at once."""
    return sorted(events, key=lambda event: (int(when(event) / every), event.rank))


@pytest.fixture
def run():
    log = EventLog()
    log.write(heard(two_cells()))
    return log


def alone(panel, events, time):
    """What a panel shows of these events at ``time``, folded at once from the first on."""
    picture = PANELS[panel].picture
    return picture.view(picture.fold(picture.initial(), events), time)


def same(a, b):
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def test_a_tape_has_the_events_in_the_order_of_time_and_each_rank_in_its_own(run):
    tape = tape_of(run)
    events = tape.events(0, len(tape))
    times = [when(event) for event in events]
    assert times == sorted(times)
    for rank in range(4):
        told = [event for event in heard(two_cells()) if event.rank == rank]
        assert [event for event in events if event.rank == rank] == told


def test_a_rank_whose_clock_went_back_keeps_its_order():
    events = [CellStart(0, 5.0, 1, 1, (0,)), CellEnd(0, 4.0, 1, "ok", 0, 0, 0.0, 0, None)]
    assert Tape([lambda: events]).events(0, 2) == events


def test_a_file_and_its_source_are_the_same_run(run, tmp_path):
    batches = [heard(two_cells())[i : i + 50] for i in range(0, 2000, 50)]
    path = written(tmp_path / "run.ifog", batches, title="Two cells", modelled=True)
    file, log = tape_of(path), tape_of(run)
    assert file.events(0, len(file)) == log.events(0, len(log))
    assert (file.cells, file.seconds, file.title) == (log.cells, log.seconds, "Two cells")
    assert np.array_equal(file.rounds, log.rounds)
    assert file.modelled
    assert not log.modelled


@pytest.mark.parametrize("panel", PANELS)
def test_what_is_replayed_looks_as_it_did_live(panel, run):
    tape = tape_of(run)
    replayed = alone(panel, tape.events(0, len(tape)), 303.0)
    assert same(replayed, alone(panel, heard(two_cells()), 303.0))


CELL = """
import time
x = torch.arange(6.0) + bf.rank()
for k in range(30):
    if bf.rank() == 2: time.sleep(0.002)
    x = bf.neighbor_allreduce(x, name="x")
"""


@pytest.mark.mpi
def test_what_real_ranks_report_is_recorded_exactly_and_looks_the_same_again(cluster, tmp_path):
    begin, _ = cluster.events.since(sys.maxsize)
    with record(tmp_path / "run.ifog", cluster) as recording:
        for _ in range(2):
            cluster.run(CELL, timeout=30).raise_for_error()
    _, told = cluster.events.since(begin)
    tape = tape_of(recording.path)
    again = tape.events(0, len(tape))
    assert sorted(map(repr, told)) == sorted(map(repr, again[-len(told) :]))
    assert [span.rounds for span in tape.cells[-2:]] == [30, 30]
    before = [event for event in again if event not in told]  # the graph
    end = float(tape.times[-1])
    for panel in PANELS:
        assert same(alone(panel, again, end), alone(panel, [*before, *told], end)), panel


def test_idle_time_between_cells_is_cut_short_and_what_happens_is_not(run):
    tape = tape_of(run)
    assert [span.seq for span in tape.cells] == [1, 2, 3]
    assert [span.rounds for span in tape.cells] == [30, 30, 0]
    begins = [tape.played(span.begin) for span in tape.cells]
    # The cells take 0.3 s, 0.3 s and 2.2 s; a twentieth of that stands for what is between them.
    assert begins == pytest.approx([0.14, 0.58, 1.02])
    assert tape.seconds == pytest.approx(1.02 + 2.2)
    for seconds in (0.0, 0.1, 0.2, 0.5, 1.0, 3.2):
        assert tape.played(tape.moment(seconds)) == pytest.approx(seconds, abs=1e-6)


def test_idle_time_in_a_long_run_is_a_second():
    busy = [*long_cell(0.0, 40.0, 1), *long_cell(500.0, 40.0, 2)]
    tape = Tape([lambda: busy])
    assert tape.seconds == pytest.approx(40 + 1 + 40)
    assert Replay(Trace(busy)).speed == 1


def long_cell(begin, seconds, seq):
    """One rank that computes all the time."""
    yield CellStart(0, begin, seq, 1, (0,))
    yield CellEnd(0, begin + seconds, seq, "ok", 0, 0, 0.0, 0, None)


def test_cells_without_an_end_and_runs_without_cells_have_a_length():
    def of(events):
        return Tape([lambda: events])

    assert of([]).seconds == 0
    begun = [CellStart(rank, 10.0, 1, 2, (0, 1)) for rank in (0, 1)]
    waits = [WaitEvent(0, t, "barrier", "", 0, (1,), 10.0) for t in (12.0, 15.0)]
    assert of([*begun, *waits]).seconds == pytest.approx(5.0)
    assert not of([*begun, *waits]).cells[0].ended
    assert of(waits).seconds == pytest.approx(3.0)
    again = [CellStart(0, 20.0, 1, 1, (0,))]  # another cluster
    assert [span.seq for span in of([*begun, *again]).cells] == [1, 1]


def test_rounds_are_those_that_all_ranks_have_finished(run):
    tape = tape_of(run)
    ends = [100 + 0.01 * (k + 1) for k in range(30)] + [190 + 0.01 * (k + 1) for k in range(30)]
    assert tape.rounds == pytest.approx(ends)


class Watch:
    """A clock that stands still until it is told to go on."""

    def __init__(self, monkeypatch):
        self.time = 1000.0
        monkeypatch.setattr("ifog.playback.clock", lambda: self.time)


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


def test_playing_moves_with_the_clock_at_its_speed_and_stops_at_the_end(run, watch):
    played = Replay(run)
    assert played.speed == 0.5  # 3.22 s would be over too soon
    played.play(speed=1)
    watch.time += 0.29
    played.advance()
    assert played.seconds == pytest.approx(0.29)
    assert played.now() == pytest.approx(100.15)
    played.play(speed=0.1)
    watch.time += 0.5
    played.pause()
    assert played.seconds == pytest.approx(0.34)
    watch.time += 7
    played.advance()
    assert played.seconds == pytest.approx(0.34)
    played.play(speed=16)
    watch.time += 100
    played.advance()
    assert (played.playing, played.place) == (False, len(two_cells()))
    played.play()
    assert played.seconds == 0


def test_since_tells_what_has_happened_by_the_present(run):
    played = Replay(run)
    played.seek(0.24)
    cursor, events = played.since(0)
    happened = [event for event in two_cells() if when(event) <= 100.1001]
    assert sorted(map(repr, events)) == sorted(map(repr, happened))
    played.seek(0.19)
    assert played.since(cursor)[1] == []
    assert played.since(0)[0] < cursor


def test_steps_go_from_round_to_round_and_over_cells_without_any(run):
    played = Replay(run)
    played.seek(0.244)
    played.step()
    assert played.now() == pytest.approx(100.11)
    played.step(3)
    assert played.now() == pytest.approx(100.14)
    played.step(-1)
    assert played.now() == pytest.approx(100.13)
    assert PANELS["graph"].picture.fold(
        PANELS["graph"].picture.initial(), played.since(0)[1]
    ).ranks.round == 13  # fmt: skip
    played.seek(0.95)
    played.step()
    assert played.now() == pytest.approx(300.0)
    played.step(100)
    assert played.seconds == pytest.approx(played.tape.seconds)
    played.step(-1000)
    assert played.seconds == 0
    assert not played.playing


@pytest.mark.parametrize(
    "command", [{"fly": 1}, {"seek": "end"}, {"seek": None}, {"speed": 0}, {"speed": True},
                {"step": float("nan")}, {"seek": float("inf")}],
)  # fmt: skip
def test_what_a_page_asks_for_is_checked(run, command):
    played = Replay(run)
    with pytest.raises(ArgumentError):
        played.do(command)
    assert (played.seconds, played.speed, played.playing) == (0, 0.5, False)


def shown(source):
    page = Dashboard(source)
    page._feed.close()
    page._feed = Feed(source, (page.bar, *page.panels))
    page._feed.step()
    return page


def of(page, name):
    """The panel of that name."""
    return next(panel for panel in page.panels if type(panel).__name__ == PANELS[name].__name__)


def test_a_dashboard_shows_the_present_of_a_replay_and_does_what_its_bar_asks_for(run, watch):
    page = shown(Replay(run))
    tell = page.bar._handle_custom_msg
    tell({"replay": {"seek": 0.395}}, [])
    page._feed.step()
    assert of(page, "consensus").state["round"] == 25
    assert page.bar.replay["at"] == pytest.approx(0.395)
    assert page.bar.replay["ticks"] == [[0.14, "cell 1"], [0.58, "cell 2"], [1.02, "cell 3"]]
    tell({"replay": {"step": -1}}, [])
    page._feed.step()
    assert of(page, "consensus").state["round"] == 25
    tell({"replay": {"step": -1}}, [])
    page._feed.step()
    assert of(page, "consensus").state["round"] == 24
    tell({"replay": {"play": True, "speed": 2.0}}, [])
    watch.time += 0.0275
    page._feed.step()
    assert of(page, "consensus").state["round"] == 29
    before = dict(page.bar.replay)
    tell({"replay": {"seek": "there"}}, [])
    tell({"replay": "there"}, [])
    assert page.bar.replay == before
    page.close()


def test_a_stall_grows_with_the_time_of_the_run_not_with_the_time_of_day(run):
    played = Replay(run)
    page = shown(played)
    waiting = of(page, "waiting")
    states = []
    for moment in (300.9, 301.6, 302.2):
        played.seek(played.tape.played(moment))
        page._feed.step()
        states.append(copy.deepcopy(waiting.state))
    assert [state["empty"] for state in states] == [True, False, False]
    assert states[2]["sentence"].startswith("Rank 3 raised ValueError")
    page.close()


@pytest.mark.parametrize("played", [False, True])
def test_what_a_reader_chooses_is_shown_though_nothing_happens(run, played):
    source = Replay(run) if played else run
    page = shown(source)
    if played:
        source.seek(0.95)
        page._feed.step()
    timeline = of(page, "timeline")
    timeline.look = {"window": [0.1, 0.2]}
    page._feed.step()
    assert (timeline.state["from"], timeline.state["span"]) == (100_000, 100_000)
    page.close()


def test_a_paused_replay_sets_no_trait(run, watch):
    page = shown(Replay(run))
    page.source.seek(1.1)
    page._feed.step()
    changes = []
    for widget in (page.bar, *page.panels):
        widget.observe(changes.append)
    for _ in range(3):
        watch.time += 10
        page._feed.step()
    assert changes == []
    page.close()


class Trace:
    """A simulator's run: complete from the start, its times from a model."""

    modelled = True

    def __init__(self, events):
        self.told = events

    def since(self, cursor):
        return len(self.told), self.told[cursor:]


def test_a_run_of_a_model_is_marked_live_and_replayed(tmp_path):
    trace = Trace(list(cell(ring_matrix(4), np.arange(4.0)[:, None], 5, t=0.0)))
    for source in (trace, Replay(trace)):
        page = shown(source)
        assert page.bar.modelled
        page.close()
    assert len(Replay(trace).tape) == len(trace.told)


def test_a_log_that_forgot_its_beginning_says_so():
    log = EventLog(capacity=7)
    log.lost = 3
    log.write([CellStart(0, float(t), t, 1, (0,)) for t in range(10)])
    assert Replay(log).standing()["note"] == "the first 3 events are no longer kept"
    assert tape_of(log).lost == 3


def test_replay_gives_a_dashboard_that_plays(run, tmp_path):
    path = written(tmp_path / "run.ifog", [heard(two_cells())], title="Lecture 3")
    page = replay(path)
    assert page.source.playing
    assert page.bar.title == "Lecture 3"
    page.close()
    page = replay(str(path), [Consensus], title="Mine", paused=True)
    assert not page.source.playing
    assert (page.bar.title, len(page.panels)) == ("Mine", 1)
    page.close()
    (tmp_path / "cut.ifog").write_bytes(path.read_bytes()[:-5])
    assert "cut off" in Replay(tmp_path / "cut.ifog").standing()["note"]
    with pytest.raises(RecordingError, match="cannot be read"):
        replay(tmp_path / "none.ifog")
    with pytest.raises(TypeError, match="pass the cluster"):
        replay(7)


def test_the_operations_of_a_cell_that_was_cut_off_are_replayed():
    ops = [OpEvent(0, k, k, "barrier", "", k, k + 0.5, 0.0, -1, 0, (), (), ()) for k in range(5)]
    assert Replay(Trace(ops)).tape.seconds == pytest.approx(4.0)
