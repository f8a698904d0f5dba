"""Mixers through windows: they average with what neighbours left there, and wait for nobody.

A slow rank slows no other one; what is averaged may be some rounds old. Windows are made in the
first round, together; after that no two ranks need to have done the same number of rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor

from ifog.context import current
from ifog.errors import ArgumentError
from ifog.handle import Handle
from ifog.mixing import Mixed, Round, packed
from ifog.windows import Window

__all__ = ["WindowMixer", "push_sum_mixer", "window_mixer"]

_LEAST_TO_SEND = 0.5
_MOMENT = 0.0005  # seconds
Weights = Mapping[int, float] | Iterable[int] | None


class _Side:
    """One window, and how a round goes through it."""

    def __init__(
        self,
        window: Window,
        begin: Callable[[_Side, Tensor], Handle[None]],
        end: Callable[[_Side], Tensor],
    ) -> None:
        self.window = window
        self.begin = begin
        self.end = end
        self.last: Tensor | None = None  # what the last round gave, where that matters


class WindowMixer:
    """A mixer of one window for each dtype; free them by ``close`` or ``with``.

    Args:
        begin: (side, tensor) -> the operation that sends it off or fetches the others'.
        end: side -> the average, when that is done.
        name: of the windows.
        zero_init: begin with empty buffers.
    """

    def __init__(
        self,
        begin: Callable[[_Side, Tensor], Handle[None]],
        end: Callable[[_Side], Tensor],
        name: str,
        *,
        zero_init: bool,
    ) -> None:
        self.name = name
        self._begin = begin
        self._end = end
        self._zero_init = zero_init
        self._sides: dict[str, _Side] = {}

    def start(self, *xs: Tensor) -> Round:
        """Start a round; the tensors may change at once.

        Every rank must call it for the first round, which makes the windows, and for the next one
        after ranks died.
        """
        tensors, unpacked = packed(xs)
        sides = [self._side(x) for x in tensors]
        handles = [side.begin(side, x) for side, x in zip(sides, tensors, strict=True)]

        def finish(_: list[None]) -> Mixed:
            results = [side.end(side) for side in sides]
            return unpacked([y.to(x.device) for y, x in zip(results, tensors, strict=True)])

        return Round(tuple(handles), finish)

    def __call__(self, *xs: Tensor) -> Mixed:
        """``start(*xs).wait()``: one new tensor, or a tuple of as many as were given."""
        return self.start(*xs).wait()

    def open(self, *xs: Tensor) -> None:
        """Make the windows for tensors like these now; every rank must call it."""
        for x in packed(xs)[0]:
            self._side(x)

    def close(self) -> None:
        """Free the windows; every rank must call it."""
        for name, side in list(self._sides.items()):
            if current().windows.get(name) is side.window:
                side.window.free()
        self._sides.clear()

    def __enter__(self) -> WindowMixer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:  # the others may not get here
            self.close()

    def _side(self, x: Tensor) -> _Side:
        name = self.name
        if x.dtype is not torch.float32:
            name += f".{str(x.dtype).removeprefix('torch.')}"
        side = self._sides.get(name)
        if side is not None and current().windows.get(name) is side.window:
            if side.window.tensor.shape != x.shape:
                raise ArgumentError(
                    f"{name}: this round's tensor has shape {tuple(x.shape)}, the rounds before "
                    f"had {tuple(side.window.tensor.shape)}; use a mixer for each, with its name"
                )
            return side
        own = x.detach().to("cpu", copy=True).contiguous()
        window = Window(own, name, zero_init=self._zero_init)
        self._sides[name] = side = _Side(window, self._begin, self._end)
        return side


def window_mixer(
    kind: Literal["put", "get"] = "put",
    *,
    name: str = "mixer",
    weights: Callable[[], Weights] = lambda: None,
    before_update: Callable[[], object] = lambda: None,
) -> WindowMixer:
    """Averages over what the in-neighbours last put here, or over what they have right now.

    With the buffers B_i[j] of ``Window``, evenly or by the weights of the graph in use::

        put     B_d[i] <- x_i for each out-neighbour d;   y_i = s x_i + sum_j w_j B_i[j]
        get     B_i[j] <- x_j for each in-neighbour j;    y_i = s x_i + sum_j w_j B_i[j]

    Where x_j comes from an earlier round of j, or one ahead, the average is of different times:
    the mean over ranks then moves. ``push_sum_mixer`` keeps it. A rank to which nobody has put
    anything since its last round lets others compute for half a millisecond, and waits no longer.

    Args:
        kind: which of the two.
        name: of the window; two mixers need two names.
        weights: asked in each round for ``dst_weights`` (put) or ``src_weights`` (get).
        before_update: called when the data is there and before it is averaged.

    Source: Ying, Yuan, Hu, Chen, Pan, Yin 2021, arXiv:2111.04287, section 3.
    """
    if kind not in ("put", "get"):
        raise ArgumentError(f"window_mixer: kind is {kind!r}; use 'put' or 'get'")

    def begin(side: _Side, x: Tensor) -> Handle[None]:
        window = side.window
        if kind == "put":
            window.tensor.copy_(x)
            return window.put(window.tensor, dst_weights=weights())
        with window.mutex(for_self=True):  # nobody gets half of it
            window.tensor.copy_(x)
        return window.get(src_weights=weights(), require_mutex=True)

    def end(side: _Side) -> Tensor:
        before_update()
        _give_way(side.window)
        return side.window.update(clone=True, require_mutex=True)

    return WindowMixer(begin, end, name, zero_init=False)


def _give_way(window: Window) -> None:
    """Where ranks share cores, one of them would else do many steps with nothing new in between."""
    new = window.version().values()
    if new and not any(new):
        time.sleep(_MOMENT)


def push_sum_mixer(
    *,
    name: str = "push-sum",
    weights: Callable[[], tuple[float, Mapping[int, float]] | None] = lambda: None,
    before_update: Callable[[], object] = lambda: None,
) -> WindowMixer:
    """Averages that keep the mean on any strongly connected directed graph, however late.

    Each rank has u_i, at first x_i, and its weight p_i, at first 1; it shows z_i = u_i / p_i. With
    a_di = 1/(out-neighbours of i + 1)::

        u_i <- u_i + (x_i - z_i)                    what happened to x_i since the last round
        B_d[i] += a_di (u_i, p_i);  (u_i, p_i) <- a_ii (u_i, p_i)
        (u_i, p_i) <- (u_i, p_i) + sum_j B_i[j];  B_i[j] <- 0;  y_i = z_i = u_i / p_i

    Sums of u and of p, over ranks and buffers, never change by mixing. A gradient step from z_i
    thus moves u_i by as much: stochastic gradient push. A rank that is ahead of those that send to
    it would give away nearly all its weight, and each of its steps would move z_i by 1/p_i as
    much; so a rank with p_i < 1/2 sends nothing in that round, and p_i >= a_ii / 2 always.

    Args:
        name: of the window; two mixers need two names.
        weights: asked in each round for (a_ii, {d: a_di}), which should sum to 1; None for even
            ones.
        before_update: called when the own part is sent and before what came is added.

    Source: Assran, Loizou, Ballas, Rabbat 2019, arXiv:1811.10792, algorithm 1.
    """

    def begin(side: _Side, x: Tensor) -> Handle[None]:
        window = side.window
        if side.last is not None:
            window.tensor.add_(x.detach().cpu() - side.last)
        own, shares = weights() or _even()
        if window.p < _LEAST_TO_SEND:
            own, shares = 1.0, {}
        with _carrying_p():
            return window.accumulate(window.tensor, self_weight=own, dst_weights=shares)

    def end(side: _Side) -> Tensor:
        before_update()
        with _carrying_p():
            side.window.collect()
        side.last = side.window.tensor / side.window.p
        return side.last.clone()

    return WindowMixer(begin, end, name, zero_init=True)


def _even() -> tuple[float, dict[int, float]]:
    others = current().weights.dst
    share = 1.0 / (len(others) + 1)
    return share, dict.fromkeys(others, share)


@contextmanager
def _carrying_p() -> Iterator[None]:
    """Let p go with the tensors of these operations, whatever is in force for the user's own."""
    context = current()
    before, context.windows_carry_p = context.windows_carry_p, True
    try:
        yield
    finally:
        context.windows_carry_p = before
