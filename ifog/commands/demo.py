"""``ifog demo``: what this library does, shown on real ranks in about a minute."""

from __future__ import annotations

import argparse
import sys

from ifog.commands import arguments

HELP = "average consensus and decentralized training on real ranks, in about a minute"
DESCRIPTION = (
    "Starts MPI ranks, averages a vector over three graphs, trains a classifier "
    "of digits in three ways, and compares what was measured with theory."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.add_ranks(parser)
    arguments.add_json(parser)


def main(options: argparse.Namespace) -> int:
    """Run the demo; 1 if something is not as theory says."""
    from ifog import demo
    from ifog.screen import open_screen

    ranks, target = options.ranks, options.json
    stream = sys.stderr if target == "-" else sys.stdout
    with open_screen(stream) as screen:
        report = demo.run(ranks, screen)
    print(f"{ranks} rank{'' if ranks == 1 else 's'}, {report.seconds:.1f} s in all", file=stream)
    arguments.write_json(report.to_json(), target)
    shortfalls = report.shortfalls()
    for shortfall in shortfalls:
        print(f"ifog: not as it should be: {shortfall}", file=sys.stderr)
    return 1 if shortfalls else 0
