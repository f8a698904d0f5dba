"""A cell's code before it is sent: checked for syntax here, numbered as the notebook shows it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable
from typing import NamedTuple

from IPython.core.displayhook import DisplayHook

from ifog.errors import CellError

__all__ = ["Source", "prepare"]


class Source(NamedTuple):
    """Code for the ranks, and the names that it sets at its top level."""

    code: str
    names: frozenset[str]


def prepare(cell: str, transform: Callable[[str], str]) -> Source:
    """Check a cell's body.

    Args:
        cell: what stands below the ``%%bf`` line.
        transform: IPython's translation of ``%`` and ``!`` lines into Python.

    Raises:
        CellError: the code is no Python; nothing has been sent.
    """
    # The ranks count lines as written: the empty one stands for the %%bf line.
    code = f"\n{cell}"
    lines = code.splitlines(keepends=True)
    blank = next((k for k, line in enumerate(lines) if line.strip()), len(lines))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the ranks warn, once, where the code runs
            python = "\n" * blank + transform("".join(lines[blank:]))
            tree = ast.parse(python, "<cell>")
            # Parsing alone misses a return or an await outside of a function.
            compile(python, "<cell>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise CellError(_explain(error)) from None
    except ValueError as error:  # a null byte
        raise CellError(f"the cell is no Python: {error}; nothing was sent") from None
    return Source(_muted(code, tree), frozenset(_names(tree)))


def _muted(code: str, tree: ast.Module) -> str:
    """The code, with a last expression of no value behind one that ends in a semicolon.

    IPython looks for the semicolon in its history, which the ranks do not keep.
    """
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or code.lstrip().startswith("%%"):
        return code
    ends: Callable[[str], bool] = DisplayHook.semicolon_at_end_of_expression
    quiet = ends(code)
    return f"{code.rstrip()}\nNone" if quiet else code


def _names(tree: ast.Module) -> set[str]:
    names = set()
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names


def _explain(error: SyntaxError) -> str:
    lines = [f"{type(error).__name__} in cell line {error.lineno}: {error.msg}"]
    if error.text:
        text = error.text.rstrip("\n")
        lines.append(f"    {text.strip()}")
        if error.offset:
            indent = len(text) - len(text.lstrip())
            lines.append(" " * (4 + max(error.offset - 1 - indent, 0)) + "^")
    return "\n".join([*lines, "Nothing was sent to the ranks."])
