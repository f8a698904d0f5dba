"""What a rank adds to an engine that plain ipyparallel clients use, by ``%%px`` or views.

Cells are the client's own affair; ``ifog.init()`` or ``bf.init()`` in one of them makes the engine
a rank. What is added is that nobody waits for ever: a cell that raises or is interrupted wakes the
ranks that wait for this one. Communication is then made usable again by all ranks together: by each
that is idle when whoever started the engines asks for it, and by the others at the first operation
of a cell that was sent afterwards.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Generator
from datetime import datetime
from typing import Any

from jupyter_client.jsonutil import parse_date

from ifog import context
from ifog.context import Context
from ifog.engine import die_by_signal, leave_by_error
from ifog.errors import DeadlineError, IfogError
from ifog.handle import Handle
from ifog.numbers import named
from ifog.outlets import Outlets

__all__ = ["heal", "ready", "start"]

_STOPS = ("KeyboardInterrupt", "PeerFailedError")
_PATIENCE = 10.0  # seconds in which all ranks must come to heal
_engine: Any = None


class Engine:
    """The hooks of one engine.

    Attributes:
        busy: whether the main thread runs something for a client.
        healing: whether it takes part in healing and must not be interrupted.
        meeting: whether it waits for the others to heal.
    """

    def __init__(self, shell: Any) -> None:
        self.kernel = shell.kernel
        self.busy = self.healing = self.meeting = False
        # How often this rank had healed when it last left a cell early, and when one was to begin
        # by healing.
        self._wounded = self._due = -1
        leave_by_error(shell)
        self._outlets = Outlets()
        # Not IPython's events: cells that are to be silent have none.
        self._execute, self._apply = self.kernel.do_execute, self.kernel.do_apply
        self.kernel.do_execute, self.kernel.do_apply = self._execute_here, self._apply_here
        self.kernel.control_handlers["ifog_request"] = self._answer
        self.kernel.control_handlers["signal_request"] = self._answer

    async def _execute_here(self, *arguments: Any, **options: Any) -> Any:
        self.busy = True
        try:
            self._begin()
            content = await self._execute(*arguments, **options)
            if content["status"] == "error":
                self._failed(content["ename"], content["evalue"])
        finally:
            self._outlets.flush()
            self.busy = False
        return content

    def _apply_here(self, *arguments: Any, **options: Any) -> Any:
        self.busy = True
        try:
            self._begin()
            content, buffers = self._apply(*arguments, **options)
            # Other errors of a view's call, a variable that is not there, need not touch the rest.
            if content["status"] == "error" and content["ename"] in _STOPS:
                self._failed(content["ename"], content["evalue"])
        finally:
            self.busy = False
        return content, buffers

    def _begin(self) -> None:
        """See whether what the client sends was sent after ranks had to stop."""
        if not context.is_initialized():
            return
        here = context.current()
        here.before = self._start_clean
        # A rank that stops in this very cell must not be waited for.
        failed = here.transport.failed_at()
        after = failed is not None and _sent(self.kernel.get_parent("shell")) > failed
        self._due = here.healed if after else -1

    def _start_clean(self, _: str) -> None:
        """Heal before the first operation of a cell, where that is due."""
        here = context.current()
        if self._due == here.healed:
            self._meet(here)
            self.heal(here.healed)

    def _failed(self, name: str, text: str) -> None:
        if not context.is_initialized():
            return
        here = context.current()
        if self._due == here.healed and name not in _STOPS and name != "DeadlineError":
            # The others would heal without ever being told of this error.
            with contextlib.suppress(IfogError):
                self.heal(here.healed)
        interrupted = name == "KeyboardInterrupt"
        cause = "interrupted" if interrupted else f"{name}: {text.partition(chr(10))[0]}"
        here.abort(cause)
        self._wounded = here.healed

    def _answer(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        content = parent["content"]
        kind = parent["header"]["msg_type"]
        try:
            answer = self._control(content.get("what", "signal"), content)
        except Exception as error:  # the client must get an answer whatever happened
            answer = {"status": "error", "ename": type(error).__name__, "evalue": str(error)}
        reply = kind.replace("request", "reply")
        self.kernel.session.send(stream, reply, answer, parent=parent, ident=ident)

    def _control(self, what: str, content: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"status": "ok"}
        if what == "state":
            answer |= {
                "busy": self.busy,
                "meeting": self.meeting or self.healing,
                "wounded": context.is_initialized() and self._wounded == context.current().healed,
                "initialized": context.is_initialized(),
                "epoch": context.current().healed if context.is_initialized() else 0,
                "waiting": _waiting(),
            }
        elif what == "interrupt":
            answer["interrupted"] = self._interrupt(signal.SIGINT)
        elif what == "signal":
            number = content["sig"]
            self._interrupt(getattr(signal, number) if isinstance(number, str) else number)
        return answer

    def _interrupt(self, number: int) -> bool:
        """Signal the main thread, unless it has nothing that an interrupt should end."""
        # An interrupt of the healing would leave the other ranks in it.
        if number == signal.SIGINT and (self.healing or not self.busy):
            return False
        signal.pthread_kill(threading.main_thread().ident or 0, number)
        return True

    def heal(self, epoch: int) -> None:
        """Take part in making communication usable again, unless that has been done meanwhile.

        Args:
            epoch: how often the ranks have healed before.

        Raises:
            DeadlineError: not all ranks come.
        """
        if not context.is_initialized() or context.current().healed != epoch:
            return
        self.healing = True
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._meet(context.current())
            context.current().heal()
        finally:
            signal.signal(signal.SIGINT, handler)
            self.healing = False

    def _meet(self, here: Context) -> None:
        """Wait for all ranks; afterwards, or when called anew, those that came count as there."""
        self.meeting = True
        try:
            handle: Handle[None] = Handle(here.progress, "heal", "", here.healed)
            handle.begin(_all_here(here))
            handle.wait()
        finally:
            self.meeting = False


def _sent(request: dict[str, Any]) -> float:
    """When the client sent it, in seconds since 1970; 0 if it does not say."""
    date = parse_date(request["header"].get("date"))
    return date.timestamp() if isinstance(date, datetime) else 0.0


def _all_here(here: Context) -> Generator[tuple[int, ...], None, None]:
    deadline = time.monotonic() + _PATIENCE
    for missing in here.transport.meet():
        if time.monotonic() > deadline:
            raise DeadlineError(
                f"an earlier cell failed, and {named(missing)} did not come within {_PATIENCE:g} s "
                "to make operations usable again: they still run something; wait for them, or call "
                "interrupt_hanged_processes(), and run the cell on all ranks again"
            )
        yield missing


def _waiting() -> str:
    """The operation this rank is blocked in, or ""."""
    event = context.current().waiting() if context.is_initialized() else None
    if event is None:
        return ""
    return f"{event.op} {event.name!r}"


def start() -> dict[str, Any]:
    """Add the hooks to this engine; returns who it is."""
    global _engine
    from IPython.core.getipython import get_ipython

    die_by_signal()
    _engine = Engine(get_ipython())
    return {
        "rank": int(os.environ["OMPI_COMM_WORLD_RANK"]),
        "size": int(os.environ["OMPI_COMM_WORLD_SIZE"]),
        "pid": os.getpid(),
        "host": platform.node(),
        "python": sys.executable,
    }


def ready() -> None:
    """Answer, which shows that this engine takes requests."""


def heal(epoch: int) -> None:
    """Serve the starter's request to heal; all ranks get it that are not about to heal anyway."""
    _engine.heal(epoch)
