"""The output of many ranks in one place: whole lines, with the rank before each where wanted."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Lines"]

_PATIENCE = 0.1  # seconds after which a line without an end is shown as it is


class Lines:
    """Cuts what ranks write into lines.

    Args:
        write: called with the stream's number (1 or 2) and what is to be written there.
        tagged: whether ``[rank]`` stands before each line; then no line is shown in parts.
    """

    def __init__(self, write: Callable[[int, bytes], None], *, tagged: bool) -> None:
        self._write = write
        self._tagged = tagged
        self._partial: dict[tuple[int, int], tuple[float, bytes]] = {}

    def take(self, rank: int, stream: int, data: bytes) -> None:
        """Write the lines that are complete now, and keep the rest."""
        since, before = self._partial.pop((rank, stream), (time.monotonic(), b""))
        # A carriage return ends a line too: bars of progress use nothing else.
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        whole, rest = (before + data[:end], data[end:]) if end else (b"", before + data)
        if whole:
            since = time.monotonic()
            self._emit(rank, stream, whole)
        if rest:
            self._partial[rank, stream] = (since, rest)

    def waiting(self) -> bool:
        """Whether a line without an end is to be shown soon."""
        return bool(self._partial) and not self._tagged

    def show_parts(self) -> None:
        """Write lines that have had no end for a while; they are questions or bars of progress."""
        if self._tagged:
            return
        moment = time.monotonic()
        for (rank, stream), (since, rest) in list(self._partial.items()):
            if moment - since >= _PATIENCE:
                del self._partial[rank, stream]
                self._emit(rank, stream, rest)

    def finish(self, rank: int) -> None:
        """Write what is left of a rank's last line."""
        for stream in (1, 2):
            _, rest = self._partial.pop((rank, stream), (0.0, b""))
            if rest:
                self._emit(rank, stream, rest + (b"\n" if self._tagged else b""))

    def _emit(self, rank: int, stream: int, text: bytes) -> None:
        if self._tagged:
            tag = f"[{rank}] ".encode()
            # Only these two end a line; other characters that str takes for ends stay in it.
            lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\r\n").split(b"\n")
            last = lines.pop()
            text = b"".join(
                tag + line + (b"" if line.endswith(b"\r") else b"\n")
                for line in ([*lines, last] if last else lines)
            )
        self._write(stream, text)
