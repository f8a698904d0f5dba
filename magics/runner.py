"""Runs cells on the cluster of this notebook, and knows which of them still run."""

from __future__ import annotations

import contextvars
import importlib
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifog.errors import CellError, ClusterError, DeadlineError, IfogError, NoClusterError
from ifog.magics.failures import failures, message
from ifog.magics.live import Display, Live, Screen, notice
from ifog.magics.options import CellOptions, parse_ranks
from ifog.magics.report import report_of
from ifog.magics.source import prepare
from ifog.numbers import counted, duration, rank_ranges
from ifog.presses import Presses
from ifog.telemetry import now

if TYPE_CHECKING:
    from ifog.cluster import Cell, CellResult, Cluster
    from ifog.recordings import Recording

__all__ = ["DEFAULT_RANKS", "Runner"]

DEFAULT_RANKS = 4


class Runner:
    """What ``%%bf`` and ``%bf`` share.

    Args:
        shell: the IPython shell of the notebook.
        screen: where to show things.
        home: what has ``current`` and ``Cluster``; by default the module ``ifog.cluster``.
    """

    def __init__(self, shell: Any, screen: Screen, home: Any = None) -> None:
        self.shell = shell
        self.screen = screen
        self.names: set[str] = set()
        self.saved: Path | None = None  # where %bf save kept variables last
        self.last: CellResult | None = None
        self.recording: Recording | None = None
        self._home = home
        self._running: list[Cell] = []

    @property
    def home(self) -> Any:
        """Where clusters come from; loaded late, because ``%load_ext`` must be quick."""
        if self._home is None:
            self._home = importlib.import_module("ifog.cluster")
        return self._home

    def cluster(self) -> Cluster:
        """The running cluster.

        Raises:
            NoClusterError: there is none.
        """
        return self.home.current()  # type: ignore[no-any-return] # home may be a stand-in

    def size(self) -> int:
        """The number of ranks that ``cluster_or_default`` has or would start."""
        try:
            return self.cluster().n
        except NoClusterError:
            return DEFAULT_RANKS

    def cluster_or_default(self) -> Cluster:
        """The running cluster, or a new one of four ranks, which is then said."""
        try:
            return self.cluster()
        except NoClusterError:
            why = "no cluster was running; %bf start -n N chooses another number"
            return self.start(DEFAULT_RANKS, why)

    def start(self, n: int | None, why: str = "", **options: Any) -> Cluster:
        """Start a cluster of ``n`` ranks, telling the progress and, in brackets, ``why``.

        ``options`` are those of ``Cluster``, and None is its default.
        """
        cluster: Cluster = self.home.Cluster(n, **options)
        self._launch(cluster, cluster.start, f"started{f' ({why})' if why else ''}")
        return cluster

    def restart(self) -> None:
        """Give the cluster fresh ranks, telling the progress."""
        cluster = self.cluster()
        saved = f"; the last checkpoint: %bf load {self.saved}" if self.saved else ""
        self._launch(cluster, cluster.restart, f"restarted, without variables{saved}")

    def _launch(self, cluster: Cluster, launch: Callable[..., Any], done: str) -> None:
        begun = now()
        display: Display | None = None

        def show(word: str, text: str) -> None:
            nonlocal display
            strip = notice(word, text, duration(now() - begun))
            if display is None:
                display = self.screen.show(*strip)
            elif self.screen.moves or word != "starting":
                display.update(*strip)

        try:
            launch(progress=lambda step: show("starting", step))
        except (IfogError, KeyboardInterrupt) as error:
            if display is not None:  # a launch that was refused shows its message only
                show("stopped", type(error).__name__)
            raise
        show("done", f"{counted(cluster.n)} {done}")

    def require_idle(self, ranks: Iterable[int], what: str) -> None:
        """Refuse to use ranks on which a ``--no-wait`` cell still runs.

        Raises:
            ClusterError: one does; the message names it.
        """
        self._running = [cell for cell in self._running if not cell.done()]
        wanted = set(ranks)
        for cell in self._running:
            busy = wanted & set(cell.ranks)
            if busy:
                raise ClusterError(
                    f"{what} needs rank{'s' * (len(busy) > 1)} {rank_ranges(busy)}, on which a "
                    f"--no-wait cell still runs (its ranks: {rank_ranges(cell.ranks)}); wait for "
                    "it, stop it with %bf interrupt, or choose other ranks"
                )

    def run(self, options: CellOptions, code: str) -> None:
        """Run a cell's body and show what comes of it.

        Raises:
            CellError: the code is no Python, or a rank raised.
            KeyboardInterrupt: the cell was interrupted.
        """
        source = prepare(code, self.shell.transform_cell)
        cluster = self.cluster_or_default()
        ranks = parse_ranks(options.ranks, cluster.n)
        self.require_idle(ranks or range(cluster.n), "%%bf")
        cursor, _ = cluster.events.since(sys.maxsize)
        extra = {} if options.stall is None else {"stall": options.stall}
        cell = cluster.submit(source.code, ranks, timeout=options.timeout, **extra)
        self.names |= source.names
        live = Live(self.screen, cell, cluster.n, cluster.events, cursor)
        if options.wait:
            self._watch(live, cell)
            return
        self._running.append(cell)
        live.tick()
        context = contextvars.copy_context()  # knows below which cell to display
        threading.Thread(target=context.run, args=(self._follow, live, cell), daemon=True).start()

    def _watch(self, live: Live, cell: Cell) -> None:
        with Presses() as presses:  # none may cost the result once it is there
            try:
                result = cell.wait(on_tick=live.tick)
            except (IfogError, KeyboardInterrupt) as error:
                live.abandon(error)
                raise
            self.last = result
            live.finish(result)
            presses.late = result.status == "interrupted"
        failure = _exception(result)
        if failure is not None:
            raise failure

    def _follow(self, live: Live, cell: Cell) -> None:
        """Keep the display of a cell that nobody waits for; its errors show there."""
        try:
            self.last = cell.wait(on_tick=live.tick)
            live.finish(self.last)
        except IfogError as error:
            live.abandon(error)


def _exception(result: CellResult) -> BaseException | None:
    """What a cell raises in the notebook: the whole story for programs, a word for the eye."""
    if result.status == "ok":
        return None
    error: BaseException
    report = report_of(result)
    told = [] if report is None else [report.headline]
    if result.status == "interrupted" and not failures(result.errors):
        error = KeyboardInterrupt(" ".join([*told, *([] if report is None else [report.ending])]))
    else:
        told += [message(result.errors)] if result.status != "stalled" else []
        kind = DeadlineError if result.status == "timeout" else CellError
        error = kind("\n".join(filter(None, told)))
    line = f"\x1b[1m{type(error).__name__}\x1b[0m, told above"
    vars(error)["_render_traceback_"] = lambda: [line]
    return error
