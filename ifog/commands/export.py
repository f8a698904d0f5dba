"""``ifog export``: a recording as one HTML file that plays by itself."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from ifog.errors import ArgumentError
from ifog.numbers import size

HELP = "make one HTML file that plays a recording"
DESCRIPTION = (
    "Makes one HTML file that plays a recording in any browser, without Python and without a "
    "network. Open it as run.html#12.5 to begin at 12.5 s, as run.html#0play to play at once."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="a recording, run.ifog")
    parser.add_argument(
        "-o", dest="output", metavar="OUT", help="the page; by default run.html beside run.ifog"
    )
    parser.add_argument(
        "--panels", metavar="NAMES", help="which panels, such as graph,consensus; by default all"
    )
    parser.add_argument("--title", default="", help="the name of the run")


def main(options: argparse.Namespace) -> int:
    """Write the page."""
    try:
        widgets = importlib.import_module("ifog.widgets")
    except ImportError as error:
        raise ArgumentError(
            f"ifog export needs {error.name}; install it with: pip install 'ifog[lab]'"
        ) from None
    names = options.panels.split(",") if options.panels else list(widgets.PANELS)
    for name in names:
        if name not in widgets.PANELS:
            known = ", ".join(widgets.PANELS)
            raise ArgumentError(f"there is no panel {name!r}, only {known}")
    output = options.output or Path(options.file).with_suffix(".html")
    panels = [widgets.PANELS[name] for name in names]
    path = widgets.export(options.file, output, panels, options.title)
    print(f"{path}: {size(path.stat().st_size)}")
    return 0
