"""Problems for several runs at once, and for another precision or device.

The rows of R runs stand one run after the other: [R n, ...].
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ifog.errors import ArgumentError

__all__ = ["SideBySide", "moved", "require", "seeded"]


class SideBySide:
    """One oracle for the rows of several runs, each of which has its own.

    Args:
        problems: one for each run.
    """

    def __init__(self, problems: Sequence[Any]) -> None:
        self._problems = problems

    def __call__(self, x: Tensor) -> Tensor:
        """[R n, ...] -> [R n, ...] the gradients."""
        return self._each_run(lambda problem, part: problem(part), x)

    def prox(self, v: Tensor, c: float) -> Tensor:
        """Row i is ``argmin over x of f_i(x) + (c/2) |x - v_i|^2``."""
        return self._each_run(lambda problem, part: problem.prox(part, c), v)

    def each(self, x: Tensor) -> Tensor:
        """[R n, m, ...] the gradients of all samples."""
        return self._each_run(lambda problem, part: problem.each(part), x)

    def some(self, x: Tensor, which: Tensor) -> Tensor:
        """[R n, ...] the mean gradients of samples ``which`` [R n, batch]."""
        return self._each_run(lambda problem, *parts: problem.some(*parts), x, which)

    def _each_run(self, ask: Any, *xs: Tensor) -> Tensor:
        parts = zip(*(x.chunk(len(self._problems)) for x in xs), strict=True)
        return torch.cat([ask(p, *part) for p, part in zip(self._problems, parts, strict=True)])


def seeded(problem: Any, seed: int) -> Any:
    """The problem as it is at the start of the run with this seed."""
    if not hasattr(problem, "seed"):
        return problem
    mine = copy.copy(problem)  # its own count of calls, too
    mine.seed = problem.seed + seed
    if hasattr(mine, "step"):
        mine.step = 0
    return mine


def moved(problem: Any, dtype: torch.dtype | None, device: torch.device) -> Any:
    """The problem with its tensors on ``device``, its real numbers as ``dtype``."""
    if callable(getattr(problem, "to", None)):
        return problem.to(dtype=dtype, device=device)
    if dataclasses.is_dataclass(problem) and not isinstance(problem, type):
        tensors = {
            field.name: _converted(value, dtype, device)
            for field in dataclasses.fields(problem)
            if isinstance(value := getattr(problem, field.name), Tensor)
        }
        same = all(getattr(problem, name) is value for name, value in tensors.items())
        return problem if same else dataclasses.replace(problem, **tensors)
    if hasattr(problem, "problem"):  # one that adds chance to another
        outer = copy.copy(problem)
        outer.problem = moved(problem.problem, dtype, device)
        return outer
    return problem


def _converted(value: Tensor, dtype: torch.dtype | None, device: torch.device) -> Tensor:
    return value.to(device, dtype if dtype is not None and value.is_floating_point() else None)


def require(problem: Any, needs: Sequence[str], label: str) -> None:
    """Check that the problem answers what the algorithm asks.

    Raises:
        ArgumentError: naming what it lacks.
    """
    asked = {"prox": ("prox",), "samples": ("each", "some")}
    for need in needs:
        missing = [name for name in asked.get(need, ()) if not hasattr(problem, name)]
        if missing:
            raise ArgumentError(
                f"{label} asks the problem for {' and '.join(asked[need])}, which a "
                f"{type(problem).__name__} does not have; ifog.problems.least_squares has all"
            )
