"""Objects with a state of their own, for checkpoints: what is kept of them, and how it goes back.

Modules, optimizers, schedulers and generators of random numbers are used by reference: other
objects hold them, so a checkpoint is loaded into the ones that exist instead of replacing them.
Each such step can be undone, because another rank may find that its part does not fit.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ifog.errors import CheckpointError
from ifog.packing import pack

__all__ = ["enter", "random_states", "set_random", "tree_of"]

Undo = list[Callable[[], object]]


def tree_of(value: Any, tensors: list[torch.Tensor]) -> tuple[str, Any]:
    """What kind of variable this is, and what is kept of it, as ``packing.pack`` writes it.

    Raises:
        UnpackableError: it, or something in it, is of no kind that can be kept.
    """
    if isinstance(value, torch.nn.Module):
        state = value.state_dict()
        return "module", pack([dict(state), getattr(state, "_metadata", None)], tensors)
    if isinstance(value, torch.optim.Optimizer):
        return "optimizer", pack(value.state_dict(), tensors)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return "namedtuple", pack(dict(zip(value._fields, value, strict=True)), tensors)
    stateful = hasattr(value, "load_state_dict") and hasattr(value, "state_dict")
    if stateful and not isinstance(value, type):
        return "stateful", pack(value.state_dict(), tensors)
    tree = pack(value, tensors)
    return (tree[0] if isinstance(tree, list) else type(value).__name__), tree


def enter(
    kept: Mapping[str, tuple[str, Any]], objects: Mapping[str, Any], undo: Undo
) -> dict[str, Any]:
    """Name -> value, where what belongs into an object of that name has been loaded into it.

    Args:
        kept: name -> kind and value.
        objects: what exists.
        undo: takes a function for each object changed, to be called in reverse order.

    Raises:
        CheckpointError: the object that something belongs into does not exist.
    """
    return {
        name: _entered(name, kind, value, objects.get(name), undo)
        for name, (kind, value) in kept.items()
    }


def _entered(name: str, kind: str, value: Any, there: Any, undo: Undo) -> Any:
    if kind in ("module", "optimizer", "stateful"):
        if not hasattr(there, "load_state_dict"):
            raise CheckpointError(
                f"{name!r} is the state of a {kind}: make the object first, then load into it"
            )
        before = copy.deepcopy(there.state_dict())
        undo.append(lambda: there.load_state_dict(before))
        there.load_state_dict(_state(kind, value))
        return there
    if kind == "namedtuple":
        if tuple(getattr(there, "_fields", ())) != tuple(value):
            raise CheckpointError(
                f"{name!r} is a named tuple of {', '.join(value)}: make one first, then load it"
            )
        return type(there)(**value)
    if isinstance(value, torch.Tensor) and isinstance(there, torch.Tensor):
        return value if there.device == value.device else value.to(there.device)
    return _continued(there, value, undo)


def _state(kind: str, value: Any) -> Any:
    if kind != "module":
        return value
    state, metadata = OrderedDict(value[0]), value[1]
    if metadata is not None:
        state._metadata = metadata  # type: ignore[attr-defined] # torch's own way to keep it
    return state


def _continued(there: Any, value: Any, undo: Undo) -> Any:
    """Generators of random numbers that exist take the state; everything else is the new value."""
    if isinstance(value, torch.Generator) and isinstance(there, torch.Generator):
        tensor_state = there.get_state()
        undo.append(lambda: there.set_state(tensor_state))
        there.set_state(value.get_state())
    elif isinstance(value, np.random.Generator) and isinstance(there, np.random.Generator):
        bits, array_state = there.bit_generator, there.bit_generator.state
        undo.append(lambda: setattr(bits, "state", array_state))
        bits.state = value.bit_generator.state
    elif isinstance(value, random.Random) and isinstance(there, random.Random):
        plain_state = there.getstate()
        undo.append(lambda: there.setstate(plain_state))
        there.setstate(value.getstate())
    else:
        return value
    return there


def random_states() -> list[Any]:
    """The states of the global random numbers of torch, NumPy and Python."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - the user's own numbers
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state(), devices, [name, keys, *rest], random.getstate()]


def set_random(states: Sequence[Any], newcomer: int | None) -> None:
    """Continue the global random numbers from ``states``.

    Args:
        states: what ``random_states`` gave.
        newcomer: a rank that did not exist then; its numbers begin anew, from the states and it.
    """
    host, devices, numpy_state, python_state = states
    if newcomer is not None:
        told = host.numpy().tobytes() + newcomer.to_bytes(4, "little")
        seed = int.from_bytes(hashlib.sha256(told).digest()[:4], "little")
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the user's own numbers
        random.seed(seed)
        return
    torch.set_rng_state(host)
    if len(devices) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(devices)
    np.random.set_state(tuple(numpy_state))  # noqa: NPY002 - the user's own numbers
    random.setstate(python_state)
