"""Pictures of every view, light and dark, for a person to look at.

``python tests/gallery.py [FOLDER [SCENE...]]`` draws made-up runs with the very modules the panels
use, on a page of headless Chromium that stands alone, and writes one PNG for each; by default into
``artifacts/pictures``, which git ignores. With ``--readme`` it makes the pictures of README.md.
"""

from __future__ import annotations

import html
import json
import sys
from pathlib import Path

import lab
import numpy as np
from runs import cell, graph_event, one_peer_matrix, ring_matrix, star_matrix, tracking

from ifog.telemetry import CellEnd, CellStart, DeathEvent, EventLog, LogEvent, WaitEvent
from ifog.widgets import PANELS
from ifog.widgets.bundle import STATIC, module
from ifog.widgets.dashboard import Bar, spans

ROOT = Path(__file__).parent.parent
README = ROOT / "tutorials/pictures"
THEMES = {"light": ("#fff", "rgba(0,0,0,.87)"), "dark": ("#212121", "#fff")}
PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; --jp-layout-color1: {ground}; --jp-ui-font-color1: {ink}; background: {ground};
--jp-ui-font-family: system-ui, sans-serif; }} {css}</style>
<body data-jp-theme-light="{light}"><div class="ifog-dashboard jupyter-widgets"
style="width: {width}px; max-width: none; padding: 8px 18px 16px">{bar}
<div class="ifog-grid jupyter-widgets">{places}</div></div>
<script type="module">
const texts = {texts};
const model = (given) => {{
    const traits = {{ selected: null, table: false, look: {{}}, views: [], title: "", ...given }};
    const heard = new Map();
    return {{ get: (name) => traits[name], save_changes() {{}}, send() {{}},
        set(name, value) {{ traits[name] = value;
            for (const f of heard.get(`change:${{name}}`) ?? []) f(); }},
        on(names, f) {{ for (const n of names.split(" "))
            heard.set(n, [...(heard.get(n) ?? []), f]); }}, off() {{}} }};
}};
for (const el of document.querySelectorAll("[data-module]")) {{
    const {{ source, traits }} = texts[el.dataset.module];
    const blob = new Blob([source], {{ type: "text/javascript" }});
    const {{ default: made }} = await import(URL.createObjectURL(blob));
    const own = ((window.models ??= {{}})[el.dataset.module] = model(traits));
    made.render({{ model: own, el }});
}}
document.body.dataset.ready = "true";
</script>"""


def page(states, theme, width=864, title="", looks=None):
    """An HTML page with the panels of ``states``: {name: state}, a bar first if there is one."""
    ground, ink = THEMES[theme]
    looks = looks or {}
    texts = {
        name: {
            "source": module(f"{name}.js"),
            "traits": {"state": state, "title": title, **looks.get(name, {})},
        }
        for name, state in states.items()
    }
    names = [name for name in states if name != "bar"]
    widths = spans([PANELS[name].span for name in names])
    places = "".join(
        f'<div class="ifog-span-{wide}" data-module="{name}"></div>'
        for name, wide in zip(names, widths, strict=True)
    )
    return PAGE.format(
        ground=ground,
        ink=ink,
        css=(STATIC / "ifog.css").read_text(encoding="utf-8"),
        light=str(theme == "light").lower(),
        width=width + 36,
        bar='<div data-module="bar"></div>' if "bar" in states else "",
        places=places,
        texts=json.dumps(texts).replace("</", "<\\/"),
    )


def states_of(events, names=None, now=None):
    """What the panels show after the events."""
    panels = {"bar": Bar} | dict(PANELS)
    log, states = EventLog(), {}
    log.write(list(events))
    for name in names or panels:
        panel = panels[name]()
        state = panel.picture.fold(panel.picture.initial(), log.since(0)[1])
        end = max((getattr(e, "t1", getattr(e, "t", 0.0)) for e in log.since(0)[1]), default=0.0)
        states[name] = panel.picture.view(state, end if now is None else now)
    return states


def exponential(n):
    """The mixing matrix of an exponential graph, evenly weighted."""
    hops = [2**k for k in range(max(n - 1, 1).bit_length()) if 2**k < n]
    W = np.eye(n)
    for i in range(n):
        for hop in hops:
            W[i, (i - hop) % n] = 1
    return W / W.sum(axis=1, keepdims=True)


def healthy(n=8, rounds=300, *, live=False):
    """Gradient tracking on an exponential graph."""
    W = exponential(n)
    events = [graph_event(W, "exponential"), *tracking(n, rounds, matrix=W)]
    return [e for e in events if not (live and isinstance(e, CellEnd))]


def stalled():
    """Rank 3 raises in round 12; the others were waiting."""
    events = []
    W = exponential(8)
    error = {"ename": "ValueError", "evalue": "", "line": 3, "peer": None}
    run = [e for e in tracking(8, 20, matrix=W) if not isinstance(e, CellEnd)]
    for event in run:
        late = getattr(event, "step", 0) >= 12
        if not late or isinstance(event, (CellStart,)):
            events.append(event)
    t = max(getattr(e, "t1", getattr(e, "t", 0.0)) for e in events)
    peers = {4: 3, 5: 3, 7: 3, 0: 7, 1: 7, 6: 5, 2: 1}
    waits = [
        WaitEvent(r, t + 1.3, "neighbor_allreduce", "y", 12, (p,), t + 0.01 * r, line=3)
        for r, p in peers.items()
    ]
    events += waits
    events.append(CellEnd(3, t + 1.2, 1, "error", 12, 0, 0.0, 0, error))
    for wait in waits:
        told = {**error, "peer": 3, "ename": "PeerFailedError", "wait": list(wait)}
        events.append(CellEnd(wait.rank, t + 1.31, 1, "error", 12, 0, 0.0, 0, told))
    return [graph_event(W, "exponential"), *events]


def straggling():
    """Seven ranks wait for rank 5, directly or through others."""
    events = [e for e in stalled() if not isinstance(e, CellEnd)]
    return [
        e._replace(peers=({3: 5, 7: 5, 5: 5}.get(e.peers[0], e.peers[0]),))
        if isinstance(e, WaitEvent) and e.rank != 5
        else e
        for e in events
        if not (isinstance(e, WaitEvent) and e.rank == 5)
    ]


def faulty():
    """A matrix that is not column stochastic, odd links, and tracking that breaks."""
    W = ring_matrix(8)
    W[2, 1], W[2, 6] = 0.0, W[2, 1]
    events = list(tracking(8, 60, matrix=W, wrong=(37, 2)))
    nan = [
        e._replace(values=(("loss", float("nan")), *e.values[1:]))
        if isinstance(e, LogEvent) and e.rank == 2 and e.step >= 45
        else e
        for e in events
    ]
    return [graph_event(ring_matrix(8), "ring"), *nan]


def many(n, rounds=12):
    """More ranks, a schedule of one peer a round."""
    events = cell(lambda k: one_peer_matrix(n, k), np.random.default_rng(0).random((n, 8)), rounds)
    return [graph_event(exponential(n), "exponential"), *events]


def dying():
    """Rank 6 dies while others wait."""
    return [*(e for e in straggling()), DeathEvent(6, 101.6, "signal 9")]


SCENES = {
    "dashboard": lambda: (states_of(healthy(), now=103.0), 864, {}),
    "live": lambda: (states_of(healthy(rounds=40, live=True)), 864, {}),
    "live4": lambda: (states_of(healthy(4, 40, live=True)), 864, {}),
    "empty": lambda: (states_of([]), 864, {}),
    "stall": lambda: (states_of(stalled()), 864, {}),
    "straggler": lambda: (states_of(straggling(), now=103.4), 864, {}),
    "faults": lambda: (states_of(faulty()), 864, {}),
    "ranks4": lambda: (states_of(healthy(4, 60)), 864, {}),
    "ranks16": lambda: (states_of(many(16)), 864, {}),
    "ranks64": lambda: (states_of(many(64)), 864, {}),
    "agents1024": lambda: (states_of(many(1024, 11)), 864, {}),
    "narrow": lambda: (states_of(healthy(8, 60)), 400, {}),
    "undeclared": lambda: (states_of(healthy(8, 30)[1:]), 864, {}),
    "odd": lambda: (states_of([graph_event(star_matrix(8), "star"), *healthy(8, 30)[1:]]), 864, {}),
    "star": lambda: (
        states_of(
            [
                graph_event(star_matrix(8), "star"),
                *cell(star_matrix(8), np.arange(8.0)[:, None], 40),
            ]
        ),
        864,
        {},
    ),
    "edit": lambda: (
        states_of([graph_event(ring_matrix(12), "ring")], ["spectrum"]),
        864,
        {"spectrum": {"look": {"edit": {"on": True, "added": [[0, 6], [6, 0], [3, 9], [9, 3]]}}}},
    ),
    "selected": lambda: (
        states_of(healthy(8, 60)),
        864,
        {name: {"selected": 3} for name in ("bar", *PANELS)},
    ),
    "tables": lambda: (states_of(healthy(8, 30)), 864, {name: {"table": True} for name in PANELS}),
}


def opened(program, name, theme, scale=1.5):
    """A page that shows a scene, as tall as it needs, and the errors that it tells."""
    states, width, looks = SCENES[name]()
    view = {"width": width + 36, "height": 900}
    sheet = program.new_page(viewport=view, device_scale_factor=scale)
    troubles = []
    sheet.on("pageerror", lambda error: troubles.append(str(error)))
    sheet.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
    sheet.set_content(page(states, theme, width, "Gradient tracking", looks))
    sheet.wait_for_function("document.body.dataset.ready === 'true'")
    sheet.wait_for_timeout(300)
    height = sheet.evaluate("Math.ceil(document.body.getBoundingClientRect().height)")
    sheet.set_viewport_size({"width": width + 36, "height": height})
    sheet.wait_for_timeout(500)
    troubles += sheet.locator(".ifog-fault").all_inner_texts()
    return sheet, troubles


def picture_readme(program):
    """The dashboard in two parts, below the timeline and above, in both themes."""
    for theme in THEMES:
        sheet, troubles = opened(program, "live4", theme, 1)
        assert not troubles, troubles
        parts = "([...document.querySelectorAll('.ifog-panel')]).map(p => p.offsetTop)"
        middle = sorted(set(sheet.evaluate(parts)))[2] - 9
        whole = sheet.viewport_size
        for part, top, bottom in (("upper", 0, middle), ("lower", middle, whole["height"])):
            clip = {"x": 0, "y": top, "width": whole["width"], "height": bottom - top}
            sheet.screenshot(path=README / f"{part}-{theme}.png", clip=clip)
        sheet.close()


def main():
    """Take all pictures, or those that are named after the folder."""
    if sys.argv[1:] == ["--readme"]:
        with lab.browser() as program:
            picture_readme(program)
        return 0
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "artifacts/pictures")
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    with lab.browser() as program:
        for name in sys.argv[2:] or SCENES:
            for theme in THEMES:
                sheet, troubles = opened(program, name, theme)
                sheet.screenshot(path=folder / f"{name}-{theme}.png", full_page=True)
                sheet.close()
                failed += bool(troubles)
                print(f"{name}-{theme}", *map(html.unescape, troubles))
    return failed


if __name__ == "__main__":
    sys.exit(main())
