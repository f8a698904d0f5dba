"""Starting ranks, at the second attempt if the first fails, until a line to them stands."""

from __future__ import annotations

import time
from collections.abc import Callable

from ifog.errors import ClusterStartError
from ifog.hosts import Hosts
from ifog.launcher import Job
from ifog.line import Line
from ifog.numbers import counted
from ifog.telemetry import EventLog

__all__ = ["connect"]

_START_TIMEOUT = 60.0
_HINTS = {
    "not enough slots": "Open MPI found fewer slots than ranks: try fewer ranks.",
    "run as root": "Open MPI refuses to run as root here.",
    "libmpi": "mpi4py did not load: its MPI library is missing, or it is another one.",
    "No space left": "There is no room left in /dev/shm or in the temporary directory.",
}


def connect(
    n: int,
    events: EventLog,
    tell: Callable[[str], None],
    module: str = "ifog.engine",
    *,
    sealed: bool = False,
    foreign: bool = False,
    hosts: Hosts | None = None,
) -> Line:
    """Start ``n`` ranks, trying twice.

    Args:
        n: how many.
        events: where their events go.
        tell: called with short lines about what is going on.
        module: where the functions live that make an engine a rank and serve its client.
        sealed: let the ranks talk over shared memory only.
        foreign: clients that are not ifog's connect as well, and begin to work at once.
        hosts: the machines and their network, when there are others than this one.

    Raises:
        ClusterStartError: they did not come up; carries the launcher's log.
    """
    begun = time.monotonic()
    tell(f"starting {counted(n)}")

    def job() -> Job:
        return Job(n, sealed=sealed, foreign=foreign, hosts=hosts)

    try:
        line = _attempt(job(), events, tell, module)
    except ClusterStartError as error:
        tell(f"that failed: {str(error).splitlines()[0]}; trying once more")
        line = _attempt(job(), events, tell, module)
    verb = "is" if n == 1 else "are"
    try:
        tell(f"{counted(n)} {verb} ready after {time.monotonic() - begun:.1f} s")
    except BaseException:
        line.stop()
        raise
    return line


def _attempt(job: Job, events: EventLog, tell: Callable[[str], None], module: str) -> Line:
    untold: list[BaseException] = []

    def progress(text: str) -> None:
        try:
            tell(text)
        except BaseException as error:
            untold.append(error)
            raise

    try:
        line = Line(job, job.start(progress), events, module)
        line.introduce(job.n, _START_TIMEOUT)
    except BaseException as error:
        log = job.log()
        job.stop()
        # That nobody could be told is no reason why ranks fail to start.
        if isinstance(error, Exception) and error not in untold:
            raise _start_error(error, log) from error
        raise
    return line


def _start_error(error: Exception, log: str) -> ClusterStartError:
    message = [str(error) or repr(error), *(hint for sign, hint in _HINTS.items() if sign in log)]
    if log:
        message.append(f"The launcher's log ends with:\n{log}")
    return ClusterStartError("\n".join(message))
