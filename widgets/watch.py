"""Do the laws hold?"""

from __future__ import annotations

from ifog.invariants import Invariants, fold_invariants, view_invariants
from ifog.widgets.bundle import module
from ifog.widgets.panel import Panel, Picture

__all__ = ["Watch"]


class Watch(Panel):
    """A lamp for each law of the run; one that broke says in which round and on which rank."""

    _esm = module("watch.js")
    span = 4
    picture = Picture(Invariants, fold_invariants, view_invariants)
