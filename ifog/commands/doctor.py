"""``ifog doctor``: what this machine offers, what it lacks, and what to do about it."""

from __future__ import annotations

import argparse
import json
import sys

from ifog.commands import arguments

HELP = "check that this machine can run ranks, and say what it lacks"
DESCRIPTION = (
    "Looks at Python, packages, memory, devices and Open MPI, then starts ranks and lets them "
    "average. The exit status is 1 if ranks do not work here."
)

_SIGNS = {"good": "\N{CHECK MARK}", "fair": "-", "bad": "\N{BALLOT X}"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "-n",
        dest="ranks",
        type=arguments.ranks,
        default=2,
        metavar="N",
        help="how many ranks to start (default 2)",
    )
    arguments.add_json(parser)


def main(options: argparse.Namespace) -> int:
    """Print the findings as they come; 1 if any is bad."""
    from ifog import doctor

    stream = sys.stderr if options.json == "-" else sys.stdout
    findings = []
    for finding in doctor.examine(options.ranks):
        findings.append(finding)
        first, *rest = finding.found.splitlines() or [""]
        print(f"{_SIGNS[finding.state]} {finding.what:<15} {first}", file=stream, flush=True)
        more = [*rest, *([f"to do: {finding.advice}"] if finding.advice else [])]
        print(*(f"{'':<17} {line}" for line in more), sep="\n", end="\n" * bool(more), file=stream)
    arguments.write_json(json.dumps([each._asdict() for each in findings], indent=2), options.json)
    return 1 if any(finding.state == "bad" for finding in findings) else 0
