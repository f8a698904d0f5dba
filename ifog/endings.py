"""How a cell ended on this rank when it did not end well: what is told, and the last resort."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ifog.context import Context
from ifog.errors import DeadlineError, PeerFailedError
from ifog.faults import describe
from ifog.transport.world import revoke_world

__all__ = ["fields_of", "free_from_mpi"]

_MPI = "mpi4py"


def fields_of(error: BaseException, context: Context, *, interrupted: bool) -> dict[str, Any]:
    """The fields of ``CellEnd.error``, with the wait that the error ended.

    Args:
        error: what ended the cell.
        context: this rank's.
        interrupted: whether the cell had been interrupted before.
    """
    progress = context.progress
    if isinstance(error, PeerFailedError):  # an error of one's own explains more
        error = progress.first_untold() or error
    cut = isinstance(error, PeerFailedError | DeadlineError | KeyboardInterrupt)
    fields = describe(error)
    # An interrupt that could only end a call into MPI by revoking what it waited on.
    broken = [e for e in (error, error.__context__) if type(e).__module__.startswith(_MPI)]
    if interrupted and broken and broken[0] is not None:
        told = "MPI.COMM_WORLD was revoked to end it: own calls into MPI need %bf restart"
        fields = describe(broken[0]) | {"ename": "KeyboardInterrupt", "evalue": told}
    wait = progress.was_waiting(context.rank) if cut else None
    return fields | {"wait": wait and tuple(wait)}


def free_from_mpi(namespace: Mapping[str, Any]) -> None:
    """End calls into MPI's world, if the user's code has anything of MPI that may wait there."""
    values = list(namespace.values())
    homes = [v.__name__ if isinstance(v, ModuleType) else type(v).__module__ for v in values]
    if any(str(home).partition(".")[0] == _MPI for home in homes):
        revoke_world()
