"""The notebook side of ifog: ``%%bf`` cells and the ``%bf`` commands."""

from __future__ import annotations

from typing import Any

__all__ = ["load_ipython_extension", "unload_ipython_extension"]

_MAGICS = ("%bf", "%%bf")


def load_ipython_extension(shell: Any) -> None:
    """Register ``%%bf`` and ``%bf`` with their tab completion."""
    from ifog.magics.bf import BfMagics

    magics = BfMagics(shell)
    shell.register_magics(magics)
    for name in _MAGICS:
        shell.set_hook("complete_command", magics.complete, str_key=name)


def unload_ipython_extension(shell: Any) -> None:
    """Remove them."""
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("bf", None)
    for name in _MAGICS:
        shell.strdispatchers["complete_command"].strs.pop(name, None)
