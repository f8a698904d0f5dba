"""Stand-ins for a cluster, its cells and a screen, for tests of the magics without ranks."""

from __future__ import annotations

import time
from types import SimpleNamespace

from ifog.cell import CellResult
from ifog.errors import ArgumentError, ClusterError, NoClusterError
from ifog.telemetry import EventLog


class FakeCell:
    """Ends when it is told to, with what it was told."""

    def __init__(self, seq, code, ranks, timeout):
        self.seq, self.code, self.ranks, self.timeout = seq, code, ranks, timeout
        self.started = time.time()
        self.outputs = []
        self.status, self.errors, self.stall, self.stopping = "ok", {}, None, ""
        self.finished, self.explained = {}, None
        self.held = False

    def done(self):
        return not self.held

    def wait(self, on_tick):
        deadline = time.monotonic() + 10
        while self.held:
            assert time.monotonic() < deadline, "nobody let the cell end"
            on_tick()
        on_tick()
        return CellResult(
            self.seq,
            self.ranks,
            0.5,
            0,
            0,
            0.0,
            self.status,
            self.errors,
            tuple(self.outputs),
            self.finished,
            self.explained,
        )

    def why(self):
        return self.stall


def go(cell):
    cell.held = False


def hold(cell):
    cell.held = True


class FakeAnswer:
    def __init__(self, content):
        self._content = content

    def wait(self, _):
        return self._content is not None

    def result(self):
        return {"content": self._content}


class FakeCluster:
    def __init__(self, n, home):
        self.n, self.events, self.running, self.home = n, EventLog(), False, home
        self.cells, self.calls, self.variables = [], [], {}
        self.prepare, self.answers = go, {}

    def start(self, progress):
        if self.home.cluster is not None and self.home.cluster.running:
            raise ClusterError("a cluster of 4 ranks is running; stop it first with %bf stop")
        progress("connecting")
        self.running, self.home.cluster = True, self

    def submit(self, code, ranks=None, *, timeout=None, stall=1.0):
        chosen = tuple(range(self.n)) if ranks is None else tuple(ranks)
        cell = FakeCell(len(self.cells) + 1, code, chosen, timeout)
        cell.patience = stall
        self.prepare(cell)
        self.cells.append(cell)
        return cell

    def pull(self, name, ranks=None):
        return {r: self.variables[name][r] for r in ranks or range(self.n)}

    def push(self, variables, ranks=None):
        self.calls.append(("push", variables, ranks))

    def set_topology(self, label):
        self.calls.append(("topology", label))

    def status(self):
        return SimpleNamespace(__str__=lambda _: "fine")

    def stop(self):
        self.running = False
        self.calls.append(("stop",))

    def restart(self, progress):
        progress("connecting")
        self.calls.append(("restart",))

    def running_cells(self):
        return [cell for cell in self.cells if cell.held]

    def require_reachable(self):
        pass

    def ask(self, ranks, what, **content):
        self.calls.append((what, tuple(ranks), content))
        return {rank: FakeAnswer(self.answers[rank]) for rank in ranks if rank in self.answers}

    def interrupt(self, ranks=None):
        self.calls.append(("interrupt", ranks))
        told = [rank for cell in self.running_cells() for rank in cell.ranks]
        for cell in self.cells:
            cell.held = False
        return tuple(rank for rank in told if ranks is None or rank in ranks)


class FakeHome:
    """Stands in for the module ``ifog.cluster``."""

    def __init__(self):
        self.cluster = None

    def current(self):
        if self.cluster is None or not self.cluster.running:
            raise NoClusterError("no cluster is running; type %bf start")
        return self.cluster

    def Cluster(self, n):  # noqa: N802 - the name of what it stands for
        if n < 1:
            raise ArgumentError(f"a cluster of {n} ranks was asked for; choose a number from 1 on")
        return FakeCluster(n, self)


class RecordingScreen:
    moves = True

    def __init__(self):
        self.displays = []

    def show(self, html, text):
        self.displays.append(SimpleNamespace(text=text, html=html))
        display = self.displays[-1]
        display.update = lambda html, text: vars(display).update(html=html, text=text)
        return display

    @property
    def text(self):
        return "\n".join(display.text for display in self.displays)


def given(monkeypatch, module, answers):
    """Jobs give these answers in turn; the numbers of ranks that they were asked to have."""
    asked, coming = [], iter(answers)

    def measure(bench, ranks, program, **options):
        asked.append(ranks)
        return next(coming)

    monkeypatch.setattr(module, "measure", measure)
    return asked
