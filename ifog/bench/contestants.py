"""What contestants are called, in the programs on the ranks and in the reports alike."""

from __future__ import annotations

__all__ = [
    "ADDS",
    "ALLREDUCE",
    "ALONE",
    "ATC_MACHINES",
    "ATC_ONE_PEER",
    "ATC_STATIC",
    "AWC_HALF",
    "AWC_MACHINES",
    "AWC_ONE_PEER",
    "AWC_STATIC",
    "BY_HAND",
    "COPIES",
    "COPY",
    "DDP",
    "DDP_HALF",
    "EXCHANGE",
    "FLAT",
    "GLOO",
    "GRADIENT",
    "LIST",
    "MOMENTUM",
    "MPI_SEND",
    "OURS",
    "PACKED",
    "POSTED",
    "PUSH_SUM",
    "PUT",
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
BY_HAND = "copied by hand, averaged in host memory"
COPIES = "floor, one copy down and one up a neighbour"
POSTED = "ifog, posted together"
LIST = "ifog, as a list"
FLAT = "ifog, one flat tensor"
PACKED = "MPI, packed in one message"

# Those that train.
DDP = "DDP on gloo"
GRADIENT = "gradient order, all-reduce"
ATC_STATIC = "ATC, static exponential"
ATC_ONE_PEER = "ATC, one-peer"
ATC_MACHINES = "ATC, hierarchical"
AWC_STATIC = "AWC, static exponential"
AWC_ONE_PEER = "AWC, one-peer"
AWC_MACHINES = "AWC, hierarchical"
MOMENTUM = "ATC, one-peer, momentum too"
DDP_HALF = "DDP on gloo, bfloat16"
AWC_HALF = "AWC, one-peer, bfloat16"
PUT = "windows, put"
PUSH_SUM = "windows, push-sum"
ALONE = "no communication"
EXCHANGE = "one-peer average, nothing else"
