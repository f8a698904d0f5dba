"""Tensors of a device: every operation gives what it gives in host memory, and gives it there."""

from __future__ import annotations

import pretend
import pytest
import torch

import ifog
from ifog.operation import staged
from ifog.testing import run_ranks

DEVICES = ["cpu", "pretended", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    if request.param == "pretended":
        monkeypatch.setattr("ifog.transport.cuda.driver", pretend.Pretend("one"))
        for module in pretend.COPYING:
            monkeypatch.setattr(module, "host", pretend.fetched)
        return "cpu"
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return request.param


def stacked(n, device):
    """[n, 2, 3], row r for rank r, made on every rank alike."""
    x = torch.arange(n * 6, dtype=torch.float64).reshape(n, 2, 3).square()
    return x.to(device)


@pytest.mark.parametrize("n", [2, 4])
def test_operations_give_their_results_where_the_tensor_is(n, device):
    def work():
        r, x = ifog.rank(), stacked(n, device)
        ifog.set_topology(ifog.complete(n))
        found = {
            "neighbor_allreduce": ifog.neighbor_allreduce(x[r]),
            "a named one": ifog.neighbor_allreduce(x[r], name="x"),
            "a list": ifog.neighbor_allreduce([x[r], x[r]])[1],
            "transposed": ifog.neighbor_allreduce(x[r].T).T,
            "allreduce": ifog.allreduce(x[r]),
            "in place": ifog.allreduce_(x[r].clone()),
        }
        for name, y in found.items():
            assert y.device == x.device, name
            assert torch.allclose(y, x.mean(0)), name
        gathered = ifog.allgather(x[r])
        assert gathered.device == x.device
        assert torch.equal(gathered, x.reshape(-1, 3))
        assert torch.equal(ifog.broadcast(x[r], 1), x[1])
        others = torch.cat([x[j] for j in range(n) if j != r])
        assert torch.equal(ifog.neighbor_allgather(x[r]), others)
        assert ifog.neighbor_allreduce(x[r][:0]).shape == (0, 3)

    run_ranks(n, work)


@pytest.mark.parametrize("n", [2, 4])
def test_windows_hold_tensors_of_a_device(n, device):
    def work():
        r, x = ifog.rank(), stacked(n, device)
        ifog.set_topology(ifog.complete(n))
        own = x[r].clone()
        ifog.win_create(own, "w", zero_init=True)
        ifog.win_put(own, "w")
        ifog.barrier()
        updated = ifog.win_update("w")
        assert updated is own
        assert torch.allclose(own, x.mean(0))
        ifog.barrier()
        ifog.win_free("w")

    run_ranks(n, work)


def test_a_staged_copy_is_contiguous_and_keeps_shape_and_values(device):
    def work():
        x = stacked(2, device)[0].T
        y = staged(x, at_once=True)
        assert (y.is_contiguous(), y.device.type, y.shape) == (True, "cpu", x.shape)
        assert torch.equal(y, x.cpu())
        assert staged(x[:0], at_once=True).shape == (0, 2)
        assert staged(x > 3, at_once=True).dtype == torch.bool

    run_ranks(1, work)
