"""Two ranks average with each other, while all others do as they please."""

from __future__ import annotations

import torch

from ifog.combining import mix
from ifog.context import Context, current
from ifog.handle import Handle, Operation
from ifog.neighbors import floating, watched
from ifog.operation import Outcome, launch
from ifog.plans import pair_plan

__all__ = ["pair_gossip", "pair_gossip_nonblocking"]


def pair_gossip(
    tensor: torch.Tensor,
    target_rank: int,
    self_weight: float | None = None,
    pair_weight: float | None = None,
    name: str | None = None,
    *,
    enable_topo_check: bool = False,
) -> torch.Tensor:
    """The weighted average of a tensor over this rank and one partner, who names this rank.

    y = self_weight x + pair_weight x_target; without weights (x + x_target)/2, summed first.

    Blocks until the partner has called it with this rank as its target: it may be with others
    before. Calls are matched for each pair by itself, so the other ranks need not call it. Partners
    in a ring (0 names 1, 1 names 2, 2 names 0) wait for ever, or until interrupted; where every
    rank calls it, ``enable_topo_check`` makes that an error.

    Args:
        tensor: [...] floating point; not changed.
        target_rank: the partner.
        self_weight: weight of this rank's tensor.
        pair_weight: weight of the partner's.
        name: matches the call across the two.
        enable_topo_check: every rank calls it: compare all partners.

    Returns:
        [...] a new tensor of the same shape, dtype and device.

    Raises:
        ArgumentError: the partner is no other rank, or only one weight was given.
        MismatchError: the partner's tensor has another shape or dtype; on both.
        TopologyMismatchError: a partner has another partner; on all ranks.

    Source: Boyd, Ghosh, Prabhakar, Shah 2006, "Randomized gossip algorithms".
    """
    return pair_gossip_nonblocking(
        tensor, target_rank, self_weight, pair_weight, name, enable_topo_check=enable_topo_check
    ).wait()


def pair_gossip_nonblocking(
    tensor: torch.Tensor,
    target_rank: int,
    self_weight: float | None = None,
    pair_weight: float | None = None,
    name: str | None = None,
    *,
    enable_topo_check: bool = False,
) -> Handle[torch.Tensor]:
    """Start ``pair_gossip``; the tensor must not change until the handle is done."""
    op = "pair_gossip"
    context = current()
    x = floating(tensor, op)
    plan = pair_plan(context, target_rank, self_weight, pair_weight, op)

    def body(context: Context, tag: int) -> Operation[Outcome]:
        return (yield from mix(context, tag, op, x, plan, checked=enable_topo_check))

    low, high = sorted((context.rank, int(target_rank)))
    group = "" if enable_topo_check else f".{low}-{high}"
    return launch(op, name, plan.src, watched(op, name, tensor, x, body), group=group)
