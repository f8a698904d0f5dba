"""``ifog lab``: JupyterLab on the first tutorial, reachable from this machine only."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

import ifog
from ifog.commands import arguments
from ifog.errors import ArgumentError

HELP = "open JupyterLab on the first tutorial"
DESCRIPTION = (
    "Opens JupyterLab on tutorials/00_start.ipynb, reachable from this machine "
    "only. All other arguments are passed on to JupyterLab."
)

# Nothing is asked of the network: no news, no look for a newer version, no list of extensions.
QUIET = (
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; unknown ones are for JupyterLab."""
    parser.set_defaults(passes_on=True)
    arguments.add_as_bluefog(parser)


def main(options: argparse.Namespace) -> int:
    """Replace this process by JupyterLab."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise ArgumentError('JupyterLab is not installed; install it with: pip install "ifog[lab]"')
    checkout = Path(ifog.__file__).resolve().parent.parent
    notebook = checkout / "tutorials" / "00_start.ipynb"
    if not notebook.is_file():
        raise ArgumentError(
            f"the first tutorial is not at {notebook}; the tutorials are in ifog's repository: "
            "install from a checkout with pip install -e '.[lab]', or open your own notebook with "
            "jupyter lab and begin with %load_ext ifog"
        )
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        str(notebook),
        "--ServerApp.ip=127.0.0.1",
        *QUIET,
        *(["--allow-root"] if _is_root() else []),
        *options.rest,
    ]
    if options.as_bluefog:
        os.environ.update(arguments.with_bluefog(os.environ))
    sys.stdout.flush()
    os.execv(sys.executable, command)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
