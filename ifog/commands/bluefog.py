"""``ifog bluefog``: ranks for notebooks that were written for BlueFog's own launcher."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import ifog
from ifog.commands import arguments

HELP = "start and stop ranks for notebooks written for BlueFog"
DESCRIPTION = (
    "start: starts ranks as engines of an IPython profile, for notebooks that connect with "
    'ipyparallel.Client(profile="bluefog") and use %%px. stop: ends them.'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-v", "--version", action="version", version=f"ifog {ifog.__version__}")
    actions = parser.add_subparsers(dest="action", required=True, metavar="{start,stop}")
    begin = actions.add_parser("start", help="start ranks and stay until Ctrl-C or stop")
    begin.add_argument(
        *("-np", "-n", "--num-proc"),
        dest="ranks",
        type=arguments.ranks,
        required=True,
        metavar="N",
        help="how many ranks",
    )
    begin.add_argument(
        "--replace", action="store_true", help="end ranks of this profile that are running"
    )
    begin.add_argument("--enable-heartbeat", action="store_true", help="accepted; always on")
    begin.add_argument("--verbose", action="store_true", help="accepted; changes nothing")
    end = actions.add_parser("stop", help="end the ranks")
    for action in (begin, end):
        action.add_argument(
            *("--profile", "--ipython-profile"),
            dest="profile",
            default="bluefog",
            metavar="NAME",
            help='the IPython profile (default "bluefog")',
        )


def main(options: argparse.Namespace) -> int:
    """Start or stop."""
    if options.action == "start":
        return _start(options.ranks, options.profile, replace=options.replace)
    from ifog.standing import stop

    if stop(options.profile):
        print("ifog: all ranks are stopped")
        return 0
    print(f"ifog: no ranks of profile {options.profile!r} are running", file=sys.stderr)
    return 1


def _start(ranks: int, profile: str, *, replace: bool) -> int:
    from ifog.standing import Standing

    received: list[int] = []

    def tell(text: str) -> None:
        print(f"ifog: {text}", file=sys.stderr, flush=True)

    def leave(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, leave)
    os.environ.update(arguments.with_bluefog(os.environ))
    with Standing(ranks, profile) as standing:
        standing.start(tell, replace=replace)
        print(
            "The ranks are ready. In a notebook:\n"
            f'    import ipyparallel as ipp; rc = ipp.Client(profile="{profile}"); rc.activate()\n'
            "then %%px cells with: import bluefog.torch as bf; bf.init()\n"
            "To import bluefog in the notebook itself, open it with: ifog lab --as-bluefog\n"
            f"Ctrl-C or `ifog bluefog stop{_of(profile)}` ends the ranks.",
            flush=True,
        )
        try:
            standing.keep(tell)
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            tell(_reason(received))
    print("ifog: all ranks are stopped", flush=True)
    return 0


def _reason(received: Sequence[int]) -> str:
    if signal.SIGTERM in received:
        return "told to end by: ifog bluefog stop, a start with --replace, or kill"
    if signal.SIGHUP in received:
        return "the terminal was closed, ending the ranks"
    return "Ctrl-C, ending the ranks"


def _of(profile: str) -> str:
    return "" if profile == "bluefog" else f" --profile {profile}"
