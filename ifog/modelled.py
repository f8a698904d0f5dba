"""The events that ranks would have sent, had the agents of a simulated run been ranks.

Times are those of the cost model. Of long runs, or runs of many agents, rounds divisible by a power
of two are kept, so that the events stay as many as a dashboard holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ifog.durations import RoundTimes
from ifog.links import Links, Real
from ifog.telemetry import CellEnd, CellStart, Event, GraphEvent, OpEvent, WatchEvent
from ifog.watching import SAMPLE

__all__ = ["MOST_AGENTS", "Recorder"]

MOST_AGENTS = 20_000  # whose events there are
_MOST = 160_000  # operations and glances
_NAME, _OP = "x", "neighbor_allreduce"


class _Round(NamedTuple):
    links: Links
    nbytes: int
    times: RoundTimes


class _Glance(NamedTuple):
    rounds: int
    t: Real  # [n]
    norm: Real  # [n]
    sample: Real  # [n, entries]


class Recorder:
    """Keeps what the events of a run are made of.

    Args:
        start: x [n, ...] before the first step.
    """

    def __init__(self, start: Tensor) -> None:
        self.n, self._eps, self._numel = len(start), torch.finfo(start.dtype).eps, start[0].numel()
        self._stride, self._nbytes, self._wait = 1, 0, np.zeros(self.n)
        self._most = max(_MOST // (2 * self.n), 2) if self.n <= MOST_AGENTS else 0
        self._done, self._clock = 0, np.zeros(self.n)
        self._rounds: dict[int, _Round] = {}
        self._glances: dict[int, _Glance] = {}
        self.look(start)

    def exchanged(self, links: Links, nbytes: int, times: RoundTimes) -> None:
        """A round is over."""
        if self._done % self._stride == 0 and self._most:
            self._rounds[self._done] = _Round(links, nbytes, times)
        self._done += 1
        self._clock, self._wait = times.end, self._wait + times.wait
        self._nbytes += nbytes * times.messages

    def look(self, x: Tensor) -> None:
        """A step is over, after which agents have x [n, ...]."""
        if not self._most or self._done in self._glances or self._done % self._stride:
            return
        flat = x.reshape(self.n, -1)
        count = min(SAMPLE, flat.shape[1])
        places = torch.arange(count, device=flat.device) * flat.shape[1] // count
        sample = flat[:, places].double().cpu().numpy()
        norm = torch.linalg.vector_norm(flat, dim=1).double().cpu().numpy()
        self._glances[self._done] = _Glance(self._done, self._clock, norm, sample)
        if len(self._glances) > self._most or len(self._rounds) > self._most:
            self._stride *= 2
            self._rounds = {k: v for k, v in self._rounds.items() if k % self._stride == 0}
            self._glances = {k: v for k, v in self._glances.items() if k % self._stride == 0}

    def events(self, declared: Links, begun: float) -> list[Event]:
        """Everything in the order of time, the first at ``begun`` seconds since 1970."""
        if not self._most:
            return []
        everyone = tuple(range(self.n))
        found: list[Event] = [CellStart(r, begun, 1, self.n, everyone) for r in everyone]
        edges = zip(*(column.tolist() for column in _columns(declared)), strict=True)
        found.append(GraphEvent(0, begun, self.n, declared.label, tuple(edges)))
        # As from ranks: before a round the tensors, then what it took, then what came of it.
        later: list[tuple[float, int, Event]] = []
        for number, glance in self._glances.items():
            later += [(t, 2 * number, e) for t, e in self._seen(glance, begun)]
        for number, done in self._rounds.items():
            later += [(t, 2 * number + 1, e) for t, e in _operations(number, done, begun)]
        found += [event for *_, event in sorted(later, key=lambda item: item[:2])]
        each = self._nbytes // self.n
        for r in everyone:
            t, wait = begun + float(self._clock[r]), float(self._wait[r])
            found.append(CellEnd(r, t, 1, "ok", self._done, each, wait, 0, None))
        return found

    def _seen(self, glance: _Glance, begun: float) -> Iterator[tuple[float, Event]]:
        for r in range(self.n):
            t, sample = begun + float(glance.t[r]), tuple(glance.sample[r].tolist())
            yield (
                t,
                WatchEvent(
                    r,
                    t,
                    _NAME,
                    glance.rounds,
                    self._numel,
                    float(glance.norm[r]),
                    self._eps,
                    sample,
                ),
            )


def _operations(number: int, done: _Round, begun: float) -> Iterator[tuple[float, Event]]:
    links, times = done.links, done.times
    order = np.lexsort((links.source, links.target))
    rows = np.searchsorted(links.target[order], np.arange(links.n + 1))
    source, weight = links.source[order], links.weight[order]
    tells = _told(links)
    for r in range(links.n):
        heard, w = source[rows[r] : rows[r + 1]], weight[rows[r] : rows[r + 1]]
        others = heard != r
        own = float(w[~others].sum())
        end = begun + float(times.end[r])
        event = OpEvent(
            rank=r,
            seq=number,
            step=number,
            op=_OP,
            name=_NAME,
            t0=begun + float(times.start[r]),
            t1=end,
            wait=float(times.wait[r]),
            late=int(times.late[r]),
            nbytes=done.nbytes * len(tells[r]),
            dst=tuple(tells[r]),
            src=tuple(heard[others].tolist()),
            weights=(own, *w[others].tolist()),
        )
        yield end, event


def _told(links: Links) -> list[list[int]]:
    source, target = links.without_loops()
    order = np.lexsort((target, source))
    rows = np.searchsorted(source[order], np.arange(links.n + 1)).tolist()
    told = target[order].tolist()
    return [told[a:b] for a, b in pairwise(rows)]


def _columns(links: Links) -> Sequence[np.ndarray]:
    return links.source, links.target, links.weight
