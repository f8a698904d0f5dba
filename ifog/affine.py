"""What linear algebra says about an algorithm: how fast it goes, and where it ends.

Most algorithms are affine in their State: with gradients that are too, some steps together are
``s+ = M s + r``. M is found by taking them from the unit vectors, all of these side by side. Its
largest eigenvalue but for ones, which belong to what is conserved, is the factor on the error;
the sum of all ``M^k r`` leads to the fixed point, and so to the bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, State

__all__ = ["Affine", "Mixing", "analysed"]

_MOST = 800  # numbers in a State
_TOLERANCE = 1e-8
_ONE = 1e-7  # eigenvalues as close to 1 belong to what is conserved
_WARM = 3  # steps before a State has all its tensors, and first steps are over
_LONGEST = 12  # periods of the graph that are tried, for algorithms with local steps

Make = Callable[[int], tuple[Any, "Mixing"]]


class Mixing(Protocol):
    """A mixer of several runs that can be told with which round to go on.

    Attributes:
        mix: the mixer.
    """

    mix: Any

    @property
    def step(self) -> int:
        """The number of the next round."""

    def seek(self, step: int) -> None:
        """Make ``step`` the number of the next round."""


class Affine(NamedTuple):
    """The behaviour of an affine algorithm.

    Attributes:
        rate: the factor on the error per step, in the end; 1 or more where it diverges.
        fixed: x [n, ...] at the fixed point; None where it diverges.
    """

    rate: float
    fixed: Tensor | None


class _Map(NamedTuple):
    """What some steps do: ``s+ = matrix s + shift``."""

    steps: int
    matrix: Tensor
    shift: Tensor


class _Moment(NamedTuple):
    """A State of one run, and the number of its next round."""

    state: State
    round: int


def analysed(algorithm: Algorithm, x: Tensor, make: Make, period: int) -> Affine | None:
    """The rate and the fixed point of an algorithm; None if it is not affine, or too large.

    Args:
        algorithm: which.
        x: [n, ...] starting points.
        make: how many runs -> (their oracle, their mixer).
        period: of the graph.
    """
    begin = _Moment(algorithm.init(x.double()), 0)
    for steps in range(period, _LONGEST * period + 1, period):
        # At the same phase of local steps as the start.
        moment = _walk(algorithm, begin, make, -(-_WARM // steps) * steps)
        if len(_row(moment.state)) > _MOST:
            return None
        found = _map(algorithm, moment, make, steps)
        if _repeats(algorithm, moment, make, found):
            break
    else:
        return None
    if not _is_affine(algorithm, moment, make, found):
        return None
    map_, r = found.matrix, found.shift
    values = np.linalg.eigvals(map_.cpu().numpy())
    others = values[np.abs(values - 1) > _ONE]
    largest = float(np.abs(others).max(initial=0.0))
    if largest >= 1:
        return Affine(largest ** (1 / steps), None)
    # Not more terms than it takes: the ones among the eigenvalues add up rounding.
    doublings = math.ceil(math.log2(40 / -math.log(max(largest, 1e-9)))) + 1
    start = _row(moment.state)
    fixed = start + _sum_of_powers(map_, doublings) @ (map_ @ start + r - start)
    return Affine(largest ** (1 / steps), _with_rows(moment.state, fixed[None]).x)


def _walk(algorithm: Algorithm, moment: _Moment, make: Make, steps: int) -> _Moment:
    oracle, mixing = make(1)
    mixing.seek(moment.round)
    state = moment.state
    for _ in range(steps):
        state = algorithm.step(state, oracle, mixing.mix)
    return _Moment(state, mixing.step)


def _ends(algorithm: Algorithm, moment: _Moment, make: Make, steps: int, rows: Tensor) -> Tensor:
    """[runs, size] Where runs end that start from ``rows`` [runs, size] at this moment."""
    oracle, mixing = make(len(rows))
    mixing.seek(moment.round)
    state = _with_rows(moment.state, rows)
    for _ in range(steps):
        state = algorithm.step(state, oracle, mixing.mix)
    return torch.cat([tensor.reshape(len(rows), -1) for tensor in _tensors(state)], dim=1)


def _map(algorithm: Algorithm, moment: _Moment, make: Make, steps: int) -> _Map:
    start = _row(moment.state)
    scale = 1 + float(start.abs().max())
    away = torch.cat(
        [torch.zeros(1, len(start)).to(start), scale * torch.eye(len(start)).to(start)]
    )
    ends = _ends(algorithm, moment, make, steps, start + away)
    map_ = ((ends[1:] - ends[0]) / scale).T
    return _Map(steps, map_, ends[0] - map_ @ start)


def _repeats(algorithm: Algorithm, moment: _Moment, make: Make, found: _Map) -> bool:
    """Whether the next steps are the same map, over and over: local steps come to an end."""
    for _ in range(-(-_LONGEST // found.steps) + 1):
        after = _walk(algorithm, moment, make, found.steps)
        gap = found.matrix @ _row(moment.state) + found.shift - _row(after.state)
        if not bool((gap.abs() <= _TOLERANCE * (1 + _row(after.state).abs().max())).all()):
            return False
        moment = after
    return True


def _is_affine(algorithm: Algorithm, moment: _Moment, make: Make, found: _Map) -> bool:
    start = _row(moment.state)
    scale = 1 + float(start.abs().max())
    probe = scale * torch.randn(2, len(start), generator=torch.Generator().manual_seed(0))
    probe = torch.cat([torch.zeros(1, len(start)), probe]).to(start)
    ends = _ends(algorithm, moment, make, found.steps, start + probe)
    left = ends[1:] - ends[0] - probe[1:] @ found.matrix.T
    return bool((left.abs() <= _TOLERANCE * scale * (1 + found.matrix.abs().sum(1))).all())


def _sum_of_powers(map_: Tensor, doublings: int) -> Tensor:
    """``I + map_ + M^2 + ...``, 2^doublings terms."""
    total, power = torch.eye(len(map_)).to(map_), map_
    for _ in range(doublings):
        total = total + power @ total
        power = power @ power
    return total


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, tuple):
        for part in state:
            yield from _tensors(part)


def _row(state: State) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in _tensors(state)]).double()


def _with_rows(state: State, rows: Tensor) -> State:
    """The State of as many runs as there are rows, each with the numbers of its row."""
    sizes = [tensor.numel() for tensor in _tensors(state)]
    parts = iter(torch.split(rows, sizes, dim=1))

    def filled(part: Any) -> Any:
        if isinstance(part, Tensor):
            return next(parts).reshape(-1, *part.shape[1:]).to(part.dtype)
        if isinstance(part, tuple):
            inside = [filled(inner) for inner in part]
            return type(part)(*inside) if hasattr(part, "_fields") else tuple(inside)
        return part

    return filled(state)
