"""Mixers: what an algorithm or optimizer sees of the graph.

A mixer maps tensors to their weighted averages over ranks, round after round, and is the only
thing that knows by which graph or whether anybody is waited for. Whatever has ``start`` and can be
called like the ones here is a mixer: one that compresses what it sends is written that way too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import networkx as nx
import torch
from torch import Tensor

from ifog.errors import ArgumentError
from ifog.handle import Handle
from ifog.hierarchical import hierarchical_neighbor_allreduce_nonblocking
from ifog.machines import machine_rank
from ifog.neighbors import neighbor_allreduce_nonblocking
from ifog.ops import allreduce_nonblocking
from ifog.recount import Recount
from ifog.schedules import Schedule, constant
from ifog.weights import of_rank

__all__ = [
    "Mixed",
    "Mixer",
    "Mixing",
    "RankMixer",
    "Round",
    "allreduce_mixer",
    "hierarchical_mixer",
    "local_mixer",
    "neighbor_mixer",
    "packed",
]

Mixed: TypeAlias = Any  # a Tensor, or a tuple of them where several were given


class Mixing(Protocol):
    """A round under way."""

    def wait(self) -> Mixed:
        """The averages, once they are there."""

    def done(self) -> bool:
        """Whether they are there; never blocks."""


@runtime_checkable
class Mixer(Protocol):
    """Averages tensors over ranks: y_i = sum_j W_k[i, j] x_j in round k.

    With ``overlap`` an optimizer starts a round in parts, in the same order in every round, and
    sets ``step`` to the round before each: one that keeps something of its tensors, such as what it
    left out when it compressed them, keeps it by part.
    """

    def start(self, *xs: Tensor) -> Mixing:
        """Start a round; no tensor may change until it is done. One message for each neighbour."""

    def __call__(self, *xs: Tensor) -> Mixed:
        """``start(*xs).wait()``: one new tensor, or a tuple of as many as were given."""


@dataclass(frozen=True, slots=True)
class Round:
    """A round made of operations under way.

    Attributes:
        handles: of the operations.
        finish: from their results to the averages.
    """

    handles: tuple[Handle[Any], ...]
    finish: Callable[[list[Any]], Mixed]

    def wait(self) -> Mixed:
        """The averages, once they are there."""
        return self.finish([handle.wait() for handle in self.handles])

    def done(self) -> bool:
        """Whether they are there; never blocks."""
        return all(handle.done() for handle in self.handles)


class RankMixer:
    """A mixer of one operation for each dtype.

    Args:
        begin: (tensor, number of the round, what the tensor is called) -> the operation.
        name: what live views call the tensors; they watch named ones only.

    Attributes:
        step: the number of the next round.
    """

    def __init__(
        self, begin: Callable[[Tensor, int, str | None], Handle[Tensor]], name: str | None = None
    ) -> None:
        self.step = 0
        self._last = (-1, 0)  # the round that was started last, and how often it was
        self._begin = begin
        self._name = name
        self._recount = Recount()

    def start(self, *xs: Tensor) -> Round:
        """Start a round; no tensor may change until it is done."""
        if self._recount.due:
            (self.step,), self._last = self._recount.agree("mixer", self.step), (-1, 0)
        tensors, unpacked = packed(xs)
        step, self.step = self.step, self.step + 1
        # The parts of one round may be under way together, but not under one name.
        part = self._last[1] + 1 if self._last[0] == step else 0
        self._last = (step, part)
        name = self._name if part == 0 or self._name is None else f"{self._name} {part}"
        names = _names(name, tensors)
        begun = [self._begin(x, step, name) for x, name in zip(tensors, names, strict=True)]
        return Round(tuple(begun), unpacked)

    def __call__(self, *xs: Tensor) -> Mixed:
        """``start(*xs).wait()``: one new tensor, or a tuple of as many as were given."""
        return self.start(*xs).wait()


def packed(xs: Sequence[Tensor]) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Mixed]]:
    """The tensors as one for each device and dtype, and the way back.

    Returns:
        The joined tensors, and the function that splits what became of them: into one tensor for
        one given, else into a tuple.
    """
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, x in enumerate(xs):
        groups.setdefault((x.device, x.dtype), []).append(place)
    joined = [
        xs[places[0]].detach()
        if len(places) == 1
        else torch.cat([xs[place].detach().reshape(-1) for place in places])
        for places in groups.values()
    ]

    def unpacked(results: Sequence[Tensor]) -> Mixed:
        parts: dict[int, Tensor] = {}
        for places, result in zip(groups.values(), results, strict=True):
            sizes = [xs[place].numel() for place in places]
            split = torch.split(result.reshape(-1), sizes)
            for place, part in zip(places, split, strict=True):
                parts[place] = part.view(xs[place].shape)
        return parts[0] if len(xs) == 1 else tuple(parts[place] for place in range(len(xs)))

    return joined, unpacked


def neighbor_mixer(
    graph: nx.DiGraph | Schedule | None = None, *, check: bool = False, name: str | None = None
) -> RankMixer:
    """Averages over neighbours: y_i = sum_j W_k[i, j] x_j, by ``neighbor_allreduce``.

    Args:
        graph: a graph or a schedule, whose weights are used; by default the graph in use.
        check: compare all ranks' plans in each round of a given graph. Not needed where all ranks
            pass the same.
        name: what live views call the tensors.

    Example:
        >>> import ifog
        >>> ifog.init()
        >>> mix = ifog.neighbor_mixer(ifog.one_peer(ifog.size()))
        >>> mix(torch.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """
    schedule = _schedule("neighbor_mixer", graph)

    def begin(x: Tensor, step: int, name: str | None) -> Handle[Tensor]:
        if schedule is None:
            return neighbor_allreduce_nonblocking(x, name=name)
        return neighbor_allreduce_nonblocking(
            x, topology=schedule(step), enable_topo_check=check, name=name
        )

    return RankMixer(begin, name)


def hierarchical_mixer(
    graph: nx.DiGraph | Schedule | None = None, *, check: bool = False, name: str | None = None
) -> RankMixer:
    """Averages over machines, then between neighbour machines.

    y = sum_k W[m, k] z_k with z_k the mean over machine k: ``hierarchical_neighbor_allreduce``.

    Args:
        graph: a graph or a schedule whose nodes are the machines, such as
            ``exponential_machines(size(), local_size())``; by default the machine topology in use.
        check: compare all machines' plans in each round.
        name: what live views call the tensors.
    """
    schedule = _schedule("hierarchical_mixer", graph)

    def begin(x: Tensor, step: int, name: str | None) -> Handle[Tensor]:
        if schedule is None:
            return hierarchical_neighbor_allreduce_nonblocking(
                x, enable_topo_check=check, name=name
            )
        weights = of_rank(schedule(step), machine_rank(), weighted=True)
        return hierarchical_neighbor_allreduce_nonblocking(
            x,
            self_weight=weights.self_weight,
            src_machine_weights=dict(weights.src),
            dst_machine_weights=list(weights.dst),
            enable_topo_check=check,
            name=name,
        )

    return RankMixer(begin, name)


def allreduce_mixer(*, name: str | None = None) -> RankMixer:
    """Averages over all ranks: y = (1/n) sum_j x_j, the same bits on every rank."""
    return RankMixer(lambda x, _, name: allreduce_nonblocking(x, name=name), name)


def local_mixer() -> Mixer:
    """Averages over nobody: y_i = x_i, and nothing is sent."""
    return _LocalMixer()


class _LocalMixer:
    def start(self, *xs: Tensor) -> Round:
        copies = tuple(x.detach().clone() for x in xs)
        return Round((), lambda _: copies[0] if len(copies) == 1 else copies)

    def __call__(self, *xs: Tensor) -> Mixed:
        return self.start(*xs).wait()


def _names(name: str | None, tensors: Sequence[Tensor]) -> list[str | None]:
    if name is None or len(tensors) == 1:
        return [name] * len(tensors)
    return [f"{name}.{str(x.dtype).removeprefix('torch.')}.{x.device}" for x in tensors]


def _schedule(what: str, graph: nx.DiGraph | Schedule | None) -> Schedule | None:
    if graph is None or (callable(graph) and not isinstance(graph, nx.DiGraph)):
        return graph
    if isinstance(graph, nx.DiGraph):
        return constant(graph)
    raise ArgumentError(
        f"{what} needs a graph or a schedule, got {type(graph).__name__}; pass for example "
        "ifog.ring(4) or ifog.one_peer(4)"
    )
