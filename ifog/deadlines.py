"""How long an operation of this rank may wait for others."""

from __future__ import annotations

import math

from ifog.context import current
from ifog.errors import ArgumentError

__all__ = ["set_timeout"]


def set_timeout(seconds: float | None) -> None:
    """Let no operation of this rank wait longer than this, from now on and in later cells too.

    One that does raises ``DeadlineError``, which names the ranks it waited for and ends the cell on
    all ranks. Only waiting counts: computing may take any time.

    Args:
        seconds: above 0; None to wait for ever again.

    Raises:
        ArgumentError: not a number of seconds.
    """
    if seconds is not None and not 0 < seconds < math.inf:
        raise ArgumentError(
            f"set_timeout({seconds!r}): give seconds above 0, or None to wait for ever"
        )
    current().progress.patience = seconds
