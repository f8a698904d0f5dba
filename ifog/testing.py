"""Ranks as threads, for tests: the whole module-level API in one process, in milliseconds."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from ifog.context import Context, current, use
from ifog.errors import IfogError, PeerFailedError
from ifog.telemetry import Sink
from ifog.transport.local import LocalHub, LocalTransport

__all__ = ["die", "run_ranks"]

T = TypeVar("T")


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
