"""The thread that looks after running cells, so that every one of them ends.

It enforces deadlines, notices ranks that died, and after a cell that failed anywhere makes the
communicator usable again before the cell counts as done, so that the next one finds all ranks ready
and all variables intact.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ifog.answers import Waiting
from ifog.cell import Cell
from ifog.errors import ClusterError
from ifog.rescue import Rescue
from ifog.status import WAYS_OUT

if TYPE_CHECKING:
    from ifog.line import Line

__all__ = ["Keeper"]

_HEAL_TIMEOUT = 10.0
_RELEASE_TIMEOUT = 1.0
_STOPPED_FOR = 1.0  # seconds after which a cell does not wait for a stopped rank any more
_PULSE = 0.1  # seconds between two looks at running cells
_REST = 0.5  # seconds between two looks while nothing runs


class Keeper:
    """Looks after the cells of the ranks at the other end of one line, until it is stopped.

    Attributes:
        line: to the ranks.
        task: what is done to the ranks themselves just now, so that they can run no cell, or "".
    """

    def __init__(self, line: Line) -> None:
        self.line = line
        self.task = ""
        self._cells: list[Cell] = []
        self._abandoned: list[Cell] = []  # results are there, but a rank has not come back
        self._rescue = Rescue()
        self._lists = threading.Lock()  # never held while anything is waited for
        self._ranks = threading.RLock()  # held while the ranks heal or are replaced
        self._nudged = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="ifog-keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and the cells that still run."""
        self._closing.set()
        self._nudged.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=_HEAL_TIMEOUT)
        for cell in self.running():
            for rank in cell.missing():
                cell.lose(rank, "ClusterStopped", "the cluster was stopped")
            cell.finish(self.line.gone)

    def add(self, cell: Cell) -> None:
        """Look after this cell from now on, too."""
        with self._lists:
            self._cells.append(cell)

    def nudge(self) -> None:
        """Look at the cells now."""
        self._nudged.set()

    def running(self) -> list[Cell]:
        """The cells that have no result yet."""
        with self._lists:
            return list(self._cells)

    def away(self) -> dict[int, int]:
        """Ranks that live but did not end a cell whose result is there, and that cell's number."""
        with self._lists:
            self._abandoned = [cell for cell in self._abandoned if cell.unstoppable()]
            away = {rank: cell.seq for cell in self._abandoned for rank in cell.unstoppable()}
        return {rank: seq for rank, seq in sorted(away.items()) if rank not in self.line.dead}

    def trouble(self) -> str:
        """Why no cell can be run, else ""."""
        if self.task:
            return f"{self.task}; wait until that is done"
        return self.line.trouble(self.away())

    def wound(self) -> None:
        """An operation may have been left half done: all ranks must heal before the next one."""
        self._rescue.wounded = True

    def require_ready(self) -> None:
        """Make sure that the ranks can run cells, after healing what an earlier one left.

        Raises:
            ClusterError: a rank died, or does not come back.
        """
        self.line.look()
        if trouble := self.trouble():
            raise ClusterError(trouble)
        if not self._rescue.wounded:
            return
        if running := self.running():
            numbers = ", ".join(str(cell.seq) for cell in running)
            raise ClusterError(
                f"an earlier cell stopped all communication while cell {numbers} still runs; wait "
                "for it or interrupt it, then all ranks can start afresh"
            )
        if error := self.heal():
            raise error

    def require_no_cell(self) -> None:
        """Refuse to touch the ranks while a cell runs on them.

        Raises:
            ClusterError: one does.
        """
        if running := self.running():
            raise ClusterError(f"cell {running[0].seq} still runs; wait for it or interrupt it")

    def refuse(self, ranks: Sequence[int]) -> None:
        """Refuse requests to ranks that would not answer.

        Raises:
            ClusterError: one does not come back from a cell, or all are being replaced.
        """
        if self.task or set(ranks) & set(self.away()):
            raise ClusterError(self.trouble())

    def way(self) -> Waiting:
        """How to wait for the answers to requests outside of cells."""
        return Waiting(self._in_a_cell, self._release, explained=True)

    def _in_a_cell(self, rank: int) -> bool:
        """Whether the rank still runs a cell, behind which requests to it wait."""
        self.refuse([rank])
        return any(rank in cell.missing() for cell in self.running())

    def _release(self, ranks: Sequence[int], cause: str) -> None:
        """End waits outside of cells with an error that names ``cause``."""
        self.wound()
        self.line.ask(ranks, "revoke", _RELEASE_TIMEOUT, cell=None, cause=cause)

    def heal(self, timeout: float = _HEAL_TIMEOUT) -> ClusterError | None:
        """Make the communicator usable again on all ranks; returns what prevented it."""
        with self._ranks:
            return self._rescue.heal(self.line, timeout)

    def go_on(self) -> str:
        """Let the living go on without the dead and the lost; returns what was done.

        Raises:
            ClusterError: they cannot agree.
        """
        with self._ranks:
            told = self._rescue.go_on(self.line, self.away(), _HEAL_TIMEOUT)
            with self._lists:
                self._abandoned = []  # whoever was lost in a cell is dead now, and may come anew
        return told

    @contextmanager
    def changing(self, task: str) -> Iterator[None]:
        """Keep the ranks for oneself; ``task`` says to others why."""
        with self._ranks:
            self.task = task
            try:
                yield
            finally:
                self.task = ""

    def _keep(self) -> None:
        while not self._closing.is_set():
            self._nudged.wait(_PULSE if self._cells else _REST)
            self._nudged.clear()
            self.line.look()
            for cell in self.running():
                try:
                    self._look_after(cell)
                except Exception as error:  # whatever goes wrong on this side, the cell ends
                    self._break_off(cell, error)
            if not self.running() and not self.task:
                self._look_after_deaths()

    def _look_after(self, cell: Cell) -> None:
        for rank in cell.missing():
            self._account(cell, rank)
        if cell.step():
            self._settle(cell)
        else:
            self.line.tell_pace(cell)
            self._rescue.attend(self.line, cell.seq, cell.left(), cell.missing())

    def _break_off(self, cell: Cell, error: Exception) -> None:
        with self._lists:
            if cell in self._cells:
                self._cells.remove(cell)
        self.wound()
        cell.break_off(error)

    def _look_after_deaths(self) -> None:
        with self._ranks:
            self._rescue.look_after(self.line, _HEAL_TIMEOUT)

    def _account(self, cell: Cell, rank: int) -> None:
        """Let a cell not wait for a rank that died or is stopped."""
        line = self.line
        if line.broken:
            cell.lose(rank, "Unreachable", line.trouble({}))
        elif rank in line.dead:
            cell.lose(rank, "RankDied", f"{line.dead[rank]}; {WAYS_OUT}")
        elif time.monotonic() - line.stopped.get(rank, math.inf) > _STOPPED_FOR:
            cell.lose(rank, "RankStopped", line.trouble({}))

    def _settle(self, cell: Cell) -> None:
        with self._lists:
            self._cells.remove(cell)
            if cell.unstoppable():
                self._abandoned.append(cell)
        if cell.troubled():
            self.wound()
        if not self.running():
            self._look_after_deaths()
        gone = self.trouble() or cell.unstoppable()
        if self._rescue.wounded and not gone and not self.running():
            self.heal(cell.healing_time(_HEAL_TIMEOUT))
        cell.finish(self.line.gone)
