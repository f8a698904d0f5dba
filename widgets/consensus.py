"""Do the ranks agree?"""

from __future__ import annotations

from ifog import consensus
from ifog.widgets.bundle import module
from ifog.widgets.panel import Panel, Picture

__all__ = ["Consensus"]


class Consensus(Panel):
    """The error of each watched tensor over rounds, its prediction, and the drift of the mean."""

    _esm = module("consensus.js")
    span = 7
    picture = Picture(consensus.Consensus, consensus.fold_consensus, consensus.view_consensus)
