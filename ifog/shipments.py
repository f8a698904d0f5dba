"""From events to bytes by (from, to): in the newest cell, and since the beginning.

What counts is what ranks send to chosen partners: averages over neighbours, pairs, windows. What
collective operations move goes to everybody and is only counted in sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ifog.batches import alike, belonging
from ifog.numbers import count, counted, number, size
from ifog.ranks import Ranks, is_mixing
from ifog.telemetry import CellStart, Event, GraphEvent, OpEvent

__all__ = ["Shipments", "fold_shipments", "view_shipments"]

_CELLS = 64  # ranks up to which every link is told, beyond it sums of squares of links
_BINS = 128
_NAMED = 4  # links named in the words

Edge = tuple[int, int]
USED, UNUSED, ODD = 0, 1, 2  # declared and used, declared only, used only


@dataclass
class Shipments:
    """Bytes and messages by (sender, its receivers), as operations tell them."""

    ranks: Ranks = field(default_factory=Ranks)
    declared: set[Edge] = field(default_factory=set)
    cell: dict[tuple[int, tuple[int, ...]], list[float]] = field(default_factory=dict)
    total: dict[tuple[int, tuple[int, ...]], list[float]] = field(default_factory=dict)
    to_all: list[float] = field(default_factory=lambda: [0.0, 0.0])  # in the cell, since the start


def fold_shipments(state: Shipments, events: Iterable[Event]) -> Shipments:
    """Add up what each operation sent."""
    seq = state.ranks.seq
    for event in belonging(state.ranks, events):
        if type(event) is list:
            for last, nbytes, messages in alike(event):
                _send(state, last, nbytes, messages)
        elif isinstance(event, GraphEvent):
            state.declared = {(u, v) for u, v, _ in event.edges if u != v}
        elif isinstance(event, CellStart) and state.ranks.seq != seq:
            seq = state.ranks.seq
            state.cell.clear()
            state.to_all[0] = 0.0
    return state


def _send(state: Shipments, event: OpEvent, nbytes: int, messages: int) -> None:
    if not event.dst:
        return
    if not is_mixing(event.op) and not event.op.startswith("win_"):
        state.to_all[0] += nbytes
        state.to_all[1] += nbytes
        return
    key = (event.rank, event.dst)
    for table in (state.cell, state.total):
        sums = table.get(key)
        if sums is None:
            sums = table[key] = [0.0, 0]
        sums[0] += nbytes
        sums[1] += messages


def _by_edge(table: dict[tuple[int, tuple[int, ...]], list[float]]) -> dict[Edge, list[float]]:
    edges: dict[Edge, list[float]] = {}
    for (rank, receivers), (nbytes, messages) in table.items():
        for receiver in receivers:
            sums = edges.setdefault((rank, receiver), [0.0, 0])
            sums[0] += nbytes / len(receivers)
            sums[1] += messages
    return edges


def view_shipments(state: Shipments, now: float) -> dict[str, Any]:  # noqa: ARG001 - a view's form
    """``edges`` are [from, to, bytes and messages of the cell, and in total, kind]."""
    n, total = state.ranks.n, _by_edge(state.total)
    if not total:
        return {"n": n, "empty": True, "say": "Nothing sent yet."}
    cell = _by_edge(state.cell)
    words = [_words(state.declared, cell, state.to_all[0])]
    words.append(_words(state.declared, total, state.to_all[1]))
    view = {
        "n": n,
        "empty": False,
        "cell": state.ranks.seq,
        "sums": [size(sum(nbytes for nbytes, _ in table.values())) for table in (cell, total)],
        "words": words,
        "say": _say(state.declared, cell),
    }
    if n > _CELLS:
        bins = [_binned(n, table) for table in (cell, total)]
        return view | {"bins": min(n, _BINS), "levels": bins, "edges": []}
    edges = []
    for u, v in sorted(total.keys() | state.declared):
        sums = [int(x) for table in (cell, total) for x in table.get((u, v), (0, 0))]
        # Where nothing is declared no link is a surprise.
        edges.append([u, v, *sums, int(not state.declared or (u, v) in state.declared)])
    return view | {"edges": edges}


def _words(declared: set[Edge], used: dict[Edge, list[float]], to_all: float) -> list[str]:
    """What the colours cannot say: lines below the matrix."""
    unused = sorted(declared - used.keys())
    odd = sorted(used.keys() - declared)
    lines = []
    if not used:
        lines.append("nothing sent over links")
    elif not declared:
        return [f"no graph declared, {count(len(used))} links used", *_to_all(to_all)]
    elif not unused:
        each = sorted(nbytes for edge, (nbytes, _) in used.items() if edge in declared)
        lines.append(f"all {count(len(declared))} declared links used")
        if each:
            alike = each[0] == each[-1]
            lines.append(
                f"{size(each[0])} each" if alike else f"{size(each[0])} to {size(each[-1])}"
            )
    if unused and used:
        lines.append(f"{count(len(unused))} declared, never used: {_named(unused)}")
    if odd:
        lines.append(f"{count(len(odd))} used, not in the graph: {_named(odd)}")
    return lines + _to_all(to_all)


def _to_all(nbytes: float) -> list[str]:
    return [f"{size(nbytes)} more to all ranks at once"] if nbytes else []


def _named(edges: list[Edge]) -> str:
    named = ", ".join(f"{u}\N{RIGHTWARDS ARROW}{v}" for u, v in edges[:_NAMED])
    return f"{named}, \N{HORIZONTAL ELLIPSIS}" if len(edges) > _NAMED else named


def _binned(n: int, used: dict[Edge, list[float]]) -> str:
    """Bytes of a large matrix in bins, rows send: a hexadecimal digit a bin, linear from 0."""
    bins = min(n, _BINS)
    sums = np.zeros((bins, bins))
    if used:
        ends = np.array(list(used), dtype=np.int64) * bins // n
        np.add.at(sums, (ends[:, 0], ends[:, 1]), [nbytes for nbytes, _ in used.values()])
    # A bin that carried anything is never shown as one that carried nothing.
    levels = np.ceil(15 * sums / max(float(sums.max()), 1e-300)).astype(int)
    return "".join("0123456789abcdef"[level] for level in levels.ravel())


def _say(declared: set[Edge], used: dict[Edge, list[float]]) -> str:
    total = size(sum(nbytes for nbytes, _ in used.values()))
    known = len(declared & used.keys())
    parts = [f"{total} on {known} of {len(declared)} declared links"]
    odd = len(used.keys() - declared) if declared else 0
    if not declared:
        parts = [f"{total} on {len(used)} links, no graph declared"]
    if odd:
        parts.append(f"{odd} link{'s' * (odd > 1)} used that the graph has not")
    senders: dict[int, float] = {}
    for (u, _), (nbytes, _) in used.items():
        senders[u] = senders.get(u, 0.0) + nbytes
    if senders and not odd:
        most = max(senders, key=lambda rank: (senders[rank], -rank))
        share = number(100 * senders[most] / max(sum(senders.values()), 1e-300), 2)
        parts.append(
            f"rank {most} sends most, {share}\N{NO-BREAK SPACE}% of {counted(len(senders))}"
        )
    return "; ".join(parts) + "."
