"""``ifog replay``: what is in a recording."""

from __future__ import annotations

import argparse

from ifog.numbers import count, counted, duration, size
from ifog.runfile import read_run
from ifog.tape import CellSpan, Tape, tape_of

HELP = "say what is in a recording"
DESCRIPTION = (
    "Says what is in a recording that %bf record or ifog.record wrote. In a notebook, "
    'ifog.replay("run.ifog") plays it; ifog export makes a page that plays by itself.'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="a recording, run.ifog")


def main(options: argparse.Namespace) -> int:
    """Print a summary."""
    tape = tape_of(options.file)
    length = read_run(options.file).path.stat().st_size
    title = f" {tape.title!r}" if tape.title else ""
    print(f"{options.file}{title}: {counted(tape.n)}, {_span(tape)}, {size(length)}")
    print(f"{count(len(tape))} events, {count(tape.lost)} lost")
    for note in tape.notes:
        print(note)
    for cell in tape.cells:
        print(_cell(cell))
    return 0


def _span(tape: Tape) -> str:
    if not len(tape):
        return "no event"
    modelled = " modelled" if tape.modelled else ""
    return f"{duration(float(tape.times[-1] - tape.times[0]))}{modelled}"


def _cell(cell: CellSpan) -> str:
    over = "" if cell.ended else ", whose end is missing"
    return f"cell {cell.seq}: {duration(cell.end - cell.begin)}, {count(cell.rounds)} rounds{over}"
