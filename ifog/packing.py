"""Values as plain data and back: what a checkpoint may hold, without running anybody's code.

A value becomes a tree of JSON and a list of tensors. Reading one never imports or calls what the
file names, as unpickling would; the only objects it makes are of the kinds written here.
"""

from __future__ import annotations

import base64
import io
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ifog.errors import ArgumentError

__all__ = ["UnpackableError", "averaged", "pack", "unpack"]

_PLAIN = (type(None), bool, str)
_SEQUENCES: dict[str, type] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "size": torch.Size,
}
_DTYPES = {str(d): d for d in vars(torch).values() if isinstance(d, torch.dtype)}


class UnpackableError(ArgumentError):
    """A value of a kind that a checkpoint does not hold."""


def pack(value: Any, tensors: list[torch.Tensor]) -> Any:
    """The value as a tree for JSON; its tensors are appended to ``tensors``.

    Raises:
        UnpackableError: it, or something in it, is of no kind that can be kept.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int or kind is float:
        return value
    for name, sequence in _SEQUENCES.items():
        if kind is sequence:
            return [name, [pack(item, tensors) for item in value]]
    if kind in (dict, OrderedDict):
        pairs = [[pack(key, tensors), pack(item, tensors)] for key, item in value.items()]
        return ["dict" if kind is dict else "ordered", pairs]
    for leaf, write in _WRITERS:
        if isinstance(value, leaf):
            return write(value, tensors)
    raise UnpackableError(
        f"a {kind.__module__}.{kind.__qualname__} cannot be kept in a checkpoint; keep tensors, "
        "arrays, numbers, text, and lists or dictionaries of these"
    )


def _write_tensor(value: torch.Tensor, tensors: list[torch.Tensor]) -> list[Any]:
    tensors.append(_compact(value))
    kind = "parameter" if isinstance(value, torch.nn.Parameter) else "tensor"
    return [kind, len(tensors) - 1, value.requires_grad]


def _write_array(value: Any, tensors: list[torch.Tensor]) -> list[Any]:
    tensors.append(_array_bytes(value))
    return ["scalar" if isinstance(value, np.generic) else "array", len(tensors) - 1]


def _write_generator(value: torch.Generator, tensors: list[torch.Tensor]) -> list[Any]:
    tensors.append(value.get_state())
    return ["generator", len(tensors) - 1, str(value.device)]


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """The values in host memory, without the rest of a larger tensor they may be a view of."""
    host = tensor.detach().cpu()
    if host.layout is torch.strided and host.untyped_storage().nbytes() > host.nbytes:
        host = host.clone(memory_format=torch.contiguous_format)
    return host


def _array_bytes(value: Any) -> torch.Tensor:
    buffer = io.BytesIO()
    try:
        np.save(buffer, np.asarray(value), allow_pickle=False)
    except ValueError as error:
        raise UnpackableError(f"an array of {value.dtype} cannot be kept: {error}") from None
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


_WRITERS: tuple[tuple[Any, Callable[[Any, list[torch.Tensor]], list[Any]]], ...] = (
    (torch.Tensor, _write_tensor),
    ((np.ndarray, np.generic), _write_array),
    (torch.Generator, _write_generator),
    (np.random.Generator, lambda v, t: ["numpy generator", pack(v.bit_generator.state, t)]),
    (random.Random, lambda v, t: ["random", pack(v.getstate(), t)]),
    (complex, lambda v, _: ["complex", v.real, v.imag]),
    (bytes, lambda v, _: ["bytes", base64.b64encode(v).decode()]),
    (torch.dtype, lambda v, _: ["dtype", str(v)]),
    (torch.device, lambda v, _: ["device", str(v)]),
)


def _array(data: torch.Tensor) -> Any:
    return np.load(io.BytesIO(data.numpy().tobytes()), allow_pickle=False)


def unpack(tree: Any, tensors: list[torch.Tensor]) -> Any:
    """The value of a tree that ``pack`` made.

    Raises:
        ValueError: it made no such tree.
    """
    if not isinstance(tree, list):
        return tree
    kind, *rest = tree
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](unpack(item, tensors) for item in rest[0])
    if kind in ("dict", "ordered"):
        pairs = [(unpack(key, tensors), unpack(item, tensors)) for key, item in rest[0]]
        return dict(pairs) if kind == "dict" else OrderedDict(pairs)
    if kind not in _LEAVES:
        raise ValueError(f"unknown kind {kind!r}")
    return _LEAVES[kind](tensors, *rest)


def _tensor(tensors: list[torch.Tensor], index: int, requires_grad: bool) -> torch.Tensor:
    return tensors[index].requires_grad_(requires_grad)


def _parameter(tensors: list[torch.Tensor], index: int, requires_grad: bool) -> torch.Tensor:
    return torch.nn.Parameter(tensors[index], requires_grad)


def _generator(tensors: list[torch.Tensor], index: int, device: str) -> torch.Generator:
    generator = torch.Generator(device)
    generator.set_state(tensors[index])
    return generator


def _numpy_generator(tensors: list[torch.Tensor], tree: Any) -> np.random.Generator:
    state = unpack(tree, tensors)
    kinds = {
        kind.__name__: kind
        for kind in (
            np.random.PCG64,
            np.random.PCG64DXSM,
            np.random.MT19937,
            np.random.Philox,
            np.random.SFC64,
        )
    }
    bits = kinds[state["bit_generator"]]()
    bits.state = state
    return np.random.Generator(bits)


def _random(tensors: list[torch.Tensor], tree: Any) -> random.Random:
    generator = random.Random()
    generator.setstate(unpack(tree, tensors))
    return generator


_LEAVES: Mapping[str, Callable[..., Any]] = {
    "tensor": _tensor,
    "parameter": _parameter,
    "array": lambda tensors, index: _array(tensors[index]),
    "scalar": lambda tensors, index: _array(tensors[index])[()],
    "generator": _generator,
    "numpy generator": _numpy_generator,
    "random": _random,
    "complex": lambda _, real, imaginary: complex(real, imaginary),
    "bytes": lambda _, text: base64.b64decode(text),
    "dtype": lambda _, name: _DTYPES[name],
    "device": lambda _, name: torch.device(name),
}


def averaged(first: Any, others: list[Any], where: str) -> Any:
    """``first`` with every floating-point tensor and array replaced by the mean over the ranks.

    Sums run in the order of ranks, in float64 (complex128 for complex numbers).

    Args:
        first: the value that decides about all else: numbers, text, integer tensors, structure.
        others: the values of all ranks, ``first``'s among them.
        where: what this is, for errors.

    Raises:
        ArgumentError: the ranks kept different shapes or structures.
    """
    if isinstance(first, (torch.Tensor, np.ndarray)):
        return _mean(first, others, where)
    if type(first) in (dict, OrderedDict):
        _alike([sorted(map(repr, o)) if isinstance(o, dict) else None for o in others], where)
        return type(first)(
            (key, averaged(item, [o[key] for o in others], f"{where}[{key!r}]"))
            for key, item in first.items()
        )
    if type(first) in (list, tuple):
        _alike([len(o) if isinstance(o, (list, tuple)) else None for o in others], where)
        return type(first)(
            averaged(item, [o[k] for o in others], f"{where}[{k}]") for k, item in enumerate(first)
        )
    return first


def _alike(signs: list[Any], where: str) -> None:
    different = [rank for rank, sign in enumerate(signs) if sign != signs[0]]
    if different:
        raise ArgumentError(
            f"{where} cannot be averaged: rank {different[0]} kept {signs[different[0]]}, rank 0 "
            f"{signs[0]}; load it by rule 'assign'"
        )


def _mean(first: Any, others: list[Any], where: str) -> Any:
    _alike([(tuple(o.shape), str(o.dtype)) if hasattr(o, "dtype") else None for o in others], where)
    if isinstance(first, torch.Tensor):
        if not (first.is_floating_point() or first.is_complex()):
            return first
        wide = torch.complex128 if first.is_complex() else torch.float64
        total = torch.zeros(first.shape, dtype=wide)
        for other in others:
            total += other.detach()
        mean = (total / len(others)).to(first.dtype)
        if isinstance(first, torch.nn.Parameter):
            return torch.nn.Parameter(mean, first.requires_grad)
        return mean.requires_grad_(first.requires_grad)
    if not np.issubdtype(first.dtype, np.inexact):
        return first
    wide_array = np.complex128 if np.issubdtype(first.dtype, np.complexfloating) else np.float64
    return (sum(o.astype(wide_array) for o in others) / len(others)).astype(first.dtype)
