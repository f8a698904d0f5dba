"""All laws of operations, and the way to run them on MPI ranks.

A law says what an operation must do on every transport and any number of ranks: a function that
runs on all ranks at once and asserts on its own rank. Expected values come from the dense W @ x of
``mixed`` or from closed forms. ``python laws.py FILE`` under mpiexec runs all laws on MPI ranks and
writes what failed; ``python laws.py FILE WAY`` does so with tensors of devices: ``cuda``, or those
of ``pretend``, of which all ranks share one or each has its own.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import traceback
from pathlib import Path

import laws_bursts
import laws_collectives
import laws_gossip
import laws_handovers
import laws_machines
import laws_neighbors
import laws_training
import laws_windows
import pretend
import refusals
import refusals_machines
import torch

import ifog
from ifog import errors
from ifog.context import current

LAWS = {
    name.removeprefix("law_"): law
    for module in (
        laws_collectives,
        laws_neighbors,
        laws_bursts,
        laws_gossip,
        laws_machines,
        laws_handovers,
        laws_training,
        laws_windows,
        refusals,
        refusals_machines,
    )
    for name, law in vars(module).items()
    if name.startswith("law_")
}


# Those on training find what to expect with NumPy.
ON_DEVICES = [name for name in LAWS if f"law_{name}" not in vars(laws_training)]


def run_all(path, chosen=tuple(LAWS)):
    """Run the chosen laws on this MPI rank; write {law: traceback} to ``path`` plus the rank."""
    # Before the starter loses patience, and also where it was killed and nobody waits.
    faulthandler.dump_traceback_later(180, exit=True)
    ifog.init()
    failed = {}
    for name in chosen:
        ifog.init()
        try:
            LAWS[name]()
        except BaseException:
            failed[name] = traceback.format_exc()
            current().abort(f"law {name} failed")
        # A law that failed on one rank must not strand the others in the next one.
        verdict = [name in failed]
        try:
            ifog.barrier()
        except errors.PeerFailedError:
            verdict.append(True)
        if any(verdict):
            current().heal()
    Path(f"{path}.{ifog.rank()}").write_text(json.dumps(failed))


def use_device(way):
    """Have tensors live on a device from now on, in one of these ways."""
    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))
    if way == "cuda":
        device = f"cuda:{rank % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
        torch.set_default_device(device)
    else:
        pretend.install({"shared": "one", "own": str(rank)}[way])


if __name__ == "__main__":
    torch.set_num_threads(1)
    path, *way = sys.argv[1:]
    if way:
        use_device(*way)
    run_all(path, ON_DEVICES if way == ["cuda"] else LAWS)
