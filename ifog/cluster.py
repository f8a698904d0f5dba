"""The notebook's hand on the ranks: start, run, watch, interrupt, heal, stop.

Everything that takes long is looked after by the thread of a ``Keeper``, so that what a person asks
meanwhile is answered.
"""

from __future__ import annotations

import atexit
import itertools
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ifog import respawn
from ifog.cell import Cell, CellResult, Output, RankError, span
from ifog.errors import ArgumentError, ClusterError, IfogError, NoClusterError
from ifog.hosts import placed
from ifog.keeper import Keeper
from ifog.numbers import counted, named
from ifog.stalls import PATIENCE
from ifog.status import ClusterStatus, RankStatus
from ifog.telemetry import EventLog

if TYPE_CHECKING:
    import networkx as nx

    from ifog.line import Line

__all__ = [
    "Cell",
    "CellResult",
    "Cluster",
    "ClusterStatus",
    "Output",
    "RankError",
    "RankStatus",
    "current",
    "start_default",
]

Progress = Callable[[str], None]
_current: Cluster | None = None
_one_at_a_time = threading.Lock()


class Cluster:
    """``n`` MPI ranks under ipyparallel, one a process; also a context manager.

    Attributes:
        n: the number of ranks.
        events: what the ranks report, for dashboards to read at their own pace.
        running: whether the ranks have been started and not stopped.
        sealed: whether ranks talk over shared memory only, so that they listen on no socket; dead
            ones cannot be replaced in place then.
        hosts: the machines on which the ranks run, when there are others than this one: those of
            ``"node1:2,node2:2"`` with ``network="10.0.0.0/24"``, and by default n is their slots.
    """

    def __init__(
        self, n: int | None = None, *, sealed: bool = False, hosts: str = "", network: str = ""
    ) -> None:
        self.n, self.hosts = placed(n, hosts, network, sealed=sealed)
        self.sealed = sealed
        self.events = EventLog()
        self.running = False
        self.started = 0.0
        self._numbers = itertools.count(1)
        self._keeper: Keeper | None = None  # there while the ranks run

    def __enter__(self) -> Cluster:
        return self if self.running else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, progress: Progress | None = None) -> Cluster:
        """Start the ranks; about five seconds for four of them. Returns the cluster itself.

        Args:
            progress: called with short lines about what is going on.

        Raises:
            ClusterError: this process has a cluster already.
            ClusterStartError: the ranks did not come up, twice; carries the launcher's log.
        """
        global _current
        tell = progress or (lambda _: None)
        with _one_at_a_time:
            if _current is not None:
                since = time.strftime("%H:%M:%S", time.localtime(_current.started))
                raise ClusterError(
                    f"a cluster of {counted(_current.n)} has been running since {since}, and a "
                    f"process has one at a time: use it, or stop it first with `%bf stop`"
                )
            from ifog.connecting import connect

            start = partial(connect, self.n, self.events, tell)
            self._keeper = Keeper(start(sealed=self.sealed, hosts=self.hosts))
            self.running, self.started = True, time.time()
            _current = self
            atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """End all ranks and remove their files; does nothing when they are not running.

        Raises:
            ClusterError: processes that could not be killed, by their ids.
        """
        global _current
        if not self.running:
            return
        self.running = False
        left: list[int] = []
        keeper = self._keeper
        if keeper is not None:
            keeper.stop()
            self._keeper = None
            left = keeper.line.stop()
        atexit.unregister(self.stop)
        if _current is self:
            _current = None
        if left:
            raise ClusterError(f"these processes could not be killed: {left}; end them by hand")

    def restart(self, n: int | None = None, progress: Progress | None = None) -> Cluster:
        """Stop, and start fresh ranks; all variables on them are lost."""
        fresh = Cluster(self.n if n is None else n, sealed=self.sealed)
        self.stop()
        self.n = fresh.n
        return self.start(progress)

    def submit(
        self,
        code: str,
        ranks: Sequence[int] | None = None,
        *,
        timeout: float | None = None,
        stall: float = PATIENCE,
    ) -> Cell:
        """Send ``code`` to the ranks and return at once.

        Args:
            code: a notebook cell; ``bf`` and ``torch`` are there without import.
            ranks: who runs it; by default everybody.
            timeout: seconds after which the ranks are stopped.
            stall: seconds a wait may last before it is explained, and ended if it is hopeless.

        Raises:
            NoClusterError: the ranks are not running.
            ArgumentError: a rank that is not in this cluster.
            ClusterError: a rank died or does not come back from an earlier cell.
        """
        chosen, keeper = self._chosen(ranks), self._ready()
        cell = Cell(next(self._numbers), chosen, self, timeout, stall)
        keeper.add(cell)
        keeper.line.execute(cell, code)
        keeper.nudge()
        return cell

    def run(
        self,
        code: str,
        ranks: Sequence[int] | None = None,
        *,
        timeout: float | None = None,
        on_tick: Callable[[], None] | None = None,
    ) -> CellResult:
        """``submit`` and ``wait``; errors of ranks are in the result, not raised."""
        return self.submit(code, ranks, timeout=timeout).wait(on_tick=on_tick)

    def interrupt(self, ranks: Sequence[int] | None = None) -> tuple[int, ...]:
        """Interrupt the running cells, as ``Cell.interrupt`` does; returns the ranks that ran one.

        Raises:
            ClusterError: no rank can be reached.
        """
        chosen, told = set(self._chosen(ranks)), set()
        away = self.require_reachable().away()
        for cell in self.running_cells():
            if busy := chosen & set(cell.missing()):
                cell.interrupt(sorted(chosen))
                told |= busy
        for rank in chosen & away.keys():
            self.send_interrupt([rank], away[rank])
        return tuple(sorted(told | chosen & away.keys()))

    def pull(self, name: str, ranks: Sequence[int] | None = None) -> dict[int, Any]:
        """The value of ``name`` on each rank, with tensors as NumPy arrays.

        Args:
            name: a variable or an expression of variables, such as ``"model.weight"``.
            ranks: where from; by default everywhere. Ranks that died are left out of the default.

        Raises:
            ClusterError: all these ranks died, one does not come back from an earlier cell, or
                ``name`` has no value that can be sent.
        """
        chosen, keeper = self._chosen(ranks), self.require_reachable()
        line = keeper.line
        alive = [rank for rank in chosen if ranks is not None or rank not in line.dead]
        keeper.refuse(alive)
        if not alive:
            raise ClusterError(f"pulling {name}: {keeper.trouble()}")
        return line.call(alive, f"pulling {name}", "pull", name, way=keeper.way())

    def push(self, variables: dict[str, Any], ranks: Sequence[int] | None = None) -> None:
        """Bind ``variables`` on each rank; NumPy arrays arrive as writable NumPy arrays.

        Raises:
            ArgumentError: a name that no variable can have, or a value that cannot be sent; then
                nothing is bound anywhere.
            ClusterError: a rank died or does not come back from an earlier cell.
        """
        bad = [name for name in variables if not str(name).isidentifier()]
        if bad:
            raise ArgumentError(f"{bad[0]!r} cannot be the name of a variable; push identifiers")
        chosen, keeper = self._chosen(ranks), self.require_reachable()
        line = keeper.line
        keeper.refuse(chosen)
        line.require_sendable(variables)
        line.call(chosen, "pushing", "push", variables, way=keeper.way())

    def set_topology(self, topology: str | nx.DiGraph) -> None:
        """Mix over a graph, with its weights, on every rank.

        Args:
            topology: a graph over the ranks, or the name of one, such as ``"ring"``.

        Raises:
            ArgumentError: no such graph over these ranks.
        """
        keeper, task, what = self._ready(), "setting the topology", "set_topology"
        value: Any = topology
        if isinstance(topology, str):
            task = f"{task} {topology!r}"
        else:
            edges = sorted(topology.edges(data="weight", default=1.0))
            what, value = "set_graph", (len(topology), edges)
        try:
            keeper.line.call(keeper.line.living, task, what, value, way=keeper.way())
        except IfogError:
            keeper.wound()
            keeper.heal()
            raise

    def status(self) -> ClusterStatus:
        """Who the ranks are and what they are doing; answers also while they are replaced."""
        keeper = self._keeper
        if keeper is None:
            return ClusterStatus(self.n, False, "", ())
        line = keeper.line
        line.look()
        busy = {rank for cell in keeper.running() for rank in cell.missing()}
        rows = line.rows(busy, keeper.away())
        return ClusterStatus(self.n, True, keeper.trouble(), rows, line.forged, line.devices)

    def send_interrupt(self, ranks: Sequence[int], seq: int) -> None:
        """Interrupt the ranks if they run cell ``seq``; does not block."""
        self.ask(ranks, "interrupt", cell=seq)

    def send_revoke(
        self, ranks: Sequence[int], seq: int, cause: str, *, deep: bool = False
    ) -> None:
        """End waits in cell ``seq`` with an error that names ``cause``; does not block."""
        keeper, lost = self._keeper, {}
        if keeper is not None:
            keeper.wound()
            if cause.startswith(("RankDied", "RankStopped")):
                # The ranks may have healed inside the cell before this news comes.
                lost = {"lost": [*keeper.line.dead, *keeper.line.stopped]}
        self.ask(ranks, "revoke", cell=seq, cause=cause, deep=deep, **lost)

    def nudge(self) -> None:
        """Make the keeper look at the cells now."""
        if self._keeper is not None:
            self._keeper.nudge()

    def ask(self, ranks: Sequence[int], what: str, **content: Any) -> Mapping[int, Any]:
        """Send a request to the ranks' control threads; futures of the answers."""
        line = self._line
        if line is None or line.broken:
            return {}
        return {r: line.control(r, what, **content) for r in ranks if r not in line.dead}

    def busy_elsewhere(self, seq: int) -> Collection[int]:
        """The ranks that run another cell than ``seq``."""
        return {r for cell in self.running_cells() if cell.seq != seq for r in cell.missing()}

    def running_cells(self) -> list[Cell]:
        """The cells that have no result yet."""
        return [] if self._keeper is None else self._keeper.running()

    @property
    def _line(self) -> Line | None:
        return None if self._keeper is None else self._keeper.line

    def _kept(self) -> Keeper:
        if self._keeper is None:
            raise NoClusterError("no cluster is running; start one with `%bf start -n 4`")
        return self._keeper

    def require_reachable(self) -> Keeper:
        """The keeper of ranks that can be reached.

        Raises:
            ClusterError: none can, because what leads to them has ended.
        """
        keeper = self._kept()
        keeper.line.look()
        if keeper.line.broken:
            raise ClusterError(keeper.line.trouble({}))
        return keeper

    def _chosen(self, ranks: Sequence[int] | None) -> tuple[int, ...]:
        line = self._kept().line
        if ranks is None:
            return tuple(rank for rank in range(self.n) if rank not in line.gone)
        if gone := sorted(line.gone & set(ranks)):
            raise ArgumentError(f"{named(gone)} died; the ranks {span(line.living)} live")
        unknown = sorted({rank for rank in ranks if rank not in range(self.n)})
        if unknown or not ranks:
            what = f"ranks {unknown} were" if unknown else "no rank was"
            raise ArgumentError(f"{what} asked for; this cluster has the ranks 0-{self.n - 1}")
        return tuple(sorted(set(ranks)))

    def _ready(self) -> Keeper:
        """The keeper of ranks that can run cells, after healing what an earlier one left.

        Raises:
            ClusterError: a rank died, or does not come back.
        """
        keeper = self._kept()
        keeper.require_ready()
        return keeper

    def heal(self) -> str:
        """Let the living ranks go on without those that died; returns what was done.

        Ranks that are stopped, or do not come back from an earlier cell, are killed first, because
        the others can agree only on who is dead. Variables on the living stay as they are.

        Raises:
            ClusterError: a cell runs, or the living cannot agree.
        """
        keeper = self.require_reachable()
        keeper.require_no_cell()
        return keeper.go_on()

    def respawn(self, state: Sequence[str] = (), progress: Progress | None = None) -> str:
        """Have all ranks again: the living keep their variables; returns what was done.

        Dead ranks are replaced in the living world. Where that cannot be done, all ranks are
        started afresh and get the variables back that those that live could write down.

        Args:
            state: variables that a new rank gets from a neighbour of the dead one.
            progress: called with short lines about what is going on.

        Raises:
            ClusterError: a cell runs, no rank is left, or fresh ranks could not be started.
        """
        from ifog.connecting import connect

        keeper, tell = self.require_reachable(), progress or (lambda _: None)
        line = keeper.line
        if not line.dead and not line.stopped and not keeper.away():
            return "all ranks live"
        respawn.require_one_machine(self.hosts)
        keeper.require_no_cell()
        start = partial(connect, self.n, self.events, tell, sealed=self.sealed)
        with keeper.changing("respawning: ranks that died are being replaced"):
            fresh, told = respawn.replaced(line, self.heal, state, start, tell, sealed=self.sealed)
            if fresh is not line:
                self._keeper = Keeper(fresh)
        if fresh is not line:
            keeper.stop()
        return told


def current() -> Cluster:
    """The running cluster of this process.

    Raises:
        NoClusterError: there is none.
    """
    if _current is None:
        raise NoClusterError("no cluster is running; start one with `%bf start -n 4`")
    return _current


def start_default(n: int = 4, progress: Progress | None = None) -> Cluster:
    """The running cluster, or a fresh one of ``n`` ranks when there is none."""
    return _current if _current is not None else Cluster(n).start(progress)
