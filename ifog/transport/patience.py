"""How a rank waits: it gives way to others, then sleeps, longer and longer."""

from __future__ import annotations

import os
import time

__all__ = ["give_way", "pause"]

_PAUSES = [min(50e-6 * 1.08**sleep, 5e-4) for sleep in range(31)]  # seconds; the last is longest
give_way = getattr(os, "sched_yield", lambda: time.sleep(0))


def pause(sleeps: int) -> float:
    """Seconds to sleep after so many sleeps: a tenth of what was slept already, up to 0.5 ms.

    Each look costs processor time that other ranks of the machine may need.
    """
    return _PAUSES[min(sleeps, len(_PAUSES) - 1)]
