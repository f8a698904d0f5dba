"""The commands of ``%bf``: each reads its words, asks the cluster, and says what it did."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ifog.errors import ArgumentError, ClusterError, NoClusterError
from ifog.magics.chaos import chaos
from ifog.magics.options import closest, parse_ranks, split_options, whole
from ifog.magics.records import switch
from ifog.magics.runner import DEFAULT_RANKS, Runner
from ifog.magics.saves import load, save
from ifog.magics.stuck import interrupt, stacks, why
from ifog.magics.survival import heal, respawn
from ifog.magics.wiring import use_drawn
from ifog.numbers import counted, rank_ranges

__all__ = ["COMMANDS", "PANELS", "command"]

_START = "start [-n 4] [--sealed] [--hosts a:2,b:2 --network 10.0.0.0/24]"
_WIDTH = 28  # of the commands in the help
PANELS = (
    "graph",
    "consensus",
    "timeline",
    "throughput",
    "training",
    "traffic",
    "spectrum",
    "watch",
    "waiting",
)


def command(runner: Runner, line: str) -> None:
    """Do what a ``%bf`` line says.

    Raises:
        ArgumentError: no such command, or not its words.
        ClusterError: the cluster cannot do it now.
    """
    name, _, rest = line.strip().partition(" ")
    name = name or "help"
    if name not in COMMANDS:
        raise ArgumentError(
            f"%bf has no command {name!r}{closest(name, list(COMMANDS))}; %bf help lists them"
        )
    COMMANDS[name][0](runner, rest)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _words(line: str, usage: str, options: Mapping[str, bool]) -> tuple[list[str], dict[str, str]]:
    return split_options(line, options, f"%bf {usage}")


def _no_words(line: str, usage: str) -> None:
    plain, _ = _words(line, usage, {})
    if plain:
        raise ArgumentError(f"%bf {usage} takes nothing more, found {plain[0]!r}")


def _start(runner: Runner, line: str) -> None:
    takes = {"-n": True, "--sealed": False, "--hosts": True, "--network": True}
    plain, found = _words(line, _START, takes)
    if plain:
        raise ArgumentError(f"%bf start does not take {plain[0]!r}. Usage: %bf {_START}")
    options: dict[str, Any] = {"sealed": True} if "--sealed" in found else {}
    options |= {name: found[f"--{name}"] for name in ("hosts", "network") if f"--{name}" in found}
    default = None if "hosts" in options else DEFAULT_RANKS
    runner.start(whole(found["-n"], "-n") if "-n" in found else default, **options)


def _stop(runner: Runner, line: str) -> None:
    _no_words(line, "stop")
    cluster = runner.cluster()
    cluster.stop()
    _say(f"{counted(cluster.n)} stopped; the variables are gone")


def _restart(runner: Runner, line: str) -> None:
    _no_words(line, "restart")
    runner.restart()


def _status(runner: Runner, line: str) -> None:
    _no_words(line, "status")
    _say(str(runner.cluster().status()))


def _topology(runner: Runner, line: str) -> None:
    from ifog import schedules, topology

    words, found = _words(line, "topology NAME", {"--from-widget": False})
    if found and not words:
        _say(use_drawn(runner))
        return
    label = "_".join(words)
    if not label:
        raise ArgumentError(
            f"%bf topology NAME, with one of: {', '.join(topology.names())}; or a schedule, such "
            "as one_peer, base, matcha_grid (Tab shows all)"
        )
    schedules.named(label, runner.size())  # a wrong name starts no cluster
    cluster = runner.cluster_or_default()
    report = topology.report(label, cluster.n)
    runner.require_idle(range(cluster.n), "%bf topology")
    cluster.set_topology(label)
    _say(report.summary())


def _pull(runner: Runner, line: str) -> None:
    usage = "pull NAME [--ranks 0,2:4]"
    names, found = _words(line, usage, {"--ranks": True})
    wrong = [name for name in names if not name.isidentifier()]
    if not names or wrong:
        text = f"{wrong[0]!r} is not the name of a variable." if wrong else "which variable?"
        raise ArgumentError(f"{text} Usage: %bf {usage}")
    cluster = runner.cluster()
    ranks = parse_ranks(found.get("--ranks"), cluster.n)
    runner.require_idle(ranks or range(cluster.n), "%bf pull")
    for name in names:
        values = cluster.pull(name, ranks)
        everyone = list(values) == list(range(cluster.n))
        runner.shell.user_ns[name] = list(values.values()) if everyone else values
        form = f"a list, {name}[rank]" if everyone else "a dictionary by rank"
        _say(f"{name}: {form}, from rank{'s' * (len(values) != 1)} {rank_ranges(values)}")


def _push(runner: Runner, line: str) -> None:
    usage = "push NAME... [--ranks 0,2:4]"
    names, found = _words(line, usage, {"--ranks": True})
    if not names:
        raise ArgumentError(f"which variables? Usage: %bf {usage}")
    namespace = runner.shell.user_ns
    for name in names:
        if name not in namespace:
            visible = [known for known in namespace if not known.startswith("_")]
            raise ArgumentError(f"the notebook has no variable {name!r}{closest(name, visible)}")
    cluster = runner.cluster_or_default()
    ranks = parse_ranks(found.get("--ranks"), cluster.n)
    runner.require_idle(ranks or range(cluster.n), "%bf push")
    cluster.push({name: namespace[name] for name in names}, ranks)
    runner.names |= set(names)
    where = range(cluster.n) if ranks is None else ranks
    _say(f"{', '.join(names)}: copied to rank{'s' * (len(where) != 1)} {rank_ranges(where)}")


def _dashboard(runner: Runner, line: str) -> None:
    from IPython.display import display

    names, _ = _words(line, "dashboard [PANEL...]", {})
    for name in names:
        if name not in PANELS:
            raise ArgumentError(
                f"there is no panel {name!r}{closest(name, PANELS)}; %bf dashboard shows all, or "
                f"those of {', '.join(PANELS)} that are named"
            )
    try:
        widgets = importlib.import_module("ifog.widgets")
    except ImportError as error:
        raise ClusterError(
            f"%bf dashboard needs {error.name}, which is not installed; "
            "type %pip install 'ifog[lab]' and restart the kernel"
        ) from None
    panels = [widgets.PANELS[name] for name in names] or None
    dashboard: Any = widgets.Dashboard(runner.cluster_or_default(), panels)
    runner.shell.user_ns["bf_dashboard"] = dashboard
    display(dashboard)  # type: ignore[no-untyped-call]


def _help(runner: Runner, line: str) -> None:
    del line
    lines = [_explained(usage, what) for _, usage, what in COMMANDS.values()]
    lines.append("  %%bf [--ranks 0,2:4] [--timeout S] [--stall S] [--no-wait]   run the cell")
    try:
        lines.append(f"{runner.cluster().n} ranks are running.")
    except NoClusterError:
        lines.append("No cluster is running: %bf start, or simply run a %%bf cell.")
    _say("\n".join(lines))


def _explained(usage: str, what: str) -> str:
    column = f"  %bf {usage:<{_WIDTH}}"
    if len(usage) < _WIDTH:
        return column + what
    return f"{column}\n{'':{len('  %bf ') + _WIDTH}}{what}"


COMMANDS: Mapping[str, tuple[Callable[[Runner, str], None], str, str]] = {
    "start": (_start, _START, "start n ranks; sealed: no sockets"),
    "stop": (_stop, "stop", "end it; its variables are gone"),
    "restart": (_restart, "restart", "the same number of ranks, without variables"),
    "status": (_status, "status", "the ranks and what they do"),
    "topology": (
        _topology,
        "topology NAME",
        "mix over this graph: ring, ...; --from-widget: as drawn",
    ),
    "pull": (_pull, "pull NAME [--ranks 0,2:4]", "bring a variable of the ranks here"),
    "push": (_push, "push NAME...", "copy variables of the notebook to the ranks"),
    "dashboard": (_dashboard, "dashboard [PANEL...]", f"live panels: {', '.join(PANELS)}"),
    "record": (switch, "record on|off [PATH]", "keep what happens in a file for ifog.replay"),
    "why": (why, "why", "who waits for whom, now or when the last cell ended"),
    "stacks": (stacks, "stacks [RANKS] [--all]", "where the ranks are in their code"),
    "interrupt": (interrupt, "interrupt [RANKS]", "interrupt what the ranks do"),
    "heal": (heal, "heal", "go on without the ranks that died"),
    "respawn": (respawn, "respawn [--state model,opt]", "have ranks that died again"),
    "save": (save, "save DIR [NAME...]", "keep variables of all ranks on the disk"),
    "load": (load, "load DIR [-n 4]", "take them from there, also on another number of ranks"),
    "chaos": (chaos, "chaos kill 2", "a single fault: kill, freeze, delay 1 200ms, drop 0->3"),
    "help": (_help, "help", "this list"),
}
