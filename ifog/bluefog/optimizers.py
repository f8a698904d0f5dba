"""BlueFog's optimizer factories: a torch optimizer of the same class that communicates."""

from __future__ import annotations

import warnings

import torch

from ifog.bluefog.wrapping import CommunicationType, Models, Style, wrapped

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


def DistributedAdaptThenCombineOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer,
    model: Models,
    communication_type: CommunicationType = CommunicationType.neighbor_allreduce,
    num_steps_per_communication: int = 1,
) -> torch.optim.Optimizer:
    """Step, then mix the parameters: x+ = C(x - lr D(g(x))).

    C follows ``self_weight``, ``src_weights``, ``dst_weights`` (or the ``machine`` ones) of the
    optimizer, read in each round.
    """
    style = Style("atc", communication_type)
    return wrapped(optimizer, model, style, num_steps_per_communication)


def DistributedAdaptWithCombineOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer,
    model: Models,
    communication_type: CommunicationType = CommunicationType.neighbor_allreduce,
    num_steps_per_communication: int = 1,
) -> torch.optim.Optimizer:
    """Mix the parameters during the backward pass, then step: x+ = C(x) - lr D(g(x))."""
    style = Style("awc", communication_type)
    return wrapped(optimizer, model, style, num_steps_per_communication)


def DistributedGradientAllreduceOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer, model: Models, num_steps_per_communication: int = 1
) -> torch.optim.Optimizer:
    """Average the gradients, then step: x+ = x - lr D(mean of g)."""
    style = Style("gradient", CommunicationType.allreduce)
    return wrapped(optimizer, model, style, num_steps_per_communication)


def DistributedWinPutOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer,
    model: Models,
    num_steps_per_communication: int = 1,
    window_prefix: str | None = None,
) -> torch.optim.Optimizer:
    """Mix the parameters with what neighbours last put here, without waiting for anybody."""
    style = Style("awc", window="put", prefix=window_prefix)
    return wrapped(optimizer, model, style, num_steps_per_communication)


def DistributedAllreduceOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer, model: Models, num_steps_per_communication: int = 1
) -> torch.optim.Optimizer:
    """``DistributedAdaptWithCombineOptimizer`` by the mean over all ranks."""
    kind = CommunicationType.allreduce
    _discourage("DistributedAllreduceOptimizer", kind)
    return wrapped(optimizer, model, Style("awc", kind), num_steps_per_communication)


def DistributedNeighborAllreduceOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer, model: Models, num_steps_per_communication: int = 1
) -> torch.optim.Optimizer:
    """``DistributedAdaptWithCombineOptimizer`` with the neighbours."""
    kind = CommunicationType.neighbor_allreduce
    _discourage("DistributedNeighborAllreduceOptimizer", kind)
    return wrapped(optimizer, model, Style("awc", kind), num_steps_per_communication)


def DistributedHierarchicalNeighborAllreduceOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer, model: Models, num_steps_per_communication: int = 1
) -> torch.optim.Optimizer:
    """``DistributedAdaptWithCombineOptimizer`` between machines."""
    kind = CommunicationType.hierarchical_neighbor_allreduce
    _discourage("DistributedHierarchicalNeighborAllreduceOptimizer", kind)
    return wrapped(optimizer, model, Style("awc", kind), num_steps_per_communication)


def DistributedPullGetOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer, model: Models, num_steps_per_communication: int = 1
) -> torch.optim.Optimizer:
    """Mix the parameters with what neighbours have at the moment, read through windows."""
    return wrapped(optimizer, model, Style("awc", window="get"), num_steps_per_communication)


def DistributedPushSumOptimizer(  # noqa: N802 - BlueFog's name
    optimizer: torch.optim.Optimizer, model: Models, num_steps_per_communication: int = 1
) -> torch.optim.Optimizer:
    """Stochastic gradient push: parameters and weights p are pushed, and x = u / p is stepped on.

    ``self_weight`` and ``dst_weights`` begin as 1/(out-neighbours + 1) and should sum to 1.
    """
    return wrapped(optimizer, model, Style("awc", window="sum"), num_steps_per_communication)


def _discourage(name: str, kind: CommunicationType) -> None:
    warnings.warn(
        f"{name} will go: use DistributedAdaptWithCombineOptimizer with communication_type={kind}",
        PendingDeprecationWarning,
        stacklevel=3,
    )
