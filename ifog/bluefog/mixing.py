"""BlueFog's neighbour operations, with its checks of arguments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

import ifog
from ifog.bluefog.collectives import synchronize
from ifog.bluefog.lifecycle import get_skip_negotiate_stage
from ifog.bluefog.state import state
from ifog.bluefog.utility import deprecated_function_arg
from ifog.errors import ArgumentError, IfogError

__all__ = [
    "hierarchical_neighbor_allreduce",
    "hierarchical_neighbor_allreduce_nonblocking",
    "neighbor_allgather",
    "neighbor_allgather_nonblocking",
    "neighbor_allreduce",
    "neighbor_allreduce_nonblocking",
    "pair_gossip",
    "pair_gossip_nonblocking",
    "require_float",
]

DestinationWeights = dict[int, float] | list[int]


class NoMachineTopologyError(IfogError, RuntimeError):
    """Machines are to mix over their graph, and none was set."""


@deprecated_function_arg("neighbor_weights", "use src_weights")
@deprecated_function_arg("send_neighbors", "use dst_weights")
def neighbor_allreduce(
    tensor: torch.Tensor,
    *,
    self_weight: float | None = None,
    src_weights: dict[int, float] | None = None,
    dst_weights: DestinationWeights | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> torch.Tensor:
    """The weighted average of a tensor over this rank and its in-neighbours."""
    return synchronize(
        neighbor_allreduce_nonblocking(
            tensor,
            self_weight=self_weight,
            src_weights=src_weights,
            dst_weights=dst_weights,
            enable_topo_check=enable_topo_check,
            name=name,
        )
    )


@deprecated_function_arg("neighbor_weights", "use src_weights")
@deprecated_function_arg("send_neighbors", "use dst_weights")
def neighbor_allreduce_nonblocking(
    tensor: torch.Tensor,
    *,
    self_weight: float | None = None,
    src_weights: dict[int, float] | None = None,
    dst_weights: DestinationWeights | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> int:
    """Start ``neighbor_allreduce``."""
    if tensor.ndim == 0:
        raise IndexError("neighbor_allreduce needs at least one dimension; reshape to [1]")
    require_float(self_weight, "neighbor_allreduce")
    return state().handles.start(
        lambda: ifog.neighbor_allreduce_nonblocking(
            tensor,
            self_weight=self_weight,
            src_weights=src_weights,
            dst_weights=dst_weights,
            enable_topo_check=enable_topo_check,
            name=name,
        ),
        "neighbor_allreduce",
        name,
    )


def require_float(weight: Any, op: str) -> None:
    """Refuse a ``self_weight`` that is neither missing nor a Python float.

    Raises:
        ArgumentError: it is an int or something else.
    """
    if weight is not None and not isinstance(weight, float):
        raise ArgumentError(
            f"{op}: self_weight must be a float, got the {type(weight).__name__} {weight!r}; "
            f"pass float({weight!r})"
        )


def neighbor_allgather(
    tensor: torch.Tensor,
    *,
    src_ranks: Iterable[int] | None = None,
    dst_ranks: Iterable[int] | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> torch.Tensor:
    """The in-neighbours' tensors, concatenated along the first dimension."""
    return synchronize(
        neighbor_allgather_nonblocking(
            tensor,
            src_ranks=src_ranks,
            dst_ranks=dst_ranks,
            enable_topo_check=enable_topo_check,
            name=name,
        )
    )


def neighbor_allgather_nonblocking(
    tensor: torch.Tensor,
    *,
    src_ranks: Iterable[int] | None = None,
    dst_ranks: Iterable[int] | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> int:
    """Start ``neighbor_allgather``."""
    return state().handles.start(
        lambda: ifog.neighbor_allgather_nonblocking(
            tensor,
            src_ranks=src_ranks,
            dst_ranks=dst_ranks,
            enable_topo_check=enable_topo_check,
            name=name,
        ),
        "neighbor_allgather",
        name,
    )


@deprecated_function_arg("neighbor_machine_weights", "use src_machine_weights")
@deprecated_function_arg("send_neighbor_machines", "use dst_machine_weights")
def hierarchical_neighbor_allreduce(
    tensor: torch.Tensor,
    *,
    self_weight: float | None = None,
    src_machine_weights: dict[int, float] | None = None,
    dst_machine_weights: DestinationWeights | None = None,
    enable_topo_check: bool = False,
    name: str | None = None,
) -> torch.Tensor:
    """The weighted average of the machines' means over this machine and its in-neighbours."""
    return synchronize(
        hierarchical_neighbor_allreduce_nonblocking(
            tensor,
            self_weight=self_weight,
            src_machine_weights=src_machine_weights,
            dst_machine_weights=dst_machine_weights,
            enable_topo_check=enable_topo_check,
            name=name,
        )
    )


@deprecated_function_arg("neighbor_machine_weights", "use src_machine_weights")
@deprecated_function_arg("send_neighbor_machines", "use dst_machine_weights")
def hierarchical_neighbor_allreduce_nonblocking(
    tensor: torch.Tensor,
    *,
    self_weight: float | None = None,
    src_machine_weights: dict[int, float] | None = None,
    dst_machine_weights: DestinationWeights | None = None,
    enable_topo_check: bool = False,
    name: str | None = None,
) -> int:
    """Start ``hierarchical_neighbor_allreduce``."""
    op = "hierarchical_neighbor_allreduce"
    if ifog.local_size() <= 1:
        raise AssertionError(f"{op} needs more than one rank on a machine")
    if ifog.load_machine_topology() is None:
        raise NoMachineTopologyError(f"{op}: call bf.set_machine_topology first")
    require_float(self_weight, op)
    _require_machines(self_weight, src_machine_weights, dst_machine_weights, op)
    return state().handles.start(
        lambda: ifog.hierarchical_neighbor_allreduce_nonblocking(
            tensor,
            self_weight=self_weight,
            src_machine_weights=src_machine_weights,
            dst_machine_weights=dst_machine_weights,
            enable_topo_check=enable_topo_check,
            name=name,
        ),
        "neighbor_allreduce",
        name,
    )


def _require_machines(
    own: float | None, src: dict[int, float] | None, dst: DestinationWeights | None, op: str
) -> None:
    given = [value is not None for value in (own, src, dst)]
    if any(given) and not all(given):
        raise ArgumentError(
            f"{op}: pass self_weight, src_machine_weights and dst_machine_weights together, or none"
        )
    for what, named, around in (
        ("src_machine_weights", src, ifog.in_neighbor_machine_ranks()),
        ("dst_machine_weights", dst, ifog.out_neighbor_machine_ranks()),
    ):
        strangers = sorted(set(named or ()) - set(around))
        if strangers:
            raise ArgumentError(
                f"{op}: {what} names {strangers}, but the neighbours in the machine topology are "
                f"{around}"
            )


def pair_gossip(
    tensor: torch.Tensor,
    target_rank: int,
    self_weight: float | None = None,
    pair_weight: float | None = None,
    name: str | None = None,
) -> torch.Tensor:
    """The average of this rank's tensor and that of ``target_rank``, which must call it as well."""
    return synchronize(pair_gossip_nonblocking(tensor, target_rank, self_weight, pair_weight, name))


def pair_gossip_nonblocking(
    tensor: torch.Tensor,
    target_rank: int,
    self_weight: float | None = None,
    pair_weight: float | None = None,
    name: str | None = None,
) -> int:
    """Start ``pair_gossip``."""
    if not get_skip_negotiate_stage():
        raise ArgumentError("pair_gossip: call bf.set_skip_negotiate_stage(True) first")
    return state().handles.start(
        lambda: ifog.pair_gossip_nonblocking(
            tensor, target_rank, self_weight, pair_weight, name=name
        ),
        "pair_gossip",
        name,
    )
