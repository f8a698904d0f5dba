"""Buckets of parameters that are mixed while the ranks compute, or step on others.

In a ``Pipeline`` a bucket is on its way as soon as all its gradients are there, while the backward
pass still computes others. In a ``Relay`` it is on its way from one step to the next, and one
bucket is stepped on while the next ones still arrive, so that the wire never rests. Ranks start
the buckets in one order, from the last layers to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple
from weakref import ref

import torch
from torch import Tensor

from ifog.errors import ArgumentError
from ifog.flat import Bucket, FlatParameters
from ifog.mixing import Mixing

__all__ = ["NBYTES", "Pipeline", "Relay", "step_on"]

NBYTES = 1 << 22  # of a bucket, at least, where there is more than one


class _UnderWay(NamedTuple):
    bucket: Bucket
    mixing: Mixing


class Pipeline:
    """Starts one bucket after the other.

    Args:
        layout: of the parameters.
        start: sends a bucket off; called for each, once a step, in the same order on every rank.
        due: whether the step after this backward pass mixes.
    """

    def __init__(
        self,
        layout: FlatParameters,
        start: Callable[[Bucket], Mixing],
        due: Callable[[], bool],
    ) -> None:
        self.buckets = layout.buckets(NBYTES)
        self._layout = layout
        self._start = start
        self._due = due
        self._bucket_of = {place: b for b, each in enumerate(self.buckets) for place in each.places}
        self.forget()
        me = ref(self)  # a parameter whose hook held the layout would never be let go of

        def arrived(place: int) -> None:
            pipeline = me()
            if pipeline is not None and not pipeline._layout.displaced:
                pipeline.arrived(place)

        self._hooks = [
            x.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call] # torch's
                lambda _, which=place: arrived(which)
            )
            for place, x in enumerate(layout.tensors)
        ]

    def forget(self) -> None:
        """Begin anew, whatever is under way."""
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
            self.forget()

    def close(self) -> None:
        """Take no more note of gradients."""
        for hook in self._hooks:
            hook.remove()


class Relay:
    """Holds what becomes of each bucket from one step to the next.

    Args:
        layout: of the parameters.
    """

    def __init__(self, layout: FlatParameters) -> None:
        self.buckets = layout.buckets(NBYTES)
        self._under_way: dict[Bucket, Mixing] = {}

    @property
    def under_way(self) -> bool:
        """Whether anything is."""
        return bool(self._under_way)

    def put(self, bucket: Bucket, mixing: Mixing) -> None:
        """Keep what was started until it is taken."""
        self._under_way[bucket] = mixing

    def take(self, bucket: Bucket) -> Tensor:
        """Wait for what the bucket becomes."""
        try:
            mixed: Tensor = self._under_way.pop(bucket).wait()
        except BaseException:
            self.forget()  # nobody sends the rest any more
            raise
        return mixed

    def forget(self) -> None:
        """Begin anew, whatever is under way."""
        self._under_way.clear()

    def drop(self) -> None:
        """Wait for all that is under way, and forget it."""
        for bucket in list(self._under_way):
            self.take(bucket)


def step_on(optimizer: torch.optim.Optimizer, tensors: Iterable[Tensor]) -> None:
    """Let the optimizer step on these parameters only."""
    chosen = set(tensors)
    before = [group["params"] for group in optimizer.param_groups]
    try:
        for group, params in zip(optimizer.param_groups, before, strict=True):
            group["params"] = [x for x in params if x in chosen]
        optimizer.step()
    finally:
        for group, params in zip(optimizer.param_groups, before, strict=True):
            group["params"] = params
