"""Arguments that several commands take, checked while the command line is read."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

import ifog
from ifog.errors import ArgumentError

__all__ = ["add_as_bluefog", "add_json", "add_ranks", "ranks", "with_bluefog", "write_json"]


def add_ranks(parser: argparse.ArgumentParser) -> None:
    """``-n N``, the number of ranks."""
    parser.add_argument(
        "-n",
        dest="ranks",
        type=ranks,
        default=4,
        metavar="N",
        help="how many ranks (default 4)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json FILE``, where the results go."""
    parser.add_argument(
        "--json",
        type=_json_target,
        metavar="FILE",
        help="write the results as JSON; - for standard output, progress then goes to stderr",
    )


def add_as_bluefog(parser: argparse.ArgumentParser) -> None:
    """``--as-bluefog``, for programs that import ``bluefog.torch``."""
    parser.add_argument(
        "--as-bluefog",
        action="store_true",
        help="let programs written for BlueFog find ifog where they import bluefog.torch",
    )


def with_bluefog(environment: Mapping[str, str]) -> dict[str, str]:
    """``PYTHONPATH`` with the folder in front whose ``sitecustomize`` makes ``bluefog`` ifog's."""
    folder = str(Path(ifog.__file__).resolve().parent / "bluefog" / "_path")
    before = environment.get("PYTHONPATH")
    return {"PYTHONPATH": folder if not before else f"{folder}{os.pathsep}{before}"}


def ranks(text: str) -> int:
    """A number of ranks, at least 1."""
    try:
        count = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of ranks; give a whole number from 1 on"
        ) from None
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} ranks cannot run anything; give at least 1")
    return count


def _json_target(text: str) -> str:
    folder = Path(text).parent
    if text != "-" and (not folder.is_dir() or Path(text).is_dir()):
        raise argparse.ArgumentTypeError(
            f"cannot write {text!r}: it must be a file in a folder that exists, or -"
        )
    return text


def write_json(text: str, target: str | None) -> None:
    """Write ``text`` where ``--json`` said, if it was given.

    Raises:
        ArgumentError: the file cannot be written.
    """
    if target == "-":
        print(text)
    elif target is not None:
        try:
            Path(target).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ArgumentError(f"cannot write the results to {target!r}: {error}") from error
