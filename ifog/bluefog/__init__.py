"""BlueFog's names over ifog: ``import ifog.bluefog as bf`` for ``import bluefog.torch as bf``.

After ``install()`` programs that say ``import bluefog.torch`` run as they are. The names, their
signatures, return values and exceptions are those of BlueFog 0.3.0; what differs stands in the
table ``ifog.bluefog.names.ROWS`` and nowhere else. This package is a leaf: nothing in ifog
imports it.
"""

from __future__ import annotations

import importlib
from typing import Any

from ifog.bluefog.finder import VERSION
from ifog.bluefog.finder import install as install

__version__ = VERSION

_HOME = {
    "ifog": ("local_rank", "local_size", "rank", "size"),
    "ifog.bluefog.collectives": (
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
    ),
    "ifog.bluefog.environment": ("check_extension",),
    "ifog.bluefog.lifecycle": (
        "get_skip_negotiate_stage",
        "in_neighbor_machine_ranks",
        "in_neighbor_ranks",
        "init",
        "is_homogeneous",
        "is_machine_topo_weighted",
        "is_topo_weighted",
        "load_machine_topology",
        "load_topology",
        "machine_rank",
        "machine_size",
        "mpi_threads_supported",
        "nccl_built",
        "out_neighbor_machine_ranks",
        "out_neighbor_ranks",
        "resume",
        "set_machine_topology",
        "set_skip_negotiate_stage",
        "set_topology",
        "shutdown",
        "suspend",
        "unified_mpi_window_model_supported",
    ),
    "ifog.bluefog.mixing": (
        "hierarchical_neighbor_allreduce",
        "hierarchical_neighbor_allreduce_nonblocking",
        "neighbor_allgather",
        "neighbor_allgather_nonblocking",
        "neighbor_allreduce",
        "neighbor_allreduce_nonblocking",
        "pair_gossip",
        "pair_gossip_nonblocking",
    ),
    "ifog.bluefog.optimizers": (
        "CommunicationType",
        "DistributedAdaptThenCombineOptimizer",
        "DistributedAdaptWithCombineOptimizer",
        "DistributedAllreduceOptimizer",
        "DistributedGradientAllreduceOptimizer",
        "DistributedHierarchicalNeighborAllreduceOptimizer",
        "DistributedNeighborAllreduceOptimizer",
        "DistributedPullGetOptimizer",
        "DistributedPushSumOptimizer",
        "DistributedWinPutOptimizer",
    ),
    "ifog.bluefog.timeline": (
        "timeline_context",
        "timeline_end_activity",
        "timeline_start_activity",
    ),
    "ifog.bluefog.topology_util": (
        "ExponentialGraph",
        "ExponentialTwoGraph",
        "FullyConnectedGraph",
        "GetDynamicOnePeerSendRecvRanks",
        "GetExp2DynamicSendRecvMachineRanks",
        "GetInnerOuterExpo2DynamicSendRecvRanks",
        "GetInnerOuterRingDynamicSendRecvRanks",
        "GetRecvWeights",
        "GetSendWeights",
        "InferDestinationFromSourceRanks",
        "InferSourceFromDestinationRanks",
        "IsRegularGraph",
        "IsTopologyEquivalent",
        "MeshGrid2DGraph",
        "RingGraph",
        "StarGraph",
        "SymmetricExponentialGraph",
    ),
    "ifog.bluefog.utility": (
        "allreduce_parameters",
        "broadcast_optimizer_state",
        "broadcast_parameters",
        "deprecated_function_arg",
    ),
    "ifog.bluefog.windows": (
        "get_current_created_window_names",
        "get_win_version",
        "neighbor_win_accumulate",
        "neighbor_win_accumulate_nonblocking",
        "neighbor_win_get",
        "neighbor_win_get_nonblocking",
        "neighbor_win_put",
        "neighbor_win_put_nonblocking",
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
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
# Modules that BlueFog's own imports leave among its names; programs use them.
_LEAKED = ("collections", "os", "torch")

__all__ = sorted([*_MODULE_OF, *_LEAKED])  # noqa: PLE0605 - the tables above are the list


def __getattr__(name: str) -> Any:
    # Loaded on first use: the notebook's own process needs ifog.bluefog.run, but no torch.
    if name in _LEAKED:
        value = importlib.import_module(name)
    elif name in _MODULE_OF:
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'bluefog.torch' (ifog.bluefog) has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "install", *(name for name in globals() if name.startswith("__"))})
