"""What a checkpoint folder says about itself: read by ranks and notebook alike.

``manifest.json`` names one folder beside it that holds a file for every rank. It is replaced in
one step, after all that it names is on the disk, so there is always the last complete checkpoint,
whatever interrupts the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ifog.errors import CheckpointError

__all__ = [
    "NAME",
    "NEEDS_OBJECT",
    "Manifest",
    "RankFile",
    "checksum",
    "read",
    "replace",
    "sync_folder",
]

NAME = "manifest.json"
FORMAT = 1
NEEDS_OBJECT = ("module", "optimizer", "stateful", "namedtuple")
_BLOCK = 1 << 20


class RankFile(NamedTuple):
    """One rank's file: its name, its length and digest, and what each variable in it is.

    ``values`` maps a variable's name to its kind ("tensor", "module", "value", ...) and shape.
    """

    file: str
    nbytes: int
    sha256: str
    values: dict[str, dict[str, Any]]


class Manifest(NamedTuple):
    """A complete checkpoint of ``len(ranks)`` ranks.

    Attributes:
        folder: where the files of the ranks are.
        time: when it was saved, in seconds since 1970.
        version: the ifog that saved it.
        ranks: the file of every rank.
    """

    folder: Path
    time: float
    version: str
    ranks: tuple[RankFile, ...]

    @property
    def n(self) -> int:
        """The number of ranks that saved."""
        return len(self.ranks)

    @property
    def names(self) -> tuple[str, ...]:
        """The variables, which are the same on all ranks."""
        return tuple(self.ranks[0].values)

    def needing_objects(self) -> list[str]:
        """The variables that are loaded into an object made before, such as models."""
        values = self.ranks[0].values
        return [name for name, value in values.items() if value["kind"] in NEEDS_OBJECT]


def checksum(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(target: Path, manifest: Manifest) -> None:
    """Make ``manifest`` that of the folder ``target``, in one step."""
    ranks = [rank._asdict() for rank in manifest.ranks]
    content = {
        "format": FORMAT,
        "ifog": manifest.version,
        "time": manifest.time,
        "n": manifest.n,
        "folder": manifest.folder.name,
        "ranks": ranks,
    }
    partial = target / f"{NAME}.part"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target / NAME)
    sync_folder(target)


def read(target: str | Path) -> Manifest:
    """The manifest of a checkpoint folder.

    Raises:
        CheckpointError: there is none, it is damaged, or another version of ifog made it.
    """
    path = Path(target) / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{target} holds no complete checkpoint: there is no {NAME} in it; give the folder "
            "that bf.save or %bf save wrote to"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    try:
        if content["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {content['format']!r}, this ifog reads {FORMAT}; load it with "
                f"ifog {content['ifog']}"
            )
        return _manifest(Path(target), content)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}: {error}); use another checkpoint"
        ) from None


def _manifest(target: Path, content: Mapping[str, Any]) -> Manifest:
    ranks = tuple(RankFile(**rank) for rank in content["ranks"])
    folder = str(content["folder"])
    names = [rank.file for rank in ranks] + [folder]
    if not ranks or content["n"] != len(ranks) or any(Path(name).name != name for name in names):
        raise KeyError("ranks")
    if any(set(rank.values) != set(ranks[0].values) for rank in ranks):
        raise KeyError("values")
    return Manifest(target / folder, float(content["time"]), str(content["ifog"]), ranks)
