"""Nested Python values with tensors in them, written as JSON and a list of tensors, and back.

What one rank sends so, another can read without running any code of the sender's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ifog.errors import ArgumentError

__all__ = ["pack", "unpack"]


def pack(value: Any, tensors: list[torch.Tensor], *, beside: torch.Tensor | None) -> Any:
    """The value as JSON knows it; numbers stay exact.

    Args:
        value: None, numbers, strings, tensors, and lists, tuples and dicts of such.
        tensors: receives the tensors, in the order in which ``unpack`` asks for them.
        beside: a tensor whose device the receiver has a counterpart of.

    Raises:
        ArgumentError: the value holds something else; the message only says what.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return pack(value.item(), tensors, beside=beside)
    if isinstance(value, torch.Tensor):
        return _pack_tensor(value, tensors, beside)
    if type(value) in (list, tuple):
        items = [pack(item, tensors, beside=beside) for item in value]
        return {type(value).__name__: items}
    if type(value) is dict:
        return {"dict": [[_key(k), _entry(k, item, tensors, beside)] for k, item in value.items()]}
    raise ArgumentError(f"a {type(value).__module__}.{type(value).__qualname__}: {value!r:.80}")


def unpack(
    packed: Any,
    receive: Callable[[torch.Tensor], torch.Tensor],
    *,
    beside: torch.Tensor | None,
) -> Any:
    """The value that ``pack`` wrote.

    Args:
        packed: what ``pack`` returned.
        receive: called for every tensor, in order, with an empty one like it in host memory; its
            result has the values.
        beside: the counterpart of what ``pack`` got; tensors that were on its device are put on
            the device of this one, others stay in host memory.
    """
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind == "tensor":
        return _unpack_tensor(content, receive, beside)
    if kind == "dict":
        return {key: unpack(item, receive, beside=beside) for key, item in content}
    items = [unpack(item, receive, beside=beside) for item in content]
    return tuple(items) if kind == "tuple" else items


def _key(key: Any) -> str | int:
    if type(key) not in (str, int):
        raise ArgumentError(f"a dict with the key {key!r:.80}; keys must be strings or integers")
    return key  # type: ignore[no-any-return]  # checked above


def _entry(key: Any, item: Any, tensors: list[torch.Tensor], beside: torch.Tensor | None) -> Any:
    try:
        return pack(item, tensors, beside=beside)
    except ArgumentError as error:
        raise ArgumentError(f"{key!r}: {error}") from None


def _pack_tensor(
    tensor: torch.Tensor, tensors: list[torch.Tensor], beside: torch.Tensor | None
) -> dict[str, Any]:
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ArgumentError(f"a tensor of layout {tensor.layout}, {tensor.dtype}; only dense ones")
    tensors.append(tensor)
    near = beside is not None and tensor.device == beside.device
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"tensor": [dtype, list(tensor.shape), near]}


def _unpack_tensor(
    content: list[Any],
    receive: Callable[[torch.Tensor], torch.Tensor],
    beside: torch.Tensor | None,
) -> torch.Tensor:
    name, shape, near = content
    values = receive(torch.empty(shape, dtype=getattr(torch, name), device="cpu"))
    if beside is None or not near:
        return values
    if beside.shape != values.shape:
        return values.to(beside.device)
    # Strides like the parameter's, as the optimizer itself would have made it.
    like = torch.empty_like(beside, dtype=values.dtype, requires_grad=False)
    return like.copy_(values)
