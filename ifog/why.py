"""Who holds up whom, in words: a sentence for the cause, and rows for who does what.

A pure function of a table of what every rank is doing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ifog.holdups import Cause, Holdups, State, of_wait
from ifog.numbers import counted, duration

__all__ = [
    "Explanation",
    "Row",
    "State",
    "aligned",
    "explain",
    "listed",
    "of_wait",
    "operation",
    "spelled",
]

_MOST_ROWS = 8
_TOGETHER = 0.1  # seconds; waits that began so close began together
_TOLD = 3  # causes, or operations, named in one sentence
_MIXING = ("neighbor_", "hierarchical_", "pair_")
_ONE_SIDED = "win_"
_KINDS = {
    "dead": "dead",
    "raised": "absent",
    "interrupted": "absent",
    "finished": "absent",
    "outside": "absent",
    "silent": "silent",
}
_NOW = {
    "dead": "is gone",
    "raised": "raised",
    "interrupted": "was interrupted",
    "finished": "has finished this cell",
    "outside": "is not in this cell",
    "silent": "does not answer",
    "moving": "is receiving data",
    "elsewhere": "runs another cell",
    "starting": "has not begun this cell",
    "computing": "still computes",
}
_THEN = _NOW | {
    "finished": "had finished this cell",
    "outside": "was not in this cell",
    "silent": "did not answer",
    "moving": "was receiving data",
    "elsewhere": "ran another cell",
    "starting": "had not begun this cell",
    "computing": "still computed",
}
_OF_MANY = {
    "is": "are",
    "has": "have",
    "was": "were",
    "does": "do",
    "runs": "run",
    "computes": "compute",
    "waits": "wait",
}


class Row(NamedTuple):
    """Ranks that do the same: ``distance`` 0 is the cause, 1 waits for it, 2 through one, ..."""

    ranks: tuple[int, ...]
    did: str
    place: str
    distance: int


class Explanation(NamedTuple):
    """Why ranks wait.

    Attributes:
        kind: straggler, absent, diverged, cycle, dead or silent.
        causes: the ranks that hold up the others; in a cycle its members.
        held: the ranks that wait, directly or not.
        hopeless: no rank that could end the wait still can.
        sentence: the cause as a sentence.
        short: the same for one line among others, without capital and full stop.
        rows: who does what, the cause first, then by distance.
        edges: (rank, peer) for each wait.
        stuck: the ranks whose wait cannot end.
        waited: the seconds of the longest wait; 0 where that is not known.
        longest: the same in words, with who has waited so long.
    """

    kind: str
    causes: tuple[int, ...]
    held: tuple[int, ...]
    hopeless: bool
    sentence: str
    short: str
    rows: tuple[Row, ...]
    edges: tuple[tuple[int, int], ...]
    stuck: tuple[int, ...] = ()
    waited: float = 0.0
    longest: str = ""


def explain(
    states: Mapping[int, State], now: float, *, over: bool = False, rows: int = _MOST_ROWS
) -> Explanation | None:
    """The cause of the waits among ``states``, or None where nobody waits.

    Args:
        states: what each rank does; a rank that is waited for but not listed is not in the cell.
        now: the time, in seconds since 1970.
        over: speak of it as past: the waits have been ended.
        rows: how many rows there may be.
    """
    graph = Holdups(states)
    if not graph.waits:
        return None
    words = _Words(graph, now, over)
    causes = graph.causes()
    if graph.stuck or over:  # then those who merely take long are not the point
        causes = [cause for cause in causes if _is_final(cause)] or causes
    clauses = [words.clause(cause, alone=len(causes) == 1) for cause in causes[:_TOLD]]
    if len(causes) > _TOLD:
        clauses.append(f"and {len(causes) - _TOLD} more causes")
    sentence = "; ".join(clauses)
    return Explanation(
        kind=words.kind(causes[0]),
        causes=tuple(sorted(rank for cause in causes for rank in cause.ranks)),
        held=tuple(graph.waits),
        hopeless=bool(graph.stuck),
        sentence=f"{sentence[0].upper()}{sentence[1:]}.",
        short=words.short(causes[0]),
        rows=tuple(words.rows(causes, rows)),
        edges=tuple((rank, peer) for rank, state in graph.waits.items() for peer in state.peers),
        stuck=tuple(sorted(graph.stuck)),
        waited=words.waited,
        longest=words.longest(),
    )


def _is_final(cause: Cause) -> bool:
    return cause.kind != "silent" and (cause.kind == "knot" or cause.kind in _KINDS)


class _Words:
    """The words for what is found in one graph."""

    def __init__(self, graph: Holdups, now: float, over: bool) -> None:
        self._graph = graph
        self._now = now
        self._over = over
        self._wait = "waited" if over else "wait"
        self._since = min((s.since for s in graph.waits.values() if s.since), default=now)
        self.waited = now - self._since

    def kind(self, cause: Cause) -> str:
        if cause.kind != "knot":
            return _KINDS.get(cause.kind, "straggler")
        return "diverged" if len(self._operations(cause)) > 1 else "cycle"

    def _operations(self, cause: Cause) -> dict[str, list[int]]:
        """Who waits in what; one-sided operations are not matched, so they count as one."""
        found: dict[str, list[int]] = {}
        for rank in cause.ranks:
            state = self._graph.waits[rank]
            name = _ONE_SIDED if state.op.startswith(_ONE_SIDED) else operation(state)
            found.setdefault(name, []).append(rank)
        return found

    def clause(self, cause: Cause, *, alone: bool) -> str:
        """A cause, the only one or not, and how many wait for it."""
        if cause.kind == "knot":
            end = "which could not end by itself" if self._over else "and this cannot end by itself"
            n = len(cause.held)
            more = f"; {n} more rank{'s' * (n != 1)} behind them" if n else ""
            return f"{self._knot(cause)}, {end}{more}"
        who = self._subject(cause)
        n, it = len(cause.held), "it" if len(cause.ranks) == 1 else "them"
        if self._over and alone:  # whoever else waited was released with them
            n = len(self._graph.waits)
        if not n:
            return who
        if self._over:
            verb = "was waiting and has" if n == 1 else "were waiting and have"
            return f"{who}; {counted(n)} {verb} been released"
        if cause.kind in ("finished", "outside"):
            return f"{who}; {counted(n)} still expect{'s' * (n == 1)} a message from {it}"
        return f"{who}; {counted(n)} wait{'s' * (n == 1)} for {it}"

    def _subject(self, cause: Cause) -> str:
        did = self._did(cause.kind, cause.detail, len(cause.ranks) > 1)
        who = spelled(cause.ranks)
        if cause.kind == "dead":
            return f"the process{'es' * (len(cause.ranks) > 1)} of {who} {did}"
        since = min(self._graph.states[rank].since for rank in cause.ranks)
        if cause.kind == "computing" and since and not self._over:
            return f"{who} {did}, {duration(self._now - since)} so far"
        if cause.kind == "silent" and since:
            return f"{who} {did} ({duration(self._now - since)})"
        return f"{who} {did}"

    def _did(self, kind: str, detail: str, many: bool) -> str:
        did = (_THEN if self._over else _NOW)[kind]
        did = _plural(did) if many else did
        if kind == "raised":
            return f"{did} {detail or 'an error'}"
        return f"{did} ({detail})" if kind in ("dead", "silent") and detail else did

    def _knot(self, cause: Cause) -> str:
        parts = self._operations(cause)
        if len(cause.ranks) == 1:
            return f"{spelled(cause.ranks)} {self._wait}{'' if self._over else 's'} for itself"
        if len(parts) == 1:
            return f"{spelled(cause.ranks)} {self._wait} for one another"
        told = [f"{spelled(ranks)} in {name}" for name, ranks in list(parts.items())[:_TOLD]]
        if len(parts) > _TOLD:
            told.append(f"others in {len(parts) - _TOLD} more")
        return f"{', '.join(told)}: they {self._wait} for one another"

    def short(self, cause: Cause) -> str:
        """One line such as ``7 ranks wait for rank 5, still computing``."""
        if cause.kind == "knot":
            return self._knot(cause)
        did = self._did(cause.kind, cause.detail, len(cause.ranks) > 1)
        n, who = len(cause.held), spelled(cause.ranks)
        if not n:
            return f"{who} {did}"
        end = "still computing" if cause.kind == "computing" else f"which {did}"
        return f"{counted(n)} {self._wait}{'s' * (n == 1 and not self._over)} for {who}, {end}"

    def longest(self) -> str:
        """The longest wait, and whose it is: ``Longest wait so far: 2.4 s (ranks 0 3)``."""
        if self.waited <= 0:
            return ""
        states = self._graph.waits
        ranks = [r for r, s in states.items() if s.since and s.since - self._since < _TOGETHER]
        who = f"rank{'s' * (len(ranks) > 1)} {listed(ranks)}"
        return f"Longest wait{'' if self._over else ' so far'}: {duration(self.waited)} ({who})."

    def rows(self, causes: list[Cause], most: int) -> list[Row]:
        """The causes, then who waits, by distance; at most so many."""
        distances = self._graph.distances(causes)
        levels: dict[int, dict[tuple[str, str], list[int]]] = {}
        for rank, distance in distances.items():
            alike = levels.setdefault(distance, {})
            alike.setdefault(self._doing(rank, distances), []).append(rank)
        table = {d: _rows(alike, d) for d, alike in sorted(levels.items())}
        for distance in sorted(table, reverse=True):
            if sum(map(len, table.values())) > most and distance > 0:
                table[distance] = self._merged(table[distance])
        flat = [row for level in table.values() for row in level]
        if len(flat) > most:
            rest = sorted(rank for row in flat[most - 1 :] for rank in row.ranks)
            far = flat[-1].distance
            flat[most - 1 :] = [Row(tuple(rest), f"{self._wait} behind these", "", far)]
        return flat

    def _doing(self, rank: int, distances: Mapping[int, int]) -> tuple[str, str]:
        state = self._graph.states[rank]
        place = [] if state.line is None else [f"cell line {state.line}"]
        if state.kind == "raised":
            did = f"raised in round {state.rounds + 1}" if state.rounds else "raised"
            place += [f"in {state.name}"] if state.name else []
        elif state.kind != "waiting":
            did = self._did(state.kind, state.detail, False)
        else:
            near = max(distances[rank] - 1, 0)
            peers = [p for p in state.peers if distances.get(p) == near and p != rank]
            whom = f" for {listed(peers or state.peers)}" if state.peers else ""
            did = f"{'waited' if self._over else 'waits'}{whom}{_call(state)}"
            place.append(operation(state))
        return did, ", ".join(place)

    def _merged(self, rows: list[Row]) -> list[Row]:
        if len(rows) < 2:
            return rows
        ranks = tuple(sorted(rank for row in rows for rank in row.ranks))
        places, between = {row.place for row in rows}, rows[0].distance - 1
        through = f" through {between} other{'s' * (between > 1)}" if between else ""
        place = places.pop() if len(places) == 1 else ""
        return [Row(ranks, f"{self._wait} for it{through}", place, rows[0].distance)]


def _rows(alike: Mapping[tuple[str, str], list[int]], distance: int) -> list[Row]:
    rows = []
    for (did, place), ranks in sorted(alike.items(), key=lambda item: item[1]):
        words = _plural(did) if len(ranks) > 1 else did
        rows.append(Row(tuple(sorted(ranks)), words, place, distance))
    return rows


def _plural(did: str) -> str:
    verb, _, rest = did.partition(" ")
    if verb == "still":
        return f"still {_plural(rest)}"
    return " ".join(filter(None, (_OF_MANY.get(verb, verb), rest)))


def operation(state: State) -> str:
    """What a rank waits in: ``neighbor_allreduce('x')``."""
    return f"{state.op}({state.name!r})" if state.name else state.op


def _call(state: State) -> str:
    if state.op.startswith(_MIXING):
        return f", round {state.step + 1}"
    return f", call {state.step + 1}" if state.step else ""


def _runs(ranks: Iterable[int]) -> list[str]:
    """Ranks as texts, three or more in a row as a range: ``['0-2', '4', '5']``."""
    runs: list[list[int]] = []
    for rank in sorted(set(ranks)):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    return [
        text
        for run in runs
        for text in ([f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run))
    ]


def listed(ranks: Iterable[int]) -> str:
    """Ranks with spaces between, three or more in a row as a range: ``0-2 4 5``."""
    return " ".join(_runs(ranks))


def spelled(ranks: Sequence[int]) -> str:
    """Which ranks: ``rank 3``, ``ranks 0-2, 5 and 7``."""
    *head, last = _runs(ranks)
    if len(ranks) == 1:
        return f"rank {last}"
    return f"ranks {', '.join(head)} and {last}" if head else f"ranks {last}"


def aligned(rows: Iterable[Row]) -> list[str]:
    """The rows as lines in three columns; a place equal to the one above it is left out."""
    table, above = [], ""
    for row in rows:
        who = f"rank{'s' * (len(row.ranks) > 1)} {listed(row.ranks)}"
        table.append((who, row.did, "" if row.place == above else row.place))
        above = row.place
    first, second = (max((len(line[k]) for line in table), default=0) for k in (0, 1))
    return [f"{who:<{first}}  {did:<{second}}  {place}".rstrip() for who, did, place in table]
