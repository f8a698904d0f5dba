"""Do the ranks agree?"""

from __future__ import annotations

from ifog import consensus
from ifog.widgets.bundle import module
from ifog.widgets.panel import Panel

__all__ = ["Consensus"]


class Consensus(Panel):
    """The error of each watched tensor over rounds, its prediction, and the drift of the mean."""

    _esm = module("consensus.js")
    span = 7
    initial = consensus.Consensus
    fold = staticmethod(consensus.fold_consensus)
    view = staticmethod(consensus.view_consensus)
