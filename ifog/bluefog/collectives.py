"""BlueFog's collectives, with integer handles."""

from __future__ import annotations

import torch

import ifog
from ifog.bluefog.state import require_resumed, state

__all__ = [
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
    "require_summable",
    "synchronize",
    "wait",
]


def poll(handle: int) -> bool:
    """Whether the operation has finished."""
    return state().handles.done(handle)


def synchronize(handle: int) -> torch.Tensor:
    """The operation's output, once it is there; its handle then means nothing."""
    output: torch.Tensor = state().handles.wait(handle)
    return output


def wait(handle: int) -> torch.Tensor:
    """Another name of ``synchronize``."""
    return synchronize(handle)


def barrier() -> None:
    """Return once every rank has called it."""
    require_resumed()
    ifog.barrier()


def allreduce(
    tensor: torch.Tensor,
    average: bool = True,
    is_hierarchical_local: bool = False,
    name: str | None = None,
) -> torch.Tensor:
    """The mean or sum over all ranks, or over those of this machine."""
    return synchronize(allreduce_nonblocking(tensor, average, is_hierarchical_local, name))


def allreduce_nonblocking(
    tensor: torch.Tensor,
    average: bool = True,
    is_hierarchical_local: bool = False,
    name: str | None = None,
) -> int:
    """Start ``allreduce``."""
    require_summable(tensor, average)
    return state().handles.start(
        lambda: ifog.allreduce_nonblocking(tensor, average, is_hierarchical_local, name=name),
        "allreduce",
        name,
    )


def allreduce_(
    tensor: torch.Tensor,
    average: bool = True,
    is_hierarchical_local: bool = False,
    name: str | None = None,
) -> torch.Tensor:
    """``allreduce`` into the tensor itself."""
    return synchronize(allreduce_nonblocking_(tensor, average, is_hierarchical_local, name))


def allreduce_nonblocking_(
    tensor: torch.Tensor,
    average: bool = True,
    is_hierarchical_local: bool = False,
    name: str | None = None,
) -> int:
    """Start ``allreduce_``."""
    require_summable(tensor, average)
    return state().handles.start(
        lambda: ifog.allreduce_nonblocking_(tensor, average, is_hierarchical_local, name=name),
        "allreduce",
        name,
    )


def require_summable(tensor: torch.Tensor, average: bool) -> None:
    """Refuse the average of integers as BlueFog does.

    Raises:
        AssertionError: the tensor holds integers and is to be averaged.
    """
    if average and not tensor.is_floating_point():
        raise AssertionError(
            f"allreduce cannot average {tensor.dtype}; convert it, for example with .float(), or "
            "pass average=False"
        )


def broadcast(tensor: torch.Tensor, root_rank: int, name: str | None = None) -> torch.Tensor:
    """The tensor of ``root_rank``, on every rank, as a new tensor."""
    return synchronize(broadcast_nonblocking(tensor, root_rank, name))


def broadcast_nonblocking(tensor: torch.Tensor, root_rank: int, name: str | None = None) -> int:
    """Start ``broadcast``."""
    return state().handles.start(
        lambda: ifog.broadcast_nonblocking(tensor, root_rank, name=name), "broadcast", name
    )


def broadcast_(tensor: torch.Tensor, root_rank: int, name: str | None = None) -> torch.Tensor:
    """``broadcast`` into the tensor itself."""
    return synchronize(broadcast_nonblocking_(tensor, root_rank, name))


def broadcast_nonblocking_(tensor: torch.Tensor, root_rank: int, name: str | None = None) -> int:
    """Start ``broadcast_``."""
    return state().handles.start(
        lambda: ifog.broadcast_nonblocking_(tensor, root_rank, name=name), "broadcast", name
    )


def allgather(tensor: torch.Tensor, name: str | None = None) -> torch.Tensor:
    """All ranks' tensors, concatenated along the first dimension in rank order."""
    return synchronize(allgather_nonblocking(tensor, name))


def allgather_nonblocking(tensor: torch.Tensor, name: str | None = None) -> int:
    """Start ``allgather``."""
    return state().handles.start(
        lambda: ifog.allgather_nonblocking(tensor, name=name), "allgather", name
    )
