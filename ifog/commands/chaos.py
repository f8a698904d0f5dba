"""``ifog chaos``: break a cluster again and again, and check that it keeps its promises."""

from __future__ import annotations

import argparse
import json
import sys

from ifog.commands import arguments

HELP = "inject faults into a cluster at random and check that nothing hangs, is wrong or leaks"
DESCRIPTION = (
    "Starts MPI ranks, kills, freezes, interrupts and confuses them in a random order that the "
    "seed decides, sends garbage to every socket, and checks an average after each fault. The "
    "exit status is 1 if a call hung, a result was wrong, or a process or file stayed behind."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=5.0,
        metavar="M",
        help="how long faults are injected (default 5)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="decides about the sequence (default 0)"
    )
    arguments.add_ranks(parser)
    arguments.add_json(parser)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes above 0")
    return minutes


def main(options: argparse.Namespace) -> int:
    """Run it and print the report; 1 if something was not as it must be."""
    from ifog import chaos
    from ifog.errors import ArgumentError

    if options.ranks < 2:
        raise ArgumentError("one rank has nobody to wait for; give at least -n 2")
    stream = sys.stderr if options.json == "-" else sys.stdout
    seconds = options.minutes * 60
    report = chaos.run(
        options.ranks,
        seconds=seconds,
        seed=options.seed,
        tell=lambda line: print(line, file=stream, flush=True),
    )
    print(*report.lines(), sep="\n", file=stream)
    arguments.write_json(json.dumps(report._asdict()), options.json)
    return 1 if report.failed else 0
