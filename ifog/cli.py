"""The command line: ``ifog demo``, ``ifog lab`` and ``ifog bench``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import ifog
from ifog.errors import ArgumentError, IfogError

__all__ = ["main"]

_INTERRUPTED = 130  # what shells report for a program ended by Ctrl-C
_PIPE_CLOSED = 141  # and for one whose reader went away

# Nothing is asked of the network: no news, no look for a newer version, no list of extensions.
_QUIET = (
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 only on success.

    Args:
        arguments: what follows the program's name; by default that of this process.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "lab":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        status = _command(options, rest)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _forget_output()
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        print("ifog: interrupted; all ranks are stopped", file=sys.stderr)
        return _INTERRUPTED
    except IfogError as error:
        print(f"ifog: {error}", file=sys.stderr)
        return 1


def _command(options: argparse.Namespace, rest: Sequence[str]) -> int:
    if options.command == "lab":
        return _lab(rest)
    if options.command == "bench":
        return _bench(options)
    return _demo(options.ranks, options.json)


def _forget_output() -> None:
    """Send what is still to be written nowhere, so that Python's end does not complain of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ifog", description="Decentralized algorithms on MPI ranks, driven from a notebook."
    )
    parser.add_argument("--version", action="version", version=f"ifog {ifog.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{demo,lab,bench}")
    demo = commands.add_parser(
        "demo",
        help="average consensus and decentralized training on real ranks, in about a minute",
        description="Starts MPI ranks, averages a vector over three graphs, trains a classifier "
        "of digits in three ways, and compares what was measured with theory.",
    )
    bench = commands.add_parser(
        "bench",
        help="reproduce a claim about speed",
        description="telemetry: what watching costs a loop of 1 MB averages, dashboard closed.",
    )
    bench.add_argument("name", choices=["telemetry"], help="which claim")
    bench.add_argument(
        "--pairs",
        type=_pairs,
        default=40,
        metavar="K",
        help="blocks of each kind, in turn (default 40; 800 take half an hour and show 1 percent)",
    )
    for command in (demo, bench):
        command.add_argument(
            "-n",
            dest="ranks",
            type=_ranks,
            default=4,
            metavar="N",
            help="how many ranks (default 4)",
        )
        command.add_argument(
            "--json",
            type=_json_target,
            metavar="FILE",
            help="write the results as JSON; - for standard output, progress then goes to stderr",
        )
    commands.add_parser(
        "lab",
        help="open JupyterLab on the first tutorial",
        description="Opens JupyterLab on tutorials/00_start.ipynb, reachable from this machine "
        "only. All other arguments are passed on to JupyterLab.",
    )
    return parser


def _ranks(text: str) -> int:
    try:
        ranks = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of ranks; give a whole number from 1 on"
        ) from None
    if ranks < 1:
        raise argparse.ArgumentTypeError(f"{ranks} ranks cannot run anything; give at least 1")
    return ranks


def _pairs(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} pairs have no spread; give a whole number >= 2")
    return int(text)


def _json_target(text: str) -> str:
    folder = Path(text).parent
    if text != "-" and (not folder.is_dir() or Path(text).is_dir()):
        raise argparse.ArgumentTypeError(
            f"cannot write {text!r}: it must be a file in a folder that exists, or -"
        )
    return text


def _demo(ranks: int, target: str | None) -> int:
    from ifog import demo
    from ifog.screen import open_screen

    stream = sys.stderr if target == "-" else sys.stdout
    with open_screen(stream) as screen:
        report = demo.run(ranks, screen)
    print(f"{ranks} rank{'' if ranks == 1 else 's'}, {report.seconds:.1f} s in all", file=stream)
    _write(report.to_json(), target)
    shortfalls = report.shortfalls()
    for shortfall in shortfalls:
        print(f"ifog: not as it should be: {shortfall}", file=sys.stderr)
    return 1 if shortfalls else 0


def _write(text: str, target: str | None) -> None:
    if target == "-":
        print(text)
    elif target is not None:
        try:
            Path(target).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ArgumentError(f"cannot write the results to {target!r}: {error}") from error


def _bench(options: argparse.Namespace) -> int:
    bench = importlib.import_module(f"ifog.bench.{options.name}")
    report = bench.run(options.ranks, pairs=options.pairs)
    print(*report.lines(), sep="\n", file=sys.stderr if options.json == "-" else sys.stdout)
    _write(json.dumps(report._asdict()), options.json)
    return 0


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _lab(rest: Sequence[str]) -> int:
    if importlib.util.find_spec("jupyterlab") is None:
        raise ArgumentError('JupyterLab is not installed; install it with: pip install "ifog[lab]"')
    checkout = Path(ifog.__file__).resolve().parent.parent
    notebook = checkout / "tutorials" / "00_start.ipynb"
    if not notebook.is_file():
        raise ArgumentError(
            f"the first tutorial is not at {notebook}; the tutorials are in ifog's repository: "
            "install from a checkout with pip install -e '.[lab]', or open your own notebook with "
            "jupyter lab and begin with %load_ext ifog"
        )
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        str(notebook),
        "--ServerApp.ip=127.0.0.1",
        *_QUIET,
        *(["--allow-root"] if _is_root() else []),
        *rest,
    ]
    sys.stdout.flush()
    os.execv(sys.executable, command)
