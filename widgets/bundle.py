"""One ES module out of the plain ones in ``static/``, because a widget may import no other file.

Every file becomes a function scope of its own; what it exports is handed to the files that name
it in an ``import`` line. Nothing is minified, so a browser's debugger shows the sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

__all__ = ["STATIC", "entry", "module", "scopes"]

STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?:async )?(?:function|class|const) (\w+)", re.MULTILINE)


def _needed(name: str, order: list[str]) -> list[str]:
    """The file and all it imports, imported ones first."""
    source = (STATIC / name).read_text(encoding="utf-8")
    for match in _IMPORT.finditer(source):
        if match[2] not in order:
            _needed(match[2], order)
    order.append(name)
    return order


def _scope(name: str) -> str:
    source = (STATIC / name).read_text(encoding="utf-8")
    source = _IMPORT.sub(r'const \1 = files["\2"];', source)
    exports = _EXPORT.findall(source)
    source = re.sub(r"^export default", "return", source, flags=re.MULTILINE)
    source = re.sub(r"^export ", "", source, flags=re.MULTILINE)
    result = f"return {{ {', '.join(exports)} }};\n" if exports else ""
    return f'files["{name}"] = (() => {{\n{source}{result}}})();\n'


_ENTRY = re.compile(r'^export default files\["(\w+\.js)"\];$', re.MULTILINE)


def scopes(names: Iterable[str]) -> str:
    """The sources of ``names`` and of all that they import, each once, as entries of ``files``."""
    order: list[str] = []
    for name in names:
        if name not in order:
            _needed(name, order)
    return "const files = {};\n" + "\n".join(map(_scope, order))


@cache
def module(name: str) -> str:
    """The source of ``static/name`` with everything it imports inside."""
    return f'{scopes([name])}\nexport default files["{name}"];\n'


def entry(source: str) -> str:
    """The name of which ``source`` is the ``module``."""
    found = _ENTRY.search(source)
    if found is None:
        raise ValueError("a panel's module is made by ifog.widgets.bundle.module")
    return found[1]
