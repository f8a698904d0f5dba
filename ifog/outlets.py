"""What a cell prints to, kept open whatever the cell does to ``sys.stdout`` and ``sys.stderr``.

Everything that a rank says goes through the same channel, and its engine writes there itself, so a
stream that a cell has closed, deleted or replaced by a broken one would silence the rank for good.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["Outlets"]

_NAMES = ("stdout", "stderr")


class Outlets:
    """The two streams as they are now; closing them only flushes them from here on."""

    def __init__(self) -> None:
        self._own: dict[str, Any] = {name: getattr(sys, name) for name in _NAMES}
        for stream in self._own.values():
            stream.close = stream.flush

    def flush(self) -> None:
        """Send what was printed, and put back a stream that nothing can be written to any more."""
        for name, own in self._own.items():
            try:
                getattr(sys, name).flush()
            except Exception:  # closed, None, gone, or a user's own that raises anything
                setattr(sys, name, own)
            own.flush()
