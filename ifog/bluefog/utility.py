"""BlueFog's helpers for models and optimizers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import torch

import ifog
from ifog.bluefog.collectives import require_summable
from ifog.bluefog.state import require_resumed
from ifog.errors import ArgumentError

__all__ = [
    "allreduce_parameters",
    "broadcast_optimizer_state",
    "broadcast_parameters",
    "deprecated_function_arg",
]

P = ParamSpec("P")
R = TypeVar("R")
Parameters = Mapping[str, torch.Tensor] | list[torch.Tensor] | list[tuple[str, torch.Tensor]]


def broadcast_parameters(params: Parameters, root_rank: int) -> None:
    """Overwrite the tensors of a ``state_dict`` or a list by those of ``root_rank``.

    Raises:
        ValueError: neither a dict nor a list, for example a generator.
    """
    require_resumed()
    _tensors(params)
    ifog.broadcast_parameters(params, root_rank)


def allreduce_parameters(params: Parameters) -> None:
    """Overwrite the tensors of a ``state_dict`` or a list by their means over all ranks.

    Raises:
        ValueError: neither a dict nor a list, for example a generator.
        AssertionError: a tensor of integers, which has no mean.
    """
    require_resumed()
    for tensor in _tensors(params):
        require_summable(tensor, average=True)
    ifog.allreduce_parameters(params)


def _tensors(params: Any) -> list[torch.Tensor]:
    if isinstance(params, Mapping):
        return list(params.values())
    if isinstance(params, list):
        return [item[1] if isinstance(item, tuple) else item for item in params]
    raise ArgumentError(
        f"parameters come as a dict or a list, got a {type(params).__name__}; "
        "pass model.state_dict() or list(model.named_parameters())"
    )


def broadcast_optimizer_state(optimizer: torch.optim.Optimizer, root_rank: int) -> None:
    """Overwrite an optimizer's options and state by those of ``root_rank``.

    Raises:
        ValueError: an LBFGS optimizer.
    """
    require_resumed()
    ifog.broadcast_optimizer_state(optimizer, root_rank)


def deprecated_function_arg(arg_name: str, fix: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function refuse a keyword it once had, saying what to pass instead.

    Args:
        arg_name: the keyword.
        fix: what to do, for the end of the message.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if arg_name in kwargs:
                raise TypeError(f"{function.__name__}: there is no {arg_name} any more; {fix}")
            return function(*args, **kwargs)

        return checked

    return decorate
