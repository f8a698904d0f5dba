"""Nested values come back as they were, exactly, and nothing in them can run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from ifog.errors import ArgumentError
from ifog.structure import pack, unpack


def sent(value, *, root=None, here=None):
    """What arrives when ``value`` goes through text and a list of tensors."""
    tensors = []
    text = json.dumps(pack(value, tensors, beside=root))
    arriving = iter(tensors)

    def receive(empty):
        tensor = next(arriving)
        assert empty.shape == tensor.shape
        assert empty.dtype == tensor.dtype
        return tensor.detach().clone()

    result = unpack(json.loads(text), receive, beside=here)
    assert next(arriving, None) is None
    return result


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, 7, -(10**30), 0.1, 0.1 / 3, 1e-320, math.inf, -math.inf, "", "ä\n"),
        *((), (0.9, 0.999), (None, 1e-3), [], [1, [2.0, (3,)]], {}, {"a": {"b": (True, None)}}),
        {1: "one", "1": 1},
        {"tensor": [1, 2], "dict": {"tuple": (1,)}},
    ],
)
def test_values_come_back_with_their_types(value):
    def typed(x):
        inner = x.items() if isinstance(x, dict) else x if isinstance(x, list | tuple) else ()
        return type(x), repr(x) if not inner else [typed(item) for item in inner]

    assert typed(sent(value)) == typed(value)


def test_signed_zero_and_nan_come_back():
    assert math.copysign(1, sent(-0.0)) == -1
    assert math.isnan(sent(math.nan))


def test_numbers_of_numpy_arrive_as_python_numbers():
    value = sent([np.float64(0.1 / 3), np.float32(0.1), np.int64(3), np.bool_(True)])
    assert value == [0.1 / 3, float(np.float32(0.1)), 3, True]
    assert [type(item) for item in value] == [float, float, int, bool]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.0),
        torch.tensor([1, 2]),
        torch.tensor([True, False]),
        torch.zeros(0, 3),
        torch.randn(2, 3, dtype=torch.complex64),
        torch.randn(4).bfloat16(),
    ],
    ids=lambda tensor: f"{tensor.dtype} {tuple(tensor.shape)}",
)
def test_tensors_come_back_in_their_places(tensor):
    first, (second, third) = sent([tensor, (torch.ones(1), {"x": tensor})])
    for arrived in (first, third["x"]):
        assert arrived.dtype == tensor.dtype
        assert torch.equal(arrived, tensor)
    assert second.tolist() == [1.0]


def test_a_tensor_beside_its_parameter_arrives_beside_the_other():
    root, here = torch.zeros(2, 3), torch.zeros(2, 3, device="meta")
    assert sent(torch.ones(2, 3), root=root, here=here).device.type == "meta"
    assert sent(torch.ones(()), root=root, here=here).device.type == "meta"
    # The counter of steps stays in host memory though the parameter is elsewhere.
    assert sent(torch.ones(()), root=here, here=here).device.type == "cpu"


def test_a_tensor_arrives_with_the_strides_of_its_parameter():
    here = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    value = torch.randn(2, 3, 4, 5)
    arrived = sent(value, root=torch.zeros(2, 3, 4, 5), here=here)
    assert arrived.stride() == here.stride()
    assert torch.equal(arrived, value)
    assert not arrived.requires_grad


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (print, "builtins.builtin_function_or_method"),
        ({"a": [object()]}, "'a': a builtins.object"),
        ({(1, 2): 3}, r"key \(1, 2\)"),
        ({True: 3}, "key True"),
        (torch.eye(2).to_sparse(), "only dense ones"),
        (1j, "builtins.complex"),
        (torch.Size([2]), "torch.Size"),
    ],
)
def test_other_values_are_refused_by_name(value, words):
    with pytest.raises(ArgumentError, match=words):
        sent(value)
