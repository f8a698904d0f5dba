"""A graph report as it stands in a notebook: the spectrum in the unit circle, and the numbers."""

from __future__ import annotations

import html as text
from typing import TYPE_CHECKING

import numpy as np

from ifog.magics.look import themed
from ifog.numbers import counted, number

if TYPE_CHECKING:
    from ifog.graph_report import GraphReport

__all__ = ["html"]

_RADIUS = 78
_CENTER = 96

STYLE = (
    "<style>"
    f"{themed('.ifog-graph')}"
    ".ifog-graph{font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);"
    "font-variant-numeric:tabular-nums;padding:8px 18px}"
    ".ifog-graph h4{font-size:14px;font-weight:700;margin:0 0 8px}"
    ".ifog-graph h4 span,.ifog-graph th{font-weight:400;color:var(--ifog-muted)}"
    ".ifog-graph .ifog-graph-body{display:flex;flex-wrap:wrap;align-items:center;gap:24px}"
    ".ifog-graph table{border-collapse:collapse;margin:0;font-size:13px}"
    ".ifog-graph th,.ifog-graph td{text-align:left;padding:2px 12px 2px 0;border:0;"
    "background:none}"
    ".ifog-graph td{color:var(--ifog-ink)}"
    ".ifog-graph text{font-size:12px;fill:var(--ifog-ink)}"
    "</style>"
)


def html(report: GraphReport, kind: str) -> str:
    """The report as HTML; ``kind`` is what its first line says after the number of ranks."""
    about = text.escape(f"{counted(report.n)}{kind}")
    rows = "".join(
        f"<tr><th>{text.escape(what)}</th><td>{text.escape(how)}</td></tr>"
        for what, how in report.lines()
    )
    return (
        f'{STYLE}<div class="ifog-graph"><h4>{text.escape(report.label)} <span>{about}</span></h4>'
        f'<div class="ifog-graph-body">{_disc(report)}<table>{rows}</table></div></div>'
    )


def _disc(report: GraphReport) -> str:
    """The unit circle with the eigenvalues; the gap is the tinted ring."""
    if report.eigenvalues is None:
        return ""
    first = int(np.argmin(np.abs(report.eigenvalues - 1)))
    others = np.delete(report.eigenvalues, first)
    second = float(np.abs(others).max()) if len(others) else 0.0
    size, middle = 2 * _CENTER, f'cx="{_CENTER}" cy="{_CENTER}"'
    axes = (
        f"M{_CENTER - _RADIUS} {_CENTER}h{2 * _RADIUS}M{_CENTER} {_CENTER - _RADIUS}v{2 * _RADIUS}"
    )
    inner = _RADIUS * min(second, 1.0)
    return (
        f'<svg width="{size + 16}" height="{size}" viewBox="0 0 {size + 16} {size}" role="img" '
        f'aria-label="{text.escape(_sentence(report))}">'
        f'<circle {middle} r="{_RADIUS}" fill="var(--ifog-series-1-wash)" '
        'stroke="var(--ifog-ink)" stroke-width="1.5"/>'
        f'<circle {middle} r="{inner:.1f}" fill="var(--ifog-bg)" stroke="var(--ifog-series-1)" '
        'stroke-width="1.25" stroke-dasharray="5 4"/>'
        f'<path d="{axes}" stroke="var(--ifog-grid)" fill="none"/>'
        f"{_dots(others, second)}{_dot(1, 1, 'ink')}"
        f'<text x="{_CENTER + _RADIUS + 8}" y="{_CENTER + 4}" font-weight="700">1</text></svg>'
    )


def _dots(values: np.ndarray, second: float) -> str:
    """A dot for each eigenvalue, its area the multiplicity; those of modulus ``second`` in blue."""
    places, counts = np.unique(np.round(values, 6), return_counts=True)
    dots = []
    for value, many in sorted(zip(places, counts, strict=True), key=lambda dot: abs(dot[0])):
        blue = second > 1e-6 and abs(value) > second - 1e-6
        dots.append(_dot(complex(value), int(many), "series-1" if blue else "compute"))
    return "".join(dots)


def _dot(value: complex, many: int, color: str) -> str:
    x, y = _CENTER + _RADIUS * value.real, _CENTER - _RADIUS * value.imag
    radius = min(4.2 * many**0.5, 14)
    shape = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="var(--ifog-{color})" '
        'stroke="var(--ifog-bg)" stroke-width="1.25"/>'
    )
    if many < 4:
        return shape
    return f'{shape}<text x="{x + radius + 2:.1f}" y="{y - radius + 2:.1f}">&times;{many}</text>'


def _sentence(report: GraphReport) -> str:
    if report.exact_after is not None:
        return f"{counted(report.n)}, exact after {report.exact_after} rounds"
    if report.half_life is None or report.gap is None:
        return f"{counted(report.n)}, never agree"
    return (
        f"{counted(report.n)}, gap {number(report.gap)}: disagreement halves every "
        f"{number(report.half_life)} rounds"
    )
