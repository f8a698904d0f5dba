"""What a cell costs that does nothing: ``%%bf``, and ipyparallel's ``%%px`` on the same cluster.

Cells are sent to a real kernel, as a notebook does, and timed from there to the kernel's reply and
the end of its output. A cell of the kernel itself shows what all cells cost: the floor.
"""

from __future__ import annotations

import queue
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from ifog.bench.jobs import require_room
from ifog.bench.ratios import Compared, compared, table
from ifog.errors import ClusterError
from ifog.mpiexec import cores
from ifog.numbers import counted

__all__ = ["CellReport", "Cells", "run"]

BF, PX, KERNEL = "%%bf", "%%px", "the kernel's own"
_CELLS = {BF: "%%bf\npass", PX: "%%px\npass", KERNEL: "pass"}
_PX = (
    "import ipyparallel\nfrom ifog import cluster\n"
    '_file = cluster.current()._line.connection_files["client"]\n'
    "_view = ipyparallel.Client(_file)[:]\n_view.block = True\n_view.activate()"
)
_SECONDS = 90.0
_GRACE = 15.0
_WARMING = 3


class Cells(Compared):
    """Empty cells on so many ranks, beside ``%%bf``."""

    ranks: int


class CellReport(NamedTuple):
    """The result."""

    cores: int
    cells: list[Cells]

    def lines(self) -> list[str]:
        """The result in words."""
        rows = [["", *(counted(each["ranks"]) for each in self.cells)]]
        for name in _CELLS:
            told = ((each["us"][name], each["ratio"][name]["median"]) for each in self.cells)
            rows.append([name, *(f"{us / 1000:.3g} ({times:.2f})" for us, times in told)])
        return [
            f"{self.cores} cores; median milliseconds of an empty cell, "
            f"{self.cells[0]['rounds']} rounds in turn; in brackets the ratio to %%bf",
            *table(rows),
        ]


def run(ranks: int, *, rounds: int | None = None, quick: bool = False) -> CellReport:
    """Send empty cells to a kernel with a cluster of 1 rank, then with one of ``ranks``.

    Args:
        ranks: how many.
        rounds: cells of each kind, by default 100, or 20 if quick.
        quick: fewer cells.

    Raises:
        ArgumentError: too many ranks for this machine's memory.
        ClusterError: a cell failed or took too long.
    """
    require_room("cell", ranks, 0.0, least=1)
    rounds = rounds or (20 if quick else 100)
    cells = []
    with _kernel() as kernel:
        kernel.run("%load_ext ifog")
        for n in sorted({1, ranks}):
            kernel.run(f"%bf start -n {n}")
            kernel.run(_PX)
            cells.append(_contest(kernel, n, rounds))
            kernel.run("_view.client.close()\n%bf stop")
    return CellReport(cores(), cells)


def _contest(kernel: _Kernel, ranks: int, rounds: int) -> Cells:
    times: dict[str, list[float]] = {name: [] for name in _CELLS}
    names = list(_CELLS)
    for number in range(rounds + _WARMING):
        for name in names[:: 1 if number % 2 else -1]:
            times[name].append(kernel.run(_CELLS[name]))
    times = {name: found[_WARMING:] for name, found in times.items()}
    return {"ranks": ranks, **compared(times, BF)}


class _Kernel:
    """Runs cells one after the other."""

    def __init__(self, client: Any, log: Path) -> None:
        self._client = client
        self._log = log

    def run(self, code: str) -> float:
        """Seconds that a cell took.

        Raises:
            ClusterError: it failed or took too long.
        """
        start = time.perf_counter()
        try:
            reply = self._client.execute_interactive(
                code, store_history=False, timeout=_SECONDS, output_hook=lambda _message: None
            )
        except (TimeoutError, queue.Empty):
            raise ClusterError(
                f"bench cell: {code!r} took over {_SECONDS:.0f} s:\n{self._log.read_text()[-2000:]}"
            ) from None
        took = time.perf_counter() - start
        content = reply["content"]
        if content["status"] != "ok":
            told = content.get("evalue") or self._log.read_text()[-2000:]
            raise ClusterError(f"bench cell: {code!r} failed: {content.get('ename')}: {told}")
        return took


@contextmanager
def _kernel() -> Iterator[_Kernel]:
    """A kernel of this Python on unix sockets; nothing that it started is left."""
    from jupyter_client.manager import KernelManager

    with tempfile.TemporaryDirectory(prefix="ifog-") as private:
        log = Path(private) / "log"
        manager = KernelManager(
            kernel_name="python3", transport="ipc", connection_file=f"{private}/kernel.json"
        )
        with log.open("w") as stream:
            manager.start_kernel(cwd=private, stdout=stream, stderr=stream)
        process = psutil.Process(manager.provisioner.pid)  # type: ignore[union-attr] # just started
        client = manager.blocking_client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=_SECONDS)
            yield _Kernel(client, log)
        finally:
            family = [process]
            with suppress(psutil.NoSuchProcess):
                family += process.children(recursive=True)
            client.stop_channels()
            manager.shutdown_kernel(now=False)
            _end(family)


def _end(family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(family, timeout=_GRACE)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
