"""The states of all panels of a page in one message a look, instead of one message a panel.

What a message costs, here and in the browser, hardly depends on what it says. One widget that the
page shows, the bar, takes the states there and hands each to its panel; until the browser has said
that it shows the bar, every panel sends its own.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Carrier", "Porter"]


class Porter(Protocol):
    """The widget that carries states to the browser."""

    views: list[str]

    def send(self, content: Any, buffers: list[bytes] | None = None) -> None:
        """Send a message to the widget's model in the browser."""


class Carrier:
    """Collects what panels show now, and sends it all at once.

    Args:
        porter: the widget whose module in the browser hands states on.
    """

    def __init__(self, porter: Porter) -> None:
        self._porter = porter
        self._states: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether the browser hands on what is carried."""
        return bool(self._porter.views)

    def take(self, model: str, state: Mapping[str, Any]) -> None:
        """Carry ``state`` to the panel whose model has this id; a newer one takes its place."""
        text = json.dumps(state).encode()
        with self._lock:
            self._states[model] = text

    def deliver(self) -> None:
        """Send what was taken."""
        with self._lock:
            states, self._states = self._states, {}
        if states:
            # Buffers, because whatever is in a message's content is escaped and signed as well.
            self._porter.send({"states": list(states)}, list(states.values()))
