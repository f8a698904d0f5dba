"""What a ``DecentralizedOptimizer`` takes: each thing it cannot use has a message of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from ifog.errors import ArgumentError
from ifog.mixing import Mixer

__all__ = ["named", "require_combinable", "require_unchanged", "require_usable"]

ORDERS = ("atc", "awc", "gradient")


def named(optimizer: torch.optim.Optimizer) -> list[tuple[Tensor, str]]:
    """The optimizer's parameters, with what messages call them."""
    found: list[tuple[Tensor, str]] = []
    for group in optimizer.param_groups:
        for place, x in enumerate(group["params"]):
            names = group.get("param_names")
            found.append((x, repr(names[place]) if names else f"parameter {len(found)}"))
    return found


def require_usable(optimizer: Any, mix: Any, order: Any, every: Any) -> None:
    """Refuse what cannot be wrapped, mixed by, or asked for.

    Raises:
        ArgumentError: naming the argument, what was found, and what to pass instead.
    """
    what = "DecentralizedOptimizer"
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ArgumentError(f"{what} wraps a torch optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ArgumentError(
            f"{what}: LBFGS searches along lines of one rank's own loss and evaluates it many "
            "times a step; use a first-order optimizer such as SGD or AdamW"
        )
    if isinstance(mix, nx.DiGraph) or not callable(mix):
        raise ArgumentError(
            f"{what}: mix is a {type(mix).__name__}; pass a mixer, such as "
            "ifog.neighbor_mixer(ifog.one_peer(ifog.size()))"
        )
    if order not in ORDERS:
        raise ArgumentError(f"{what}: order is {order!r}; choose one of {list(ORDERS)}")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ArgumentError(f"{what}: every is {every!r}; it must be a whole number from 1 on")
    if order == "gradient" and every > 1:
        raise ArgumentError(
            f"{what}: with order='gradient' and every={every} the ranks would drift apart in the "
            "steps between; accumulate gradients over several backward passes and step once, or "
            "use order='atc'"
        )


def require_combinable(mix: Any, order: str, mix_state: Any, buffers: bool, overlap: bool) -> None:
    """Refuse options that do not go together.

    Raises:
        ArgumentError: naming the two.
    """
    what = "DecentralizedOptimizer"
    if isinstance(mix_state, str) or (mix_state and order != "atc"):
        raise ArgumentError(
            f"{what}: mix_state is {mix_state!r} with order={order!r}; it takes a list of names, "
            "and order='atc'"
        )
    if overlap and buffers:
        raise ArgumentError(
            f"{what}: buffers change during the forward pass, in which overlap=True mixes; leave "
            "one of the two out"
        )
    if overlap and mix_state:
        raise ArgumentError(f"{what}: mix_state cannot be mixed with overlap=True; leave one out")
    if overlap and isinstance(mix, Mixer) and not hasattr(mix, "step"):
        raise ArgumentError(
            f"{what}: this mixer waits for nobody, so there is nothing to overlap with; leave "
            "overlap out"
        )


def require_unchanged(
    optimizer: torch.optim.Optimizer, known: Sequence[tuple[Tensor, bool, str]]
) -> None:
    """Refuse to go on with other parameters than those there were, or others of them trained.

    Args:
        optimizer: the wrapped one.
        known: its parameters as they were, whether each required a gradient, and its name.

    Raises:
        ArgumentError: some were added, replaced, frozen or unfrozen.
    """
    now = [x for group in optimizer.param_groups for x in group["params"]]
    if len(now) != len(known) or any(
        x is not before for x, (before, *_) in zip(now, known, strict=True)
    ):
        raise ArgumentError(
            f"the optimizer had {len(known)} parameters and has others now ({len(now)}); "
            "make a new DecentralizedOptimizer around it after adding or replacing some"
        )
    for x, trained, name in known:
        if x.requires_grad != trained:
            verb = "frozen" if trained else "unfrozen"
            raise ArgumentError(
                f"{name} was {verb} after the optimizer was made; make a new "
                "DecentralizedOptimizer around the torch optimizer, on every rank"
            )
