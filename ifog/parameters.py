"""Models and optimizers made alike on all ranks: what they hold is broadcast or averaged.

Every function first compares what the ranks passed, so that ranks with different models get an
error that names the difference instead of waiting for each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any, TypeAlias

import torch

from ifog.context import current
from ifog.errors import ArgumentError, MismatchError
from ifog.ops import allgather, allreduce_, broadcast, broadcast_
from ifog.structure import pack, unpack

__all__ = [
    "allreduce_parameters",
    "broadcast_optimizer_state",
    "broadcast_parameters",
    "require_same",
]

Parameters: TypeAlias = Mapping[str, torch.Tensor] | Iterable[Any]


def broadcast_parameters(params: Parameters, root_rank: int = 0) -> None:
    """Overwrite tensors with those of ``root_rank``, in place; every rank must call it.

    Blocks until all ranks have the values. Buffers travel like parameters: pass
    ``model.state_dict()`` to include integer counters and running means.

    Args:
        params: {name: tensor}, or tensors or (name, tensor) pairs in any iterable, such as
            ``model.state_dict()``, ``model.named_parameters()`` or ``list(model.parameters())``.
            Named ones are matched across ranks by name, in sorted order, others by position.
        root_rank: whose values everyone gets.

    Raises:
        ArgumentError: something else than tensors, a name twice, or no such rank.
        MismatchError: the ranks' names, shapes, dtypes or roots differ; on every rank, and no
            tensor has changed.

    Example:
        >>> import torch, ifog
        >>> ifog.init()
        >>> ifog.broadcast_parameters(torch.nn.Linear(3, 1).state_dict(), root_rank=0)
    """
    op = "broadcast_parameters"
    named = _named(op, params)
    current().require((root_rank,), op)
    require_same(op, [f"root_rank: {root_rank}", *_described(named)])
    for name, tensor in named:
        broadcast_(tensor, root_rank, name=name)


def allreduce_parameters(params: Parameters) -> None:
    """Replace tensors by their mean over all ranks, in place; every rank must call it.

    x_i <- (1/n) sum_j x_j. Blocks until all ranks have the values.

    Args:
        params: floating-point tensors, in any of the forms of ``broadcast_parameters``.

    Raises:
        ArgumentError: something else than tensors, a name twice, or a dtype without a mean; no
            tensor has changed.
        MismatchError: the ranks' names, shapes or dtypes differ; on every rank, and no tensor has
            changed.
    """
    op = "allreduce_parameters"
    named = _named(op, params)
    require_same(op, _described(named))
    for label, (_, tensor) in zip(_labels(named), named, strict=True):
        if not tensor.is_floating_point():
            raise ArgumentError(
                f"{op}: {label} is {_dtype(tensor)}, which cannot be averaged; leave it out, for "
                "example by passing model.named_parameters() instead of model.state_dict()"
            )
    for name, tensor in named:
        allreduce_(tensor, name=name)


def broadcast_optimizer_state(optimizer: torch.optim.Optimizer, root_rank: int = 0) -> None:
    """Give every rank's optimizer the options and the state of that of ``root_rank``.

    Afterwards options (learning rates exactly, flags, None, tuples, tensors) and the state of
    every parameter are those of the root: what another rank has and the root has not is dropped,
    and the reverse appears. Parameters and gradients are not touched, and no step is taken; the
    root's optimizer does not change at all. Every rank must call it; it blocks until all have
    the state.

    State arrives on the device of its parameter if the root keeps it beside its own parameter,
    and in host memory otherwise.

    Args:
        optimizer: of the same class, with the same groups of parameters of the same shapes, on
            every rank.
        root_rank: whose state everyone gets.

    Raises:
        ArgumentError: not an optimizer, LBFGS, no such rank, or the root's optimizer holds
            something that is neither a number, a string, a tensor nor made of those; the last on
            every rank.
        MismatchError: the ranks' optimizers differ in class, groups or parameters, or the roots
            differ; on every rank, and nothing has changed.

    Example:
        >>> import torch, ifog
        >>> ifog.init()
        >>> model = torch.nn.Linear(3, 1)
        >>> adam = torch.optim.Adam(model.parameters(), lr=0.1)
        >>> ifog.broadcast_optimizer_state(adam, root_rank=0)
    """
    op = "broadcast_optimizer_state"
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ArgumentError(f"{op} needs a torch optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ArgumentError(
            f"{op}: the state of LBFGS belongs to the line searches on one rank's own loss and "
            "cannot be shared; use a first-order optimizer, or construct LBFGS anew on every rank"
        )
    context = current()
    context.require((root_rank,), op)
    require_same(op, [f"root_rank: {root_rank}", *_groups(optimizer)])
    is_root = context.rank == root_rank
    tensors: list[torch.Tensor] = []
    told = _packed_state(optimizer, tensors) if is_root else None
    content = _from_root(op, told)
    if "refused" in content:
        raise ArgumentError(f"{op}: rank {root_rank} cannot send {content['refused']}")
    if is_root:
        for tensor in tensors:
            broadcast(_bytes(tensor.detach().cpu()), root_rank, name=op)
    else:
        _take(optimizer, content, root_rank)


def _named(op: str, params: Parameters) -> list[tuple[str | None, torch.Tensor]]:
    """The tensors with their names, in the order in which all ranks go through them."""
    if isinstance(params, Mapping):
        given: list[Any] = list(params.items())
    elif isinstance(params, torch.Tensor | torch.nn.Module | str) or not isinstance(
        params, Iterable
    ):
        raise ArgumentError(
            f"{op}: params is a {type(params).__name__}; pass model.state_dict(), "
            "model.named_parameters() or a list of tensors"
        )
    else:
        given = [item if isinstance(item, tuple) else (None, item) for item in params]
    named: dict[str, torch.Tensor] = {}
    unnamed: list[tuple[None, torch.Tensor]] = []
    for item in given:
        if len(item) != 2 or not isinstance(item[0], str | None):
            raise ArgumentError(f"{op}: params has {item!r}; it should be a name and a tensor")
        name, tensor = item
        if not isinstance(tensor, torch.Tensor):
            what = f"number {len(unnamed)}" if name is None else repr(name)
            raise ArgumentError(
                f"{op}: {what} in params is a {type(tensor).__name__}; pass tensors only"
            )
        if name is None:
            unnamed.append((None, tensor))
        elif name in named:
            raise ArgumentError(f"{op}: params names {name!r} twice; names must be distinct")
        else:
            named[name] = tensor
    return [*sorted(named.items()), *unnamed]


def _labels(named: list[tuple[str | None, torch.Tensor]]) -> list[str]:
    return [
        f"number {place}" if name is None else repr(name) for place, (name, _) in enumerate(named)
    ]


def _described(named: list[tuple[str | None, torch.Tensor]]) -> list[str]:
    return [
        f"{label}: shape {tuple(tensor.shape)} {_dtype(tensor)}"
        for label, (_, tensor) in zip(_labels(named), named, strict=True)
    ]


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _groups(optimizer: torch.optim.Optimizer) -> list[str]:
    lines = [f"optimizer: {type(optimizer).__name__}"]
    for number, group in enumerate(optimizer.param_groups):
        lines.append(f"group {number}: {len(group['params'])} parameters")
        lines += [
            f"group {number}, parameter {place}: shape {tuple(p.shape)} {_dtype(p)}"
            for place, p in enumerate(group["params"])
        ]
    return lines


def require_same(op: str, lines: list[str]) -> None:
    """Check that all ranks pass the same lines, which describe what they are about to share.

    Raises:
        MismatchError: on every rank, naming the first line in which a rank differs from rank 0.
    """
    text = "\n".join(lines).encode()
    digest = torch.tensor([list(hashlib.sha256(text).digest())], dtype=torch.uint8, device="cpu")
    digests = allgather(digest, name=op)
    if bool((digests == digests[0]).all()):
        return
    lengths = allgather(torch.tensor([len(text)], device="cpu"), name=op).tolist()
    everything = allgather(_tensor_of(text), name=op)
    first, *others = (
        part.numpy().tobytes().decode().split("\n") for part in torch.split(everything, lengths)
    )
    for rank, theirs in enumerate(others, start=1):
        for mine, other in zip_longest(first, theirs, fillvalue="nothing more"):
            if mine != other:
                raise MismatchError(
                    f"{op}: rank 0 has {mine}; rank {rank} has {other}; pass the same on every rank"
                )


def _packed_state(optimizer: torch.optim.Optimizer, tensors: list[torch.Tensor]) -> dict[str, Any]:
    """What the root tells the others, its tensors replaced by their places in ``tensors``."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    place = {id(p): number for number, p in enumerate(parameters)}
    try:
        if not all(id(key) in place for key in optimizer.state):
            raise ArgumentError("state that belongs to no parameter of the optimizer's groups")
        return {
            "groups": [
                pack(
                    {key: value for key, value in group.items() if key != "params"},
                    tensors,
                    beside=group["params"][0] if group["params"] else None,
                )
                for group in optimizer.param_groups
            ],
            "state": [
                [place[id(p)], pack(state, tensors, beside=p)]
                for p, state in optimizer.state.items()
            ],
        }
    except ArgumentError as error:
        return {"refused": str(error)}


def _take(optimizer: torch.optim.Optimizer, content: dict[str, Any], root_rank: int) -> None:
    """Receive the root's tensors and make its options and state this optimizer's own."""
    op = "broadcast_optimizer_state"

    def receive(empty: torch.Tensor) -> torch.Tensor:
        arrived = broadcast(_bytes(empty), root_rank, name=op)
        return arrived.view(empty.dtype).reshape(empty.shape)

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    options = [
        unpack(packed, receive, beside=group["params"][0] if group["params"] else None)
        for group, packed in zip(optimizer.param_groups, content["groups"], strict=True)
    ]
    state = {
        parameters[place]: unpack(packed, receive, beside=parameters[place])
        for place, packed in content["state"]
    }
    for group, new in zip(optimizer.param_groups, options, strict=True):
        for key in group.keys() - new.keys() - {"params"}:
            del group[key]
        group.update(new)
    optimizer.state.clear()
    optimizer.state.update(state)


def _from_root(op: str, content: dict[str, Any] | None) -> dict[str, Any]:
    """The root's ``content`` on every rank; the others pass None."""
    text = b"" if content is None else json.dumps(content).encode()
    received: dict[str, Any] = json.loads(allgather(_tensor_of(text), name=op).numpy().tobytes())
    return received


def _tensor_of(text: bytes) -> torch.Tensor:
    return (
        torch.frombuffer(bytearray(text), dtype=torch.uint8)
        if text
        else torch.empty(0, dtype=torch.uint8, device="cpu")
    )


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
