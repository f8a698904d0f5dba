"""A run as one HTML file that plays without Python and without a network, wherever it lies.

The file holds the modules that draw panels in a notebook, and for each panel what its fold and its
view make of the run at some hundred moments. Its policy lets it load nothing and run no other code.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget

from ifog import __version__
from ifog.errors import ArgumentError, RecordingError
from ifog.frames import Track, film, moments, packed, stops
from ifog.numbers import count, counted, duration
from ifog.playback import Replay
from ifog.tape import Tape
from ifog.widgets.bundle import STATIC, entry, scopes
from ifog.widgets.panel import Panel

__all__ = ["LIMIT", "write_page"]

LIMIT = 3_000_000  # bytes of the file
_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'sha256-{digest}'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light; --jp-layout-color1: #fff; --jp-ui-font-color1: rgba(0,0,0,.87); }}
@media (prefers-color-scheme: dark) {{
  :root {{ color-scheme: dark; --jp-layout-color1: #212121; --jp-ui-font-color1: #fff; }}
}}
body {{ background: var(--jp-layout-color1); margin: 0; }}
{css}
.ifog-dashboard.jupyter-widgets {{ margin: 0 auto; }}
.ifog-tools .strong {{ display: none; }}
#words {{ margin: 0 auto; max-width: 900px; padding: 0 18px 24px; }}
#words summary {{ cursor: pointer; }}
#words ul {{ margin: 8px 0; padding-left: 18px; }}
</style>
<body>
<div id="words" class="ifog">{words}</div>
<script type="application/json" id="run">{run}</script>
<script type="module">{code}</script>
</body>
</html>
"""


def write_page(path: str | Path, tape: Tape, bar: Panel, panels: Sequence[Panel]) -> Path:
    """Write the run as it looks in these panels; returns the path.

    Raises:
        ArgumentError: the name does not end in ``.html``, or the run has no event.
        RecordingError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ArgumentError(f"a page is saved as HTML: {path.stem}.html, not {path.name!r}")
    if not len(tape):
        raise ArgumentError("the run has no event yet, so there is nothing to save: run a cell")
    text = _page(tape, [bar, *panels])
    half = path.with_name(f".{path.name}.part")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    except OSError as error:
        raise RecordingError(f"{path} cannot be written: {error.strerror}") from None
    return path


def _page(tape: Tape, panels: list[Panel]) -> str:
    taken = moments(tape)
    tracks = film(tape, [panel.picture for panel in panels], taken)
    names = [entry(panel._esm) for panel in panels]
    code = f'\n{scopes(["page.js", *names])}\nfiles["page.js"].start(files);\n'
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    title = str(panels[0].title) or tape.title or "A run of ifog"
    css = (STATIC / "ifog.css").read_text(encoding="utf-8")
    words = _words(tape, panels, tracks)
    rest = LIMIT - len(code) - len(css) - len(words) - 64_000  # for the places of steps and ticks
    traits = [_traits(panel) for panel in panels]
    traits[0] |= {"modelled": tape.modelled, "title": panels[0].title or tape.title}
    run = {
        "replay": Replay(tape).standing() | {"at": 0.0},
        "steps": [round(tape.played(moment), 6) for moment in stops(tape, taken)],
        "panels": [
            {"module": name, "span": _span(panel), "traits": values, "track": data}
            for name, panel, values, data in zip(
                names, panels, traits, _packed(tracks, rest), strict=True
            )
        ],
    }
    return _PAGE.format(
        digest=digest,
        title=html.escape(title),
        css=css,
        words=words,
        run=json.dumps(run, separators=(",", ":")).replace("<", "\\u003c"),
        code=code,
    )


def _packed(tracks: Sequence[Track], limit: int) -> list[str]:
    """All tracks within the limit: what short ones leave is shared by the long ones."""
    data = [packed(track, limit) for track in tracks]
    order = sorted(range(len(tracks)), key=lambda i: len(data[i]))
    for done, i in enumerate(order):
        share = limit // (len(tracks) - done)
        if len(data[i]) > share:
            data[i] = packed(tracks[i], share)
        limit -= len(data[i])
    return data


def _span(panel: Panel) -> int:
    """The columns that a panel has on its page."""
    names = [name.removeprefix("ifog-span-") for name in panel._dom_classes]
    return next((int(name) for name in names if name.isdigit()), panel.span)


def _traits(panel: Panel) -> dict[str, Any]:
    """What else the module knows of its panel: how it is set, such as which rank is chosen."""
    own = set(panel.trait_names(sync=True)) - set(anywidget.AnyWidget.class_trait_names())
    values = {name: getattr(panel, name) for name in own if not name.startswith("_")}
    return {name: value for name, value in values.items() if name != "state"}


def _words(tape: Tape, panels: Sequence[Panel], tracks: Sequence[Track]) -> str:
    """The end of the run in words, and what is not known of it."""
    lines = []
    for panel, track in zip(panels, tracks, strict=True):
        say = json.loads(track.frames[-1]).get("say", "")
        lines.append(f"<li><b>{type(panel).__name__}</b> {html.escape(say)}</li>")
    lost = f"{count(tape.lost)} events lost" if tape.lost else "no event lost"
    cells = f"{len(tape.cells)} cell{'' if len(tape.cells) == 1 else 's'}"
    about = f"{counted(tape.n)}, {cells}, {count(len(tape))} events, {lost}"
    time = "modelled time" if tape.modelled else duration(tape.seconds)
    return (
        "<details><summary class='ifog-muted'>In words</summary>"
        f"<ul>{''.join(lines)}</ul></details>"
        f"<p class='ifog-muted'>{about}, {time}; made by ifog {__version__}</p>"
        "<noscript><p>The pictures are drawn by JavaScript.</p></noscript>"
    )
