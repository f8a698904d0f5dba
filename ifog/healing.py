"""What one rank does to heal: come together, agree on who lives, and start afresh with them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ifog.errors import NotInitializedError, PeerFailedError
from ifog.exchange import Arrivals, Parcel, exchange, tag_of, wire
from ifog.handle import Handle, Operation
from ifog.presses import Presses

if TYPE_CHECKING:
    from ifog.context import Context

__all__ = ["Healing"]


class Healing:
    """The healing of one rank.

    Attributes:
        phase: what it does: waits for the others, or agrees with them on who lives.
        left: the ranks that have left the running cell since it failed, and why.
    """

    def __init__(self, context: Context) -> None:
        self.phase: Literal["", "meeting", "agreeing"] = ""
        self.left: Mapping[int, str] = {}
        self._context = context

    def heal(self) -> None:
        """Make operations possible again; every living rank must call it.

        Raises:
            PeerFailedError: one has left the running cell instead.
        """
        context = self._context
        stopped = NotInitializedError("the operation was under way when its cell was stopped")
        context.progress.fail_all(stopped)
        context.in_flight.clear()
        for window in context.windows.values():
            window.let_go()
        handle: Handle[None] = Handle(context.progress, "heal", "", context.healed)
        handle.begin(self._meet())
        self.phase = "meeting"
        handle.wait()
        with Presses() as presses:  # whoever left here would leave the others inside
            self._agree()
        if presses.count:
            raise KeyboardInterrupt
        self._drop_partial_windows()

    def _meet(self) -> Operation[None]:
        for missing in self._context.transport.meet():
            self.require_no_deserter(missing)
            yield missing

    def _agree(self) -> None:
        context = self._context
        self.phase, before = "agreeing", context.alive
        context.transport.heal()
        # The ranks stopped at different points: those further on must not stay ahead in counting.
        context.unnamed.clear()
        context.healed += 1
        if context.alive != before:
            context.adapt()
        self.phase = ""

    def require_no_deserter(self, ranks: Collection[int]) -> None:
        """Check that none of ``ranks`` has left the running cell.

        Raises:
            PeerFailedError: one has; it heals when the cell is over everywhere.
        """
        if gone := sorted(self.left.keys() & set(ranks)):
            cause = self.left[gone[0]]
            raise PeerFailedError(
                f"rank {gone[0]} has left the cell ({cause}) and does not heal in it; let it end "
                "here, too: then all ranks heal",
                gone[0],
                cause,
            )

    def _drop_partial_windows(self) -> None:
        """Let go of windows that not every rank has: the cell failed while they came or went."""
        context = self._context
        names = np.frombuffer(json.dumps(sorted(context.windows)).encode(), np.uint8)
        parcel = Parcel(torch.empty(names.size, dtype=torch.uint8, device="cpu"), names)
        others = [rank for rank in context.alive if rank != context.rank]
        handle: Handle[Arrivals] = Handle(context.progress, "heal", "windows", context.healed)
        tag = tag_of(f"{context.healed}.windows")
        handle.begin(exchange(context.transport, tag, dict.fromkeys(others, parcel), others))
        for other in handle.wait().parcels.values():
            there = json.loads(wire(other.like).tobytes())
            for name in set(context.windows).difference(there):
                context.windows[name].abandon()
