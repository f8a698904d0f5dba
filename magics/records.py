"""``%bf record on`` and ``off``: what the ranks report, in a file to be played again."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any

from ifog.errors import ArgumentError, ClusterError, NoClusterError
from ifog.magics.options import closest, split_options
from ifog.magics.runner import Runner
from ifog.recordings import Recording, record
from ifog.runfile import SUFFIX
from ifog.telemetry import EventLog

__all__ = ["STATES", "switch"]

_USAGE = "%bf record on|off [PATH]"
STATES = ("on", "off")


class _Ranks:
    """Whatever cluster the notebook has at the time."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._events: Any = EventLog()

    @property
    def events(self) -> Any:
        with suppress(NoClusterError):  # the last one has ended, another may be started
            self._events = self._runner.cluster().events
        return self._events


def switch(runner: Runner, line: str) -> None:
    """Begin or end a recording, or say whether there is one."""
    plain, _ = split_options(line, {}, _USAGE)
    word, path = (*plain, "", "")[:2]
    if word not in ("", *STATES) or len(plain) > (2 if word == "on" else 1):
        odd = plain[0] if word not in STATES else plain[-1]
        raise ArgumentError(f"record what, {odd!r}{closest(odd, STATES)}? Usage: {_USAGE}")
    recording = runner.recording
    if word == "on":
        runner.recording = _begin(runner, path)
    elif recording is None or recording.stopped:
        _say(f"nothing is recorded; {_USAGE.replace('|off', '')} begins")
    elif word == "off":
        recording.stop()
        _say(f"{recording}; ifog.replay({str(recording.path)!r}) plays it")
    else:
        _say(f"recording into {recording}")


def _begin(runner: Runner, path: str) -> Recording:
    recording = runner.recording
    if recording is not None and not recording.stopped:
        raise ClusterError(f"{recording.path} is being recorded; end that first: %bf record off")
    recording = record(path or time.strftime(f"run-%Y%m%d-%H%M%S{SUFFIX}"), _Ranks(runner))
    _say(f"recording into {recording.path} until %bf record off")
    return recording


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
