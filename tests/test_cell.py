"""A cell's way from running to its result, driven by the messages that ranks would send."""

from __future__ import annotations

import json
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from ifog import cell as cells
from ifog import stalls
from ifog.cell import Cell, CellResult, RankError, span
from ifog.errors import CellError, DeadlineError
from ifog.faults import describe
from ifog.iopub import MESSAGE, IOPubSink, batch_of
from ifog.telemetry import CellEnd, CellStart, Event, OpEvent, WaitEvent, encode, now


class Answer:
    """What a rank's control thread says, at once; nothing if it is None."""

    def __init__(self, content) -> None:
        self._content = content

    def done(self) -> bool:
        return self._content is not None

    def wait(self, _) -> bool:
        return self.done()

    def result(self) -> dict:
        return {"content": self._content}


class Calls:
    """A cluster that only notes what a cell asks of it."""

    def __init__(self) -> None:
        self.interrupted: list[tuple[tuple[int, ...], int]] = []
        self.revoked: list[tuple[tuple[int, ...], str, bool]] = []
        self.answers: dict[int, dict | None] = {}

    def send_interrupt(self, ranks, seq) -> None:
        self.interrupted.append((tuple(ranks), seq))

    def send_revoke(self, ranks, seq, cause, *, deep=False) -> None:
        assert seq == 7
        self.revoked.append((tuple(ranks), cause, deep))

    def ask(self, ranks, what) -> dict[int, Answer]:
        assert what == "waiting"
        return {rank: Answer(self.answers[rank]) for rank in ranks if rank in self.answers}

    def busy_elsewhere(self, _) -> set[int]:
        return set()

    def nudge(self) -> None:
        pass


def ended(rank: int, status: str = "ok", **error) -> CellEnd:
    fields = {"ename": "", "evalue": "", "line": 1, "where": "", "peer": None, "traceback": ""}
    return CellEnd(rank, 12.0, 7, status, 3, 100, 1.0, 0, fields | error if error else None)


def started(rank: int) -> CellStart:
    return CellStart(rank, 10.0, 7, 4, (0, 1))


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def cell(calls) -> Cell:
    return Cell(7, (0, 1), calls)


def test_ranks_are_written_as_ranges():
    assert span([3, 0, 1, 2, 7]) == "0-3,7"
    assert span([5]) == "5"


def test_a_cell_is_over_when_every_rank_reported_its_end(cell):
    cell.take_events([started(0), started(1), ended(0)])
    cell.take_reply(1)
    assert not cell.step()
    cell.take_events([ended(1)])
    assert cell.step()
    cell.finish()
    result = cell.wait(1)
    assert (result.status, result.rounds, result.nbytes) == ("ok", 3, 200)
    assert (result.seconds, result.wait) == (2.0, 0.5)
    result.raise_for_error()


def test_ends_of_another_cell_do_not_count(cell):
    cell.take_events([ended(0)._replace(seq=6), ended(1)._replace(seq=6)])
    assert cell.missing() == [0, 1]


def test_an_interrupt_before_the_beginning_is_sent_again_at_the_beginning(cell, calls):
    cell.interrupt()
    cell.take_events([started(1)])
    assert calls.interrupted == [((0, 1), 7), ((1,), 7)]


def test_a_lost_rank_wakes_the_others(cell, calls):
    cell.lose(1, "RankDied", "rank 1 died")
    assert calls.revoked == [((0,), "RankDied: rank 1 died", False)]
    cell.take_events([ended(0, "error", ename="PeerFailedError", peer=1)])
    assert cell.step()
    assert cell.troubled()
    cell.finish()
    with pytest.raises(CellError, match=r"\[1\] RankDied: rank 1 died\nrank 0 stopped because"):
        cell.wait(1).raise_for_error()


def test_equal_errors_are_named_once():
    error = RankError("ValueError", "no", 3, "f", None, "")
    errors = {0: error, 1: error, 3: error._replace(evalue="other")}
    result = CellResult(1, (0, 1, 2, 3), 1.0, 0, 0, 0.0, "error", errors, ())
    with pytest.raises(CellError) as caught:
        result.raise_for_error()
    assert str(caught.value) == "[0-1] ValueError: no (line 3)\n[3] ValueError: other (line 3)"


def test_a_deadline_interrupts_then_revokes_then_gives_up(calls):
    cell = Cell(7, (0, 1), calls, timeout=0.0)
    cell.take_events([started(0), started(1)])
    cell.take_events([WaitEvent(1, now(), "barrier", "", 4, (0,), now() - 2.0)])
    deadline = time.monotonic() + 5
    while not cell.step() and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    assert calls.interrupted[0] == ((0, 1), 7)
    assert calls.revoked == [((0, 1), "stopped", False), ((0, 1), "stopped", True)]
    assert cell.unstoppable() == [0, 1]
    cell.finish()
    result = cell.wait(1)
    assert result.status == "timeout"
    assert "was computing and could not be stopped" in result.errors[0].evalue
    with pytest.raises(DeadlineError):
        result.raise_for_error()


def test_a_wait_at_the_deadline_names_op_round_and_peer(calls):
    cell = Cell(7, (0, 1), calls, timeout=0.0)
    cell.take_events([started(0), started(1)])
    cell.step()
    wait = (1, 102.0, "neighbor_allreduce", "x", 4, (0, 2), 100.0)
    cell.take_events([ended(0, "interrupted", ename="KeyboardInterrupt")])
    cell.take_events([ended(1, "interrupted", ename="KeyboardInterrupt", wait=wait)])
    assert cell.step()
    cell.finish()
    evalue = cell.wait(1).errors[1].evalue
    assert evalue.startswith("waited 2.0 s for ranks 0,2 in neighbor_allreduce 'x', round 5")


def test_a_reply_without_an_end_does_not_hold_up_the_cell(cell):
    cell.take_events([ended(0)])
    cell.take_reply(1)
    deadline = time.monotonic() + 5
    while not cell.step() and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    cell.finish()
    assert cell.wait(1).errors[1].ename == "NoReport"


def test_a_message_under_way_at_the_release_is_no_cycle(calls):
    cell = Cell(7, (0, 1, 2), calls)
    waits = {0: (11, (1,)), 1: (12, (0,))}
    for rank, (step, peers) in waits.items():
        wait = (rank, 9.0, "neighbor_allreduce", "x", step, peers, 8.9)
        cell.take_events([ended(rank, "error", ename="PeerFailedError", peer=2, wait=wait)])
    cell.take_events([ended(2, "error", ename="ValueError")])
    assert cell.step()
    cell.finish()
    why = cell.wait(1).why
    assert why is not None
    assert (why.kind, why.causes) == ("absent", (2,))
    assert why.sentence == "Rank 2 raised ValueError; 2 ranks were waiting and have been released."


def test_a_third_interrupt_of_a_cell_that_nobody_waits_for_leaves_its_ranks(cell, calls):
    cell.take_events([started(0), started(1)])
    cell.interrupt()
    assert calls.revoked == []
    cell.interrupt([1])
    assert calls.revoked == [((0, 1), "interrupted", True)]
    assert cell.unstoppable() == []
    cell.interrupt([1])
    assert (cell.unstoppable(), cell.missing()) == ([1], [0])


def test_a_rank_that_does_not_stop_is_named_with_what_helps(cell, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(cells, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    cell.take_events([started(0), started(1)])
    assert cell.stopping == ""
    cell.interrupt()
    assert cell.stopping == ""
    clock[0] += 1.5
    assert cell.stopping == "ranks 0-1 do not stop; two more interrupts leave them behind"
    cell.take_events([ended(0, "interrupted", ename="KeyboardInterrupt")])
    cell.interrupt()
    assert cell.stopping == "rank 1 does not stop; one more interrupt leaves it behind"
    cell.interrupt()
    assert cell.stopping == ""


def test_a_rank_that_was_never_heard_of_is_not_said_to_compute(cell):
    cell.take_events([started(0)])
    for _ in range(3):
        cell.interrupt()
    cell.finish()
    errors = cell.wait(1).errors
    assert errors[0].evalue.startswith("was computing and could not be stopped; go on without")
    assert errors[1].evalue.startswith("did not answer and could not be stopped; go on without")


def test_a_rank_that_does_not_answer_is_named_within_two_seconds_of_the_stall(calls, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(stalls, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(stalls, "now", lambda: clock[0])
    cell = Cell(7, (0, 1), calls)
    cell.take_events([started(0), started(1)])
    calls.answers = {0: None, 1: None}
    while cell.stall is None and clock[0] < 1002.0:
        clock[0] += 0.1
        waiting = WaitEvent(1, clock[0], "barrier", "", 0, (0,), 1000.0)
        if clock[0] - waiting.since > 0.5:
            cell.take_events([waiting])
        calls.answers[1] = {"event": encode(waiting), "rounds": 0}
        cell.step()
    assert cell.stall is not None
    assert (cell.stall.kind, cell.stall.causes, cell.stall.hopeless) == ("silent", (0,), False)


def test_the_third_keyboard_interrupt_gives_up(cell, calls):
    presses = []

    def press() -> None:
        if len(presses) < 3:
            presses.append(True)
            raise KeyboardInterrupt
        if cell.step():
            cell.finish()

    result = cell.wait(on_tick=press)
    assert (result.status, len(calls.revoked) >= 1) == ("interrupted", True)
    assert {error.ename for error in result.errors.values()} == {"NoAnswer"}
    assert cell.unstoppable() == [0, 1]
    cell.take_events([ended(1)])
    assert cell.unstoppable() == [0]


def test_a_press_that_comes_too_late_for_the_ranks_is_not_lost(cell):
    cell.take_events([started(0), started(1), ended(0), ended(1)])
    cell.finish()

    def press() -> None:
        signal.raise_signal(signal.SIGINT)

    assert not cell.pressed
    assert cell.wait(on_tick=press).status == "ok"
    assert cell.pressed


def test_endless_output_is_cut_and_says_so(cell):
    for _ in range(50):
        cell.take_output(0, "stdout", "x" * 100_000, {})
    cell.take_output(1, "stdout", "short", {})
    assert sum(len(output.text) for output in cell.outputs) < 4_100_000
    assert "the rest is lost" in cell.outputs[-2].text
    assert cell.outputs[-1].text == "short"


def message_of(sent: tuple) -> dict:
    content, buffers, parent = sent
    return {
        "header": {"msg_type": MESSAGE},
        "content": json.loads(json.dumps(content)),
        "buffers": [memoryview(part) for part in buffers],
        "parent": parent,
    }


def op(step: int, t: float = 1.0) -> OpEvent:
    return OpEvent(2, step, step, "allreduce", "x", t, t, 0.0, -1, 8, (0,), (0,), ())


class Channel:
    def __init__(self) -> None:
        self.sent: list[tuple] = []
        self.came = threading.Event()

    def send(self, content, buffers, parent) -> None:
        self.sent.append((content, buffers, parent))
        self.came.set()

    def events(self) -> list[Event]:
        return [event for sent in self.sent for event in batch_of(message_of(sent)).events]


@pytest.fixture
def channel():
    channel = Channel()
    channel.waiting = None
    channel.sink = IOPubSink(2, channel.send, lambda: channel.waiting)
    yield channel
    channel.sink.close()


def test_events_arrive_in_order_with_infinities_and_their_parent(channel):
    channel.sink.attach("cell 7", busy=True)
    events = [op(0, float("inf")), op(1), CellEnd(2, 1.0, 7, "ok", 0, 0, 0.0, 0, {"line": None})]
    channel.sink.write(events[:1])
    channel.sink.write(events[1:])
    channel.sink.flush()
    assert channel.events() == events
    assert {parent for _, _, parent in channel.sent} == {"cell 7"}


def test_events_are_sent_without_asking_and_in_batches(channel):
    for step in range(500):
        channel.sink.write((op(step),))
    assert channel.came.wait(5)
    channel.sink.close()
    assert [event.step for event in channel.events()] == list(range(500))
    assert len(channel.sent) < 100


def test_too_many_events_lose_only_what_can_be_missed(channel):
    start = CellStart(2, 0.0, 7, 4, (0, 1))
    channel.sink.attach("cell", busy=True)
    channel.sink.write([start, *(op(step) for step in range(40_000)), ended(2)])
    channel.sink.flush()
    first, *kept = channel.events()
    assert kept[0] == start
    assert kept[-1] == ended(2)
    assert kept[-2].step == 39_999
    assert len(kept) <= 32_001
    lost = sum(batch_of(message_of(sent)).lost for sent in channel.sent)
    assert lost == channel.sink.lost == 40_002 - len(kept)
    assert (first.rank, first.events) == (2, lost)


def test_a_long_wait_is_reported_while_it_lasts(channel):
    channel.waiting = WaitEvent(2, now(), "barrier", "", 0, (1,), now() - 1.0)
    channel.sink.attach("cell", busy=True)
    assert channel.came.wait(5)
    assert channel.events()[0] == channel.waiting


def raised(function) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_deep_recursion_is_shortened():
    def deeper(k):
        return deeper(k + 1)

    fault = describe(raised(lambda: deeper(0)))
    assert (fault["ename"], fault["where"]) == ("RecursionError", "deeper")
    assert "more frames" in fault["traceback"]
    assert len(fault["traceback"].splitlines()) < 60


def test_a_message_that_cannot_be_printed_is_still_an_error():
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise ValueError

    def fail() -> None:
        raise BrokenError

    assert "no message" in describe(raised(fail))["evalue"]


def test_notes_and_causes_are_told():
    def fail() -> None:
        error = ValueError("outer")
        error.__notes__ = ["try less"]  # what add_note does, also on Python 3.10
        raise error from KeyError("inner")

    fault = describe(raised(fail))
    assert fault["evalue"] == "outer\ntry less"
    assert "after KeyError: 'inner'" in fault["traceback"]
