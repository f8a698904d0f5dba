"""BlueFog's optimizer factories: their names and signatures; what they build is not here yet."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NoReturn

import torch

from ifog.errors import NotAvailableError

__all__ = [
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
]

Models = torch.nn.Module | Sequence[torch.nn.Module]


class CommunicationType(Enum):
    """By what a wrapped optimizer mixes parameters."""

    neighbor_allreduce = "neighbor.allreduce"
    hierarchical_neighbor_allreduce = "hierarchical.neighbor.allreduce"
    allreduce = "allreduce"
    empty = "empty"


def _refuse(name: str, instead: str) -> NoReturn:
    raise NotAvailableError(
        f"{name}: ifog has no optimizers that communicate yet; until it has them, {instead}"
    )


_MIX_AFTER = "call optimizer.step() and then, for each p in model.parameters(), "
_BY_NEIGHBORS = _MIX_AFTER + "p.data.copy_(bf.neighbor_allreduce(p.data))"
_BY_MACHINES = _MIX_AFTER + "p.data.copy_(bf.hierarchical_neighbor_allreduce(p.data))"
_BY_ALL = _MIX_AFTER + "bf.allreduce_(p.data)"
_BY_WINDOW = (
    "make a window of each parameter with bf.win_create(p.data, name) and, after optimizer.step(), "
    "call bf.win_put(p.data, name) and bf.win_update(name)"
)


def DistributedAdaptThenCombineOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer,
    model: Models,
    communication_type: CommunicationType = CommunicationType.neighbor_allreduce,
    num_steps_per_communication: int = 1,
) -> torch.optim.Optimizer:
    """Step, then mix the parameters: x+ = C(x - lr D(g(x)))."""
    del optimizer, model, communication_type, num_steps_per_communication
    _refuse("DistributedAdaptThenCombineOptimizer", _BY_NEIGHBORS)


def DistributedAdaptWithCombineOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer,
    model: Models,
    communication_type: CommunicationType = CommunicationType.neighbor_allreduce,
    num_steps_per_communication: int = 1,
) -> torch.optim.Optimizer:
    """Mix the parameters while stepping: x+ = C(x) - lr D(g(x))."""
    del optimizer, model, communication_type, num_steps_per_communication
    _refuse("DistributedAdaptWithCombineOptimizer", _BY_NEIGHBORS)


def DistributedGradientAllreduceOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer, model: Models, num_steps_per_communication: int = 1
) -> torch.optim.Optimizer:
    """Average the gradients, then step: x+ = x - lr D(mean of g)."""
    del optimizer, model, num_steps_per_communication
    _refuse(
        "DistributedGradientAllreduceOptimizer",
        "call bf.allreduce_(p.grad) for each p in model.parameters(), and then optimizer.step()",
    )


def DistributedWinPutOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer,
    model: Models,
    num_steps_per_communication: int = 1,
    window_prefix: str | None = None,
) -> torch.optim.Optimizer:
    """Mix the parameters through windows, without waiting for anybody."""
    del optimizer, model, num_steps_per_communication, window_prefix
    _refuse("DistributedWinPutOptimizer", _BY_WINDOW)


def DistributedAllreduceOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer, model: Models, num_steps_per_communication: int = 1
) -> torch.optim.Optimizer:
    """Mix the parameters by their mean over all ranks while stepping."""
    del optimizer, model, num_steps_per_communication
    _refuse("DistributedAllreduceOptimizer", _BY_ALL)


def DistributedNeighborAllreduceOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer, model: Models, num_steps_per_communication: int = 1
) -> torch.optim.Optimizer:
    """Mix the parameters with the neighbours while stepping."""
    del optimizer, model, num_steps_per_communication
    _refuse("DistributedNeighborAllreduceOptimizer", _BY_NEIGHBORS)


def DistributedHierarchicalNeighborAllreduceOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer, model: Models, num_steps_per_communication: int = 1
) -> torch.optim.Optimizer:
    """Mix the parameters between machines while stepping."""
    del optimizer, model, num_steps_per_communication
    _refuse("DistributedHierarchicalNeighborAllreduceOptimizer", _BY_MACHINES)


def DistributedPullGetOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer, model: Models, num_steps_per_communication: int = 1
) -> torch.optim.Optimizer:
    """Mix the parameters through windows from which one reads."""
    del optimizer, model, num_steps_per_communication
    _refuse("DistributedPullGetOptimizer", _BY_WINDOW)


def DistributedPushSumOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer, model: Models, num_steps_per_communication: int = 1
) -> torch.optim.Optimizer:
    """Stochastic gradient push, through windows."""
    del optimizer, model, num_steps_per_communication
    _refuse(
        "DistributedPushSumOptimizer",
        "keep a window of the parameters with bf.turn_on_win_ops_with_associated_p(), and use "
        "bf.win_accumulate and bf.win_update_then_collect after optimizer.step()",
    )
