"""``bluefog.torch.mpi_ops``: the module BlueFog defines its operations in; the same names."""

from __future__ import annotations

from typing import Any

from ifog import bluefog

__all__ = list(bluefog.__all__)


def __getattr__(name: str) -> Any:
    return getattr(bluefog, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
