"""Which links carry bytes?"""

from __future__ import annotations

from ifog.shipments import Shipments, fold_shipments, view_shipments
from ifog.widgets.bundle import module
from ifog.widgets.panel import Panel, Picture

__all__ = ["Traffic"]


class Traffic(Panel):
    """Bytes by sender and receiver, in the newest cell or in total, beside the declared links."""

    _esm = module("traffic.js")
    span = 4
    picture = Picture(Shipments, fold_shipments, view_shipments)
