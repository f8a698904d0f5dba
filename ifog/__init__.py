"""ifog: decentralized algorithms on MPI ranks, driven and watched from a notebook.

The names below are the whole public API. They are loaded on first use, so that ``import ifog`` in
the notebook, which drives the ranks but computes nothing itself, does not import torch; type
checkers read them in ``__init__.pyi``.
"""

from __future__ import annotations

import importlib
from pathlib import Path as _Path
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "advice": ("advise",),
    "agents": ("MatrixMixer",),
    "algorithm_optimizer": ("AlgorithmOptimizer",),
    "carriers": ("agent_mixer",),
    "checkpoint": ("load", "save"),
    "cluster": ("Cell", "CellResult", "Cluster"),
    "comparison": ("compare",),
    "context": ("init", "is_initialized", "rank", "shutdown", "size"),
    "deadlines": ("set_timeout",),
    "errors": ("IfogError",),
    "gossip": ("pair_gossip", "pair_gossip_nonblocking"),
    "fitting": ("fit_progress",),
    "flat": ("FlatParameters",),
    "handle": ("Handle",),
    "hierarchical": (
        "hierarchical_neighbor_allreduce",
        "hierarchical_neighbor_allreduce_nonblocking",
    ),
    "inference": (
        "infer_destination_from_source_ranks",
        "infer_source_from_destination_ranks",
    ),
    "living": ("alive_ranks", "heal", "on_failure"),
    "machines": (
        "in_neighbor_machine_ranks",
        "is_homogeneous",
        "is_machine_topo_weighted",
        "load_machine_topology",
        "local_rank",
        "local_size",
        "machine_rank",
        "machine_size",
        "out_neighbor_machine_ranks",
        "set_machine_topology",
    ),
    "metrics": ("check_copies", "check_sums", "log"),
    "mixing": (
        "Mixer",
        "allreduce_mixer",
        "hierarchical_mixer",
        "local_mixer",
        "neighbor_mixer",
    ),
    "neighborhood": (
        "in_neighbor_ranks",
        "is_topo_weighted",
        "load_topology",
        "out_neighbor_ranks",
        "set_topology",
    ),
    "neighbors": (
        "neighbor_allgather",
        "neighbor_allgather_nonblocking",
        "neighbor_allreduce",
        "neighbor_allreduce_nonblocking",
    ),
    "onesided": (
        "get_current_created_window_names",
        "get_win_version",
        "turn_off_win_ops_with_associated_p",
        "turn_on_win_ops_with_associated_p",
        "win_accumulate",
        "win_accumulate_nonblocking",
        "win_associated_p",
        "win_create",
        "win_free",
        "win_get",
        "win_get_nonblocking",
        "win_lock",
        "win_mutex",
        "win_poll",
        "win_put",
        "win_put_nonblocking",
        "win_update",
        "win_update_then_collect",
        "win_wait",
    ),
    "ops": (
        "allgather",
        "allgather_nonblocking",
        "allreduce",
        "allreduce_",
        "allreduce_nonblocking",
        "allreduce_nonblocking_",
        "barrier",
        "broadcast",
        "broadcast_",
        "broadcast_nonblocking",
        "broadcast_nonblocking_",
        "poll",
        "synchronize",
        "wait",
        "watch",
    ),
    "optim": ("DecentralizedOptimizer",),
    "playback": ("replay",),
    "recordings": ("record",),
    "recorder": (
        "timeline",
        "timeline_context",
        "timeline_end_activity",
        "timeline_start_activity",
    ),
    "parameters": (
        "allreduce_parameters",
        "broadcast_optimizer_state",
        "broadcast_parameters",
    ),
    "schedules": (
        "base_graph",
        "epidemic",
        "equi_dynamic",
        "exponential_machines",
        "hypercube_matching",
        "inner_outer_exponential",
        "inner_outer_ring",
        "matcha",
        "one_peer",
        "random_pair",
    ),
    "topology": (
        "barbell",
        "complete",
        "equi_static",
        "erdos_renyi",
        "exponential",
        "from_adjacency",
        "from_matrix",
        "geometric",
        "grid2d",
        "hypercube",
        "path",
        "random_regular",
        "ring",
        "small_world",
        "star",
        "symmetric_exponential",
        "torus2d",
        "tree",
    ),
    "window_mixing": ("push_sum_mixer", "window_mixer"),
    "windows": ("Window",),
    "solving": ("solve",),
}
_MODULES = (
    "algorithms",
    "compression",
    "networks",
    "problems",
    "schedules",
    "simulate",
    "testing",
    "topology",
    "weights",
)
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # noqa: PLE0604 - the table above is the list, spelled once
    "__version__",
    *sorted([*_MODULE_OF, *_MODULES]),
]

# In a checkout magics/ and widgets/ stand beside ifog/, not in it: run from there without an
# editable install, Python finds this folder first and would miss them.
_root = _Path(__file__).resolve().parent.parent
if not (_Path(__path__[0]) / "widgets").is_dir() and (_root / "widgets" / "__init__.py").is_file():
    __path__.append(str(_root))


def __getattr__(name: str) -> Any:
    if name in _MODULES or name in ("magics", "widgets"):
        return importlib.import_module(f"ifog.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ifog' has no attribute {name!r}{_closest(name)}")
    value = getattr(importlib.import_module(f"ifog.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def _closest(name: str) -> str:
    import difflib

    found = difflib.get_close_matches(name, () if name.startswith("_") else __all__, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def load_ipython_extension(shell: Any) -> None:
    """Register ``%%bf`` and ``%bf``; called by ``%load_ext ifog``."""
    importlib.import_module("ifog.magics").load_ipython_extension(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Remove the magics; called by ``%unload_ext ifog``."""
    importlib.import_module("ifog.magics").unload_ipython_extension(shell)
