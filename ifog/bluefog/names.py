"""Every name of BlueFog, what stands for it in ifog, and all that differs between the two.

``ROWS`` is the one list of differences; the table in the README is made of it by
``python -m ifog.bluefog README.md``.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["BEGIN", "END", "ROWS", "Row", "markdown", "replaced"]

BEGIN = "<!-- made by python -m ifog.bluefog README.md -->"
END = "<!-- end of what it makes -->"


class Row(NamedTuple):
    """Names that belong together.

    Attributes:
        names: BlueFog's, separated by blanks.
        here: what to use in ifog.
        difference: how the alias behaves unlike BlueFog 0.3.0; "" where it does not.
    """

    names: str
    here: str
    difference: str = ""


ROWS = (
    Row(
        "init",
        "ifog.init",
        "on ranks that ifog started it only sets the topology; an equal graph with another "
        "is_weighted takes effect",
    ),
    Row(
        "shutdown",
        "ifog.shutdown",
        "leaves ranks that ifog started alone; init may be called afterwards",
    ),
    Row("rank size local_rank local_size machine_rank machine_size is_homogeneous", "the same"),
    Row(
        "nccl_built mpi_threads_supported unified_mpi_window_model_supported",
        "",
        "the first is always False, the last always True and not collective",
    ),
    Row(
        "suspend resume",
        "",
        "operations are refused at once; no thread sleeps or wakes",
    ),
    Row(
        "set_skip_negotiate_stage get_skip_negotiate_stage",
        "",
        "nothing is negotiated: only pair_gossip asks for the flag; ranks that exchange something "
        "are compared always; the others do not hear of a mismatch",
    ),
    Row(
        "set_topology set_machine_topology",
        "the same",
        "ranks that pass different graphs get a ValueError; an equal graph with another "
        "is_weighted takes effect, unless windows exist",
    ),
    Row(
        "load_topology load_machine_topology in_neighbor_ranks out_neighbor_ranks "
        "in_neighbor_machine_ranks out_neighbor_machine_ranks is_topo_weighted "
        "is_machine_topo_weighted",
        "the same",
    ),
    Row(
        "allreduce allreduce_ allreduce_nonblocking allreduce_nonblocking_",
        "the same",
        "any strides; bfloat16 as well; large tensors are summed in rank order on every rank",
    ),
    Row(
        "broadcast broadcast_ broadcast_nonblocking broadcast_nonblocking_ allgather "
        "allgather_nonblocking",
        "the same",
        "any strides; bfloat16 and bool as well",
    ),
    Row(
        "neighbor_allreduce neighbor_allreduce_nonblocking",
        "the same",
        "any strides; bfloat16 as well; weights stay float64; in-neighbours that src_weights "
        "leaves out count 0; without sources the input stays as it is; dst_weights alone is a "
        "ValueError; weights are even up to rounding, not up to 1e-5",
    ),
    Row(
        "neighbor_allgather neighbor_allgather_nonblocking",
        "the same",
        "any strides; bfloat16 and bool as well",
    ),
    Row(
        "hierarchical_neighbor_allreduce hierarchical_neighbor_allreduce_nonblocking",
        "the same; ifog's works on machines of unequal sizes",
        "enable_topo_check does check; an empty list of destinations is fine",
    ),
    Row("pair_gossip pair_gossip_nonblocking", "the same"),
    Row(
        "poll synchronize wait",
        "ifog.poll, ifog.wait on a Handle",
        "the name of an operation is free again once poll said True or synchronize returned; "
        "unnamed operations are counted by kind, not all together",
    ),
    Row(
        "barrier",
        "ifog.barrier",
        "waiting of any kind can be interrupted, and ends when another rank fails",
    ),
    Row(
        "win_create win_free",
        "the same, or ifog.Window",
        "float16 and bfloat16 as well; shapes are always compared; size 1 works",
    ),
    Row(
        "win_put win_put_nonblocking neighbor_win_put neighbor_win_put_nonblocking win_accumulate "
        "win_accumulate_nonblocking neighbor_win_accumulate neighbor_win_accumulate_nonblocking",
        "the same, without neighbor_",
        "weights stay float64; a wrong shape, dtype or window is a ValueError; several may be "
        "under way on one window and take effect in order",
    ),
    Row(
        "win_get win_get_nonblocking neighbor_win_get neighbor_win_get_nonblocking",
        "the same, without neighbor_",
        "an unknown window is a ValueError; several may be under way",
    ),
    Row("win_update win_update_then_collect win_poll win_wait get_win_version", "the same"),
    Row("get_current_created_window_names", "the same", "empty before init"),
    Row(
        "win_mutex",
        "the same",
        "who holds it may call what requires it; taken in the order of ranks",
    ),
    Row("win_lock", "the same", "keeps puts, gets and accumulates out of the own buffers"),
    Row(
        "win_associated_p turn_on_win_ops_with_associated_p turn_off_win_ops_with_associated_p",
        "the same",
    ),
    Row(
        "timeline_start_activity timeline_end_activity timeline_context",
        "the same, with ifog.timeline",
        "the processing phase is called MPI_..., as BlueFog's documentation has it; there is "
        "nothing to show of fusion and negotiation; each init begins the file that the variable "
        "asks for, unless it is being written already",
    ),
    Row(
        "broadcast_parameters allreduce_parameters",
        "the same",
        "ranks with different models get a ValueError before anything is sent",
    ),
    Row(
        "broadcast_optimizer_state",
        "the same",
        "takes no step, sends options exactly, drops state that the root has not",
    ),
    Row(
        "DistributedAdaptThenCombineOptimizer",
        'ifog.DecentralizedOptimizer with order="atc"',
        "any torch optimizer but LBFGS; accumulated gradients are all used; it communicates in "
        "step, and all parameters in one message called parameters; state is kept",
    ),
    Row(
        "DistributedAdaptWithCombineOptimizer DistributedAllreduceOptimizer "
        "DistributedNeighborAllreduceOptimizer DistributedHierarchicalNeighborAllreduceOptimizer",
        'ifog.DecentralizedOptimizer with order="awc"',
        "bare layers and parameters held by the model itself are fine; one message for all; "
        "parameters keep their memory; state is kept",
    ),
    Row(
        "DistributedGradientAllreduceOptimizer",
        'ifog.DecentralizedOptimizer with order="gradient"',
        "between every J-th pass steps are local; a gradient that a rank lacks counts as zero",
    ),
    Row(
        "DistributedWinPutOptimizer",
        "ifog.DecentralizedOptimizer with ifog.window_mixer",
        "one window for the whole model, called parameters behind the prefix, and freed only by "
        "unregister_window or win_free",
    ),
    Row(
        "DistributedPullGetOptimizer DistributedPushSumOptimizer",
        "ifog.DecentralizedOptimizer with ifog.window_mixer, ifog.push_sum_mixer",
        "they work; windows as above",
    ),
    Row("CommunicationType deprecated_function_arg", ""),
    Row("ExponentialTwoGraph ExponentialGraph", "ifog.exponential"),
    Row("SymmetricExponentialGraph", "ifog.symmetric_exponential"),
    Row("FullyConnectedGraph", "ifog.complete"),
    Row("RingGraph", "ifog.ring"),
    Row("StarGraph", "ifog.star"),
    Row("MeshGrid2DGraph", "ifog.grid2d"),
    Row(
        "GetDynamicOnePeerSendRecvRanks",
        "ifog.schedules.send_recv(ifog.one_peer(graph), rank)",
        "graphs without self loops work as well",
    ),
    Row(
        "GetExp2DynamicSendRecvMachineRanks GetInnerOuterRingDynamicSendRecvRanks "
        "GetInnerOuterExpo2DynamicSendRecvRanks",
        "send_recv with exponential_machines, inner_outer_ring, inner_outer_exponential of "
        "ifog.schedules",
        "the last works on one machine",
    ),
    Row(
        "GetRecvWeights GetSendWeights",
        "ifog.weights.of_rank",
        "weights are Python floats",
    ),
    Row("IsTopologyEquivalent IsRegularGraph", ""),
    Row("isPowerOf", "", "exact for every power"),
    Row(
        "InferSourceFromDestinationRanks InferDestinationFromSourceRanks",
        "ifog.infer_source_from_destination_ranks, ifog.infer_destination_from_source_ranks",
        "the matrix is divided by the sums of its columns",
    ),
    Row("env is_running_from_ipython", ""),
    Row(
        "check_extension extension_available mpi_built",
        "",
        "there is nothing to build: torch and MPI are always there",
    ),
    Row("BlueFogBasics logger", "", "the logger has a handler once this module is imported"),
    Row("torch os collections", "", ""),
    Row(
        "interrupt_hanged_processes",
        "%bf interrupt",
        "engines get a second to answer; it returns those it interrupted, once all ranks are ready "
        "for the next operation",
    ),
    Row("__version__", "ifog.__version__", "0.3.0, the version whose behaviour this is"),
)


def markdown() -> str:
    """The rows as a table in Markdown."""
    lines = ["| BlueFog | here | difference |", "|---|---|---|"]
    for row in ROWS:
        names = ", ".join(f"`{name}`" for name in row.names.split())
        lines.append(f"| {names} | {row.here or 'only in the alias'} | {row.difference} |")
    return "\n".join(lines)


def replaced(text: str) -> str:
    """A page with the table between its two marks made anew.

    Raises:
        ValueError: the marks are not there.
    """
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or END not in rest:
        raise ValueError(f"the text needs the lines {BEGIN!r} and {END!r}, one after the other")
    return f"{before}{BEGIN}\n\n{markdown()}\n\n{END}{after}"
