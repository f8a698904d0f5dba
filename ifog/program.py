"""What is to be run on every rank: a Python script, module or piece of code, or another command.

Python programs are run by the Python that runs ifog and under supervision, so that an error on one
rank is told to the others; a command that starts this very Python counts as such a program too.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from ifog.errors import ArgumentError
from ifog.mpiexec import search_path

__all__ = ["Program", "of_module", "of_words"]

_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


class Program(NamedTuple):
    """A program and how it is started.

    Attributes:
        kind: what ``words[0]`` is.
        words: the program and its arguments.
        options: options of the Python interpreter.
    """

    kind: Literal["script", "module", "code", "command"]
    words: tuple[str, ...]
    options: tuple[str, ...] = ()


def of_module(words: Sequence[str]) -> Program:
    """The program of ``-m module arguments``."""
    if not words:
        raise ArgumentError("-m needs the name of a module, such as -m pytest")
    return Program("module", tuple(words))


def of_words(words: Sequence[str]) -> Program:
    """The program of a command line.

    Raises:
        ArgumentError: there is no such file and no such command.
    """
    if not words:
        raise ArgumentError(
            "nothing to run: give a script, -m and a module, or a command, such as "
            "ifog run -n 4 script.py"
        )
    name = words[0]
    if name.endswith((".py", ".pyw")):
        return _of_script(words, ())
    found = shutil.which(name, path=search_path(os.environ))
    if found is None:
        hint = f"; to run it with Python, name it {name}.py" if Path(name).is_file() else ""
        raise ArgumentError(
            f"there is no command {name!r} on the PATH and no executable file of that name{hint}"
        )
    words = (found, *words[1:])
    if _is_this_python(found):
        return _of_python(words)
    if _is_script_of_this_python(found):
        return Program("script", words)
    return Program("command", tuple(words))


def _is_this_python(path: str) -> bool:
    here = Path(sys.executable)
    # Links are not followed: environments share one binary, and differ by where it is linked.
    return Path(path).absolute().parent == here.parent and Path(path).name.startswith("python")


def _is_script_of_this_python(path: str) -> bool:
    with Path(path).open("rb") as file:
        first = file.readline(200)
    if not first.startswith(b"#!"):
        return False
    words = first[2:].decode(errors="replace").split()
    return len(words) == 1 and _is_this_python(words[0])


def _of_python(words: Sequence[str]) -> Program:
    """The program of ``python [options] script|-m module|-c code ...``."""
    options: list[str] = []
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if word in ("-m", "-c") and rest:
            return Program("module" if word == "-m" else "code", tuple(rest), tuple(options))
        if word[:2] in ("-m", "-c", "-h", "-V") or word in ("-", "--help", "--version"):
            break
        if not word.startswith("-"):
            return _of_script((word, *rest), options)
        options.append(word)
        if word in _WITH_VALUE and rest:
            options.append(rest.pop(0))
    return Program("command", tuple(words))


def _of_script(words: Sequence[str], options: Sequence[str]) -> Program:
    path = Path(words[0])
    if not path.exists():
        raise ArgumentError(f"there is no file {words[0]!r} in {Path.cwd()}; give the path to it")
    if path.is_dir():
        raise ArgumentError(f"{words[0]!r} is a folder; name the script in it, or use -m")
    return Program("script", tuple(words), tuple(options))
