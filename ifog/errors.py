"""Every way in which ifog can refuse or fail, as one tree under ``IfogError``.

A message says what was asked, what was found and what to do. Argument errors are also
``ValueError``s and lost peers also ``RuntimeError``s, as BlueFog's programs expect.
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "CellError",
    "CheckpointError",
    "ClusterError",
    "ClusterStartError",
    "DeadlineError",
    "IfogError",
    "LawError",
    "MismatchError",
    "NoClusterError",
    "NotAvailableError",
    "NotInitializedError",
    "ParticipationError",
    "PeerFailedError",
    "RecordingError",
    "TopologyMismatchError",
    "TransportError",
]


class IfogError(Exception):
    """Root of every error raised by ifog."""


class ArgumentError(IfogError, ValueError):
    """An argument of a call cannot be used; found before anything was sent."""


class MismatchError(ArgumentError):
    """Two ranks called the same operation with different shapes, dtypes or arguments."""


class TopologyMismatchError(ArgumentError):
    """One rank sends over an edge on which the other does not receive, or the reverse."""


class NotInitializedError(IfogError, ValueError):
    """An operation was called before ``ifog.init()``."""


class NotAvailableError(IfogError, NotImplementedError):
    """The name exists, but what it stands for does not yet; the message says what to use."""


class ParticipationError(IfogError, RuntimeError):
    """An operation needs a rank that does not take part in this cell."""


class TransportError(IfogError, RuntimeError):
    """The wire failed in a way that no peer explains."""


class PeerFailedError(IfogError, RuntimeError):
    """Another rank raised, was interrupted or died while this one waited for it.

    Attributes:
        rank: the rank that failed, or None when it could not be found out.
        cause: what happened there, for example ``"ValueError: lr must be positive"``.
    """

    def __init__(self, message: str, rank: int | None = None, cause: str = "") -> None:
        super().__init__(message)
        self.rank = rank
        self.cause = cause


class LawError(IfogError, AssertionError):
    """An algorithm breaks a law that all algorithms keep; the message says which, and why."""


class CheckpointError(IfogError, RuntimeError):
    """A checkpoint cannot be written or read; what was there before is unchanged."""


class ClusterError(IfogError, RuntimeError):
    """The cluster cannot do what was asked; the message says what to type."""


class RecordingError(IfogError, RuntimeError):
    """A recording cannot be written or read; the message says which file and why."""


class NoClusterError(ClusterError):
    """There is no running cluster yet."""


class ClusterStartError(ClusterError):
    """The engines did not come up; carries the launcher's log."""


class DeadlineError(ClusterError):
    """A cell did not end within its ``--timeout``."""


class CellError(ClusterError):
    """At least one rank raised in a cell; names ranks and messages."""
