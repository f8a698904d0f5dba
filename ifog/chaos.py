"""Faults in a random but repeatable order, and between them rounds whose results are checked.

What must hold: every call returns in its time (nothing hangs), every result between the faults is
the one that the graph says (nothing is wrong), and of every cluster that was stopped nothing is
left, in this process neither (nothing leaks). Numbers are compared with NumPy, which knows nothing
of ranks.
"""

from __future__ import annotations

import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ifog import residue, topology, watchdog, weights
from ifog.cluster import Cluster
from ifog.errors import ClusterError, IfogError
from ifog.mischief import FAULTS, LONG, Scene
from ifog.numbers import duration

__all__ = ["ChaosReport", "run"]

_LIMIT = 30.0  # seconds after which a call that has not returned hangs
_START_LIMIT = 150.0
_GRAPHS = ("ring", "exponential", "grid", "complete")
_WIDTH = 5
_ROUNDS = 4
_MIXED_ROUNDS = 400
_CHECK = """
import numpy as np
_x = torch.from_numpy(np.random.default_rng({seed}).normal(size=({n}, {width}))[bf.rank()])
_y = _x.clone()
for _k in range({rounds}):
    _y = bf.neighbor_allreduce(_y)
_mean = bf.allreduce(_x)
_kept = kept
"""
_KEEP = "kept = bf.rank()"
Tell = Callable[[str], None]


class ChaosReport(NamedTuple):
    """What came of it.

    Attributes:
        seed: of the sequence.
        ranks: how many the cluster had.
        seconds: how long it took.
        injected: fault -> how often.
        checked: correct rounds that were verified.
        hung: what did not return, and with which fault.
        wrong: what was not as it must be.
        leaked: what stayed behind.
        healed: how often the living went on without the dead.
        respawned: how often lost ranks were replaced.
        restarted: how often fresh ranks were started.
        longest: seconds of the longest call, and in which fault it was.
    """

    seed: int
    ranks: int
    seconds: float
    injected: dict[str, int]
    checked: int
    hung: list[str]
    wrong: list[str]
    leaked: list[str]
    healed: int
    respawned: int
    restarted: int
    longest: tuple[float, str]

    @property
    def failed(self) -> bool:
        """Whether anything hung, was wrong or leaked."""
        return bool(self.hung or self.wrong or self.leaked)

    def lines(self) -> list[str]:
        """The report in words."""
        total = sum(self.injected.values())
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(self.injected.items()))
        return [
            f"{total} injected in {duration(self.seconds)} on {self.ranks} ranks, "
            f"seed {self.seed}: {kinds}",
            f"{self.checked} rounds checked; {self.healed} healed, {self.respawned} respawned, "
            f"{self.restarted} restarted",
            f"hung {len(self.hung)}, wrong {len(self.wrong)}, leaked {len(self.leaked)}; longest "
            f"call {duration(self.longest[0])} ({self.longest[1]})",
            *(f"hung: {text}" for text in self.hung),
            *(f"wrong: {text}" for text in self.wrong),
            *(f"leaked: {text}" for text in self.leaked),
        ]


class _HungError(Exception):
    """A call did not return; the cluster is not to be used any more."""


def run(ranks: int = 4, *, seconds: float, seed: int, tell: Tell) -> ChaosReport:
    """Inject faults for ``seconds`` and check all that can be checked.

    Args:
        ranks: how many the cluster has, at least 2.
        seconds: after which no further fault is injected.
        seed: decides about faults, victims and moments; what is slow may shift the moments.
        tell: called with a line for every fault.
    """
    return _Run(ranks, seed, tell).play(seconds)


class _Run:
    def __init__(self, ranks: int, seed: int, tell: Tell) -> None:
        self._seed = seed
        self._tell = tell
        self._chance = random.Random(seed)
        self._cluster = Cluster(ranks)
        self._injected: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._hung: list[str] = []
        self._wrong: list[str] = []
        self._leaked: list[str] = []
        self._longest = (0.0, "start")
        self._fault = "start"
        self._graph = "exponential"
        self._open = residue.descriptors()

    def play(self, seconds: float) -> ChaosReport:
        begun = time.monotonic()
        names = list(FAULTS)
        shares = [share for share, _ in FAULTS.values()]
        try:
            self._start()
            while time.monotonic() - begun < seconds:
                self._fault = self._chance.choices(names, shares)[0]
                self._injected[self._fault] += 1
                moment = time.monotonic()
                self._once()
                took = duration(time.monotonic() - moment)
                count = sum(self._injected.values())
                counts = f"hung {len(self._hung)}, wrong {len(self._wrong)}"
                counts += f", leaked {len(self._leaked)}"
                self._tell(f"{count}  {self._fault}: {took}  ({counts})")
        except KeyboardInterrupt:
            self._tell("interrupted; so far:")
        finally:
            self._fault = "stop"
            self._stop()
        return ChaosReport(
            self._seed,
            self._cluster.n,
            time.monotonic() - begun,
            dict(self._injected),
            self._done["checked"],
            self._hung,
            self._wrong,
            self._leaked,
            self._done["healed"],
            self._done["respawned"],
            self._done["restarted"],
            self._longest,
        )

    def _once(self) -> None:
        """One fault, what is needed to go on, and a round that must be right."""
        try:
            scene = Scene(self._cluster, self._living(), self._chance)
            limit = _START_LIMIT if self._fault in LONG else _LIMIT
            if error := self._limited(lambda: FAULTS[self._fault][1](scene), limit):
                self._note(error)
            self._recover()
            self._check()
        except _HungError:
            self._restart()
        except IfogError as error:
            self._note(f"{type(error).__name__}: {error}")
            self._restart()

    def _note(self, text: str) -> None:
        self._wrong.append(f"{self._fault}: {text}")
        self._tell(f"wrong: {self._wrong[-1]}")

    def _limited(self, call: Callable[[], Any], limit: float) -> Any:
        """What ``call`` returns, if it does so in time.

        Raises:
            _HungError: it does not.
        """
        outcome: list[Any] = []
        failure: list[BaseException] = []

        def work() -> None:
            try:
                outcome.append(call())
            except BaseException as error:
                failure.append(error)

        begun = time.monotonic()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(limit)
        if limit <= _LIMIT:  # starting takes its time
            self._longest = max(self._longest, (time.monotonic() - begun, self._fault))
        if thread.is_alive():
            frame = sys._current_frames().get(thread.ident or 0)
            where = traceback.extract_stack(frame)[-1] if frame else "somewhere"
            self._hung.append(f"{self._fault}: not back after {limit:g} s, {where}")
            self._tell(f"hung: {self._hung[-1]}")
            raise _HungError
        if failure:
            raise failure[0]
        return outcome[0]

    def _living(self) -> tuple[int, ...]:
        rows = self._limited(self._cluster.status, _LIMIT).rows
        return tuple(row.rank for row in rows if row.state != "dead")

    def _start(self) -> None:
        self._limited(self._cluster.start, _START_LIMIT)
        self._limited(lambda: self._cluster.run(_KEEP, timeout=10), _LIMIT)
        self._graph = "exponential"

    def _restart(self) -> None:
        self._done["restarted"] += 1
        self._stop()
        self._cluster = Cluster(self._cluster.n)
        self._start()

    def _stop(self) -> None:
        line = self._cluster._line
        if line is None:
            return
        footprint = line._job._footprint
        try:
            self._limited(self._cluster.stop, _LIMIT)
        except (_HungError, ClusterError) as error:
            self._leaked.append(f"{self._fault}: stop failed: {error}")
        left = [f"process {p.pid}" for p in watchdog.carriers(footprint.token)]
        left += [str(p) for p in (footprint.home, footprint.memory) if p.exists()]
        if not self._hung:  # else a thread still uses what it has open
            left += residue.left_open(self._open)
        self._leaked += [f"{self._fault}: {what}" for what in left]

    def _recover(self) -> None:
        """Make the cluster usable: wait, heal, or take fresh ranks."""
        status = self._limited(self._cluster.status, _LIMIT)
        deadline = time.monotonic() + _LIMIT
        while "not come back" in status.trouble and time.monotonic() < deadline:
            threading.Event().wait(0.2)
            status = self._limited(self._cluster.status, _LIMIT)
        dead = [row.rank for row in status.rows if row.state == "dead"]
        if not status.trouble and not dead:
            return
        broken = self._cluster._line is None or bool(self._cluster._line.broken)
        if broken or self._cluster.n - len(dead) < 2 or self._chance.random() < 0.3:
            self._restart()
            return
        if status.trouble:
            self._limited(self._cluster.heal, _LIMIT)
            self._done["healed"] += 1
        elif self._chance.random() < 0.5:
            self._limited(self._cluster.respawn, _START_LIMIT)
            self._limited(lambda: self._cluster.run(_KEEP, dead, timeout=10), _LIMIT)
            self._done["respawned"] += 1

    def _check(self) -> None:
        """Average, and compare with NumPy: k rounds are W^k x, many are the mean of the living."""
        living = self._living()
        n = self._cluster.n
        whole = len(living) == n
        if whole and self._chance.random() < 0.3:
            self._graph = self._chance.choice(_GRAPHS)
            # Windows that a fault left behind are laid out for the graph in use.
            self._limited(lambda: self._cluster.run("bf.win_free()", timeout=10), _LIMIT)
            self._limited(lambda: self._cluster.set_topology(self._graph), _LIMIT)
        seed = self._chance.randrange(1 << 30)
        rounds = _ROUNDS if whole else _MIXED_ROUNDS
        code = _CHECK.format(seed=seed, n=n, width=_WIDTH, rounds=rounds)
        result = self._limited(lambda: self._cluster.run(code, timeout=20), _LIMIT)
        if result.status != "ok":
            texts = {rank: f"{e.ename}: {e.evalue}" for rank, e in result.errors.items()}
            raise ClusterError(f"the round after it ended {result.status!r}: {texts}")
        found = self._limited(lambda: self._cluster.pull("(_y, _mean, _kept)"), _LIMIT)
        x = np.random.default_rng(seed).normal(size=(n, _WIDTH))
        mean = x[list(living)].mean(0)
        expected = np.tile(mean, (n, 1))
        if whole:
            W = weights.matrix(topology.named(self._graph, n))
            expected = np.linalg.matrix_power(W, rounds) @ x
        for rank in living:
            y, got, kept = found[rank]
            if not np.allclose(y, expected[rank], rtol=0, atol=1e-9):
                self._note(f"rank {rank} of {living} averaged {y} instead of {expected[rank]}")
            if not np.allclose(got, mean, rtol=0, atol=1e-12):
                self._note(f"rank {rank} of {living} has the mean {got} instead of {mean}")
            if kept != rank:
                self._note(f"rank {rank} lost its variable: {kept!r}")
        self._done["checked"] += 1
