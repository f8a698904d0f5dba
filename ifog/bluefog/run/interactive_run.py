"""Interrupting engines that hang, from a notebook with its own ipyparallel client."""

from __future__ import annotations

import json
import os
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from ipyparallel import Client

from ifog.errors import ClusterError
from ifog.numbers import named
from ifog.standing import PIDS, profile_folder

__all__ = ["interrupt_hanged_processes"]

_CONNECT = 10.0
_ALIVE = 1.0  # seconds in which an engine that does nothing answers
_ANSWER = 5.0
_END = 15.0  # seconds in which interrupted engines come back and all ranks are ready again
_PAUSE = 0.1


def interrupt_hanged_processes(profile: str = "bluefog") -> list[int]:
    """Interrupt the engines that do not answer; variables are kept and operations work afterwards.

    An engine that answers a trivial request within a second is left alone. Engines that wait in an
    operation are interrupted too, and all ranks are made ready for the next one.

    Args:
        profile: the IPython profile of ``ifog bluefog start``.

    Returns:
        The engines that were interrupted.

    Raises:
        FileNotFoundError: no cluster of that profile is running.
        ClusterError: an interrupted engine does not come back.
    """
    with _connected(profile) as client:
        engines = sorted(client.ids)
        pings = {i: client[i].apply_async(os.getpid) for i in engines}
        deadline = time.monotonic() + _ALIVE
        hung = [i for i, ping in pings.items() if not _done(ping, deadline)]
        # One that is merely slow to answer has nothing that could be interrupted.
        answers = _ask(client, hung, "interrupt")
        hung = [i for i, answer in sorted(answers.items()) if answer["interrupted"]]
        deadline = time.monotonic() + _END
        left = [i for i in engines if not _done(pings[i], deadline)]
        if left:
            raise ClusterError(
                f"{named(left)} did not come back within {_END:.0f} s of being interrupted, and "
                f"must be in a call that cannot be; run: ifog bluefog stop, then start again"
            )
        if not _ready(client, engines, deadline):
            warnings.warn(
                "the ranks are not ready for operations yet; see what `ifog bluefog start` says",
                RuntimeWarning,
                stacklevel=2,
            )
    return hung


def _connected(profile: str) -> Any:
    security = profile_folder(profile) / "security"
    for name in (PIDS, "ipcontroller-client.json"):
        if not (security / name).exists():
            raise FileNotFoundError(
                f"{security / name} is not there, so no cluster of profile {profile!r} is "
                "running; start one with: ifog bluefog start -np 4"
                + ("" if profile == "bluefog" else f" --profile {profile}")
            )
    pids = _pids(security / PIDS)
    client = Client(str(security / "ipcontroller-client.json"), timeout=_CONNECT)
    if not set(client.ids) <= pids.keys():
        client.close()
        raise ClusterError(
            f"the engines {sorted(client.ids)} are not those of {security / PIDS}; stop and start "
            "the cluster again"
        )
    return client


def _pids(path: Path) -> dict[int, int]:
    return {int(engine): pid for engine, pid in json.loads(path.read_text()).items()}


def _done(result: Any, deadline: float) -> bool:
    result.wait(max(0.0, deadline - time.monotonic()))
    return bool(result.ready())


def _ask(client: Any, engines: list[int], what: str) -> dict[int, dict[str, Any]]:
    """The answers of the engines' control threads, of those that answer."""
    futures = {
        i: client._send(
            client._control_stream,
            "ifog_request",
            content={"what": what},
            ident=client._engines[i].encode(),
        )
        for i in engines
    }
    deadline = time.monotonic() + _ANSWER
    return {
        i: future.result()["content"]
        for i, future in futures.items()
        if future.wait(max(0.0, deadline - time.monotonic()))
    }


def _ready(client: Any, engines: list[int], deadline: float) -> bool:
    """Wait until no rank has an operation left half done; whoever started them sees to it."""
    pause = threading.Event()
    while time.monotonic() < deadline:
        states = _ask(client, engines, "state")
        if len(states) == len(engines) and not any(s["wounded"] for s in states.values()):
            return True
        pause.wait(_PAUSE)
    return False
