"""Which links carry bytes?"""

from __future__ import annotations

from ifog.links import Links, fold_links, view_links
from ifog.widgets.bundle import module
from ifog.widgets.panel import Panel, Picture

__all__ = ["Traffic"]


class Traffic(Panel):
    """Bytes by sender and receiver, in the newest cell or in total, beside the declared links."""

    _esm = module("traffic.js")
    span = 4
    picture = Picture(Links, fold_links, view_links)
