"""A shell with the magics over a cluster that is not there, and cells that fail."""

from __future__ import annotations

from types import SimpleNamespace

from fakes import FakeHome, RecordingScreen
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from ifog.cell import RankError
from ifog.magics import unload_ipython_extension
from ifog.magics.bf import BfMagics


def completions(shell, text):
    """What a notebook offers for the word at the end of ``text``."""
    with provisionalcompleter():
        found = list(shell.Completer.completions(text, len(text)))
    return [completion.text for completion in found]


def new_shell():
    """A shell that keeps no history on the disk."""
    config = Config()
    config.HistoryManager.enabled = False
    return InteractiveShell(config=config)


def new_bench(shell):
    """A shell with the magics over a fake home: ``bench.cell(line, body)``, ``bench.line(...)``."""
    shell.reset()
    home, screen = FakeHome(), RecordingScreen()
    magics = BfMagics(shell, screen, home)
    unload_ipython_extension(shell)
    magics.register()
    return SimpleNamespace(
        shell=shell,
        home=home,
        screen=screen,
        cell=lambda line, body: shell.run_cell_magic("bf", line, body),
        line=lambda line: shell.run_line_magic("bf", line),
        complete=lambda line: completions(shell, line),
    )


def fail(**errors):
    def prepare_cell(cell):
        cell.status = "error"
        cell.errors = {int(rank[1:]): error for rank, error in errors.items()}

    return prepare_cell


BAD = RankError("ValueError", "lr must be positive", 2, "", None, "line 2")
FREE = RankError("PeerFailedError", "rank 1 failed", 3, "", 1, "")
