"""One rank's place in the world: who it is, which graph it mixes over, and what it reports.

The current context is looked up in a context variable first and in the process second, so that
thread ranks in tests each have their own while notebooks and scripts never think of it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx

from ifog import topology as graphs
from ifog.errors import ArgumentError, NotInitializedError, ParticipationError
from ifog.handle import Progress
from ifog.healing import Healing
from ifog.layout import Layout, arranged
from ifog.numbers import rank_ranges
from ifog.rounds import Schedule
from ifog.survival import surviving_share
from ifog.telemetry import (
    CellEnd,
    CellStart,
    Event,
    GraphEvent,
    Sink,
    Tee,
    WaitEvent,
    now,
    reporter,
)
from ifog.transport.base import Transport
from ifog.watching import Watcher
from ifog.weights import Weights, of_rank

if TYPE_CHECKING:
    from ifog.devices import Arriving, Devices
    from ifog.plans import Plan
    from ifog.posting import Posting
    from ifog.recorder import Timeline
    from ifog.windows import Window

__all__ = [
    "Context",
    "current",
    "init",
    "is_initialized",
    "rank",
    "shutdown",
    "size",
]

_MIXING = ("neighbor_", "hierarchical_", "pair_", "win_update")


class Context:
    """What the operations of one rank share."""

    def __init__(self, transport: Transport, sink: Sink | None = None) -> None:
        self.transport = transport
        self.progress = Progress(transport)
        self.sink = sink
        self.watcher = Watcher(self)
        self.participants = transport.alive
        self.in_flight: set[str] = set()
        self.windows: dict[str, Window] = {}
        self.windows_carry_p = False
        self.timeline: Timeline | None = None
        self.devices: Devices | None = None  # made when a tensor of one is first used
        self.arriving: list[Arriving] = []  # copies that the next operation waits for
        self.before: Callable[[str], None] | None = None  # called as each operation starts
        self.cell = 0  # 0: between cells
        self.healed = 0
        self.healing = Healing(self)
        self.posting: Posting | None = None  # made when first needed
        self.on_failure: Literal["stop", "heal"] = "stop"
        self._seq = 0
        self._present: tuple[Any, Any, frozenset[int]] = (None, None, frozenset())
        self._clear_cell()
        self._between = self.unnamed
        self.install(graphs.exponential(transport.size), weighted=False)
        self.arrange(arranged(transport.machines, warn=transport.rank == 0))

    @property
    def rank(self) -> int:
        """This rank."""
        return self.transport.rank

    @property
    def size(self) -> int:
        """The number of ranks, dead ones included: the largest number of one, plus 1."""
        return self.transport.size

    @property
    def alive(self) -> tuple[int, ...]:
        """The ranks that live, as far as healing has found out, ascending."""
        return self.transport.alive

    @property
    def device_way(self) -> str:
        """How tensors of devices travel, in words; empty until one is used."""
        return "" if self.devices is None else self.devices.describe()

    def install(
        self, graph: nx.DiGraph, *, weighted: bool, schedule: Schedule | None = None
    ) -> None:
        """Use ``graph`` on this rank from now on; comparing it across ranks is the caller's part.

        Where ranks are dead, ``graph`` is what ``surviving`` leaves of ``declared``. With a
        ``schedule``, averages without weights of their own follow its rounds; ``graph`` then stands
        for all of them.

        Raises:
            ArgumentError: the graph does not fit this world.
        """
        graphs.check(graph, self.size)
        if self.posting is not None:
            self.posting.part()
        self.static_plan: Plan | None = None  # made when first asked for
        self.declared, self.weighted, self.schedule = graph, weighted, schedule
        self.survival = surviving_share(graph, weighted, self.alive)
        self.graph = graph if self.survival is None else self.survival.graph
        self.evenly = not weighted and self.survival is None
        self.weights: Weights = of_rank(self.graph, self.rank, weighted=not self.evenly)
        if self.rank == self.alive[0]:
            self.emit_graph()

    def arrange(self, layout: Layout) -> None:
        """Take the machines of ``layout`` as those of the ranks; their graph is not set yet."""
        self.layout = layout.without(set(range(self.size)) - set(self.alive))
        self.machine_graph: nx.DiGraph | None = None
        self.declared_machines: nx.DiGraph | None = None
        self.machine_weighted = self.machines_evenly = False

    def install_machines(self, graph: nx.DiGraph, *, weighted: bool) -> None:
        """Mix machines over ``graph`` from now on; checking and comparing is the caller's part."""
        self.declared_machines, self.machine_weighted = graph, weighted
        survival = surviving_share(graph, weighted, tuple(self.layout.leaders()))
        self.machine_graph = graph if survival is None else survival.graph
        self.machines_evenly = evenly = not weighted and survival is None
        mine = self.layout.machines[self.rank]
        self.machine_weights = of_rank(self.machine_graph, mine, weighted=not evenly)

    def emit_graph(self) -> None:
        """Tell the watchers which graph is declared, with the weights that are in force."""
        edges = []
        for v in range(self.size):
            row = of_rank(self.graph, v, weighted=not self.evenly)
            edges.append((v, v, float(row.self_weight)))
            edges += [(u, v, float(w)) for u, w in row.src.items()]
        label = str(self.graph.graph.get("label", "custom"))
        self.emit(GraphEvent(self.rank, now(), self.size, label, tuple(edges)))

    def _clear_cell(self) -> None:
        self.steps: Counter[tuple[str, str]] = Counter()
        self.unnamed: Counter[str] = Counter()
        self.round = 0
        self.logged = 0
        self.nbytes = 0
        self.wait = 0.0
        self.lost = 0
        self.watcher.clear()

    def begin_cell(self, seq: int, ranks: Sequence[int]) -> None:
        """Start counting anew for cell ``seq``, in which ``ranks`` take part."""
        if not self.cell:
            self._between = self.unnamed
        self.cell = seq
        self.participants = tuple(sorted(ranks))
        self._clear_cell()
        self.emit(CellStart(self.rank, now(), seq, self.size, self.participants))

    def end_cell(self, status: str, error: dict[str, Any] | None) -> None:
        """Report the cell's end; afterwards all ranks take part again."""
        self.watcher.flush()
        counts = (self.round, self.nbytes, self.wait, self.lost)
        self.emit(CellEnd(self.rank, now(), self.cell, status, *counts, error))
        # What all ranks do between cells must match also where some of them left out a cell.
        self.cell, self.unnamed = 0, self._between
        self.participants, self.healing.left = self.alive, {}

    @property
    def sink(self) -> Sink | None:
        """Where events go, or None."""
        return self._sink

    @sink.setter
    def sink(self, sink: Sink | None) -> None:
        self._sink = sink
        self.report = reporter(sink)

    def attach(self, sink: Sink) -> None:
        """Send the events to ``sink`` too."""
        self.sink = sink if self.sink is None else Tee((*_sinks(self.sink), sink))

    def detach(self, sink: Sink) -> None:
        """Send no more events to ``sink``."""
        left = [other for other in _sinks(self.sink) if other is not sink]
        self.sink = Tee(left) if len(left) > 1 else left[0] if left else None

    def emit(self, event: Event) -> None:
        """Hand the event to the sink, if there is one."""
        if self.sink is not None:
            self.sink.write((event,))

    def next_op(self) -> int:
        """The running number of this rank's next operation."""
        self._seq += 1
        return self._seq

    def step_of(self, op: str, name: str) -> int:
        """The number of earlier operations of this kind and name in the cell."""
        step = self.steps[op, name]
        self.steps[op, name] = step + 1
        return step

    def finished(self, op: str, step: int, nbytes: int, wait: float) -> None:
        """Count a finished operation."""
        self.nbytes += nbytes
        self.wait += wait
        if op.startswith(_MIXING):
            self.round = max(self.round, step + 1)

    def require(self, peers: Sequence[int], op: str) -> None:
        """Check that all ``peers`` exist and take part in the running cell.

        Raises:
            ArgumentError: a peer is no rank of this world.
            ParticipationError: a peer is dead or not in this cell.
        """
        if self._present[:2] != (self.alive, self.participants):
            present = frozenset(self.alive).intersection(self.participants)
            self._present = self.alive, self.participants, present
        if self._present[2].issuperset(peers):
            return
        for peer in peers:
            if not 0 <= peer < self.size:
                raise ArgumentError(
                    f"{op} on rank {self.rank} names rank {peer}, but the ranks are "
                    f"0..{self.size - 1}"
                )
            if peer not in self.alive:
                raise ParticipationError(
                    f"{op} on rank {self.rank} needs rank {peer}, which is dead; name only the "
                    f"ranks {rank_ranges(self.alive)} (bf.alive_ranks())"
                )
            if peer not in self.participants:
                here = ",".join(map(str, self.participants))
                raise ParticipationError(
                    f"{op} on rank {self.rank} needs rank {peer}, which is not in this cell "
                    f"(ranks {here}); run %%bf on all ranks"
                )

    def waiting(self) -> WaitEvent | None:
        """What this rank is blocked in at this moment; safe from any thread."""
        return self.progress.waiting(self.rank)

    def abort(self, cause: str, lost: Collection[int] | None = None) -> None:
        """Wake every rank that waits: this one failed, or the ranks ``lost`` did.

        Does nothing when the others have already healed without those.
        """
        if lost is None:
            self.transport.abort(cause)
        elif here := sorted(set(lost) & set(self.alive)):
            self.transport.abort(cause, here[0])

    def heal(self) -> None:
        """Make operations possible again after an abort or a death; every living rank must call it.

        Without the ranks that died, which all that live agree on, the graph is thinned out by
        ``surviving``, machines count who is left, and windows are gone.
        """
        self.healing.heal()

    def adapt(self) -> None:
        """Fit everything that depends on who lives to the ranks that do."""
        here = self.participants if self.cell else self.alive
        self.participants = tuple(rank for rank in here if rank in self.alive)
        for window in list(self.windows.values()):
            window.abandon()
        graph, weighted = self.declared_machines, self.machine_weighted
        self.arrange(self.layout)
        if graph is not None:
            self.install_machines(graph, weighted=weighted)
        self.install(self.declared, weighted=self.weighted, schedule=self.schedule)


def _sinks(sink: Sink | None) -> tuple[Sink, ...]:
    if sink is None:
        return ()
    return sink.sinks if isinstance(sink, Tee) else (sink,)


_of_task: ContextVar[Context | None] = ContextVar("ifog_context", default=None)
_of_process: Context | None = None


def current() -> Context:
    """The context of this rank.

    Raises:
        NotInitializedError: before ``ifog.init()``.
    """
    context = _of_task.get() or _of_process
    if context is None:
        raise NotInitializedError(
            "ifog is not initialised in this process: call ifog.init(), or run the code on the "
            "ranks in a %%bf cell"
        )
    return context


def use(context: Context | None) -> None:
    """Make ``context`` the one of this thread or task."""
    _of_task.set(context)


def enter(context: Context) -> None:
    """Make ``context`` the one of this process, which has none yet."""
    global _of_process
    _of_process = context


def is_initialized() -> bool:
    """Whether this process is a rank."""
    return (_of_task.get() or _of_process) is not None


def init(topology_fn: Callable[[int], nx.DiGraph] | None = None, is_weighted: bool = False) -> None:
    """Make this process a rank; called again, only set the topology anew.

    Under ``mpiexec`` (or as an engine of ``ifog.Cluster``) the rank is the MPI rank; started alone,
    the process is the only rank. In ``%%bf`` cells this has been done already. While there are
    windows the topology stays as it is; so does the machines' unless the machines change.

    Args:
        topology_fn: number of ranks -> graph; by default the exponential graph.
        is_weighted: whether averaging uses the graph's weights instead of 1/(indegree + 1).

    Raises:
        ArgumentError: ``IFOG_RANKS_PER_MACHINE`` is not a positive integer.
    """
    global _of_process
    if not is_initialized():
        _of_process = Context(_transport())
        if os.environ.get("IFOG_TIMELINE"):
            from ifog.recorder import timeline

            timeline(os.environ["IFOG_TIMELINE"])
    context = current()
    layout = arranged(context.transport.machines, warn=False)
    if layout.machines != context.layout.machines:
        context.arrange(layout)
    if not context.windows:
        make = topology_fn or graphs.exponential
        context.install(make(context.size), weighted=is_weighted)


def _transport() -> Transport:
    if "OMPI_COMM_WORLD_SIZE" in os.environ or "PMI_SIZE" in os.environ:
        from ifog.transport.shm import SharedTransport

        return SharedTransport.world()
    from ifog.transport.local import LocalHub

    return LocalHub(1).transport(0)


def shutdown() -> None:
    """Forget this rank's context; operations then ask for ``init`` again."""
    global _of_process
    context = _of_task.get() or _of_process
    if context is not None:
        if context.posting is not None:
            context.posting.close()
        context.progress.fail_all(NotInitializedError("the operation was under way at shutdown()"))
    if context is not None and context.timeline is not None:
        context.timeline.stop()
    if context is not None and context.devices is not None:
        context.devices.close()
    if _of_task.get() is not None:
        _of_task.set(None)
    elif _of_process is not None:
        _of_process.transport.close()
        _of_process = None


def rank() -> int:
    """This rank, from 0 to ``size() - 1``."""
    return current().rank


def size() -> int:
    """The number of ranks the world began with; ``alive_ranks`` says which of them live."""
    return current().size
