"""What a rank adds to an engine that plain ipyparallel clients use, by ``%%px`` or views.

Cells are the client's own affair; ``ifog.init()`` or ``bf.init()`` in one of them makes the engine
a rank. What is added is that nobody waits for ever: a cell that raises or is interrupted wakes the
ranks that wait for this one and marks it as wounded, and whoever started the engines then lets all
of them make communication usable again.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
from typing import Any

from ifog import context
from ifog.engine import die_by_signal, leave_by_error

__all__ = ["heal", "ready", "start"]

_STOPS = ("KeyboardInterrupt", "PeerFailedError")
_engine: Any = None


class Engine:
    """The hooks of one engine.

    Attributes:
        busy: whether the main thread runs something for a client.
        wounded: whether an operation may have been left half done.
    """

    def __init__(self, shell: Any) -> None:
        self.kernel = shell.kernel
        self.busy = self.wounded = self.healing = False
        leave_by_error(shell)
        # Not IPython's events: cells that are to be silent have none.
        self._execute, self._apply = self.kernel.do_execute, self.kernel.do_apply
        self.kernel.do_execute, self.kernel.do_apply = self._execute_here, self._apply_here
        self.kernel.control_handlers["ifog_request"] = self._answer
        self.kernel.control_handlers["signal_request"] = self._answer

    async def _execute_here(self, *arguments: Any, **options: Any) -> Any:
        self.busy = True
        try:
            content = await self._execute(*arguments, **options)
        finally:
            self.busy = False
        if content["status"] == "error":
            self._failed(content["ename"], content["evalue"])
        return content

    def _apply_here(self, *arguments: Any, **options: Any) -> Any:
        self.busy = True
        try:
            content, buffers = self._apply(*arguments, **options)
        finally:
            self.busy = False
        # Other errors of a view's call, a variable that is not there, need not touch the rest.
        if content["status"] == "error" and content["ename"] in _STOPS:
            self._failed(content["ename"], content["evalue"])
        return content, buffers

    def _failed(self, name: str, text: str) -> None:
        if context.is_initialized():
            interrupted = name == "KeyboardInterrupt"
            cause = "interrupted" if interrupted else f"{name}: {text.partition(chr(10))[0]}"
            context.current().abort(cause)
            self.wounded = True

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
                "wounded": self.wounded,
                "initialized": context.is_initialized(),
                "waiting": _waiting(),
            }
        elif what == "revoke" and context.is_initialized():
            self.wounded = True
            context.current().abort(content["cause"])
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

    def heal(self) -> None:
        """Take part in making the communicator usable again."""
        self.healing = True
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if context.is_initialized():
                context.current().heal()
            self.wounded = False
        finally:
            signal.signal(signal.SIGINT, handler)
            self.healing = False


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


def heal() -> None:
    """Serve the starter's request to heal; all ranks get it."""
    _engine.heal()
