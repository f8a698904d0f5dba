"""Imports only point down: what each layer of the house may know."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

GRAPHS = (
    "adjacency",
    "base_graphs",
    "fastest",
    "graph_report",
    "links",
    "matcha",
    "random_graphs",
    "random_schedules",
    "rounds",
    "schedules",
    "topology",
    "weights",
)
LAYERS = (
    ("telemetry", "errors", "manifest", "numbers", "outlets", "presses", "quantities", "variables"),
    ("background", "costs", "event_bytes", "postman"),
    ("transport", "handle", "layout", "survival", "tracks", *GRAPHS),
    ("algorithms", "departures", "kernels", "packing", "parcels", "problems", "sampling"),
    ("exchange",),
    ("compression", "networks", "slots", "squeezing"),
    ("hosting",),
    ("agents",),
    ("affine", "durations", "progress", "side_by_side", "sweeps"),
    ("bundles", "context", "devices", "healing", "plans", "watching"),
    ("deadlines", "edges", "fitting", "operation", "recorder"),
    ("combining",),
    ("bursts", "posting"),
    ("ops", "device_mixing", "neighbors", "neighborhood", "living", "metrics"),
    ("buffers", "window_arguments"),
    ("windows",),
    ("onesided",),
    ("checkpoint", "inference", "parameters", "recount", "stateful", "structure"),
    ("gossip", "hierarchical", "machines"),
    ("flat", "mixing"),
    ("mixed_state",),
    (
        "carriers",
        "conformance",
        "delays",
        "gradients",
        "optim_arguments",
        "pipeline",
        "window_mixing",
    ),
    ("advice", "algorithm_optimizer", "optim"),
    ("channels", "modelled"),
    ("simulation",),
    ("comparison", "simulated"),
    ("simulate",),
    ("solving",),
    (
        "testing",
        "demo_ranks",
        "doctor_ranks",
        "sabotage",
        "forgery",
        "iopub",
        "faults",
        "cargo",
        "newcomer",
    ),
    ("arrival", "endings"),
    ("engine", "px"),
    ("bench",),
    ("bluefog",),
)
CLIENT = (
    (
        "telemetry",
        "costs",
        "errors",
        "manifest",
        "numbers",
        "quantities",
        *GRAPHS,
    ),
    (
        "watchdog",
        "clocks",
        "columns",
        "forgery",
        "messages",
        "presses",
        "residue",
        "sources",
        "spectrum",
        "status",
        "vitals",
    ),
    ("runfile",),
    ("footprint", "mpiexec", "hosts", "program", "streams", "verdict", "launched"),
    ("ranks", "holdups", "waitgraph"),
    ("batches", "tape"),
    ("folding",),
    ("frames", "playback"),
    ("why",),
    (
        "consensus",
        "faults",
        "folds",
        "glances",
        "invariants",
        "lanes",
        "modes",
        "rows",
        "shipments",
        "trace",
        "traceformat",
        "traffic",
        "training",
        "waits",
    ),
    ("launcher", "laggards", "pace"),
    ("run",),
    ("results", "stalls"),
    ("answers",),
    ("cell", "line"),
    ("connecting",),
    ("rescue", "respawn"),
    ("keeper",),
    ("cluster",),
    ("bench", "chaos", "demo", "doctor", "mischief", "recordings", "screen", "standing"),
    ("commands",),
    ("cli",),
    ("widgets",),
    ("magics",),
)
ONLY_IN = {
    "mpi4py": {"transport", "bench"},  # benches also time MPI itself, to compare with it
    "ipyparallel": {"answers", "bluefog", "cluster", "launcher", "line", "engine", "iopub"},
    "anywidget": {"widgets"},
    "plotly": {"widgets"},
    "torch": {name for layer in LAYERS for name in layer}
    - {"telemetry", "errors", "manifest", *GRAPHS},
}
ONLY_AT_RUN_TIME = {
    ("context", "recorder"),  # init begins the timeline that the environment asks for
}


def sources():
    for path in sorted((ROOT / "ifog").rglob("*.py")):
        yield path.relative_to(ROOT / "ifog").parts[0].removesuffix(".py"), path
    for top in ("magics", "widgets"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield top, path


def runtime_imports(path):
    """(module, is at the top level) for every import that is not for type checkers only."""
    tree = ast.parse(path.read_text())
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    top = {
        inner
        for node in tree.body
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in guarded:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in top
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node in top
            if node.module == "ifog":
                for alias in node.names:
                    yield f"ifog.{alias.name}", node in top


def level(layers, name):
    return next((i for i, layer in enumerate(layers) if name in layer), None)


@pytest.mark.parametrize("layers", [LAYERS, CLIENT], ids=["engine", "client"])
def test_imports_point_down(layers):
    for name, path in sources():
        mine = level(layers, name)
        for module, at_top in runtime_imports(path):
            target = module.removeprefix("ifog.").split(".")[0]
            theirs = level(layers, target) if module.startswith("ifog.") else None
            if mine is None or theirs is None or target == name:
                continue
            if not at_top and (name, target) in ONLY_AT_RUN_TIME:
                continue
            # Modules of one layer may know each other as long as Python can import them.
            assert theirs <= mine, f"{path.name} imports {module}, which is above it"


def test_every_module_has_a_layer():
    known = {name for layers in (LAYERS, CLIENT) for layer in layers for name in layer}
    assert {name for name, _ in sources()} - {"__init__", *known} == set()


@pytest.mark.parametrize("library", ONLY_IN)
def test_libraries_are_imported_in_their_place_only(library):
    users = {
        name
        for name, path in sources()
        for module, _ in runtime_imports(path)
        if module.split(".")[0] == library
    }
    assert users <= ONLY_IN[library]


def test_the_twins_of_the_package_are_never_imported_by_their_folder_names():
    for _, path in sources():
        for module, _ in runtime_imports(path):
            assert module.split(".")[0] not in ("magics", "widgets"), path


def test_algorithms_know_nothing_but_torch_and_each_other():
    for _, path in sources():
        if path.parent.name != "algorithms":
            continue
        ours = {module for module, _ in runtime_imports(path) if module.startswith("ifog.")}
        others = {module for module in ours if not module.startswith("ifog.algorithms")}
        assert others <= {"ifog.errors"}, path
