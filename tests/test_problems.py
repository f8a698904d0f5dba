"""Every rank computes its own share of the data, and the shares make up the whole."""

from __future__ import annotations

import pytest
import torch

from ifog.errors import ArgumentError
from ifog.problems import digits_shard


def rows(x):
    """The images as a sorted list, so that sets of them can be compared."""
    return sorted(map(tuple, x.tolist()))


@pytest.mark.parametrize("skew", ["label", "none"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 16])
def test_shards_split_the_training_images_evenly_and_completely(size, skew):
    shards = [digits_shard(rank, size, skew=skew) for rank in range(size)]
    whole = digits_shard(0, 1)
    lengths = [len(shard.y) for shard in shards]
    assert max(lengths) - min(lengths) <= 1
    assert rows(torch.cat([shard.x for shard in shards])) == rows(whole.x)
    assert len(whole.y) + len(whole.test_y) == 1797


@pytest.mark.parametrize("size", [1, 2, 5, 10, 16])
def test_label_skew_leaves_each_rank_few_digits(size):
    seen = [set(digits_shard(rank, size).y.tolist()) for rank in range(size)]
    assert set().union(*seen) == set(range(10))
    assert max(map(len, seen)) <= 10 // size + 2


def test_without_skew_every_rank_sees_all_digits():
    for rank in range(8):
        assert set(digits_shard(rank, 8, skew="none").y.tolist()) == set(range(10))


def test_all_ranks_test_on_the_same_held_out_images():
    first, last = digits_shard(0, 5), digits_shard(4, 5)
    assert torch.equal(first.test_x, last.test_x)
    assert torch.equal(first.test_y, last.test_y)
    assert set(first.test_y.tolist()) == set(range(10))


def test_features_are_standardised_over_the_training_images():
    x = digits_shard(0, 1).x.double()
    spread = x.std(dim=0, correction=0)
    assert x.mean(dim=0).abs().max() < 1e-6
    assert torch.all((spread - 1).abs().lt(1e-5) | (spread == 0))


def test_the_seed_decides_the_split():
    once, again, other = digits_shard(1, 4), digits_shard(1, 4), digits_shard(1, 4, seed=1)
    assert torch.equal(once.x, again.x)
    assert not torch.equal(once.test_y, other.test_y)


def test_shards_are_ready_for_torch():
    shard = digits_shard(0, 3)
    assert (shard.x.dtype, shard.y.dtype) == (torch.float32, torch.int64)
    assert shard.x.shape == (len(shard.y), 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: digits_shard(4, 4), "ranks are 0..3"),
        (lambda: digits_shard(-1, 4), "rank is -1"),
        (lambda: digits_shard(0, 4, skew="digit"), "use 'label' or 'none'"),
        (lambda: digits_shard(0, 5000), "only 1438 training images"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
