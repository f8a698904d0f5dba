"""Squeezed rows are the same to the bit, and as short as what compressors promise."""

from __future__ import annotations

import pytest
import torch

import ifog
from ifog.algorithms import choco_sgd, iterate
from ifog.compression import dithered, identity, qsgd, random_k, sign, top_k
from ifog.errors import MismatchError
from ifog.problems import least_squares
from ifog.squeezing import squeezed, unsqueezed
from ifog.telemetry import OpEvent
from ifog.testing import run_ranks

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
CODECS = [top_k(0.01), top_k(0.1), random_k(0.05), dithered(2), qsgd(8), sign(), identity()]


def values(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def same_bits(one, other):
    return one.dtype is other.dtype and bool(
        (one.view(torch.uint8) == other.view(torch.uint8)).all()
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_what_a_codec_leaves_comes_back_in_about_the_bytes_it_promises(codec, dtype):
    x = codec(values(3, 40, 25, dtype=dtype), torch.arange(3), 0)
    data = squeezed(x)
    back, rest = unsqueezed(data, 3, x)
    assert same_bits(back, x)
    assert len(rest) == 0
    # A row has a head of 5 bytes, places of 2 bytes and a table of its values besides.
    table = 0 if "top" in codec.name or "random" in codec.name else 20 * x.element_size()
    assert len(data) <= 3 * (1.4 * codec.nbytes(x) + 5 + table)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_odd_values_come_back_to_the_bit(dtype):
    odd = torch.tensor([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-40])
    rows = torch.stack([odd.repeat(20), torch.zeros(120), values(120).float()]).to(dtype)
    back, _ = unsqueezed(squeezed(rows), 3, rows)
    assert same_bits(back, rows)
    large = torch.zeros(1, 70_000, dtype=dtype)
    large[0, 69_999] = 3.0
    assert len(squeezed(large)) == 5 + 4 + large.element_size()
    assert same_bits(unsqueezed(squeezed(large), 1, large)[0], large)


def test_nothing_is_nothing():
    assert len(squeezed(torch.empty(0, 5))) == 0
    back, _ = unsqueezed(squeezed(torch.empty(2, 0)), 2, torch.empty(1, 0))
    assert back.shape == (2, 0)


def test_rows_of_another_shape_are_refused():
    data = squeezed(values(2, 10))
    with pytest.raises(MismatchError, match=r"\(11,\)"):
        unsqueezed(data, 2, values(1, 11))
    with pytest.raises(MismatchError, match="2 rows"):
        unsqueezed(data[:20], 2, values(1, 10))


class Bytes:
    """A sink that adds up what mixing sent."""

    def __init__(self):
        self.total = 0

    def write(self, events):
        self.total += sum(
            e.nbytes for e in events if isinstance(e, OpEvent) and e.op == "neighbor_agents"
        )


def end_of_choco(squeeze):
    """Where 8 agents end on 4 ranks, and how many bytes they sent."""

    def on_rank():
        mix = ifog.agent_mixer(ifog.ring(8), squeeze=squeeze)
        problem = least_squares(mix.agents, dimension=500, samples=10)
        return iterate(choco_sgd(0.01, top_k(0.02), gamma=0.1), problem.zeros(), problem, mix, 10).x

    sink = Bytes()
    return torch.cat(run_ranks(4, on_rank, sink=sink)), sink.total


def test_compressed_methods_send_less_and_compute_the_same():
    plain, many = end_of_choco(False)
    squeezed_, few = end_of_choco(True)
    assert torch.equal(plain, squeezed_)
    # Each rank sends the rows of two agents: 500 doubles, or ten with their places.
    assert many == 4 * 2 * 10 * 500 * 8
    assert few == 4 * 2 * 10 * (5 + 10 * (8 + 2))


def test_ranks_that_do_not_agree_to_squeeze_are_told():
    def on_rank():
        ifog.agent_mixer(ifog.ring(2), squeeze=ifog.rank() == 0)(torch.ones(1, 100))

    with pytest.raises(MismatchError, match=r"squeez|expects"):
        run_ranks(2, on_rank)
