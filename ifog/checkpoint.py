"""Every rank's named variables on the disk, and back, also on another number of ranks.

A checkpoint becomes the folder's newest one in a single step, after all of its files are on the
disk; whatever kills a save, the one before it stays. Reading runs no code that the files contain.
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch

import ifog
from ifog import manifest
from ifog.context import current
from ifog.errors import ArgumentError, CheckpointError, PeerFailedError
from ifog.manifest import Manifest, RankFile
from ifog.ops import allgather, barrier
from ifog.packing import UnpackableError, averaged, pack, unpack
from ifog.stateful import enter, random_states, set_random, tree_of

__all__ = ["load", "save"]

T = TypeVar("T")
Values = Mapping[str, Any] | Sequence[str]
Rule = Literal["assign", "average"]


def save(folder: str | Path, values: Values | None = None) -> tuple[str, ...]:
    """Keep variables of every rank in ``folder``; all ranks call it with the same names.

    Kept are tensors, arrays, numbers, text and lists, tuples, sets and dictionaries of these,
    generators of random numbers, named tuples, and of modules, optimizers and whatever else has
    them, what ``state_dict()`` says; besides, the state of the global random numbers of torch,
    NumPy and Python. An earlier checkpoint in the folder is replaced when this one is complete.

    Args:
        folder: where; ranks on several machines must see the same folder.
        values: name -> value, or names of variables where this is called; by default all
            variables there that can be kept and that every rank has.

    Returns:
        The names that were kept.

    Raises:
        CheckpointError: a value cannot be kept, or a rank cannot write; the same on every rank.

    Example:
        >>> bf.save("run", {"model": model, "optimizer": optimizer, "step": step})
    """
    strict = values is not None
    chosen = _chosen(values, sys._getframe(1))
    packed, error = _guarded(lambda: _packed(chosen, strict=strict))
    names = _common_names(_agreed("bf.save", error, list(packed or ())), strict=strict)
    token = _together(secrets.token_hex(8))[0]
    target = Path(folder).absolute()
    part = target / f"save-{token}.part"
    try:
        own, error = _guarded(lambda: _written(part, packed or {}, names))
        files = tuple(RankFile(*fields) for fields in _agreed("bf.save", error, own))
        first = current().rank == current().alive[0]
        _, error = _guarded(lambda: _commit(part, files) if first else None)
        _agreed("bf.save", error)
    except CheckpointError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return tuple(names)


def load(
    folder: str | Path, values: Values | None = None, *, rule: Rule = "assign"
) -> dict[str, Any]:
    """The variables of a checkpoint that ``save`` made; all ranks call it with the same names.

    Modules, optimizers and others with ``load_state_dict``, and generators of random numbers, are
    loaded into the object of that name, which must have been made before; everything else is a new
    value, tensors on the device of the tensor they replace. The global random numbers continue
    where they were.

    The number of ranks may have changed. By rule "assign", the default, rank r takes what rank
    r mod n of the n old ones kept (so with the same number everybody takes its own), and global
    random numbers of a rank r >= n start anew from that state and r. By rule "average"
    floating-point tensors and arrays, also those in modules and optimizers, are the mean over all
    old ranks, and everything else is as by "assign".

    Args:
        folder: where ``save`` wrote.
        values: name -> object to load into (None for values), or names of variables where this is
            called; by default everything, with the objects found there.
        rule: what a rank takes.

    Returns:
        name -> value.

    Raises:
        CheckpointError: there is no such checkpoint, it is damaged, or something in it does not
            fit; the same on every rank, and nothing has been changed on any.
        ArgumentError: no such rule, or a name that was not kept.

    Example:
        >>> step = bf.load("run", {"model": model, "optimizer": optimizer, "step": None})["step"]
    """
    if rule not in ("assign", "average"):
        raise ArgumentError(f"bf.load: rule {rule!r} is unknown; choose 'assign' or 'average'")
    frame = sys._getframe(1)
    objects = _chosen(values, frame)
    names = None if values is None else list(objects)
    found, error = _guarded(lambda: _read(Path(folder).absolute(), names, rule))
    sources = _agreed("bf.load", error, str(found.source if found else ""))
    if len(set(sources)) > 1:
        raise _refusal("bf.load: the ranks found different checkpoints; was one just saved?")
    assert found is not None
    undo: list[Callable[[], object]] = []
    result, error = _guarded(lambda: enter(found.kept, objects, undo))
    try:
        _agreed("bf.load", error)
    except CheckpointError:
        for put_back in reversed(undo):
            put_back()
        raise
    set_random(found.random, found.newcomer)
    return dict(result or {})


_MISSING = object()
_SHELLS = ("In", "Out")  # what IPython keeps among the user's variables
Packed = dict[str, tuple[str, Any, list[torch.Tensor], list[int] | None]]


class _Found(NamedTuple):
    """What a rank takes from a checkpoint; ``newcomer`` is its number if there was no such rank."""

    kept: dict[str, tuple[str, Any]]
    random: list[Any]
    newcomer: int | None
    source: Path


def _chosen(values: Values | None, frame: FrameType) -> dict[str, Any]:
    """The variables asked for, by name; names without a value are looked up at the caller."""
    if isinstance(values, Mapping):
        return dict(values)
    if isinstance(values, str):
        raise ArgumentError(f"give a list of names, [{values!r}], or a dictionary of values")
    there = {**frame.f_globals, **frame.f_locals}
    if values is None:
        mine = (name for name in there if not name.startswith("_") and name not in _SHELLS)
        return {name: there[name] for name in mine}
    return {name: there.get(name, _MISSING) for name in values}


def _guarded(work: Callable[[], T]) -> tuple[T | None, str]:
    """What the work returned, or the error in words: other ranks wait to hear of either."""
    try:
        return work(), ""
    except (CheckpointError, ArgumentError) as error:
        return None, str(error)
    except Exception as error:  # a user's state_dict may raise anything
        return None, f"{type(error).__name__}: {error}"


def _together(mine: Any) -> list[Any]:
    """What each living rank says, in rank order; anything that JSON knows."""
    data = torch.frombuffer(bytearray(json.dumps(mine).encode()), dtype=torch.uint8)
    count = torch.tensor([data.numel()], device="cpu")
    lengths = allgather(count, name="checkpoint").tolist()
    parts = torch.split(allgather(data, name="checkpoint"), lengths)
    return [json.loads(part.numpy().tobytes()) for part in parts]


def _agreed(task: str, error: str, mine: Any = None) -> list[Any]:
    """What each rank says, unless one says that it failed.

    Raises:
        CheckpointError: naming the first rank that failed, on every rank.
    """
    reports = _together([error, mine])
    for rank, (trouble, _) in zip(current().alive, reports, strict=True):
        if trouble:
            raise _refusal(f"{task}: rank {rank}: {trouble}; nothing was changed")
    return [report for _, report in reports]


def _refusal(text: str) -> CheckpointError:
    """The error to raise, once every rank is about to raise it too."""
    # Who raises ends the waits of the others, with another error than theirs.
    with suppress(PeerFailedError):
        barrier()
    return CheckpointError(text)


def _packed(values: Mapping[str, Any], *, strict: bool) -> Packed:
    packed: Packed = {}
    for name, value in values.items():
        if value is _MISSING:
            raise CheckpointError(f"there is no variable {name!r} to keep")
        tensors: list[torch.Tensor] = []
        try:
            kind, tree = tree_of(value, tensors)
        except UnpackableError as error:
            if not strict:
                continue
            raise CheckpointError(f"{name!r}: {error}") from None
        shape = list(value.shape) if isinstance(value, (torch.Tensor, np.ndarray)) else None
        packed[name] = (kind, tree, tensors, shape)
    return packed


def _common_names(lists: list[list[str]], *, strict: bool) -> list[str]:
    """The names that all ranks keep.

    Raises:
        CheckpointError: a rank keeps others than rank 0 although names were given, or none.
    """
    for rank, names in zip(current().alive, lists, strict=True):
        if strict and set(names) != set(lists[0]):
            raise _refusal(
                f"bf.save: rank {rank} keeps {sorted(names)}, rank {current().alive[0]} "
                f"{sorted(lists[0])}; give the "
                "same names on every rank; nothing was changed"
            )
    shared = set(lists[0]).intersection(*lists)
    if not shared:
        raise _refusal("bf.save: there is no variable that every rank could keep")
    return [name for name in lists[0] if name in shared]


def _written(part: Path, packed: Packed, names: Sequence[str]) -> RankFile:
    """Write this rank's file."""
    part.mkdir(parents=True, exist_ok=True)
    path = part / f"rank-{current().rank}.pt"
    trees: dict[str, Any] = {}
    values: dict[str, Any] = {}
    tensors: list[torch.Tensor] = []
    for name in names:
        kind, tree, own, shape = packed[name]
        trees[name] = [kind, tree, len(tensors), len(own)]
        tensors += own
        values[name] = {"kind": kind} if shape is None else {"kind": kind, "shape": shape}
    states: list[torch.Tensor] = []
    text = json.dumps({"values": trees, "random": pack(random_states(), states)})
    with path.open("wb") as file:
        torch.save({"tree": text, "tensors": tensors, "random": states}, file)
        file.flush()
        os.fsync(file.fileno())
    return RankFile(path.name, path.stat().st_size, manifest.checksum(path), values)


def _commit(part: Path, files: tuple[RankFile, ...]) -> None:
    """Make the files of all ranks the folder's checkpoint; only then drop the one before."""
    for file in files:
        path = part / file.file
        if not path.is_file() or path.stat().st_size != file.nbytes:
            raise CheckpointError(
                f"{path} is not there: ranks on several machines need a folder that all of them see"
            )
    manifest.sync_folder(part)
    target, final = part.parent, part.with_suffix("")
    part.rename(final)
    manifest.sync_folder(target)
    manifest.replace(target, Manifest(final, time.time(), ifog.__version__, files))
    for old in target.glob("save-*"):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)


def _read(target: Path, names: Sequence[str] | None, rule: Rule) -> _Found:
    """What this rank takes."""
    saved = manifest.read(target)
    names = saved.names if names is None else names
    unknown = [name for name in names if name not in saved.names]
    if unknown:
        raise CheckpointError(f"{target} has no {unknown[0]!r}, only {', '.join(saved.names)}")
    context = current()
    rank = context.alive.index(context.rank)  # what counts is the place among those that live
    own = rank % saved.n
    ranks = range(saved.n) if rule == "average" else [own]
    files = {old: _opened(saved, old, names) for old in ranks}
    kept, states = files[own]
    if rule == "average":
        for name, (kind, value) in kept.items():
            values = [files[old][0][name][1] for old in ranks]
            kept[name] = kind, averaged(value, values, name)
    return _Found(kept, states, rank if rank >= saved.n else None, saved.folder)


def _opened(
    saved: Manifest, rank: int, names: Sequence[str]
) -> tuple[dict[str, tuple[str, Any]], list[Any]]:
    told = saved.ranks[rank]
    path = saved.folder / told.file
    try:
        sound = path.stat().st_size == told.nbytes and manifest.checksum(path) == told.sha256
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not sound:
        raise CheckpointError(
            f"{path} is damaged: it is not what was saved; use another checkpoint"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        trees, tensors = json.loads(content["tree"]), content["tensors"]
        values = {}
        for name in names:
            kind, tree, first, length = trees["values"][name]
            values[name] = (kind, unpack(tree, tensors[first : first + length]))
        return values, unpack(trees["random"], content["random"])
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: {type(error).__name__}: {error}") from None
