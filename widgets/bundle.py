"""One ES module out of the plain ones in ``static/``, because a widget may import no other file.

Every file becomes a function scope of its own; what it exports is handed to the files that name
it in an ``import`` line. Nothing is minified, so a browser's debugger shows the sources.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

__all__ = ["STATIC", "module"]

STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?:function|class|const) (\w+)", re.MULTILINE)


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


@cache
def module(name: str) -> str:
    """The source of ``static/name`` with everything it imports inside."""
    scopes = "\n".join(_scope(file) for file in _needed(name, []))
    return f'const files = {{}};\n{scopes}\nexport default files["{name}"];\n'
