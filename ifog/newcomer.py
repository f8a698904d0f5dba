"""A process that becomes a rank in place of one that died, as the ranks themselves see it.

The living start it and let it in once it can be reached from the notebook; it takes over the number
of the dead rank, then what everybody must agree on (``portrait``), then the variables that a
neighbour hands over. Only MPI needs more than this process here, so ``join`` and ``admit`` meet.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from typing import Any

import cloudpickle
import torch

from ifog import context as contexts
from ifog.cargo import packed, unpacked
from ifog.context import Context, current
from ifog.errors import NotAvailableError
from ifog.exchange import Parcel, exchange, wire
from ifog.handle import Operation
from ifog.operation import Outcome, launch

__all__ = ["admit", "giver", "hand_over", "join", "portrait", "settle", "spawn", "take_over"]

_SHARED = ("on_failure", "windows_carry_p", "weighted", "schedule", "machine_weighted")


def _mpi(context: Context) -> Any:
    from ifog.transport.shm import SharedTransport

    if not isinstance(context.transport, SharedTransport):
        raise NotAvailableError("only MPI ranks can be joined by another one; start afresh")
    return context.transport


def portrait() -> bytes:
    """What a newcomer must know to agree with this rank."""
    context = current()
    facts = {name: getattr(context, name) for name in _SHARED}
    graphs = (context.declared, context.declared_machines)
    machines, healed = context.layout.machines, context.healed
    # By value: schedules are made of functions inside functions.
    return bytes(cloudpickle.dumps((facts, graphs, machines, context.transport.machines, healed)))


def giver(rank: int) -> int:
    """The rank whose variables one in place of the dead ``rank`` should have: a neighbour's."""
    context = current()
    near = set(context.declared.predecessors(rank)) & set(context.alive)
    return min(near - {rank}, default=context.alive[0])


def spawn(rank: int) -> None:
    """Start the process that is to become ``rank``; all living ranks must call it."""
    call = f"from ifog.engine import main; main({rank})"
    _mpi(current()).spawn([sys.executable, "-c", call, *sys.argv[1:]])


def admit() -> None:
    """Let the newcomer in; all living ranks must call it, while the newcomer joins."""
    context = current()
    _mpi(context).admit()
    _begin_anew(context)


def join(rank: int, image: bytes) -> None:
    """Become ``rank`` of a world whose other ranks call ``admit``; ``image`` is a ``portrait``."""
    from ifog.transport.shm import SharedTransport

    *_, machines, healed = pickle.loads(image)
    context = Context(SharedTransport.newcomer(rank, machines, healed))
    contexts.enter(context)
    settle(image)
    context.healed = healed
    _begin_anew(context)


def settle(image: bytes) -> None:
    """Agree with the rank whose ``portrait`` this is, as far as that does not need the others."""
    context = current()
    facts, (graph, machine_graph), machines, _, _ = pickle.loads(image)
    for name, value in facts.items():
        setattr(context, name, value)
    context.arrange(type(context.layout)(machines))
    if machine_graph is not None:
        context.install_machines(machine_graph, weighted=facts["machine_weighted"])
    context.install(graph, weighted=facts["weighted"], schedule=facts["schedule"])


def _begin_anew(context: Context) -> None:
    context.unnamed.clear()
    context.healed += 1
    context.adapt()


def hand_over(namespace: dict[str, Any], names: Sequence[str], target: int) -> dict[str, str]:
    """Send variables to ``target``, which calls ``take_over``; returns what cannot be sent, why."""
    missing = {name: "there is none" for name in names if name not in namespace}
    data, refused = packed(namespace, [name for name in names if name in namespace])
    x = torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def body(context: Context, tag: int) -> Operation[Outcome]:
        arrivals = yield from exchange(context.transport, tag, {target: Parcel(x, wire(x))}, [])
        return Outcome(None, arrivals)

    launch("respawn", None, [target], body, group=f".{target}").wait()
    return missing | refused


def take_over(namespace: dict[str, Any], source: int) -> list[str]:
    """Bind the variables that ``source`` hands over; returns their names."""

    def body(context: Context, tag: int) -> Operation[Outcome]:
        arrivals = yield from exchange(context.transport, tag, {}, [source])
        return Outcome(arrivals.parcels[source].like, arrivals)

    data = launch("respawn", None, [source], body, group=f".{current().rank}").wait()
    variables = unpacked(data.numpy().tobytes())
    namespace |= variables
    return sorted(variables)
