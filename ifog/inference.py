"""From what each rank knows of its own edges to the whole graph.

A dynamic operation needs to know both whom a rank sends to and whom it hears. Where a program only
chooses one of them, the functions here find the other by asking all ranks.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, Literal, overload

import numpy as np
import torch

from ifog.context import Context, current
from ifog.errors import ArgumentError
from ifog.ops import allgather
from ifog.topology import Matrix

__all__ = ["infer_destination_from_source_ranks", "infer_source_from_destination_ranks"]


@overload
def infer_source_from_destination_ranks(
    dst_ranks: Iterable[int], construct_adjacency_matrix: Literal[False] = ...
) -> list[int]: ...


@overload
def infer_source_from_destination_ranks(
    dst_ranks: Iterable[int], construct_adjacency_matrix: Literal[True]
) -> tuple[list[int], Matrix]: ...


def infer_source_from_destination_ranks(
    dst_ranks: Iterable[int], construct_adjacency_matrix: bool = False
) -> list[int] | tuple[list[int], Matrix]:
    """The ranks that will send to this one, given whom each rank sends to.

    Every rank must call it; blocks until all have.

    Args:
        dst_ranks: the ranks this one sends to; none twice, and not itself. May be empty.
        construct_adjacency_matrix: also return the matrix of the whole graph.

    Returns:
        The sources, ascending. With the flag, also M, [n, n] float64: with A[i, j] = 1 where i
        sends to j or i = j, and 0 elsewhere, ``M[i, j] = A[i, j] / sum_k A[k, j]``. A row is a
        *sender* and every column sums to 1, so that a round in which everyone averages evenly is
        ``M.T @ x``.

    Raises:
        ArgumentError: a rank that does not exist, occurs twice, is this one, or is no integer.
    """
    op = "infer_source_from_destination_ranks"
    adjacency = _adjacency(op, "dst_ranks", dst_ranks)
    return _answer(adjacency, adjacency[:, current().rank], construct_adjacency_matrix)


@overload
def infer_destination_from_source_ranks(
    src_ranks: Iterable[int], construct_adjacency_matrix: Literal[False] = ...
) -> list[int]: ...


@overload
def infer_destination_from_source_ranks(
    src_ranks: Iterable[int], construct_adjacency_matrix: Literal[True]
) -> tuple[list[int], Matrix]: ...


def infer_destination_from_source_ranks(
    src_ranks: Iterable[int], construct_adjacency_matrix: bool = False
) -> list[int] | tuple[list[int], Matrix]:
    """The ranks this one has to send to, given whom each rank wants to hear.

    Every rank must call it; blocks until all have.

    Args:
        src_ranks: the ranks this one hears; none twice, and not itself. May be empty.
        construct_adjacency_matrix: also return the matrix of the whole graph.

    Returns:
        The destinations, ascending. With the flag, also the matrix that
        ``infer_source_from_destination_ranks`` describes.

    Raises:
        ArgumentError: a rank that does not exist, occurs twice, is this one, or is no integer.
    """
    op = "infer_destination_from_source_ranks"
    adjacency = _adjacency(op, "src_ranks", src_ranks).T
    return _answer(adjacency, adjacency[current().rank], construct_adjacency_matrix)


def _answer(
    adjacency: Matrix, mine: Matrix, construct_adjacency_matrix: bool
) -> list[int] | tuple[list[int], Matrix]:
    ranks: list[int] = np.flatnonzero(mine).tolist()
    if not construct_adjacency_matrix:
        return ranks
    linked = adjacency + np.eye(len(adjacency))
    return ranks, linked / linked.sum(axis=0)


def _adjacency(op: str, what: str, ranks: Iterable[int]) -> Matrix:
    """Which rank named which: [n, n], row i what rank i passed."""
    context = current()
    mine = torch.zeros(1, context.size, dtype=torch.uint8, device="cpu")
    mine[0, _checked(context, op, what, ranks)] = 1
    adjacency = np.zeros((context.size, context.size))
    adjacency[list(context.alive)] = allgather(mine, name=op).numpy()
    return adjacency


def _checked(context: Context, op: str, what: str, ranks: Any) -> list[int]:
    where = f"{op} on rank {context.rank}: {what}"
    others = [rank for rank in context.alive if rank != context.rank]
    try:
        given = list(ranks)
    except TypeError as error:
        raise ArgumentError(
            f"{where} is a {type(ranks).__name__}; pass a list of ranks, empty if there are none"
        ) from error
    found: list[int] = []
    for rank in given:
        if isinstance(rank, bool | np.bool_):
            raise ArgumentError(f"{where} contains {rank!r}; ranks are integers")
        try:
            found.append(operator.index(rank))
        except TypeError as error:
            raise ArgumentError(f"{where} contains {rank!r}; ranks are integers") from error
    if context.rank in found:
        raise ArgumentError(f"{where} contains the rank itself; name only others of {others}")
    strangers = sorted(set(found) - set(others))
    if strangers:
        raise ArgumentError(f"{where} contains {strangers}; the other ranks are {others}")
    if len(set(found)) != len(found):
        raise ArgumentError(f"{where} names a rank twice: {found}")
    return found
