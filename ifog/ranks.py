"""What every rank does in the newest cell, as its events tell: the ground of all other folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ifog.telemetry import (
    CellEnd,
    CellStart,
    DeathEvent,
    Event,
    GraphEvent,
    LostEvent,
    OpEvent,
    WaitEvent,
)

__all__ = [
    "STALL",
    "Ranks",
    "admits",
    "fate",
    "is_at_work",
    "is_mixing",
    "operate",
    "rank_state",
    "track",
]

STALL = 1.0  # seconds a wait may take before it is called a stall
_STEP = 0.01  # seconds after which that average is taken anew
_MEMORY = 0.5  # seconds over which "what a rank mostly does" is averaged


@cache
def is_mixing(op: str) -> bool:
    """Whether an operation is a round: an average over neighbours, not a collective."""
    return op.startswith(("neighbor_", "hierarchical_", "pair_"))


@dataclass
class Ranks:
    """What each rank does in the newest cell.

    ``shares`` are the parts of the last half second spent computing, transferring and waiting, to
    which ``spent``, the seconds since, are added now and then, if ``averages`` asks for it;
    ``busy_until`` when the rank's last
    operation ended. ``freed`` holds the last wait of each rank whose cell ended before its wait
    did, ``gone`` the ranks without a process, in any cell, ``told`` the part of ``lost`` that ranks
    of the cell have told already.
    """

    averages: bool = True
    n: int = 0
    seq: int | None = None
    members: tuple[int, ...] = ()
    among: frozenset[int] = frozenset()  # the same: of ten thousand it tells at once
    started: float = math.inf
    last: float = 0.0
    lost: int = 0
    told: dict[int, int] = field(default_factory=dict)
    cell: dict[int, int] = field(default_factory=dict)
    rounds: dict[int, int] = field(default_factory=dict)
    busy_until: dict[int, float] = field(default_factory=dict)
    shares: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    spent: dict[int, list[float]] = field(default_factory=dict)
    waits: dict[int, WaitEvent] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    ends: dict[int, CellEnd] = field(default_factory=dict)
    freed: dict[int, WaitEvent] = field(default_factory=dict)
    gone: dict[int, DeathEvent] = field(default_factory=dict)
    blamed: set[int] = field(default_factory=set)

    @property
    def live(self) -> bool:
        """Whether a rank is still at work on the cell."""
        return any(
            rank not in self.ended and rank not in self.gone and rank not in self.blamed
            for rank in self.members
        )

    def clock(self, now: float) -> float:
        """The time up to which the rates count: news travels a while, silence counts."""
        return now if self.live and now - self.last > _MEMORY else self.last

    @property
    def round(self) -> int:
        """Rounds finished by the slowest rank of the cell."""
        return min((self.rounds.get(rank, 0) for rank in self.members), default=0)


def _is_newer(ranks: Ranks, event: CellStart) -> bool:
    if ranks.seq is None or event.seq > ranks.seq:
        return True
    return event.seq < ranks.seq and not ranks.live and event.t > ranks.last  # a new cluster


def _start(ranks: Ranks, event: CellStart) -> None:
    if _is_newer(ranks, event):
        ranks.seq, ranks.members, ranks.started = event.seq, event.ranks, event.t
        ranks.among = frozenset(event.ranks)
        ranks.last = event.t
        tables: tuple[dict[int, Any], ...]
        tables = (
            ranks.rounds,
            ranks.busy_until,
            ranks.shares,
            ranks.spent,
            ranks.waits,
            ranks.ended,
        )
        for table in (*tables, ranks.ends, ranks.freed):
            table.clear()
        ranks.blamed.clear()
    ranks.n = max(ranks.n, event.n)
    ranks.started = min(ranks.started, event.t)
    ranks.cell[event.rank] = event.seq
    ranks.busy_until[event.rank] = event.t
    ranks.gone.pop(event.rank, None)  # another process has the number now


def _end(ranks: Ranks, event: CellEnd) -> None:
    error = event.error or {}
    peer = error.get("peer")
    raised = event.status == "error" and peer is None
    ranks.ended[event.rank] = "dead" if raised else "finished"
    ranks.ends[event.rank] = event
    ranks.blamed.discard(event.rank)
    if peer is not None and peer not in ranks.ended:
        ranks.blamed.add(peer)
    ranks.rounds[event.rank] = max(ranks.rounds.get(event.rank, 0), event.rounds)
    ranks.lost += max(event.lost - ranks.told.pop(event.rank, 0), 0)
    wait = _cut(ranks.waits.pop(event.rank, None), event)
    if wait is not None:
        ranks.freed[event.rank] = wait


def _cut(noted: WaitEvent | None, event: CellEnd) -> WaitEvent | None:
    """The wait that the end of the cell cut off: as the rank tells it, or as it was noted last."""
    error = event.error or {}
    if told := error.get("wait"):
        rank, t, op, name, step, peers, *rest = told
        wait = WaitEvent(rank, t, op, name, step, tuple(peers), *rest)
        return wait if wait.line is not None else wait._replace(line=error.get("line"))
    cut = event.status == "interrupted" or error.get("peer") is not None
    return noted if cut and "wait" not in error else None


def operate(ranks: Ranks, run: Sequence[OpEvent]) -> None:
    """Follow operations of one rank, at least one, that belong to the newest cell."""
    # Most folds do this for every operation, so it is written for speed.
    rank = run[0].rank
    since = ranks.busy_until.get(rank, run[0].t0)
    if ranks.averages:
        _spend(ranks, rank, since, run)
    latest = ranks.last
    done = before = ranks.rounds.get(rank, 0)
    for event in run:
        t1 = event[6]
        since = max(since, t1)
        latest = max(latest, t1)
        if event[2] >= done and is_mixing(event[3]):
            done = event[2] + 1
    ranks.busy_until[rank], ranks.last = since, latest
    if done > before:
        ranks.rounds[rank] = done
    if rank in ranks.waits and any(_ends_wait(ranks.waits[rank], event) for event in run):
        del ranks.waits[rank]


def _spend(ranks: Ranks, rank: int, since: float, run: Sequence[OpEvent]) -> None:
    """Add what the operations took; the rank's last one had ended at ``since``."""
    spent = ranks.spent.get(rank)
    if spent is None:
        spent = ranks.spent[rank] = [0.0, 0.0, 0.0]
    computed, moved, waited = spent
    fresh = rank not in ranks.shares
    for event in run:
        t0, t1, wait = event[5], event[6], event[7]
        begun = t0 if t0 > since else since
        if t1 > begun:
            wait = min(wait, t1 - begun)
            waited += wait
            moved += t1 - begun - wait
        computed += begun - since
        if fresh or computed + moved + waited > _STEP:
            fresh = False
            spent[:] = computed, moved, waited
            _average(ranks, rank, spent)
            computed, moved, waited = spent
        since = max(since, t1)
    spent[:] = computed, moved, waited


def _average(ranks: Ranks, rank: int, spent: list[float]) -> None:
    """Add the seconds ``spent`` to the shares of the last half second."""
    total = max(sum(spent), 1e-9)
    keep = math.exp(-total / _MEMORY)
    new = (1.0 - keep) / total
    a, b, c = ranks.shares.get(rank, (1.0, 0.0, 0.0))
    ranks.shares[rank] = (
        a * keep + spent[0] * new,
        b * keep + spent[1] * new,
        c * keep + spent[2] * new,
    )
    spent[:] = (0.0, 0.0, 0.0)


def _die(ranks: Ranks, event: DeathEvent) -> bool:
    ranks.gone[event.rank] = event
    ranks.waits.pop(event.rank, None)
    ranks.blamed.discard(event.rank)
    if event.rank in ranks.among:
        ranks.last = max(ranks.last, event.t)
    return True


def _ends_wait(wait: WaitEvent | None, event: OpEvent) -> bool:
    # An operation that ends while the rank waits for another one's handle leaves it waiting.
    if wait is None or event.t0 >= wait.t:
        return True
    return (event.op, event.name, event.step) == (wait.op, wait.name, wait.step)


def is_at_work(ranks: Ranks, rank: int) -> bool:
    """Whether operations of this rank belong to the newest cell, as is known already."""
    return ranks.seq is not None and ranks.cell.get(rank) == ranks.seq


def admits(ranks: Ranks, event: Event) -> bool:
    """Whether an event of a rank belongs to the newest cell; the rank does too, if so."""
    rank, seq = event.rank, ranks.seq or 0
    if ranks.cell.setdefault(rank, seq) != seq:  # an older cell goes on
        return False
    if (not seq or rank not in ranks.rounds) and rank not in ranks.among:
        # The log's beginning was lost.
        ranks.among |= {rank}
        ranks.members = tuple(sorted(ranks.among))
        ranks.n = max(ranks.n, rank + 1)
    return True


def track(ranks: Ranks, event: Event) -> bool:
    """Follow one event; whether it belongs to the newest cell."""
    if isinstance(event, GraphEvent):
        ranks.n = max(ranks.n, event.n)
        return True
    if isinstance(event, DeathEvent):
        return _die(ranks, event)
    if isinstance(event, CellStart):
        _start(ranks, event)
    if not admits(ranks, event):
        return False
    _take(ranks, event)
    return True


def _take(ranks: Ranks, event: Event) -> None:
    """What an event of the newest cell changes."""
    if isinstance(event, OpEvent):
        operate(ranks, [event])
        return
    ranks.last = max(ranks.last, event.t)
    if isinstance(event, CellEnd):
        _end(ranks, event)
    elif isinstance(event, LostEvent):
        ranks.lost += event.events
        ranks.told[event.rank] = ranks.told.get(event.rank, 0) + event.events
    elif isinstance(event, WaitEvent) and event.t >= ranks.busy_until.get(event.rank, 0.0):
        ranks.waits[event.rank] = event


def rank_state(ranks: Ranks, rank: int, now: float) -> str:
    """computing, transferring, waiting, stalled, dead, finished, or absent from the cell."""
    if rank in ranks.gone or rank in ranks.blamed:
        return "dead"
    if rank not in ranks.among:
        return "absent"
    if rank in ranks.ended:
        return ranks.ended[rank]
    wait = ranks.waits.get(rank)
    if wait is not None:
        return "stalled" if max(now, wait.t) - wait.since > STALL else "waiting"
    if rank not in ranks.shares or now - ranks.busy_until.get(rank, now) > _MEMORY:
        return "computing"
    shares = ranks.shares[rank]
    return ("computing", "transferring", "waiting")[shares.index(max(shares))]


def fate(ranks: Ranks, rank: int) -> str:
    """Why a rank is dead: ``raised ValueError``, ``died, signal 9``; "" for the others."""
    if rank in ranks.gone:
        cause = ranks.gone[rank].cause
        return f"died, {cause}" if cause else "died"
    if ranks.ended.get(rank) != "dead":
        return ""
    return f"raised {(ranks.ends[rank].error or {}).get('ename', 'an error')}"
