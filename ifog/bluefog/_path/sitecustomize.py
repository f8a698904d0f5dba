"""Run first by every Python whose ``PYTHONPATH`` leads here: ``bluefog`` is ifog's stand-in there.

A package called bluefog in this folder would not do: that of BlueFog's own checkout, from where its
tests are run, comes before all of ``PYTHONPATH``.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from importlib.machinery import PathFinder
from pathlib import Path


def _run_the_hidden_one() -> None:
    here = Path(__file__).resolve().parent
    others = [folder for folder in sys.path if Path(folder).resolve() != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


_run_the_hidden_one()
if importlib.util.find_spec("ifog") is not None:  # some other Python has no ifog
    from ifog.bluefog import install

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that it hides another one is wanted here
        install()
