"""``%%bf`` runs a cell on the ranks, ``%bf`` commands the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class

from ifog.errors import IfogError
from ifog.magics.commands import command
from ifog.magics.complete import matcher
from ifog.magics.live import Screen, screen_of
from ifog.magics.options import parse_cell_line
from ifog.magics.runner import Runner

__all__ = ["BfMagics"]


@contextmanager
def _briefly() -> Iterator[None]:
    """Errors of ifog and interrupts show as their message: the frames are not the user's."""
    try:
        yield
    except (IfogError, KeyboardInterrupt) as error:
        lines = [f"\x1b[1m{type(error).__name__}\x1b[0m: {error}"]
        vars(error).setdefault("_render_traceback_", lambda: lines)
        raise


@magics_class
class BfMagics(Magics):
    """The magics of one shell.

    Args:
        shell: the IPython shell.
        screen: where to show things; by default what fits the shell.
        home: where clusters come from; by default ``ifog.cluster``.
    """

    def __init__(self, shell: Any, screen: Screen | None = None, home: Any = None) -> None:
        super().__init__(shell)
        self._runner = Runner(shell, screen or screen_of(shell), home)

    @line_cell_magic
    def bf(self, line: str, cell: str | None = None) -> None:
        """Run a cell on the ranks (``%%bf``), or command the cluster (``%bf help``)."""
        with _briefly():
            if cell is None:
                command(self._runner, line)
            else:
                self._runner.run(parse_cell_line(line), cell)

    def register(self) -> None:
        """Make the magics and their completion known to the shell."""
        runner, shell = self._runner, self._runner.shell
        shell.register_magics(self)
        shell.Completer.custom_matchers.append(
            matcher(lambda: list(shell.user_ns), lambda: runner.names)
        )
