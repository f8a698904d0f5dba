"""Going on after deaths, as seen from the notebook: who is left, and that all of them agree on it.

Ranks that live but do not answer would hold up the others for ever, since only those that are dead
can be left out: so what is stopped or does not come back is killed before the others heal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ifog.answers import Waiting
from ifog.errors import ClusterError, IfogError
from ifog.numbers import named
from ifog.status import AFRESH

if TYPE_CHECKING:
    from ifog.line import Line

__all__ = ["Rescue"]

_ANSWER_TIMEOUT = 2.0
_DEATH_TIMEOUT = 5.0
_NEWS = 1.0  # seconds that the news of a death may take
_PAUSE = 0.05
_TELL_EVERY = 0.5


def _silence(line: Line, away: Iterable[int]) -> list[int]:
    """Kill the ranks that are stopped, lost in a cell (``away``) or do not answer; returns them.

    Raises:
        ClusterError: one is still there, because it runs on another machine.
    """
    silent = {*line.stopped, *away} - set(line.dead)
    asked = set(line.living) - silent
    silent |= asked - set(line.ask(asked, "waiting", _ANSWER_TIMEOUT))
    for rank in silent:
        line.kill(rank)
    deadline = time.monotonic() + _DEATH_TIMEOUT
    while left := silent - set(line.dead):
        if time.monotonic() > deadline:
            verb = "does" if len(left) == 1 else "do"
            raise ClusterError(
                f"{named(left)} {verb} not answer and cannot be killed from here; {AFRESH}"
            )
        threading.Event().wait(_PAUSE)
        line.look()
    return sorted(silent)


class Rescue:
    """What a cluster knows about the healing of its ranks.

    Attributes:
        wounded: whether an operation may have been left half done, so that all must heal.
    """

    def __init__(self) -> None:
        self.wounded = False
        self._futures: dict[int, Any] = {}
        self._noticed: set[int] = set()  # deaths after which the ranks were asked what follows
        self._told: Mapping[int, Any] = {}
        self._tell_at = 0.0
        self._inside: set[int] = set()

    def heal(self, line: Line, timeout: float) -> ClusterError | None:
        """Make operations possible again on all living ranks; returns what prevented it."""
        if not self.wounded:
            return None
        try:
            self._healed(line, timeout)
        except ClusterError as error:
            return error
        self.wounded = False
        return None

    def _healed(self, line: Line, timeout: float) -> dict[int, Any]:
        futures = self._futures
        limit = time.monotonic() + _NEWS
        for rank, future in list(futures.items()):
            if future.wait(max(0.0, limit - time.monotonic())):
                del futures[rank]
        # Ranks that were asked earlier and have not answered still wait inside of it.
        asked = [rank for rank in line.living if rank not in futures]
        futures |= {rank: line.apply(rank, "request", "heal") for rank in asked}
        while True:
            for rank in set(futures) & set(line.dead):
                del futures[rank]
            try:
                way = Waiting(explained=True)
                answers = line.gather(futures, timeout, "healing after a stopped cell", way)
            except IfogError as error:
                if all(future.done() for future in futures.values()):
                    futures.clear()
                elif set(futures) & set(line.dead) and not line.broken:
                    continue  # one more died: the others notice and heal without it
                raise ClusterError(str(error)) from error
            futures.clear()
            return answers

    def go_on(self, line: Line, away: Iterable[int], timeout: float) -> str:
        """Let the living go on without the dead, and without those that do not answer.

        Args:
            line: to the ranks.
            away: ranks that did not come back from a cell.
            timeout: seconds in which the living must agree.

        Returns:
            What was done, and what became of the graph.

        Raises:
            ClusterError: they cannot agree.
        """
        killed = _silence(line, away)
        while True:
            known = set(line.dead)
            try:
                answers = self._healed(line, timeout)
            except ClusterError:
                if line.broken or not _more_died(line, known):
                    raise
                continue
            line.look()
            living = line.living
            if not living:
                raise ClusterError(f"all ranks are dead; {AFRESH}")
            if all(list(answers[rank]["alive"]) == living for rank in living if rank in answers):
                break
        line.gone |= set(line.dead)
        self.wounded = False
        told = [f"{named(killed)} did not answer and had to be killed"] if killed else []
        if line.gone:
            goes = "goes on alone" if len(living) == 1 else "go on"
            told.append(f"{named(line.gone)} left out, {named(living)} {goes}")
        if len(living) > 1 or not told:
            told.append(str(answers[living[0]]["graph"]) or "all ranks live and can go on")
        return "; ".join(told)

    def attend(
        self, line: Line, seq: int, left: Mapping[int, str], missing: Collection[int]
    ) -> None:
        """Help ranks that heal within a cell that others have left; does not block.

        Nobody can leave MPI's own agreement about who lives before all are there. So those who had
        said that they come are made to, and then all come to know who left.

        Args:
            line: to the ranks.
            seq: the number of the cell.
            left: who has left it, and why.
            missing: who has not.
        """
        moment = time.monotonic()
        if not left or not missing or moment < self._tell_at:
            return
        self._tell_at = moment + _TELL_EVERY
        inside = {rank for rank, future in self._told.items() if _agrees(future)} & set(missing)
        if inside & self._inside:
            self.wounded = True
            late = (set(left) & set(line.living)) - self._futures.keys()
            self._futures |= {rank: line.apply(rank, "request", "heal") for rank in late}
        self._inside = inside
        living = set(missing) & set(line.living)
        self._told = {rank: line.control(rank, "left", cell=seq, left=left) for rank in living}

    def look_after(self, line: Line, timeout: float) -> None:
        """Go on without ranks that died, if the cells said so; they are asked once a death."""
        self._noticed &= set(line.dead)
        fresh = set(line.dead) - line.gone - self._noticed
        if not fresh or line.broken:
            return
        self._noticed |= fresh
        if _wish_to_go_on(line):
            try:
                self.go_on(line, (), timeout)
            except ClusterError:
                self.wounded = True  # whoever runs the next cell is told


def _agrees(future: Any) -> bool:
    return bool(future.done() and future.result()["content"].get("healing") == "agreeing")


def _more_died(line: Line, known: Collection[int]) -> bool:
    """Whether, in a moment, more ranks are dead than the known ones."""
    deadline, pause = time.monotonic() + _NEWS, threading.Event()
    while set(line.dead) == set(known) and time.monotonic() < deadline:
        pause.wait(_PAUSE)
        line.look()
    return set(line.dead) != set(known)


def _wish_to_go_on(line: Line) -> bool:
    """Whether the cell said, on every rank that lives, what is to follow a death: the others go on.

    Those that have healed already want it, too.
    """
    living = line.living
    answers: Mapping[int, Any] = line.ask(living, "world", _ANSWER_TIMEOUT)
    return len(answers) == len(living) > 0 and all(
        answer.get("on_failure") == "heal" or list(answer["alive"]) == living
        for answer in answers.values()
    )
