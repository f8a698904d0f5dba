"""Averages in half precision: summed as in float32, and rounded once."""

from __future__ import annotations

import pytest
import torch

from ifog.kernels import mean


@pytest.mark.parametrize("numel", [5, 600_000])  # by pieces from 524 288 entries on
@pytest.mark.parametrize("others", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_mean_in_half_precision_is_rounded_once(dtype, others, numel):
    generator = torch.Generator().manual_seed(others)
    scale = 2.0 ** torch.randint(-3, 4, (others + 1, numel), generator=generator)
    terms = (torch.randn(others + 1, numel, generator=generator) * scale).to(dtype)
    exact = terms.double().sum(0).float() / (others + 1)  # such sums are exact in float32
    for out in (None, torch.empty(numel, dtype=dtype)):
        result = mean(terms[-1], list(terms[:-1]), out)
        assert torch.equal(result, exact.to(dtype))
        assert out is None or result is out
