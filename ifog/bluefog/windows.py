"""BlueFog's windows: by name, with integer handles and its exceptions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

import ifog
from ifog.bluefog.mixing import require_float
from ifog.bluefog.state import require_resumed, state
from ifog.context import current
from ifog.errors import ArgumentError, IfogError

__all__ = [
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
]

_logger = logging.getLogger("bluefog")
Weights = dict[int, float]


class UnknownWindowError(IfogError, KeyError):
    """There is no window of this name."""

    __str__ = Exception.__str__  # KeyError would show the message's repr


def win_create(tensor: torch.Tensor, name: str, zero_init: bool = False) -> bool:
    """Make a window of the tensor; every rank must call it.

    Returns:
        Whether it was made: False if there is one of this name.
    """
    require_resumed()
    if name in current().windows:
        return False
    ifog.win_create(tensor, name, zero_init)
    return True


def win_free(name: str | None = None) -> bool:
    """Free the window, or all of them; every rank must call it.

    Returns:
        True, also when there was none to free.

    Raises:
        KeyError: there is no window of this name.
    """
    require_resumed()
    if name is not None:
        _require_key(name, "win_free")
    ifog.win_free(name)
    return True


def win_put(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: Weights | None = None,
    require_mutex: bool = False,
) -> bool:
    """Write the tensor into the out-neighbours' buffers, then scale it by ``self_weight``."""
    return win_wait(win_put_nonblocking(tensor, name, self_weight, dst_weights, require_mutex))


def win_put_nonblocking(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: Weights | None = None,
    require_mutex: bool = False,
) -> int:
    """Start ``win_put``."""
    _require_window(name, "win_put")
    own = 1.0 if self_weight is None else self_weight
    return state().window_handles.start(
        lambda: ifog.win_put_nonblocking(tensor, name, own, dst_weights, require_mutex)
    )


def win_accumulate(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: Weights | None = None,
    require_mutex: bool = False,
) -> bool:
    """Add the tensor to the out-neighbours' buffers, then scale it by ``self_weight``."""
    return win_wait(
        win_accumulate_nonblocking(tensor, name, self_weight, dst_weights, require_mutex)
    )


def win_accumulate_nonblocking(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: Weights | None = None,
    require_mutex: bool = False,
) -> int:
    """Start ``win_accumulate``."""
    _require_window(name, "win_accumulate")
    own = 1.0 if self_weight is None else self_weight
    return state().window_handles.start(
        lambda: ifog.win_accumulate_nonblocking(tensor, name, own, dst_weights, require_mutex)
    )


def win_get(name: str, src_weights: Weights | None = None, require_mutex: bool = False) -> bool:
    """Read the in-neighbours' tensors into the buffers here."""
    return win_wait(win_get_nonblocking(name, src_weights, require_mutex))


def win_get_nonblocking(
    name: str, src_weights: Weights | None = None, require_mutex: bool = False
) -> int:
    """Start ``win_get``."""
    _require_window(name, "win_get")
    return state().window_handles.start(
        lambda: ifog.win_get_nonblocking(name, src_weights, require_mutex)
    )


neighbor_win_put = win_put
neighbor_win_put_nonblocking = win_put_nonblocking
neighbor_win_accumulate = win_accumulate
neighbor_win_accumulate_nonblocking = win_accumulate_nonblocking
neighbor_win_get = win_get
neighbor_win_get_nonblocking = win_get_nonblocking


def win_poll(handle: int) -> bool:
    """Whether the window operation has finished."""
    return state().window_handles.done(handle)


def win_wait(handle: int) -> bool:
    """Wait for the window operation; False, with a warning in the log, when there is none."""
    handles = state().window_handles
    if handle not in handles:
        _logger.warning("win_wait: %r is no handle of a window operation under way", handle)
        return False
    handles.wait(handle)
    return True


def win_update(  # noqa: PLR0917 - BlueFog's signature
    name: str,
    self_weight: float | None = None,
    neighbor_weights: Weights | None = None,
    reset: bool = False,
    clone: bool = False,
    require_mutex: bool = False,
) -> torch.Tensor:
    """Combine the own tensor with the buffers; returns the window's tensor, or a clone.

    Raises:
        KeyError: there is no window of this name.
        ValueError: the weights cannot be used.
    """
    op = "win_update"
    _require_key(name, op)
    require_float(self_weight, op)
    if neighbor_weights is not None and not isinstance(neighbor_weights, dict):
        raise ArgumentError(
            f"{op}: neighbor_weights must be a dict, got {type(neighbor_weights).__name__}"
        )
    return ifog.win_update(name, self_weight, neighbor_weights, reset, clone, require_mutex)


def win_update_then_collect(name: str, require_mutex: bool = True) -> torch.Tensor:
    """Add the buffers to the window's tensor and empty them.

    Raises:
        KeyError: there is no window of this name.
    """
    _require_key(name, "win_update_then_collect")
    return ifog.win_update_then_collect(name, require_mutex)


def get_win_version(name: str) -> dict[int, int]:
    """How many puts and gets came from each in-neighbour since the last update."""
    _require_window(name, "get_win_version")
    return ifog.get_win_version(name)


def get_current_created_window_names() -> list[str]:
    """The names of the windows, sorted."""
    return sorted(current().windows) if ifog.is_initialized() else []


@contextmanager
def win_mutex(
    name: str, for_self: bool = False, ranks: Iterable[int] | None = None
) -> Iterator[None]:
    """Hold the mutexes of ``ranks``, by default the out-neighbours, for this rank, or its own."""
    _require_window(name, "win_mutex")
    with ifog.win_mutex(name, for_self, None if ranks is None else list(ranks)):
        yield


@contextmanager
def win_lock(name: str) -> Iterator[None]:
    """Keep others from the own memory meanwhile."""
    _require_window(name, "win_lock")
    with ifog.win_lock(name):
        yield


def win_associated_p(name: str) -> float:
    """The push-sum weight of the own tensor."""
    _require_window(name, "win_associated_p")
    return ifog.win_associated_p(name)


def turn_on_win_ops_with_associated_p() -> None:
    """Let p go through the same sums as the tensors from now on."""
    ifog.turn_on_win_ops_with_associated_p()


def turn_off_win_ops_with_associated_p() -> None:
    """Leave p alone from now on."""
    ifog.turn_off_win_ops_with_associated_p()


def _require_window(name: str, op: str) -> None:
    if name not in current().windows:
        raise ArgumentError(_unknown(name, op))


def _require_key(name: str, op: str) -> None:
    if name not in current().windows:
        raise UnknownWindowError(_unknown(name, op))


def _unknown(name: str, op: str) -> str:
    names = ", ".join(map(repr, sorted(current().windows))) or "none"
    return f"{op}: there is no window {name!r} (there are: {names}); call win_create first"
