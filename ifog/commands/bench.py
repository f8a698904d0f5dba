"""``ifog bench``: reproduce a claim about speed."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from ifog.commands import arguments

HELP = "reproduce a claim about speed"
DESCRIPTION = (
    "telemetry: what watching costs a loop of 1 MB averages, dashboard closed. "
    "ops: what each operation costs, here and, with --against, in another checkout. "
    "guard: what the checks that keep cells from hanging add to an operation."
)
_PAIRS = {"telemetry": 40, "ops": 3, "guard": 40}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", choices=list(_PAIRS), help="which claim")
    parser.add_argument(
        "--pairs",
        type=_pairs,
        metavar="K",
        help="blocks or jobs of each kind, in turn (default 40 for telemetry, where 800 take half "
        "an hour and show 1 percent; 3 for ops, 40 for guard)",
    )
    parser.add_argument("--against", metavar="FOLDER", help="another checkout (ops only)")
    arguments.add_ranks(parser)
    arguments.add_json(parser)


def _pairs(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} pairs have no spread; give a whole number >= 2")
    return int(text)


def main(options: argparse.Namespace) -> int:
    """Run the benchmark and print its ratios."""
    bench = importlib.import_module(f"ifog.bench.{options.name}")
    extra = {"against": options.against} if options.name == "ops" else {}
    report = bench.run(options.ranks, pairs=options.pairs or _PAIRS[options.name], **extra)
    print(*report.lines(), sep="\n", file=sys.stderr if options.json == "-" else sys.stdout)
    arguments.write_json(json.dumps(report._asdict()), options.json)
    return 0
