"""Several parameters at once: which runs there are, and which of them can share a step.

Real parameters become tensors with a value for each agent, so runs that differ in these alone go
side by side; others, such as a number of local steps, make a group of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ifog.algorithms.base import Algorithm
from ifog.errors import ArgumentError

__all__ = ["Batch", "batches", "parameters"]


class Batch(NamedTuple):
    """Runs that go side by side.

    Attributes:
        algorithm: theirs.
        seeds: of each.
        places: of each among all runs.
    """

    algorithm: Algorithm
    seeds: tuple[int, ...]
    places: tuple[int, ...]


def parameters(sweep: Mapping[str, Sequence[Any]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """What distinguishes the runs: every combination of parameters, with every seed."""
    for name, values in sweep.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
            raise ArgumentError(f"simulate: sweep[{name!r}] is {values!r}; give a list of values")
    combined = itertools.product(*sweep.values())
    return [
        {**dict(zip(sweep, values, strict=True)), "seed": seed}
        for values in combined
        for seed in seeds
    ]


def batches(
    make: Callable[..., Algorithm],
    runs: Sequence[Mapping[str, Any]],
    like: torch.Tensor,
    *,
    together: bool,
) -> list[Batch]:
    """The runs in batches.

    Args:
        make: parameters -> algorithm.
        runs: parameters and seed of each.
        like: x [n, ...], whose precision the parameters get.
        together: False gives runs of other parameters batches of their own.
    """
    groups: dict[Any, list[int]] = {}
    for place, run in enumerate(runs):
        key = tuple(
            (
                name,
                None
                if together and isinstance(value, float)
                else id(value)
                if callable(value)
                else repr(value),
            )
            for name, value in run.items()
            if name != "seed"
        )
        groups.setdefault(key, []).append(place)
    return [_batch(make, runs, places, like) for places in groups.values()]


def _batch(
    make: Callable[..., Algorithm],
    runs: Sequence[Mapping[str, Any]],
    places: Sequence[int],
    like: torch.Tensor,
) -> Batch:
    chosen: dict[str, Any] = {}
    for name in runs[places[0]]:
        values = [runs[place][name] for place in places]
        if name == "seed":
            continue
        alike = all(value is values[0] or value == values[0] for value in values)
        chosen[name] = values[0] if alike else _by_agent(values, like)
    seeds = tuple(int(runs[place]["seed"]) for place in places)
    return Batch(make(**chosen), seeds, tuple(places))


def _by_agent(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """[runs n, 1, ...] the value of each agent's run."""
    column = torch.tensor(values, dtype=like.dtype, device=like.device).repeat_interleave(len(like))
    return column.view(-1, *(1 for _ in like.shape[1:]))
