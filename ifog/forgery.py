"""Counts the messages that a Jupyter session refuses, and keeps them from disturbing anybody.

Every port of the controller is open to all processes of the machine, so anybody can send anything;
what counts is that nothing unsigned is acted on. The session raises for such a message, but what
calls it is not always prepared for that, so here the refusal is made to take one form.
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["Refusals"]


class Refusals:
    """The messages that ``session`` refused since this was made.

    Attributes:
        count: how many.
    """

    def __init__(self, session: Any) -> None:
        self.count = 0
        self._deserialize = session.deserialize
        self._feed = session.feed_identities
        session.deserialize = self._read
        session.feed_identities = self._split

    def _read(self, frames: Any, content: bool = True, copy: bool = True) -> Any:
        try:
            return self._deserialize(frames, content, copy)
        except Exception:
            # A message may first be opened for its header only, and is then refused twice.
            self.count += content
            raise

    def _split(self, frames: Any, copy: bool = True) -> Any:
        try:
            return self._feed(frames, copy)
        except ValueError:  # where the identities end is not marked: no message at all
            return [], []

    @staticmethod
    def quiet(log: Any) -> None:
        """Let ``log`` say nothing about refused messages, which anybody could make it repeat."""
        if isinstance(log, logging.LoggerAdapter):
            log = log.logger
        log.addFilter(lambda record: "Invalid" not in str(record.msg))
