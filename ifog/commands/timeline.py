"""``ifog timeline``: make one trace of all ranks' timelines, or check one."""

from __future__ import annotations

import argparse
import math
import sys

from ifog.numbers import count, duration
from ifog.trace import Clock, Merged, merge
from ifog.traceformat import check_file

HELP = "make one trace of the timelines of all ranks"
DESCRIPTION = (
    "merge: aligns the ranks' clocks and joins each send to its receive by an arrow; open the "
    "file in https://ui.perfetto.dev. check: says what in a trace does not follow the format."
)
_MOST_PROBLEMS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{merge,check}")
    joined = actions.add_parser("merge", help="one file of all ranks'")
    joined.add_argument("files", nargs="+", metavar="FILE", help="the timeline of a rank")
    joined.add_argument("-o", dest="output", required=True, metavar="OUT", help="the merged trace")
    joined.add_argument(
        "--every-message",
        action="store_true",
        help="draw the messages of allreduce and allgather too, n (n - 1) a call",
    )
    checked = actions.add_parser("check", help="whether a trace follows the Trace Event Format")
    checked.add_argument("files", nargs="+", metavar="FILE", help="a trace")


def main(options: argparse.Namespace) -> int:
    """Merge or check; 1 if a checked file is not as it should be."""
    return _check(options.files) if options.action == "check" else _merge(options)


def _merge(options: argparse.Namespace) -> int:
    merged = merge(options.files, options.output, every_message=options.every_message)
    for damage in merged.damage:
        print(f"ifog: {damage}", file=sys.stderr)
    print(*_told(merged), sep="\n")
    return 0


def _told(merged: Merged) -> list[str]:
    lines = [_clock(clock) for clock in merged.clocks[1:]]
    if not merged.clocks:
        lines.append("BlueFog's format: times as written, no arrows")
    lines.append(f"{count(merged.events)} events, {count(merged.arrows)} arrows: {merged.path}")
    if merged.unmatched:
        lines.append(f"{count(merged.unmatched)} operations miss the other end of a message")
    if merged.backward:
        lines.append(f"{count(merged.backward)} arrows go back in time: the clocks drifted")
    return lines


def _clock(clock: Clock) -> str:
    if not math.isfinite(clock.uncertainty):
        return f"rank {clock.rank}: clock unknown, taken as it is; messages do not tell"
    ahead = "ahead" if clock.seconds >= 0 else "behind"
    shared = f", the clock of {clock.host}" if clock.shared else ""
    error = duration(clock.uncertainty)
    seconds = duration(abs(clock.seconds))
    return f"rank {clock.rank}: clock {seconds} {ahead}, give or take {error}{shared}"


def _check(paths: list[str]) -> int:
    status = 0
    for path in paths:
        problems = check_file(path)
        found = f"{count(len(problems))} problem{'s' * (len(problems) != 1)}"
        print(f"{path}: {found if problems else 'as it should be'}")
        for problem in problems[:_MOST_PROBLEMS]:
            print(f"  {problem}")
        status = 1 if problems else status
    return status
