"""``bluefog.common.util``: environment variables for a while, and questions about the build."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ifog.variables import environment

__all__ = [
    "check_extension",
    "env",
    "extension_available",
    "is_running_from_ipython",
    "mpi_built",
]


@contextmanager
def env(**kwargs: str | None) -> Iterator[None]:
    """Set environment variables, and put them back at the end; those given as None stay.

    Example:
        >>> with env(BLUEFOG_LOG_LEVEL="debug"):
        ...     os.environ["BLUEFOG_LOG_LEVEL"]
        'debug'
    """
    with environment({name: value for name, value in kwargs.items() if value is not None}):
        yield


def is_running_from_ipython() -> bool:
    """Whether the code runs in IPython, for example in a notebook or on its engines."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def check_extension(*args: Any) -> None:
    """Return: BlueFog checks here that its C++ part was built, and ifog has none."""
    del args


def extension_available(ext_base_name: str, verbose: bool = False) -> bool:
    """Whether the framework is served: "torch" is."""
    del verbose
    return ext_base_name == "torch"


def mpi_built(verbose: bool = False) -> bool:
    """True: ranks are those of MPI."""
    del verbose
    return True
