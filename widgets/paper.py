"""A panel's picture without a browser: the same ES module draws it, and it becomes an SVG or a PNG.

The module runs in an embedded JavaScript engine on a document that knows only what panels ask for
(``static/paper.js``). Colours are written out, so that every program that shows SVG shows them.
"""

from __future__ import annotations

import json
import re
from functools import cache
from html import escape
from typing import Any, Literal

from ifog.errors import ArgumentError
from ifog.widgets.bundle import STATIC, module

__all__ = ["Theme", "png_of", "svg_of"]

Theme = Literal["light", "dark"]
_GROUND = {
    "light": {"--jp-layout-color1": "#ffffff", "--jp-ui-font-color1": "#212121"},
    "dark": {"--jp-layout-color1": "#212121", "--jp-ui-font-color1": "#ffffff"},
}
_FONTS = "DejaVu Sans, Verdana, Arial, sans-serif"
_MARGIN = 18
_HEAD = 30
_VARIABLE = re.compile(r"var\((--[\w-]+)(?:, [^()]*(?:\([^()]*\))?)?\)")
_STILL = re.compile(r"transition: [^;]*;")
_MIX = re.compile(r"color-mix\(in (srgb|oklab), (#\w{6}) (\d+)%, (#\w{6})\)")


def svg_of(name: str, traits: dict[str, Any], width: int, theme: Theme) -> str:
    """The picture of the panel ``static/name`` with these traits, ``width`` pixels wide.

    Raises:
        ArgumentError: the engine is not installed, or there is no such theme.
    """
    if theme not in _GROUND:
        raise ArgumentError(f"theme is {theme!r}; use 'light' or 'dark'")
    drawn = _draw(name, traits, width)
    height = _MARGIN + _HEAD + round(drawn["height"] or 90) + _MARGIN
    body = drawn["body"] or _words(drawn["empty"] or [drawn["question"]])
    alarm = " alarm" if drawn["alarm"] else ""
    wide = width + 2 * _MARGIN
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ifog" width="{wide}" height="{height}" '
        f'viewBox="0 0 {wide} {height}"><style>{_style()}</style>'
        f'<rect width="{wide}" height="{height}" class="ground"/>'
        f'<g transform="translate({_MARGIN}, {_MARGIN})">'
        f'<text class="title" x="0" y="12">{escape(drawn["title"])}</text>'
        f'<text class="end{alarm}" x="{width}" y="12">{escape(drawn["key"])}</text>'
        f'<g transform="translate(0, {_HEAD})">{body}</g></g></svg>\n'
    )
    return _coloured(text, theme)


def png_of(svg: str, scale: float) -> bytes:
    """The picture as a PNG with ``scale`` dots a pixel.

    Raises:
        ArgumentError: the renderer is not installed.
    """
    try:
        import resvg_py
    except ImportError:
        raise ArgumentError("to_png needs resvg-py; type %pip install 'ifog[pictures]'") from None
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=round(max(scale, 1))))


def _draw(name: str, traits: dict[str, Any], width: int) -> dict[str, Any]:
    try:
        from py_mini_racer import MiniRacer
    except ImportError:
        raise ArgumentError("to_svg needs mini-racer; type %pip install 'ifog[pictures]'") from None
    engine = MiniRacer()
    engine.eval((STATIC / "paper.js").read_text(encoding="utf-8"))
    source = re.sub(r"^export default", "globalThis.panel =", module(name), flags=re.MULTILINE)
    engine.eval(f"(() => {{\n{source}\n}})()")
    answer = engine.eval(f"onPaper(globalThis.panel, {json.dumps(traits)}, {width})")
    drawn: dict[str, Any] = json.loads(str(answer))
    return drawn


def _words(lines: list[str]) -> str:
    """A bold noun and what fills the panel."""
    head, *rest = (escape(line) for line in lines)
    under = "".join(
        f'<text class="muted" x="22" y="{58 + 18 * k}">{t}</text>' for k, t in enumerate(rest)
    )
    noun = f'<text class="bold body" x="22" y="38">{head}</text>'
    return f'<path class="rule" d="M1,0 V90"/>{noun}{under}'


@cache
def _style() -> str:
    """The rules of the style sheet that a drawing needs."""
    css = re.sub(r"/\*.*?\*/", "", (STATIC / "ifog.css").read_text(encoding="utf-8"), flags=re.S)
    rules = re.findall(r"^(\.ifog [^{@]+)\{([^}]*)\}", css, flags=re.MULTILINE)
    kept = [
        f"{' '.join(selector.split())} {{ {' '.join(_STILL.sub('', body).split())} }}"
        for selector, body in rules
        if "::" not in selector
    ]
    own = [
        f".ifog text {{ font-family: {_FONTS}; }}",
        ".ifog .ground { fill: var(--ifog-bg); }",
        ".ifog text.title { font-size: 14px; font-weight: 700; }",
    ]
    return "\n".join([*kept, *own])


@cache
def _tokens(theme: Theme) -> dict[str, str]:
    css = (STATIC / "ifog.css").read_text(encoding="utf-8")
    light = re.search(r"^\.ifog \{(.*?)^\}", css, re.S | re.M)
    dark = re.search(r"^\.vscode-dark \.ifog \{(.*?)^\}", css, re.S | re.M)
    assert light is not None
    assert dark is not None
    tokens = dict(_GROUND[theme])
    for block in (light, dark) if theme == "dark" else (light,):
        tokens |= dict(re.findall(r"(--ifog-[\w-]+): ([^;]+);", block[1]))
    return tokens


def _coloured(text: str, theme: Theme) -> str:
    """The text with every variable and mixture of colours written out."""
    tokens = _tokens(theme)
    for _ in range(3):  # tokens may name other tokens
        text = _VARIABLE.sub(lambda match: tokens.get(match[1], "inherit"), text)
    return _MIX.sub(lambda match: _mixed(match[1], match[2], match[4], int(match[3])), text)


def _mixed(space: str, first: str, second: str, percent: int) -> str:
    """``percent`` of the first colour and the rest of the second."""
    share = percent / 100
    into, back = (_to_oklab, _from_oklab) if space == "oklab" else (_plain, _plain)
    parts = zip(into(_channels(first)), into(_channels(second)), strict=True)
    mixed = back([share * a + (1 - share) * b for a, b in parts])
    return "#" + "".join(f"{round(255 * min(max(x, 0.0), 1.0)):02x}" for x in mixed)


def _channels(colour: str) -> list[float]:
    return [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]


def _plain(colour: list[float]) -> list[float]:
    return colour


def _to_oklab(colour: list[float]) -> list[float]:
    # Ottosson 2020, "A perceptual color space for image processing".
    r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in colour)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    middle = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return [
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    ]


def _from_oklab(colour: list[float]) -> list[float]:
    light, a, b = colour
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    return [12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055 for x in linear]
