"""``bluefog.common.basics``: the lifecycle as methods of one object, and BlueFog's logger."""

from __future__ import annotations

import logging
from typing import Any

import ifog
from ifog.bluefog import lifecycle

__all__ = ["BlueFogBasics", "logger"]


def _logger() -> logging.Logger:
    made = logging.getLogger("bluefog")
    if not made.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        made.addHandler(handler)
    made.setLevel(logging.INFO)
    return made


logger = _logger()


class BlueFogBasics:
    """The functions of the lifecycle and of the topology, as methods."""

    def __init__(self, *args: Any) -> None:
        del args  # the place of BlueFog's C++ library

    init = staticmethod(lifecycle.init)
    shutdown = staticmethod(lifecycle.shutdown)
    size = staticmethod(ifog.size)
    local_size = staticmethod(ifog.local_size)
    rank = staticmethod(ifog.rank)
    local_rank = staticmethod(ifog.local_rank)
    machine_size = staticmethod(lifecycle.machine_size)
    machine_rank = staticmethod(lifecycle.machine_rank)
    is_homogeneous = staticmethod(lifecycle.is_homogeneous)
    nccl_built = staticmethod(lifecycle.nccl_built)
    mpi_threads_supported = staticmethod(lifecycle.mpi_threads_supported)
    unified_mpi_window_model_supported = staticmethod(lifecycle.unified_mpi_window_model_supported)
    suspend = staticmethod(lifecycle.suspend)
    resume = staticmethod(lifecycle.resume)
    set_skip_negotiate_stage = staticmethod(lifecycle.set_skip_negotiate_stage)
    get_skip_negotiate_stage = staticmethod(lifecycle.get_skip_negotiate_stage)
    load_topology = staticmethod(lifecycle.load_topology)
    set_topology = staticmethod(lifecycle.set_topology)
    is_topo_weighted = staticmethod(lifecycle.is_topo_weighted)
    in_neighbor_ranks = staticmethod(lifecycle.in_neighbor_ranks)
    out_neighbor_ranks = staticmethod(lifecycle.out_neighbor_ranks)
    load_machine_topology = staticmethod(lifecycle.load_machine_topology)
    set_machine_topology = staticmethod(lifecycle.set_machine_topology)
    is_machine_topo_weighted = staticmethod(lifecycle.is_machine_topo_weighted)
    in_neighbor_machine_ranks = staticmethod(lifecycle.in_neighbor_machine_ranks)
    out_neighbor_machine_ranks = staticmethod(lifecycle.out_neighbor_machine_ranks)
