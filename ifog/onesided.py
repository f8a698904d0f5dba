"""Windows by name: the functions ``win_*``, each a method of ``Window``.

The blocking form of an operation waits for its ``_nonblocking`` twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ifog.context import current
from ifog.errors import ArgumentError
from ifog.handle import Handle
from ifog.ops import poll, wait
from ifog.windows import Window

__all__ = [
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
]

Destinations = Mapping[int, float] | Iterable[int] | None


def _window(name: str) -> Window:
    windows = current().windows
    if name not in windows:
        raise ArgumentError(
            f"there is no window {name!r} on rank {current().rank}; the windows are "
            f"{sorted(windows)}: create it first with win_create(tensor, {name!r})"
        )
    return windows[name]


def win_create(tensor: torch.Tensor, name: str, zero_init: bool = False) -> bool:
    """Create a window of ``tensor``; every rank must call it. See ``Window``.

    Args:
        tensor: [...] of the same shape and dtype on every rank; it becomes the window's own
            memory, not a copy of it.
        name: matches the window across ranks.
        zero_init: begin with zeros in the neighbours' buffers instead of copies of the own tensor.

    Returns:
        Whether it was created: False if this rank has a window of that name.
    """
    if name in current().windows:
        return False
    Window(tensor, name, zero_init=zero_init)
    return True


def win_free(name: str | None = None) -> bool:
    """Free a window, or all of them; every rank must call it.

    Returns:
        True, also if there was none to free.

    Raises:
        ArgumentError: there is no window of that name.
    """
    names = sorted(current().windows) if name is None else [name]
    for window in [_window(each) for each in names]:
        window.free()
    return True


def win_put(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: Destinations = None,
    require_mutex: bool = False,
) -> bool:
    """``B_d[i] <- w_d tensor`` on the out-neighbours; returns True once it is there.

    See ``Window.put`` for the arguments, the in-place scaling by ``self_weight``, and the errors.
    """
    win_put_nonblocking(tensor, name, self_weight, dst_weights, require_mutex).wait()
    return True


def win_put_nonblocking(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: Destinations = None,
    require_mutex: bool = False,
) -> Handle[None]:
    """Start ``win_put``; the tensor must not change until the handle is done."""
    return _window(name).put(
        tensor,
        self_weight=1.0 if self_weight is None else self_weight,
        dst_weights=dst_weights,
        require_mutex=require_mutex,
    )


def win_accumulate(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: Destinations = None,
    require_mutex: bool = False,
) -> bool:
    """``B_d[i] += w_d tensor`` on the out-neighbours; returns True once it is there.

    See ``Window.accumulate``.
    """
    win_accumulate_nonblocking(tensor, name, self_weight, dst_weights, require_mutex).wait()
    return True


def win_accumulate_nonblocking(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: Destinations = None,
    require_mutex: bool = False,
) -> Handle[None]:
    """Start ``win_accumulate``; the tensor must not change until the handle is done."""
    return _window(name).accumulate(
        tensor,
        self_weight=1.0 if self_weight is None else self_weight,
        dst_weights=dst_weights,
        require_mutex=require_mutex,
    )


def win_get(name: str, src_weights: Destinations = None, require_mutex: bool = False) -> bool:
    """``B_i[s] <- w_s S_s`` from the in-neighbours; returns True once it is here.

    See ``Window.get``.
    """
    win_get_nonblocking(name, src_weights, require_mutex).wait()
    return True


def win_get_nonblocking(
    name: str, src_weights: Destinations = None, require_mutex: bool = False
) -> Handle[None]:
    """Start ``win_get``."""
    return _window(name).get(src_weights=src_weights, require_mutex=require_mutex)


def win_update(  # noqa: PLR0917 - BlueFog's signature
    name: str,
    self_weight: float | None = None,
    neighbor_weights: Mapping[int, float] | None = None,
    reset: bool = False,
    clone: bool = False,
    require_mutex: bool = False,
) -> torch.Tensor:
    """``T <- s T + sum_j w_j B_i[j]``, in place: the tensor the window was created with.

    See ``Window.update``.
    """
    return _window(name).update(
        self_weight=self_weight,
        neighbor_weights=neighbor_weights,
        reset=reset,
        clone=clone,
        require_mutex=require_mutex,
    )


def win_update_then_collect(name: str, require_mutex: bool = True) -> torch.Tensor:
    """``T <- T + sum_j B_i[j]``, ``B_i[j] <- 0``. See ``Window.collect``."""
    return _window(name).collect(require_mutex=require_mutex)


def win_poll(handle: Handle[Any]) -> bool:
    """Whether the operation has finished; never blocks."""
    return poll(handle)


def win_wait(handle: Handle[Any]) -> bool:
    """Wait until the operation has finished; returns True."""
    wait(handle)
    return True


def get_win_version(name: str) -> dict[int, int]:
    """How many puts of, or gets from, each in-neighbour came since the last ``win_update``."""
    return _window(name).version()


def get_current_created_window_names() -> list[str]:
    """The names of this rank's windows, sorted."""
    return sorted(current().windows)


@contextmanager
def win_mutex(
    name: str, for_self: bool = False, ranks: Iterable[int] | None = None
) -> Iterator[None]:
    """Hold the mutexes of ``ranks`` for this rank, or one's own for ``ranks``.

    See ``Window.mutex``.
    """
    with _window(name).mutex(for_self=for_self, ranks=ranks):
        yield


@contextmanager
def win_lock(name: str) -> Iterator[None]:
    """Keep every other rank out of this rank's buffers: no put, accumulate or get touches them."""
    with _window(name).lock():
        yield


def win_associated_p(name: str) -> float:
    """p_i, the push-sum weight that goes with the window's own tensor."""
    return _window(name).p


def turn_on_win_ops_with_associated_p() -> None:
    """From now on p goes through the same sums as the tensors of put, accumulate and update."""
    current().windows_carry_p = True


def turn_off_win_ops_with_associated_p() -> None:
    """From now on p stays as it is."""
    current().windows_carry_p = False
