"""Data for the algorithms, split over the ranks as decentralized learning meets it.

Every rank computes its own share from (rank, size, seed), so nothing is sent and all ranks agree
on what is held out. Nothing is downloaded: scikit-learn ships the digits.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ifog.errors import ArgumentError

__all__ = ["Shard", "digits_shard"]

_TEST_SHARE = 0.2


class Shard(NamedTuple):
    """One rank's training data, and the test data that all ranks share."""

    x: Tensor  # [m, features] float32, standardised
    y: Tensor  # [m] int64
    test_x: Tensor  # [t, features] float32, the same on all ranks
    test_y: Tensor  # [t] int64


def digits_shard(
    rank: int, size: int, *, skew: Literal["label", "none"] = "label", seed: int = 0
) -> Shard:
    """The share of ``rank`` in the 1797 handwritten digits (8 x 8 pixels) of scikit-learn.

    A fifth is held out for testing; pixels are scaled to mean 0 and variance 1 over the training
    data of all ranks.

    Args:
        rank: whose share.
        size: over how many ranks the training data are split, evenly.
        skew: "label" sorts by digit first, so each rank sees only about ``10 / size + 1`` of the
            digits; "none" deals them out at random.
        seed: of the split into training and test, and of the dealing.

    Raises:
        ArgumentError: no such rank or skew, or more ranks than training images.
    """
    from sklearn.datasets import load_digits

    if not 0 <= rank < size:
        raise ArgumentError(f"digits_shard: rank is {rank}, but the ranks are 0..{size - 1}")
    if skew not in ("label", "none"):
        raise ArgumentError(f"digits_shard: skew is {skew!r}; use 'label' or 'none'")
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    held_out = int(_TEST_SHARE * len(labels))
    test, train = order[:held_out], order[held_out:]
    if size > len(train):
        raise ArgumentError(f"digits_shard: {size} ranks, but only {len(train)} training images")
    spread = images[train].std(axis=0)
    # A pixel that is blank in all images has no spread to divide by.
    scaled = (images - images[train].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    if skew == "label":
        train = train[np.argsort(labels[train], kind="stable")]
    mine = np.array_split(train, size)[rank]
    x, y = torch.from_numpy(scaled.astype(np.float32)), torch.from_numpy(labels)
    return Shard(x[mine], y[mine], x[test], y[test])
