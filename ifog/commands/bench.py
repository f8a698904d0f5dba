"""``ifog bench``: reproduce a claim about speed."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from ifog.commands import arguments

HELP = "reproduce a claim about speed"
DESCRIPTION = "telemetry: what watching costs a loop of 1 MB averages, dashboard closed."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", choices=["telemetry"], help="which claim")
    parser.add_argument(
        "--pairs",
        type=_pairs,
        default=40,
        metavar="K",
        help="blocks of each kind, in turn (default 40; 800 take half an hour and show 1 percent)",
    )
    arguments.add_ranks(parser)
    arguments.add_json(parser)


def _pairs(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} pairs have no spread; give a whole number >= 2")
    return int(text)


def main(options: argparse.Namespace) -> int:
    """Run the benchmark and print its ratios."""
    bench = importlib.import_module(f"ifog.bench.{options.name}")
    report = bench.run(options.ranks, pairs=options.pairs)
    print(*report.lines(), sep="\n", file=sys.stderr if options.json == "-" else sys.stdout)
    arguments.write_json(json.dumps(report._asdict()), options.json)
    return 0
