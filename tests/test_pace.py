"""How often ranks send events: a dashboard that opens while a cell runs is told of soon."""

from concurrent.futures import Future

import pytest

from ifog.pace import Pace


class Ranks:
    """What is asked of the ranks, and their answers when a test gives them."""

    def __init__(self):
        self.asked = []
        self.answers = []

    def send(self, rank, what, **content):
        self.asked.append((rank, what, content["cell"], content["live"]))
        self.answers.append(Future())
        return self.answers[-1]

    def answer(self, *cells):
        for cell, answer in zip(cells, self.answers, strict=True):
            answer.set_result({"content": {"cell": cell}})
        self.answers.clear()


def test_nothing_is_asked_while_nothing_changes():
    ranks = Ranks()
    Pace(7, live=False).tell(False, (0, 1), ranks.send)
    Pace(7, live=True).tell(True, (0, 1), ranks.send)
    assert not ranks.asked


def test_every_rank_is_told_once_of_each_change():
    ranks, pace = Ranks(), Pace(7, live=False)
    for live in (True, False):
        pace.tell(live, (0, 1), ranks.send)
        pace.tell(live, (0, 1), ranks.send)  # nobody has answered yet
        ranks.answer(7, 7)
        pace.tell(live, (0, 1), ranks.send)
    assert ranks.asked == [(r, "pace", 7, live) for live in (True, False) for r in (0, 1)]


def test_a_rank_that_has_not_begun_the_cell_is_asked_again():
    ranks, pace = Ranks(), Pace(7, live=False)
    pace.tell(True, (0, 1), ranks.send)
    ranks.answer(7, 6)  # rank 1 is still at cell 6
    pace.tell(True, (0, 1), ranks.send)
    ranks.answer(7)
    pace.tell(True, (0, 1), ranks.send)
    assert [rank for rank, *_ in ranks.asked] == [0, 1, 1]


def test_an_answer_that_failed_is_no_answer():
    ranks, pace = Ranks(), Pace(7, live=False)
    pace.tell(True, (3,), ranks.send)
    ranks.answers.pop().set_exception(RuntimeError("no such rank"))
    pace.tell(True, (3,), ranks.send)
    assert len(ranks.asked) == 2


class Page:
    """Stands for a dashboard, which follows a log as long as it lives."""


@pytest.mark.mpi
def test_a_page_opened_and_closed_while_a_cell_runs_is_known_to_its_ranks(cluster):
    code = """
import time
from ifog.context import current
def until(live):
    while current().watcher.live != live or current().sink.live != live: time.sleep(0.01)
until(False)
print("begun", flush=True)
until(True)
print("watched", flush=True)
until(False)"""
    cell, page = cluster.submit(code, timeout=60), Page()
    followers = cluster.events.followers

    def said(word):
        return {output.rank for output in cell.outputs if word in str(output)} == {*cell.ranks}

    def open_and_close():
        if said("watched"):
            followers.discard(page)
        elif said("begun"):
            followers.add(page)

    assert cell.wait(on_tick=open_and_close).status == "ok"
