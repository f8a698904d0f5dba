"""What a rank adds to its IPython engine: a cell's beginning and end, and a line to the notebook.

Cells sent by ``Cluster.submit`` say in their metadata which cell they are and who takes part.
Around each of them the rank counts, reports and, when its code raises, first wakes the others and
only then reports the error. While the main thread computes or waits, the control thread answers
``ifog_request`` messages: interrupt, revoke, what are you waiting for, where are you.
"""

from __future__ import annotations

import importlib
import os
import platform
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ifog.telemetry import WaitEvent

__all__ = ["die_by_signal", "leave_by_error", "main", "request", "start"]

THREADS = "IFOG_THREADS"
_engine: Any = None


class Engine:
    """The hooks of one rank. ``cell`` is the number of the running cell, or None."""

    def __init__(self, shell: Any) -> None:
        from ifog.context import current
        from ifog.forgery import Refusals
        from ifog.iopub import IOPubSink
        from ifog.outlets import Outlets

        self.shell = shell
        self.kernel = shell.kernel
        self.context = current()
        self.cell: int | None = None
        self._outlets = Outlets()
        self._status = "ok"
        self._error: dict[str, Any] | None = None
        self._interrupted = False
        self._interruptible: Any = signal.SIG_DFL
        self.sink = IOPubSink(self.context.rank, self._publish, self._waiting)
        self.context.attach(self.sink)
        shell.events.register("pre_run_cell", self._begin)
        shell.events.register("post_run_cell", self._end)
        # An await in a cell never returns in an ipyparallel engine; so it is a SyntaxError.
        shell.autoawait = False
        leave_by_error(shell)
        self._show_others()
        _keep_line_numbers(shell.input_transformer_manager.cleanup_transforms)
        self.kernel.control_handlers["ifog_request"] = self._answer
        self._refusals = Refusals(self.kernel.session)
        Refusals.quiet(self.kernel.log)

    def _publish(self, content: dict[str, Any], buffers: list[bytes], parent: Any) -> None:
        from ifog.iopub import MESSAGE

        topic = f"engine.{self.kernel.engine_id}.{MESSAGE}".encode()
        self.kernel.session.send(
            self.kernel.iopub_socket, MESSAGE, content, parent=parent, ident=topic, buffers=buffers
        )

    def _waiting(self) -> WaitEvent | None:
        """What this rank is blocked in, and at which line of the cell."""
        from ifog.faults import cell_line

        event = self.context.waiting()
        if event is None:
            return None
        frame = sys._current_frames().get(self.context.progress.thread)
        return event._replace(line=cell_line(frame))

    def _begin(self, _: Any) -> None:
        parent = self.kernel.get_parent("shell")
        cell = (parent.get("metadata") or {}).get("ifog")
        if cell is None:
            return
        self._status, self._error, self._interrupted = "ok", None, False
        # IPython drops a handler during which an interrupt came.
        self.shell.set_custom_exc((BaseException,), self._raised)
        self.context.progress.forget()
        self.sink.attach(parent, busy=True)
        self.sink.live = self.context.watcher.live = bool(cell.get("live"))
        self.context.begin_cell(cell["seq"], tuple(cell["ranks"]))
        self.sink.flush()
        self.cell = cell["seq"]

    def _raised(self, shell: Any, kind: Any, error: Any, trace: Any, tb_offset: Any = None) -> None:
        if self.cell is None:
            shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
            return
        self._shield()
        sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
        self._fail(error)

    def _show_others(self) -> None:
        """Let IPython show no error of a cell's syntax and no interrupt: both are reported."""
        show = self.shell.showtraceback

        def show_others(*arguments: Any, **options: Any) -> None:
            error = sys.exc_info()[1]
            mine = self.cell is not None and isinstance(error, SyntaxError | KeyboardInterrupt)
            if self._error is None and not mine:
                show(*arguments, **options)

        self.shell.showtraceback = show_others

    def _shield(self) -> None:
        """Let no late interrupt break the report of the end."""
        if self.cell is not None:
            self.cell = None
            self._interruptible = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _fail(self, error: BaseException) -> None:
        from ifog.endings import fields_of

        fields = fields_of(error, self.context, interrupted=self._interrupted)
        interrupted = fields["ename"] == "KeyboardInterrupt"
        text = str(fields["evalue"]).partition("\n")[0]
        self.context.abort("interrupted" if interrupted else f"{fields['ename']}: {text}")
        self._status, self._error = "interrupted" if interrupted else "error", fields

    def _end(self, result: Any) -> None:
        if self.cell is None and self._error is None:
            return
        self._shield()
        try:
            error = result and (result.error_before_exec or result.error_in_exec)
            error = error or self.context.progress.first_untold()
            if error is not None and self._error is None:
                self._fail(error)
            self._outlets.flush()
            self.sink.flush()
            self.context.lost = self.sink.lost
            self.context.end_cell(self._status, self._error)
            self.sink.flush()
            self.sink.attach(self.kernel.get_parent("shell"), busy=False)
        finally:
            self._error = None
            signal.signal(signal.SIGINT, self._interruptible)

    def _answer(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        content = parent["content"]
        try:
            answer = self._control(content)
        except Exception as error:  # the client must get an answer whatever happened
            answer = {"status": "error", "evalue": f"{type(error).__name__}: {error}"}
        self.kernel.session.send(stream, "ifog_reply", answer, parent=parent, ident=ident)

    def _control(self, content: dict[str, Any]) -> dict[str, Any]:
        what = content["what"]
        main_thread = threading.main_thread().ident or 0
        forged = self._refusals.count + self.context.transport.forged
        answer: dict[str, Any] = {"status": "ok", "cell": self.cell, "forged": forged}
        if what == "interrupt":
            if self.cell is not None and self.cell == content["cell"]:
                self._interrupted = True
                signal.pthread_kill(main_thread, signal.SIGINT)
        elif what == "revoke" and content.get("cell", self.cell) == self.cell:
            # A rank that is through may have healed: what comes late must not stop the next cell.
            self.context.abort(content["cause"], content.get("lost"))
            if content.get("deep"):
                from ifog.endings import free_from_mpi

                free_from_mpi(self.shell.user_ns)
        elif what == "waiting":
            from ifog.telemetry import encode

            event = self._waiting()
            answer["event"] = None if event is None else encode(event)
            answer |= {"rounds": self.context.round, "devices": self.context.device_way}
        elif what == "pace" and self.cell == content["cell"]:
            self.sink.live = self.context.watcher.live = bool(content["live"])
        elif what == "left" and self.cell == content["cell"]:
            self.context.healing.left = {int(r): why for r, why in content["left"].items()}
            answer["healing"] = self.context.healing.phase
        elif what == "keep":
            answer["refused"] = self.keep(content["folder"])
        elif what == "world":
            answer |= {"alive": self.context.alive, "on_failure": self.context.on_failure}
        elif what == "stacks":
            from ifog.faults import stack

            frame = sys._current_frames()[main_thread]
            answer["stack"] = stack(frame, every=bool(content.get("every")))
        return answer

    def push(self, variables: dict[str, Any]) -> None:
        """Bind the variables in the user's namespace, arrays as writable copies."""
        from ifog.cargo import writable

        self.shell.push({name: writable(value) for name, value in variables.items()})

    def pull(self, expression: str) -> Any:
        """The value of ``expression`` with tensors as NumPy arrays."""
        from ifog.cargo import portable

        return portable(eval(expression, self.shell.user_ns))

    def heal(self) -> dict[str, Any]:
        """Take part in making the communicator usable again; returns who is left, and the graph."""
        self.context.heal()
        survival = self.context.survival
        return {"alive": self.context.alive, "graph": "" if survival is None else str(survival)}

    def hand_over(self, names: Sequence[str], target: int) -> dict[str, str]:
        """Give variables to the rank ``target``; returns those that cannot be sent, and why."""
        from ifog.newcomer import hand_over

        return hand_over(self.shell.user_ns, names, target)

    def take_over(self, source: int) -> list[str]:
        """Take the variables that the rank ``source`` gives."""
        from ifog.newcomer import take_over

        return take_over(self.shell.user_ns, source)

    def keep(self, folder: str) -> dict[str, str]:
        """Write the user's variables to a file; returns those that cannot be kept, and why."""
        from ifog.cargo import of_user, packed
        from ifog.newcomer import portrait

        data, refused = packed(self.shell.user_ns, of_user(self.shell.user_ns))
        (Path(folder) / f"{self.context.rank}.world").write_bytes(portrait())
        (Path(folder) / f"{self.context.rank}").write_bytes(data)
        return refused

    def regain(self, folder: str, source: int, names: Sequence[str] | None) -> list[str]:
        """Bind what rank ``source`` kept, or those of ``names``; returns the names bound."""
        from ifog.cargo import unpacked
        from ifog.newcomer import settle

        settle((Path(folder) / f"{source}.world").read_bytes())
        variables = unpacked((Path(folder) / f"{source}").read_bytes())
        chosen = variables if names is None else names
        found = {name: variables[name] for name in chosen if name in variables}
        self.shell.user_ns.update(found)
        return sorted(found)

    def newcomer(self, function: str, *arguments: Any) -> Any:
        """Call a function of ``ifog.newcomer``."""
        return getattr(importlib.import_module("ifog.newcomer"), function)(*arguments)

    def set_topology(self, label: str) -> str:
        """Mix over the graph called ``label``, with its weights; returns the label it shows."""
        from ifog.neighborhood import load_topology, set_topology

        # All named graphs are doubly stochastic with their own weights, so the mean is kept.
        set_topology(label, is_weighted=True)
        return str(load_topology().graph.get("label", label))

    def set_graph(self, graph: tuple[int, list[tuple[int, int, float]]]) -> None:
        """Mix over the graph of so many ranks with these edges of (u, v, weight)."""
        import networkx as nx

        from ifog.neighborhood import set_topology

        n, edges = graph
        made = nx.DiGraph(label="edited")
        made.add_nodes_from(range(n))
        made.add_weighted_edges_from(edges)
        set_topology(made, is_weighted=True)


def request(name: str, *arguments: Any) -> Any:
    """Serve one request of the client, which is sent by ``apply``."""
    _engine.sink.attach(_engine.kernel.get_parent("shell"), busy=False)
    try:
        return getattr(_engine, name)(*arguments)
    finally:
        _engine.sink.flush()


def start(rank: int | None = None, image: bytes = b"") -> dict[str, Any]:
    """Make this engine a rank; returns what ``%bf status`` says about it.

    Args:
        rank: become this rank of a world that has begun, whose others call ``admit`` meanwhile.
        image: what one of them calls its ``portrait``.
    """
    global _engine
    import torch
    from IPython.core.getipython import get_ipython

    import ifog
    from ifog import context

    if rank is None:
        context.init()
    else:
        importlib.import_module("ifog.newcomer").join(rank, image)
    die_by_signal()
    shell: Any = get_ipython()
    _engine = Engine(shell)
    _engine.sink.attach(_engine.kernel.get_parent("shell"), busy=False)
    if rank is None and context.rank() == 0:
        _engine.context.emit_graph()
    threads = int(os.environ.get(THREADS, "1"))
    torch.set_num_threads(threads)
    device = "cpu"
    if torch.cuda.is_available():
        index = ifog.local_rank() % torch.cuda.device_count()
        device = f"cuda:{index}"
        torch.cuda.set_device(index)
        torch.set_default_device(device)
    shell.push({"bf": ifog, "ifog": ifog, "torch": torch}, interactive=False)
    _engine.sink.flush()
    return {
        "rank": context.rank(),
        "size": context.size(),
        "pid": os.getpid(),
        "host": platform.node(),
        "device": device,
        "threads": threads,
        "wire": _engine.context.transport.describe()["wire"],
    }


def leave_by_error(shell: Any) -> None:
    """Make ``exit`` and ``quit`` end the cell by ``SystemExit`` instead of the whole rank."""
    from IPython.core.autocall import ZMQExitAutocall

    class Leave(ZMQExitAutocall):
        def __call__(self, status: Any = None) -> None:
            sys.exit(status)

    shell.exiter = Leave(shell)  # type: ignore[no-untyped-call] # IPython's
    shell.user_ns["exit"] = shell.user_ns["quit"] = shell.exiter
    # IPython shows every SystemExit itself and adds advice for terminals.
    show = shell.showtraceback

    def show_others(*arguments: Any, **options: Any) -> None:
        if sys.exc_info()[0] is not SystemExit:
            show(*arguments, **options)

    shell.showtraceback = show_others
    warnings.filterwarnings("ignore", message="To exit: use")


def _keep_line_numbers(transforms: list[Any]) -> None:
    """Let cells keep their leading empty lines, which IPython drops, so that lines count right."""
    from IPython.core import inputtransformer2

    drop: Any = inputtransformer2.leading_empty_lines

    def leading_lines(lines: list[str]) -> list[str]:
        code = next((line for line in lines if line.strip()), "")
        # Indented cells and cell magics are known by their first line.
        return list(drop(lines)) if code[:1] in (" ", "\t", "%") else lines

    if drop in transforms:
        transforms[transforms.index(drop)] = leading_lines


def die_by_signal() -> None:
    """Make a failing exit visible to MPI, which notices signals but not exit codes."""
    from ifog.vitals import last_word

    leave, rank_process = os._exit, os.getpid()

    def leave_by_signal(status: int) -> None:
        if status and os.getpid() == rank_process:
            last_word(status)
            os.kill(rank_process, signal.SIGKILL)
        leave(status)

    os._exit = leave_by_signal  # type: ignore[assignment] # it does not return either


def main(rank: int | None = None) -> None:
    """Run one MPI rank as an IPython engine until it is killed; the launcher's command.

    Args:
        rank: the one this process is to become; by default what MPI says.
    """
    # All ranks meet in MPI's initialisation while nothing slow has been imported yet.
    importlib.import_module("ifog.transport.mpi")
    preload = threading.Thread(target=importlib.import_module, args=("ifog.ops",), daemon=True)
    preload.start()
    from ipyparallel.engine.app import IPEngine

    from ifog.arrival import arrive

    number = os.environ["OMPI_COMM_WORLD_RANK"] if rank is None else rank
    try:
        arrive(IPEngine, [*sys.argv[1:], f"--IPEngine.id={number}"])
    except BaseException:  # SystemExit too: the engine's way to say that it could not register
        traceback.print_exc()
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    # MPI's own farewell waits for ranks that may be dead.
    os._exit(0)
