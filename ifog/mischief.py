"""What can go wrong on ranks, as things to do to a running cluster: the faults of ``ifog chaos``.

Most are cells, with ``V`` for the rank that misbehaves; the rest are done from outside. Each says
how the cell may end: an error that goes unnoticed is as wrong as a result that is not right.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import zmq

from ifog.errors import IfogError

if TYPE_CHECKING:
    from ifog.cluster import Cell, CellResult, Cluster

__all__ = ["FAULTS", "LONG", "Scene"]

_TIMEOUT = 4.0
_ENDED = frozenset({"error", "interrupted", "stalled", "timeout"})
_WELL = frozenset({"ok"})
_HEAL = """
import os
from ifog.errors import PeerFailedError
x, k = torch.full((3,), float(bf.rank())), 0
while True:
    if k == 20 and bf.rank() == {victim}:
        os._exit(1)
    try:
        x = bf.neighbor_allreduce(x, name="x")
        k += 1
    except PeerFailedError:
        k = bf.heal(k)
"""
_LOOP = "x = torch.full((3,), float(bf.rank()))\nwhile True: x = bf.neighbor_allreduce(x)"


class Scene(NamedTuple):
    """A cluster, the ranks of it that live, and where chance comes from."""

    cluster: Cluster
    living: tuple[int, ...]
    chance: random.Random

    def pid(self, rank: int) -> int:
        """The process of a rank."""
        return next(row.pid for row in self.cluster.status().rows if row.rank == rank)


Fault = Callable[[Scene], str]


def _judged(result: CellResult, expected: frozenset[str]) -> str:
    if result.status in expected:
        return ""
    errors = {rank: f"{e.ename}: {e.evalue}" for rank, e in result.errors.items()}
    return f"ended {result.status!r} instead of {' or '.join(sorted(expected))}: {errors}"


def _cell(code: str, expected: frozenset[str], *, alone: bool = False) -> Fault:
    """Run ``code`` on all living ranks, or on the victim alone."""

    def inject(scene: Scene) -> str:
        victim = scene.chance.choice(scene.living)
        text = f"V = {victim}\nx = torch.ones(3) * bf.rank()\n{code}"
        ranks = [victim] if alone else None
        return _judged(scene.cluster.run(text, ranks, timeout=_TIMEOUT), expected)

    return inject


def _while_looping(scene: Scene, act: Callable[[Cell], None], expected: frozenset[str]) -> str:
    """Do something from outside while all ranks average in a loop, then end the loop."""
    cell = scene.cluster.submit(_LOOP)
    pause = threading.Event()
    pause.wait(scene.chance.uniform(0.0, 0.4))
    act(cell)
    pause.wait(scene.chance.uniform(0.0, 0.2))
    cell.interrupt()
    return _judged(cell.wait(_TIMEOUT), expected)


def _interrupt(presses: int) -> Fault:
    def inject(scene: Scene) -> str:
        victim = scene.chance.choice(scene.living)
        codes = (
            _LOOP,
            f"bf.barrier() if bf.rank() != {victim} else __import__('time').sleep(60)",
            "while True: pass",
        )
        cell = scene.cluster.submit(scene.chance.choice(codes))
        left = [presses]
        countdown = [scene.chance.randrange(4)]

        def press() -> None:
            countdown[0] -= 1
            if countdown[0] < 0 and left[0]:
                left[0] -= 1
                raise KeyboardInterrupt

        return _judged(cell.wait(_TIMEOUT + 4, press), _ENDED)

    return inject


def _signal(number: int) -> Fault:
    """Send a signal to one rank: while all average, or between cells."""

    def inject(scene: Scene) -> str:
        pid = scene.pid(scene.chance.choice(scene.living))
        if scene.chance.random() < 0.3:
            os.kill(pid, number)
            return ""
        return _while_looping(scene, lambda _: os.kill(pid, number), _ENDED)

    return inject


def _freeze(scene: Scene) -> str:
    """Stop a rank for a moment, shorter than makes it count as lost."""
    pid = scene.pid(scene.chance.choice(scene.living))

    def freeze(_: Cell) -> None:
        os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(scene.chance.uniform(0.05, 0.3))
        os.kill(pid, signal.SIGCONT)

    return _while_looping(scene, freeze, _ENDED)


def _healing(scene: Scene) -> str:
    """Call some ranks away while all heal within the cell after a death, then all."""
    chance = scene.chance
    cell = scene.cluster.submit(_HEAL.format(victim=chance.choice(scene.living)))
    pause = threading.Event()
    pause.wait(chance.uniform(0.0, 0.5))
    cell.interrupt(chance.sample(scene.living, chance.randint(1, len(scene.living))))
    pause.wait(chance.uniform(0.0, 2.0))
    cell.interrupt()
    return _judged(cell.wait(_TIMEOUT), _ENDED)


def _respawning(scene: Scene) -> str:
    """Kill a rank, and another one while the first is being replaced."""
    first, second = map(scene.pid, scene.chance.sample(scene.living, 2))
    os.kill(first, signal.SIGKILL)

    def strike() -> None:
        with suppress(ProcessLookupError):  # its whole world may have been replaced
            os.kill(second, signal.SIGKILL)

    stroke = threading.Timer(scene.chance.uniform(0.0, 2.5), strike)
    stroke.start()
    try:
        scene.cluster.respawn()
    except IfogError:
        return ""  # what is left must be able to go on, or fresh ranks to start
    finally:
        stroke.join()
    return ""


def _noise(scene: Scene) -> list[list[bytes]]:
    """Messages nobody should act on: random bytes, broken frames, signatures by a guess."""
    chance = scene.chance
    target = chance.choice(scene.living)
    ident = bytes(scene.cluster._kept().line._ident(target))
    guess = chance.randbytes(32).hex().encode()
    header = b'{"msg_id": "1", "msg_type": "ifog_request", "session": "s", "version": "5.3"}'
    revoke = [b"<IDS|MSG>", guess, header, b"{}", b"{}", b'{"what": "revoke", "cause": "forged"}']
    return [
        [ident, *revoke],
        [ident, *revoke, chance.randbytes(100)],
        [ident, b"<IDS|MSG>", guess],
        [ident, chance.randbytes(chance.randrange(1, 2000))],
        [ident],
        [chance.randbytes(10)],
        [b""],
        [b"engine.0.ifog_events", *revoke],
    ]


@contextmanager
def _stranger(kind: int, url: str) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    out = context.socket(kind)
    out.linger, out.sndtimeo = 100, 200
    out.connect(url)
    try:
        yield out
    finally:
        out.close()
        context.term()


def _garbage(name: str, side: str, kind: int) -> Fault:
    """Send noise to a port of the controller while the ranks average."""

    def inject(scene: Scene) -> str:
        files = scene.cluster._kept().line.connection_files
        told = json.loads(Path(files[side]).read_text())
        url = f"{told['interface']}:{told[name]}"
        noise = _noise(scene)

        def shout(_: Cell) -> None:
            with _stranger(kind, url) as out:
                for message in noise:
                    try:
                        out.send_multipart(message)
                    except zmq.Again:
                        return  # without the keys nothing is taken

        return _while_looping(scene, shout, _ENDED)

    return inject


def _window_garbage(scene: Scene) -> str:
    """Send noise to the socket behind every rank's windows, while there are windows."""
    code = (
        "x = torch.full((2,), float(bf.rank()))\nbf.win_create(x, 'chaos', zero_init=True)\n"
        "from ifog.context import current\n_bell = current().transport._memory.bell.address"
    )
    if error := _judged(scene.cluster.run(code, timeout=_TIMEOUT + 6), _WELL):
        return error
    chance = scene.chance
    signed = chance.randbytes(32) + b'{"number": 1, "error": "", "key": "", "rank": 0}'
    noise = [b"", b"hello", signed, b"[" * 30_000, chance.randbytes(5000), b'{"number": []}']
    for address in scene.cluster.pull("_bell").values():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(2.0)
            for data in noise:
                out.sendto(data, os.fsencode(address))
    code = "bf.win_put(x, 'chaos')\nbf.barrier()\nbf.win_update('chaos')\nbf.win_free('chaos')"
    return _judged(scene.cluster.run(code, timeout=_TIMEOUT + 6), _WELL)


def _controller(scene: Scene) -> str:
    """Kill the process through which the notebook talks to the ranks."""
    processes = scene.cluster._kept().line._job._processes
    controller = processes.controller._popen_process.pid
    cell = scene.cluster.submit(_LOOP)
    threading.Event().wait(scene.chance.uniform(0.0, 0.4))
    os.kill(controller, signal.SIGKILL)
    return _judged(cell.wait(_TIMEOUT), _ENDED)


_AWAIT = "import time\nif bf.rank() == V: time.sleep({seconds})\n"

# Faults that last as long as fresh ranks may take to start.
LONG = frozenset({"killed while others come back"})
# The name of a fault, how often it is drawn beside the others, and what it does.
FAULTS: Mapping[str, tuple[int, Fault]] = {
    "raise": (6, _cell("if bf.rank() == V: raise ValueError('chaos')\nbf.allreduce(x)", _ENDED)),
    "raise late": (
        6,
        _cell(
            "for k in range(50):\n    x = bf.neighbor_allreduce(x)\n"
            "    if k == 20 and bf.rank() == V: 1 / 0",
            _ENDED,
        ),
    ),
    "exit 3": (3, _cell("import sys\nif bf.rank() == V: sys.exit(3)\nbf.barrier()", _ENDED)),
    "skip": (6, _cell("if bf.rank() != V: bf.allreduce(x)", _ENDED)),
    "another op": (
        5,
        _cell("bf.allgather(x) if bf.rank() == V else bf.allreduce(x)", _ENDED),
    ),
    "another name": (
        5,
        _cell("bf.allreduce(x, name='a' if bf.rank() == V else 'b')", _ENDED),
    ),
    "another shape": (6, _cell("bf.allreduce(x[:2] if bf.rank() == V else x)", _ENDED)),
    "another dtype": (6, _cell("bf.allreduce(x.double() if bf.rank() == V else x)", _ENDED)),
    "peers that are not here": (6, _cell("bf.allreduce(x)", _ENDED, alone=True)),
    "edge that only one end knows": (
        5,
        _cell(
            "i = bf.alive_ranks().index(bf.rank())\nnear = bf.alive_ranks()\n"
            "to, of = near[(i + 1) % len(near)], near[i - 1]\n"
            "to = {} if bf.rank() == V else {to: 1.0}\n"
            "bf.neighbor_allreduce(x, self_weight=0.5, src_weights={of: 0.5}, dst_weights=to)",
            _ENDED,
        ),
    ),
    "cycle of waits": (
        4,
        _cell(
            "near = bf.alive_ranks()\nto = near[(near.index(bf.rank()) + 1) % len(near)]\n"
            "bf.pair_gossip(x, to)",
            _ENDED | _WELL,  # two ranks are a pair
        ),
    ),
    "output closed": (2, _cell("import sys\nif bf.rank() == V: sys.stdout.close()", _WELL)),
    "forgotten handle": (
        4,
        _cell("if bf.rank() == V: bf.allreduce_nonblocking(x, name='forgotten')", _ENDED | _WELL),
    ),
    "mutex held by who raised": (
        3,
        _cell(
            "bf.win_create(x, 'm', zero_init=True)\nwith bf.win_mutex('m', for_self=True):\n"
            "    if bf.rank() == V: raise ValueError('holding')\nbf.barrier()",
            _ENDED,
        ),
    ),
    "late rank": (
        4,
        _cell(_AWAIT.format(seconds=0.3) + "bf.allreduce(x)\nbf.neighbor_allreduce(x)", _WELL),
    ),
    "endless loop": (2, _cell("while bf.rank() == V: pass\nbf.barrier()", _ENDED)),
    "interrupt": (6, _interrupt(1)),
    "two interrupts": (4, _interrupt(2)),
    "three interrupts": (2, _interrupt(3)),
    "frozen for a moment": (3, _freeze),
    "garbage on the control channel": (4, _garbage("control", "client", zmq.DEALER)),
    "garbage on the cell channel": (4, _garbage("mux", "client", zmq.DEALER)),
    "garbage from a false rank": (3, _garbage("control", "engine", zmq.DEALER)),
    "forged events": (4, _garbage("iopub", "engine", zmq.PUB)),
    "garbage on window sockets": (3, _window_garbage),
    "kill": (3, _signal(signal.SIGKILL)),
    "stopped for good": (1, _signal(signal.SIGSTOP)),
    "killed while others come back": (2, _respawning),
    "exit at once": (1, _cell("import os\nif bf.rank() == V: os._exit(1)\nbf.barrier()", _ENDED)),
    "called away from healing": (2, _healing),
    "controller killed": (1, _controller),
}
