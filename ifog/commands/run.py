"""``ifog run``: a program on every rank."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping

from ifog import hosts, program
from ifog.commands import arguments
from ifog.errors import ArgumentError
from ifog.hosts import Hosts
from ifog.mpiexec import cores

HELP = "run a script, a module or a command on MPI ranks"
DESCRIPTION = (
    "Runs a Python script, -m and a module, or any other command on N ranks. Output is streamed; "
    "when a rank fails, the others are ended, its traceback is printed last and its status is "
    "passed on."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add(
        *("-n", "-np", "--num-proc"),
        dest="ranks",
        type=arguments.ranks,
        metavar="N",
        help="how many ranks (default: the slots of -H or --hostfile, else one a processor core, "
        f"here {cores()})",
    )
    _add_places(parser)
    add(
        *("--tag", "--prefix-output"),
        action="store_true",
        help="put the rank before each line of output: [2] text",
    )
    add(
        "--grace",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long the other ranks may go on when one has failed or the program was told to "
        "end (default 5)",
    )
    add(
        "--stall",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="say who waits for whom when a rank has waited so long in one operation (default 10; "
        "0: never)",
    )
    arguments.add_as_bluefog(parser)
    add(
        *("--timeline", "--timeline-filename"),
        dest="timeline",
        metavar="PREFIX",
        help="write a timeline of each rank to PREFIX.<rank>.json, as BlueFog to PREFIX<rank>.json",
    )
    add("--verbose", action="store_true", help="show the command line of mpiexec")
    parser.set_defaults(refuse=parser.error)
    add("-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE", help="run a module")
    add(
        "words",
        nargs=argparse.REMAINDER,
        metavar="PROGRAM ...",
        help="a script or command and its arguments",
    )


def _add_places(parser: argparse.ArgumentParser) -> None:
    places = parser.add_mutually_exclusive_group()
    places.add_argument(
        *("-H", "--hosts"), type=_of(hosts.from_list), metavar="HOST:SLOTS,...", help="where"
    )
    places.add_argument(
        *("--hostfile", "-hostfile"),
        dest="hosts",
        type=_of(hosts.from_file),
        metavar="FILE",
        help="where, from a file with lines such as: node1 slots=2",
    )
    parser.add_argument(
        "--network", metavar="CIDR", help="the network between the hosts, such as 10.0.0.0/24"
    )


def _of(read: Callable[[str], Hosts]) -> Callable[[str], Hosts]:
    def checked(text: str) -> Hosts:
        try:
            return read(text)
        except ArgumentError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give seconds, such as 5")
    return seconds


def main(options: argparse.Namespace) -> int:
    """Run the program; its status is passed on."""
    from ifog.run import Job, run

    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    try:
        chosen = (
            program.of_words(words) if options.module is None else program.of_module(options.module)
        )
    except ArgumentError as error:
        options.refuse(str(error))
    places: Hosts | None = options.hosts
    job = Job(
        chosen,
        options.ranks or (cores() if places is None else places.total),
        places,
        options.network,
        options.tag,
        options.grace,
        _variables(as_bluefog=options.as_bluefog, timeline=options.timeline),
        options.verbose,
        options.stall,
    )
    return run(job)


def _variables(*, as_bluefog: bool, timeline: str | None) -> Mapping[str, str]:
    added = arguments.with_bluefog(os.environ) if as_bluefog else {}
    if timeline is not None:
        added["BLUEFOG_TIMELINE" if as_bluefog else "IFOG_TIMELINE"] = timeline
    return added
