"""The command line: a table of subcommands, each a module of ``ifog.commands``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import ifog
from ifog.errors import IfogError

__all__ = ["main"]

_COMMANDS = (
    *("demo", "lab", "run", "bluefog", "timeline", "replay", "export"),
    *("bench", "chaos", "doctor"),
)
_INTERRUPTED = 130  # what shells report for a program ended by Ctrl-C
_PIPE_CLOSED = 141  # and for one whose reader went away


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 only on success.

    Args:
        arguments: what follows the program's name; by default that of this process.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not options.passes_on:
        refuse = getattr(options, "refuse", parser.error)  # of the subcommand, with its usage
        refuse(f"unknown arguments: {' '.join(rest)}")
    options.rest = rest
    try:
        status: int = options.main(options)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ifog", description="Decentralized algorithms on MPI ranks, driven from a notebook."
    )
    parser.add_argument("--version", action="version", version=f"ifog {ifog.__version__}")
    names = f"{{{','.join(_COMMANDS)}}}"
    commands = parser.add_subparsers(dest="command", required=True, metavar=names)
    for name in _COMMANDS:
        module = importlib.import_module(f"ifog.commands.{name}")
        command = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION)
        command.set_defaults(main=module.main, passes_on=False)
        module.add_arguments(command)
    return parser


def _forget_output() -> None:
    """Send what is still to be written nowhere, so that Python's end does not complain of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
