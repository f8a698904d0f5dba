"""Buckets of parameters that are mixed while the backward pass still computes the others.

A bucket is on its way as soon as all its gradients are there. Ranks start the buckets in one
order, from the last layers to the first, whatever the order in which their gradients came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from weakref import ref

import torch
from torch import Tensor

from ifog.errors import ArgumentError
from ifog.flat import Bucket, FlatParameters
from ifog.mixing import Mixing

__all__ = ["Pipeline", "step_on"]


class _UnderWay(NamedTuple):
    bucket: Bucket
    mixing: Mixing


class Pipeline:
    """Starts one bucket after the other.

    Args:
        layout: of the parameters.
        start: sends a bucket off; called for each, once a step, in the same order on every rank.
        due: whether the step after this backward pass mixes.
        nbytes: of a bucket, at least, where there is more than one.
    """

    def __init__(
        self,
        layout: FlatParameters,
        start: Callable[[Bucket], Mixing],
        due: Callable[[], bool],
        *,
        nbytes: int = 1 << 22,
    ) -> None:
        self.buckets = layout.buckets(nbytes)
        self._layout = layout
        self._start = start
        self._due = due
        self._bucket_of = {place: b for b, each in enumerate(self.buckets) for place in each.places}
        self._clear()
        me = ref(self)

        def arrived(place: int) -> None:
            pipeline = me()
            if pipeline is not None and not layout.displaced:
                pipeline.arrived(place)

        self._hooks = [
            x.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call] # torch's
                lambda _, which=place: arrived(which)
            )
            for place, x in enumerate(layout.tensors)
        ]

    def _clear(self) -> None:
        self._missing = [set(each.places) for each in self.buckets]
        self._under_way: list[_UnderWay] = []

    @torch.no_grad()
    def arrived(self, place: int) -> None:
        """Take note of a gradient, and start the buckets whose turn it is.

        Raises:
            ArgumentError: it has come already, in an earlier backward pass.
        """
        if not self._due():
            return
        missing = self._missing[self._bucket_of[place]]
        if place not in missing:
            raise ArgumentError(
                f"{self._layout.name(place)} got a second gradient before step(), while overlap="
                "True was sending the first; leave overlap out to accumulate gradients"
            )
        missing.discard(place)
        while len(self._under_way) < len(self.buckets) and not self._missing[len(self._under_way)]:
            self._next()

    def _next(self) -> None:
        bucket = self.buckets[len(self._under_way)]
        self._under_way.append(_UnderWay(bucket, self._start(bucket)))

    def results(self) -> list[tuple[Bucket, Tensor]]:
        """Start what has not been, such as buckets with unused parameters, and wait for all."""
        try:
            while len(self._under_way) < len(self.buckets):
                self._next()
            return [(each.bucket, each.mixing.wait()) for each in self._under_way]
        finally:
            self._clear()

    def close(self) -> None:
        """Take no more note of gradients."""
        for hook in self._hooks:
            hook.remove()


def step_on(optimizer: torch.optim.Optimizer, chosen: set[Tensor]) -> None:
    """Let the optimizer step on these parameters only."""
    before = [group["params"] for group in optimizer.param_groups]
    try:
        for group, params in zip(optimizer.param_groups, before, strict=True):
            group["params"] = [x for x in params if x in chosen]
        optimizer.step()
    finally:
        for group, params in zip(optimizer.param_groups, before, strict=True):
            group["params"] = params
