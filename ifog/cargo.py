"""Variables on their way: to the notebook, to a rank that begins anew, or into a file and back.

What ranks hand to each other is pickled with whatever classes and functions cells defined, since a
process that has just begun knows none of them; it goes only between processes of one job. Tensors
that share memory, or parameters that an optimizer holds, do so afterwards as well.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

__all__ = ["of_user", "packed", "portable", "unpacked", "writable"]

_GIVEN = frozenset(("In", "Out", "bf", "exit", "get_ipython", "ifog", "open", "quit", "torch"))


def writable(value: Any) -> Any:
    """A value that arrived in a message, with arrays that may be written to."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return value if value.flags.writeable else value.copy()
    return _mapped(writable, value)


def portable(value: Any) -> Any:
    """The value with every tensor in it as a NumPy array, for a process without torch."""
    import torch

    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        if tensor.dtype is torch.bfloat16:  # unknown to NumPy
            tensor = tensor.float()
        return tensor.numpy()
    return _mapped(portable, value)


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    if type(value) in (dict, OrderedDict):
        return {key: change(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(change(item) for item in value)
    return value


def of_user(namespace: Mapping[str, Any]) -> list[str]:
    """The names in it that the user's cells bound."""
    return sorted(name for name in namespace if not name.startswith("_") and name not in _GIVEN)


def packed(namespace: Mapping[str, Any], names: Iterable[str]) -> tuple[bytes, dict[str, str]]:
    """Variables as bytes, and for each that cannot be packed the reason."""
    chosen = {name: namespace[name] for name in names}
    refused: dict[str, str] = {}
    try:
        return _dumped(chosen), refused
    except Exception:  # a value's own code may raise anything; which one is found out below
        kept = {}
        for name, value in chosen.items():
            try:
                _dumped(value)
                kept[name] = value
            except Exception as error:
                refused[name] = f"{type(value).__name__}: {error}"
    return _dumped(kept), refused


def _dumped(value: Any) -> bytes:
    import cloudpickle
    import torch

    if isinstance(value, ModuleType):
        return bytes(cloudpickle.dumps(value))
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_module=cloudpickle)
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    """The variables that ``packed`` packed in another process of this user's job."""
    import torch

    variables: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=False)
    return variables
