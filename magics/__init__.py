"""The notebook side of ifog: ``%%bf`` cells and the ``%bf`` commands."""

from __future__ import annotations

from typing import Any

__all__ = ["load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: Any) -> None:
    """Register ``%%bf`` and ``%bf`` with their tab completion."""
    from ifog.magics.bf import BfMagics

    unload_ipython_extension(shell)
    BfMagics(shell).register()


def unload_ipython_extension(shell: Any) -> None:
    """Remove them."""
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("bf", None)
    matchers = shell.Completer.custom_matchers
    matchers[:] = [m for m in matchers if getattr(m, "matcher_identifier", "") != "ifog.bf"]
