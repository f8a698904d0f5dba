"""Ranks as threads, for tests: the whole module-level API in one process, in milliseconds.

And the laws of algorithms, for those who write their own.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from ifog.agents import MatrixMixer
from ifog.algorithms.base import Algorithm, Both, State, iterate
from ifog.algorithms.draws import keys, normal
from ifog.carriers import agent_mixer
from ifog.conformance import (
    Conserved,
    Oracle,
    check_axis,
    check_conservation,
    check_exactness,
    check_innocence,
    check_locality,
    check_oracle,
    difference,
    laws_problem,
)
from ifog.context import Context, current, use
from ifog.errors import ArgumentError, IfogError, LawError, PeerFailedError
from ifog.telemetry import Sink
from ifog.topology import ring
from ifog.transport.local import LocalHub, LocalTransport

__all__ = ["check_algorithm", "die", "run_ranks"]

T = TypeVar("T")


def _sum_of_x(state: State) -> Tensor:
    total: Tensor = state.x.sum(0)
    return total


class _Dead(BaseException):
    """Ends the thread of a rank that died."""


def die() -> NoReturn:
    """End this rank as if its process had been killed; for functions under ``run_ranks``."""
    context = current()
    assert isinstance(context.transport, LocalTransport)
    context.transport.hub.kill(context.rank)
    raise _Dead


def run_ranks(
    n: int,
    function: Callable[[], T],
    *,
    timeout: float = 30.0,
    sink: Sink | None = None,
) -> list[T]:
    """Run ``function()`` on ``n`` thread ranks and return their results in rank order.

    Inside, ``ifog.rank()``, ``ifog.neighbor_allreduce`` and the rest work as on real ranks. A rank
    that raises stops the others, and its error is raised here. The result of one that called
    ``die`` is None.

    Raises:
        IfogError: a rank did not return within ``timeout`` seconds; says which.
    """
    hub = LocalHub(n)
    results: list[Any] = [None] * n
    errors: dict[int, BaseException] = {}

    def work(rank: int) -> None:
        context = Context(hub.transport(rank), sink)
        use(context)
        try:
            results[rank] = function()
        except _Dead:
            return
        except BaseException as error:
            errors[rank] = error
            context.abort(f"{type(error).__name__}: {error}")

    threads = [
        threading.Thread(target=contextvars.Context().run, args=(work, rank), daemon=True)
        for rank in range(n)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    stuck = [rank for rank, thread in enumerate(threads) if thread.is_alive()]
    if stuck:
        hub.abort(stuck[0], "the test's time is up")
        raise IfogError(f"ranks {stuck} did not return within {timeout} s")
    for error in sorted(errors.values(), key=lambda e: isinstance(e, PeerFailedError)):
        raise error
    return results


def check_algorithm(
    algorithm: Algorithm,
    *,
    graph: Any = None,
    shape: Sequence[int] = (4,),
    problem: Oracle | None = None,
    conserved: Conserved | None = _sum_of_x,
    exact: bool = False,
    steps: int = 3000,
    hosts: Sequence[int] = (1, 4, 8),
    tolerance: float = 1e-9,
) -> tuple[str, ...]:
    """Check the laws that every algorithm keeps, by running this one.

    *Axis*: axis 0 of the State's tensors is the agents, and a step changes no State. *Single
    oracle*: one gradient a step, at ``state.x``. *Innocence*: chance belongs to (seed, agent,
    step). *Locality*: agents meet in the mixer only. *Conservation*: averaging keeps the sum.
    *Fixed point*, if ``exact``. *Equivalence*: ranks that host one agent or several compute what
    one process that hosts all of them does.

    Args:
        algorithm: yours.
        graph: to mix over, of at least as many agents as the most of ``hosts``; by default the
            ring of 8; a pair (pull, push) for an algorithm that needs two mixers.
        shape: of what one agent has.
        problem: (numbers [n] of agents) -> their gradient oracle; by default quadratics.
        conserved: a State -> what stays when there are no gradients; None if nothing does.
        exact: whether it ends at the optimum with the parameters it has.
        steps: after how many steps it has arrived.
        hosts: over how many thread ranks to spread the agents.
        tolerance: of what should be equal; for compressors that jump, 1e-6.

    Returns:
        The laws that were checked.

    Raises:
        LawError: the first law that is broken, and what to change.
        ArgumentError: not an ``Algorithm``.

    Example:
        >>> from ifog.algorithms import extra
        >>> check_algorithm(extra(0.2), exact=True)[-1]
        'equivalence'
    """
    graph = ring(8) if graph is None else graph
    if not isinstance(algorithm, Algorithm):
        raise ArgumentError(
            "check_algorithm takes an Algorithm, such as atc(0.1) or Algorithm(init, step); got "
            f"{getattr(algorithm, '__name__', type(algorithm).__name__)}"
        )
    oracle = problem or laws_problem(shape, "samples" in algorithm.needs)
    check_axis(algorithm, oracle, shape)
    done = ["axis"]
    if not {"prox", "samples"} & set(algorithm.needs):
        check_oracle(algorithm, oracle, shape)
        done.append("single oracle")
    check_innocence(algorithm, oracle, shape)
    check_locality(algorithm, oracle, shape, tolerance)
    done += ["innocence", "locality"]
    if conserved is not None:
        check_conservation(algorithm, _mixer(graph, MatrixMixer), shape, conserved)
        done.append("conservation")
    if exact:
        check_exactness(algorithm, oracle, _mixer(graph, MatrixMixer), shape, steps)
        done.append("fixed point")

    def end(make: Callable[[Any], Any]) -> Tensor:
        mix = _mixer(graph, make)
        x = normal(keys(2, mix.agents, 0), *shape)
        end: Tensor = iterate(algorithm, x, oracle(mix.agents), mix, 25).x
        return end

    _check_equivalence(end, hosts, tolerance)
    return (*done, "equivalence")


def _check_equivalence(
    end: Callable[[Callable[[Any], Any]], Tensor], hosts: Sequence[int], tolerance: float
) -> None:
    alone = end(MatrixMixer)
    for count in hosts:
        ranks = torch.cat(run_ranks(count, lambda: end(agent_mixer)))
        gap = difference(ranks, alone)
        if not gap <= tolerance:
            raise LawError(
                f"equivalence: on {count} ranks x differs by {gap:.2g} from what one process "
                "computes; an algorithm may ask the mixer only, never rank() or size()"
            )


def _mixer(graph: Any, make: Callable[[Any], Any]) -> Any:
    return Both(*map(make, graph)) if isinstance(graph, tuple) else make(graph)
