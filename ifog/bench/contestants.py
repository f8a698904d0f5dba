"""What contestants are called, in the programs on the ranks and in the reports alike."""

from __future__ import annotations

__all__ = [
    "ADDS",
    "ALLREDUCE",
    "COPY",
    "FLAT",
    "GLOO",
    "LIST",
    "MPI_SEND",
    "OURS",
    "PACKED",
    "POSTED",
    "REUSED",
    "UNCHECKED",
]

OURS = "ifog"
REUSED = "ifog, result reused"  # x = neighbor_allreduce(x)
UNCHECKED = "ifog, reused, plans unchecked"
ADDS = "MPI Isend/Irecv + adds"
ALLREDUCE = "MPI Allreduce"
MPI_SEND = "MPI Isend/Irecv"
GLOO = "gloo all_reduce"
COPY = "np.copyto"
POSTED = "ifog, posted together"
LIST = "ifog, as a list"
FLAT = "ifog, one flat tensor"
PACKED = "MPI, packed in one message"
