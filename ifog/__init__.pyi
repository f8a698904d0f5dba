from typing import Any

from ifog import algorithms as algorithms
from ifog.advice import advise as advise
from ifog import compression as compression
from ifog import networks as networks
from ifog import problems as problems
from ifog import schedules as schedules
from ifog import simulate as simulate
from ifog import testing as testing
from ifog import topology as topology
from ifog import weights as weights
from ifog.agents import MatrixMixer as MatrixMixer
from ifog.algorithm_optimizer import AlgorithmOptimizer as AlgorithmOptimizer
from ifog.carriers import agent_mixer as agent_mixer
from ifog.checkpoint import load as load
from ifog.checkpoint import save as save
from ifog.cluster import Cell as Cell
from ifog.cluster import CellResult as CellResult
from ifog.cluster import Cluster as Cluster
from ifog.comparison import compare as compare
from ifog.context import init as init
from ifog.context import is_initialized as is_initialized
from ifog.context import rank as rank
from ifog.context import shutdown as shutdown
from ifog.context import size as size
from ifog.deadlines import set_timeout as set_timeout
from ifog.errors import IfogError as IfogError
from ifog.fitting import fit_progress as fit_progress
from ifog.flat import FlatParameters as FlatParameters
from ifog.gossip import pair_gossip as pair_gossip
from ifog.gossip import pair_gossip_nonblocking as pair_gossip_nonblocking
from ifog.handle import Handle as Handle
from ifog.hierarchical import hierarchical_neighbor_allreduce as hierarchical_neighbor_allreduce
from ifog.hierarchical import (
    hierarchical_neighbor_allreduce_nonblocking as hierarchical_neighbor_allreduce_nonblocking,
)
from ifog.inference import (
    infer_destination_from_source_ranks as infer_destination_from_source_ranks,
)
from ifog.inference import (
    infer_source_from_destination_ranks as infer_source_from_destination_ranks,
)
from ifog.living import alive_ranks as alive_ranks
from ifog.living import heal as heal
from ifog.living import on_failure as on_failure
from ifog.machines import in_neighbor_machine_ranks as in_neighbor_machine_ranks
from ifog.machines import is_homogeneous as is_homogeneous
from ifog.machines import is_machine_topo_weighted as is_machine_topo_weighted
from ifog.machines import load_machine_topology as load_machine_topology
from ifog.machines import local_rank as local_rank
from ifog.machines import local_size as local_size
from ifog.machines import machine_rank as machine_rank
from ifog.machines import machine_size as machine_size
from ifog.machines import out_neighbor_machine_ranks as out_neighbor_machine_ranks
from ifog.machines import set_machine_topology as set_machine_topology
from ifog.metrics import check_copies as check_copies
from ifog.metrics import check_sums as check_sums
from ifog.metrics import log as log
from ifog.mixing import Mixer as Mixer
from ifog.mixing import allreduce_mixer as allreduce_mixer
from ifog.mixing import hierarchical_mixer as hierarchical_mixer
from ifog.mixing import local_mixer as local_mixer
from ifog.mixing import neighbor_mixer as neighbor_mixer
from ifog.neighborhood import in_neighbor_ranks as in_neighbor_ranks
from ifog.neighborhood import is_topo_weighted as is_topo_weighted
from ifog.neighborhood import load_topology as load_topology
from ifog.neighborhood import out_neighbor_ranks as out_neighbor_ranks
from ifog.neighborhood import set_topology as set_topology
from ifog.neighbors import neighbor_allgather as neighbor_allgather
from ifog.neighbors import neighbor_allgather_nonblocking as neighbor_allgather_nonblocking
from ifog.neighbors import neighbor_allreduce as neighbor_allreduce
from ifog.neighbors import neighbor_allreduce_nonblocking as neighbor_allreduce_nonblocking
from ifog.onesided import get_current_created_window_names as get_current_created_window_names
from ifog.onesided import get_win_version as get_win_version
from ifog.onesided import turn_off_win_ops_with_associated_p as turn_off_win_ops_with_associated_p
from ifog.onesided import turn_on_win_ops_with_associated_p as turn_on_win_ops_with_associated_p
from ifog.onesided import win_accumulate as win_accumulate
from ifog.onesided import win_accumulate_nonblocking as win_accumulate_nonblocking
from ifog.onesided import win_associated_p as win_associated_p
from ifog.onesided import win_create as win_create
from ifog.onesided import win_free as win_free
from ifog.onesided import win_get as win_get
from ifog.onesided import win_get_nonblocking as win_get_nonblocking
from ifog.onesided import win_lock as win_lock
from ifog.onesided import win_mutex as win_mutex
from ifog.onesided import win_poll as win_poll
from ifog.onesided import win_put as win_put
from ifog.onesided import win_put_nonblocking as win_put_nonblocking
from ifog.onesided import win_update as win_update
from ifog.onesided import win_update_then_collect as win_update_then_collect
from ifog.onesided import win_wait as win_wait
from ifog.ops import allgather as allgather
from ifog.ops import allgather_nonblocking as allgather_nonblocking
from ifog.ops import allreduce as allreduce
from ifog.ops import allreduce_ as allreduce_
from ifog.ops import allreduce_nonblocking as allreduce_nonblocking
from ifog.ops import allreduce_nonblocking_ as allreduce_nonblocking_
from ifog.ops import barrier as barrier
from ifog.ops import broadcast as broadcast
from ifog.ops import broadcast_ as broadcast_
from ifog.ops import broadcast_nonblocking as broadcast_nonblocking
from ifog.ops import broadcast_nonblocking_ as broadcast_nonblocking_
from ifog.ops import poll as poll
from ifog.ops import synchronize as synchronize
from ifog.ops import wait as wait
from ifog.ops import watch as watch
from ifog.optim import DecentralizedOptimizer as DecentralizedOptimizer
from ifog.parameters import allreduce_parameters as allreduce_parameters
from ifog.parameters import broadcast_optimizer_state as broadcast_optimizer_state
from ifog.parameters import broadcast_parameters as broadcast_parameters
from ifog.schedules import exponential_machines as exponential_machines
from ifog.schedules import inner_outer_exponential as inner_outer_exponential
from ifog.schedules import inner_outer_ring as inner_outer_ring
from ifog.playback import replay as replay
from ifog.recordings import record as record
from ifog.recorder import timeline as timeline
from ifog.recorder import timeline_context as timeline_context
from ifog.recorder import timeline_end_activity as timeline_end_activity
from ifog.recorder import timeline_start_activity as timeline_start_activity
from ifog.schedules import one_peer as one_peer
from ifog.topology import complete as complete
from ifog.topology import exponential as exponential
from ifog.topology import from_matrix as from_matrix
from ifog.topology import grid2d as grid2d
from ifog.topology import ring as ring
from ifog.topology import star as star
from ifog.topology import symmetric_exponential as symmetric_exponential
from ifog.schedules import base_graph as base_graph
from ifog.schedules import epidemic as epidemic
from ifog.schedules import equi_dynamic as equi_dynamic
from ifog.schedules import hypercube_matching as hypercube_matching
from ifog.schedules import matcha as matcha
from ifog.schedules import random_pair as random_pair
from ifog.solving import solve as solve
from ifog.topology import barbell as barbell
from ifog.topology import equi_static as equi_static
from ifog.topology import erdos_renyi as erdos_renyi
from ifog.topology import from_adjacency as from_adjacency
from ifog.topology import geometric as geometric
from ifog.topology import hypercube as hypercube
from ifog.topology import path as path
from ifog.topology import random_regular as random_regular
from ifog.topology import small_world as small_world
from ifog.topology import torus2d as torus2d
from ifog.topology import tree as tree
from ifog.window_mixing import push_sum_mixer as push_sum_mixer
from ifog.window_mixing import window_mixer as window_mixer
from ifog.windows import Window as Window

__version__: str
__all__: list[str]

def load_ipython_extension(shell: Any) -> None: ...
def unload_ipython_extension(shell: Any) -> None: ...
