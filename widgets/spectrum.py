"""How fast can W mix?"""

from __future__ import annotations

from typing import Any

import traitlets

from ifog.modes import Modes, fold_modes, view_modes
from ifog.widgets.bundle import module
from ifog.widgets.layout import positions
from ifog.widgets.panel import Panel, Picture

__all__ = ["Spectrum"]


def _view(state: Modes, time: float) -> dict[str, Any]:
    view = view_modes(state, time)
    if view["empty"] or not view["weights"]:
        return view
    links = tuple((u, v) for u, v, _ in view["weights"])
    on_circle, spots = positions(view["n"], links, view["label"])
    return view | {"round_layout": on_circle, "positions": spots}


class Spectrum(Panel):
    """The eigenvalues of W, or of the product over a schedule's period, and the gap.

    Attributes:
        proposal: the graph that was chosen by *Use*, with ``n`` and its ``edges``; empty if none.
    """

    _esm = module("spectrum.js")
    span = 4
    proposal = traitlets.Dict().tag(sync=True)
    picture = Picture(Modes, fold_modes, _view)
