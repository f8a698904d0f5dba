"""All laws of operations, and the way to run them on MPI ranks.

A law says what an operation must do on every transport and any number of ranks: a function that
runs on all ranks at once and asserts on its own rank. Expected values come from the dense W @ x of
``mixed`` or from closed forms. ``python laws.py FILE`` under mpiexec runs all laws on MPI ranks and
writes what failed.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import traceback
from pathlib import Path

import laws_collectives
import laws_gossip
import laws_handovers
import laws_machines
import laws_neighbors
import laws_training
import laws_windows
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


def run_all(path):
    """Run every law on this MPI rank; write {law: traceback} to ``path`` plus the rank."""
    # Before the starter loses patience, and also where it was killed and nobody waits.
    faulthandler.dump_traceback_later(180, exit=True)
    ifog.init()
    failed = {}
    for name, law in LAWS.items():
        ifog.init()
        try:
            law()
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_all(sys.argv[1])
