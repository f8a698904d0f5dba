"""One rank of ``ifog run``: a keeper process and, forked from it, the program.

The keeper carries the program's output and end to the launcher over a socket, or over the streams
of ``mpiexec`` where the launcher is on another machine. It ends by a signal whenever the program
failed, because fault-tolerant MPI notices deaths by signal but no exit status. The program runs as
``python script.py`` would run it; a traceback is not printed but handed to the launcher, which
prints it after everything else, and the ranks that wait for this one are woken.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

__all__ = ["main"]

SIGN = "\x1eifog "  # begins a line for the launcher among those of the program
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_CHUNK = 1 << 16
_LOOK_EVERY = 1.0  # seconds between two looks at the parent
_LAST_OUTPUT = 0.2  # seconds a grandchild may keep the streams open after the program's end
_INTERRUPTED = 130
STALL = "IFOG_STALL"  # after how many seconds of one wait the launcher is to be told; 0: never


def main(arguments: Sequence[str]) -> None:
    """Fork; the child becomes the program.

    Args:
        arguments: the launcher's socket, "1" to put the rank before each line, the kind of the
            program (script, module, code or command), the program and its own arguments.
    """
    address, tagged, kind, *words = arguments
    out, err, told = os.pipe(), os.pipe(), os.pipe()
    child = os.fork()
    if child:
        for _, written in (out, err, told):
            os.close(written)
        _Keeper(address, tagged == "1", child, kind).keep(out[0], err[0], told[0])
    os.dup2(out[1], 1)
    os.dup2(err[1], 2)
    for descriptor in (*out, *err, told[0]):
        os.close(descriptor)
    # What a shell starts in the background ignores interrupts; the launcher passes on real ones.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _Program(told[1]).run(kind, words)


class _Keeper:
    """The parent of the program on this rank."""

    def __init__(self, address: str, tagged: bool, child: int, kind: str) -> None:
        self.rank = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMIX_RANK"])
        self.child = child
        self.tagged = tagged
        self.socket = _connected(address)
        self.partial = {1: b"", 2: b""}
        self.told = _Told(self, kind != "command")

    def keep(self, out: int, err: int, told: int) -> None:
        """Carry output until the program ends, then tell how, and end likewise."""
        for name in FORWARDED:
            signal.signal(getattr(signal, name), self._forward)
        self.tell("hello", pid=self.child)
        parent = os.getppid()
        streams = {out: 1, err: 2, told: 0}
        status: int | None = None
        while streams:
            for descriptor in _readable(streams, _LOOK_EVERY if status is None else _LAST_OUTPUT):
                data = os.read(descriptor, _CHUNK)
                if not data:
                    del streams[descriptor]
                elif streams[descriptor] == 0:
                    self.told.take(data)
                else:
                    self.carry(streams[descriptor], data)
            if status is not None and not _readable(streams, _LAST_OUTPUT):
                break
            if status is None:
                status = self._ended(wait=not streams)
            if os.getppid() != parent:
                self._abandon()
        status = self._ended(wait=True) if status is None else status
        self.carry_rest()
        self.told.take(b"\n")
        silent = status == 0 and not self.told.done
        self.tell("end", status=status, report=self.told.report(status or 0), silent=silent)
        if status:
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)

    def _ended(self, *, wait: bool) -> int | None:
        """The exit status as shells count it, or None while the program runs."""
        while True:
            pid, code = os.waitpid(self.child, 0 if wait else os.WNOHANG)
            if not pid:
                return None
            if not os.WIFSTOPPED(code):
                return os.WEXITSTATUS(code) if os.WIFEXITED(code) else 128 + os.WTERMSIG(code)

    def _forward(self, number: int, _: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, number)

    def _abandon(self) -> None:
        """Whoever was to hear of this rank is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL)
        os._exit(1)

    def tell(self, kind: str, **content: Any) -> None:
        """Tell the launcher something about this rank."""
        message = json.dumps({"kind": kind, "rank": self.rank, **content}).encode()
        if self.socket is None:
            os.write(2, SIGN.encode() + message + b"\n")
        else:
            self._send(0, message)

    def carry(self, stream: int, data: bytes) -> None:
        """Hand output on: as it is to the launcher, which makes lines of it, else by lines."""
        if self.socket is not None:
            self._send(stream, data)
            return
        whole, end, rest = (self.partial[stream] + data).rpartition(b"\n")
        self.partial[stream] = rest
        if end:
            self._print(stream, whole)

    def carry_rest(self) -> None:
        """Print last lines without an end."""
        for stream, rest in self.partial.items():
            if rest:
                self._print(stream, rest)

    def _print(self, stream: int, lines: bytes) -> None:
        tag = f"[{self.rank}] ".encode() if self.tagged else b""
        for line in lines.split(b"\n"):
            _write(stream, tag + line + b"\n")

    def _send(self, stream: int, data: bytes) -> None:
        try:
            self.socket.sendall(bytes([stream]) + len(data).to_bytes(4, "big") + data)
        except OSError:
            self._abandon()


class _Told:
    """What the program says about itself, by lines; where a signal ended it, of its stack."""

    def __init__(self, keeper: _Keeper, speaks: bool) -> None:
        self._keeper = keeper
        self._rest = b""
        self._report: dict[str, Any] | None = None
        self._frames: list[str] = []
        self.done = not speaks

    def take(self, data: bytes) -> None:
        """Take in the next bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"{"):
                self._frames.append(line.decode(errors="replace"))
                continue
            said = json.loads(line)
            kind = said.pop("kind", "report")
            if kind == "wait":
                self._keeper.tell("wait", **said)
            elif kind == "done":
                self.done = True
            else:
                self._report = said

    def report(self, status: int) -> dict[str, Any] | None:
        """What the launcher is to know about the end."""
        if self._report is None and status == 128 + signal.SIGTERM and self._frames:
            import time

            place = _last_place(self._frames)
            cause = {"cause": "ended by SIGTERM", "text": "", "where": place, "peer": False}
            return {"time": time.monotonic(), **cause}
        return self._report


def _last_place(lines: Sequence[str]) -> str:
    """The innermost line of the program's own files in what ``faulthandler`` wrote."""
    import re

    found = re.findall(r'File "(.+)", line (\d+) in ', "\n".join(lines))
    files = [(name, line) for name, line in found if name != __file__ and "runpy" not in name]
    folder = os.path.dirname(files[-1][0]) if files else ""  # noqa: PTH120
    for name, line in files:
        if os.path.dirname(name) == folder:  # noqa: PTH120
            return f"{name}:{line}"
    return ""


def _connected(address: str) -> Any:
    import socket

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address)
    except OSError:  # the launcher is on another machine
        connection.close()
        return None
    return connection


def _readable(descriptors: Any, seconds: float) -> list[int]:
    import select

    return select.select(list(descriptors), [], [], seconds)[0] if descriptors else []


def _write(stream: int, data: bytes) -> None:
    while data:
        data = data[os.write(stream, data) :]


class _Program:
    """The program in its own process; ``told`` is where its report goes."""

    def __init__(self, told: int) -> None:
        self.told = told

    def run(self, kind: str, words: Sequence[str]) -> None:
        """Become the program; returns only as a program that came to its end does."""
        if kind == "command":
            self._replace(words)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # a real file
        self._prepare()
        try:
            _RUNNERS[kind](*words)
            self._say({"kind": "done"})
        except SystemExit as leaving:
            if leaving.code in (None, 0):
                self._say({"kind": "done"})
                raise
            self._leave(*_explained(leaving.code), leaving)
        except KeyboardInterrupt as error:
            self._leave(_INTERRUPTED, "", error)
        except BaseException as error:
            self._leave(1, _shown(error), error)

    def _prepare(self) -> None:
        """Let the launcher learn where this rank waits, and where it was when it is ended."""
        import faulthandler

        # Not a handler in Python: that would be of no use inside MPI.
        faulthandler.register(signal.SIGTERM, file=self.told, all_threads=False, chain=True)
        seconds = float(os.environ.pop(STALL, "0"))
        if seconds:
            sys.meta_path.insert(0, _Trigger(self.told, seconds))

    def _say(self, content: dict[str, Any]) -> None:
        watch = sys.modules.get("ifog.launched.watch")
        with contextlib.nullcontext() if watch is None else watch.guard:
            _write(self.told, json.dumps(content).encode() + b"\n")

    def _replace(self, words: Sequence[str]) -> None:
        os.environ.setdefault("PYTHONUNBUFFERED", "1")
        try:
            os.execvp(words[0], list(words))
        except OSError as error:
            self._leave(127, f"{words[0]}: {error.strerror}\n", error)

    def _leave(self, status: int, text: str, error: BaseException) -> None:
        """Report, wake the other ranks, and end without MPI's farewell, which waits for them."""
        import atexit
        import time

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        name, message = type(error).__name__, str(error).partition("\n")[0]
        cause = f"{name}: {message}" if message else name
        if name == "SystemExit" and not text:
            cause = f"status {status}"
        report = {
            "time": time.monotonic(),
            "cause": cause,
            "text": text,
            "where": _where(error.__traceback__),
            "peer": name == "PeerFailedError" and type(error).__module__ == "ifog.errors",
        }
        self._say(report)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        context = sys.modules.get("ifog.context")
        if context is not None and context.is_initialized():
            with contextlib.suppress(Exception):
                context.current().abort("interrupted" if status == _INTERRUPTED else cause)
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


class _Trigger:
    """Finds no module, but sees when the one is imported without which no rank waits."""

    def __init__(self, told: int, seconds: float) -> None:
        self.told, self.seconds = told, seconds

    def find_spec(self, name: str, *_: Any) -> None:
        """Begin to watch when operations come into reach."""
        if name == "ifog.transport.mpi" and self in sys.meta_path:
            sys.meta_path.remove(self)
            from ifog.launched import watch

            watch.begin(self.told, self.seconds)


def _explained(code: object) -> tuple[int, str]:
    """The status and message of ``sys.exit(code)``, as Python sees them."""
    return (code & 0xFF, "") if isinstance(code, int) else (1, f"{code}\n")


def _script(path: str, *arguments: str) -> None:
    module = _fresh_main([path, *arguments], os.path.dirname(os.path.realpath(path)))  # noqa: PTH120
    module["__file__"] = os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118 - as Python does
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib need not be imported for it
        source = file.read()
    exec(compile(source, module["__file__"], "exec", dont_inherit=True), module)


def _code(source: str, *arguments: str) -> None:
    module = _fresh_main(["-c", *arguments], "")
    exec(compile(source, "<string>", "exec", dont_inherit=True), module)


def _module(name: str, *arguments: str) -> None:
    import runpy

    _fresh_main(["-m", *arguments], os.getcwd())  # noqa: PTH109
    runpy.run_module(name, run_name="__main__", alter_sys=True)


_RUNNERS = {"script": _script, "code": _code, "module": _module}


def _fresh_main(argv: Sequence[str], folder: str) -> dict[str, Any]:
    """A new ``__main__`` and the arguments and first import folder that belong to it."""
    module = type(sys)("__main__")
    kept.append(sys.modules["__main__"])
    sys.modules["__main__"] = module
    sys.argv[:] = argv
    sys.path[:1] = [] if getattr(sys.flags, "safe_path", False) else [folder]
    module.__dict__.update(__builtins__=__builtins__, __annotations__={})
    return module.__dict__


kept: list[Any] = []  # this file's own module, whose functions are still running


def _shown(error: BaseException) -> str:
    """What ``sys.excepthook`` would print, without the frames of this file."""
    import io

    error.__traceback__ = _users(error.__traceback__)
    stream, sys.stderr = sys.stderr, io.StringIO()
    try:
        sys.excepthook(type(error), error, error.__traceback__)
        return sys.stderr.getvalue()
    finally:
        sys.stderr = stream


def _users(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and (
        trace.tb_frame.f_code.co_filename == __file__
        or trace.tb_frame.f_globals.get("__name__") == "runpy"
    ):
        trace = trace.tb_next
    return trace


def _where(trace: TracebackType | None) -> str:
    """The innermost line of the program's own files that was being executed."""
    trace, place, top = _users(trace), "", None
    while trace is not None:
        code = trace.tb_frame.f_code
        folder = os.path.dirname(code.co_filename)  # noqa: PTH120
        top = folder if top is None else top
        if folder == top:
            place = f"{code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


if __name__ == "__main__":
    main(sys.argv[1:])
