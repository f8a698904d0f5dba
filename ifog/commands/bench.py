"""``ifog bench``: reproduce a claim about speed."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from typing import Any

from ifog.commands import arguments
from ifog.errors import ArgumentError

HELP = "reproduce a claim about speed"
DESCRIPTION = (
    "ops: what operations cost beside MPI by hand, MPI's allreduce, gloo and plain copies; with "
    "--against, beside another checkout. "
    "fusion: many tensors one by one, posted together, and as a list. "
    "overlap: communication after computation, and beside it. "
    "devices: averages of tensors on CUDA devices beside copies by hand. "
    "cell: an empty %%bf cell beside an empty %%px cell. "
    "net: averages between hosts with slow links, emulated here as root, beside gloo and MPI. "
    "train: DDP and ifog's ways to train, on this machine or between emulated hosts. "
    "scale: how averages grow with the ranks and the bytes, between emulated hosts. "
    "telemetry: what watching costs a loop of 1 MB averages, dashboard closed. "
    "guard: what the checks that keep cells from hanging add to an operation. "
    "simulate: steps of 10 000 and 100 000 simulated agents beside copies of their tensors."
)
_PAIRS = {"telemetry": 100, "guard": 40, "versions": 3}
_CONTESTS = ("ops", "fusion", "overlap", "devices", "cell", "simulate")
_BETWEEN_HOSTS = {"net": (4, 1000.0), "train": (0, None), "scale": (16, 250.0)}  # if not said


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    names = [*_CONTESTS, *_BETWEEN_HOSTS, "telemetry", "guard"]
    parser.add_argument("name", choices=names, help="which claim")
    parser.add_argument(
        "--pairs",
        type=_pairs,
        metavar="K",
        help="loops, blocks, rounds or jobs of each kind, in turn (default 100 for telemetry, 40 "
        "for guard, 3 for --against)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"a minute or two ({', '.join((*_CONTESTS, *_BETWEEN_HOSTS))})",
    )
    parser.add_argument(
        "--hosts",
        type=arguments.ranks,
        metavar="N",
        help="emulated hosts (default 4 for net, 16 for scale; train runs on this machine)",
    )
    parser.add_argument(
        "--slots", type=arguments.ranks, metavar="K", help="ranks on each host of train (default 1)"
    )
    parser.add_argument(
        "--rate",
        type=_rate,
        metavar="MBIT",
        help="Mbit/s of each link (default 1000 for net, 250 for scale, no limit for train)",
    )
    parser.add_argument("--against", metavar="FOLDER", help="another checkout (ops only)")
    arguments.add_ranks(parser)
    arguments.add_json(parser)


def _pairs(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} pairs have no spread; give a whole number >= 2")
    return int(text)


def _rate(text: str) -> float:
    try:
        mbit = float(text)
    except ValueError:
        mbit = 0.0
    if not 0.1 <= mbit < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no rate; give Mbit/s, such as 250")
    return mbit


def main(options: argparse.Namespace) -> int:
    """Run the benchmark and print its ratios."""
    report = _report(options)
    print(*report.lines(), sep="\n", file=sys.stderr if options.json == "-" else sys.stdout)
    arguments.write_json(json.dumps(report._asdict()), options.json)
    return 0


def _report(options: argparse.Namespace) -> Any:
    name, extra = options.name, {}
    if options.against is not None:
        if name != "ops":
            raise ArgumentError(f"bench {name} compares no checkouts; --against goes with ops")
        name, extra = "versions", {"against": options.against}
    bench = importlib.import_module(f"ifog.bench.{name}")
    if name in _BETWEEN_HOSTS:
        hosts, mbit = _BETWEEN_HOSTS[name]
        known = {
            "hosts": options.hosts or hosts,
            "mbit": options.rate or mbit,
            "rounds": options.pairs,
            "quick": options.quick,
        }
        if name == "train":
            known |= {"ranks": options.ranks, "slots": options.slots or 1}
            if not options.hosts and (options.slots or options.rate):
                raise ArgumentError("bench train: --slots and --rate are of emulated --hosts")
        elif options.slots:
            raise ArgumentError(f"bench {name} has one rank on each host; --slots goes with train")
        return bench.run(**known)
    if options.hosts or options.rate or options.slots:
        between = ", ".join(_BETWEEN_HOSTS)
        raise ArgumentError(
            f"bench {name} runs on one host; --hosts, --slots and --rate go with {between}"
        )
    if name in _CONTESTS:
        return bench.run(options.ranks, rounds=options.pairs, quick=options.quick)
    if options.quick:
        raise ArgumentError(f"bench {options.name} has no quick form here; give fewer --pairs")
    return bench.run(options.ranks, pairs=options.pairs or _PAIRS[name], **extra)
