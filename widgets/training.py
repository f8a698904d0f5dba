"""Does it learn, everywhere?"""

from __future__ import annotations

from ifog import training
from ifog.widgets.bundle import module
from ifog.widgets.panel import Panel, Picture

__all__ = ["Training"]


class Training(Panel):
    """Logged figures over rounds: a band over all ranks, their mean, and the worst of them."""

    _esm = module("training.js")
    span = 7
    picture = Picture(training.Training, training.fold_training, training.view_training)
