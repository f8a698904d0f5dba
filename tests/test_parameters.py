"""Models and optimizers become alike, exactly, from whatever forms users have them in.

What every optimizer does on every number of ranks is in ``laws_handovers.py``.
"""

from __future__ import annotations

import collections

import pytest
import torch
from laws_handovers import OPTIMIZERS, alike, made, stepped

import ifog
from ifog.errors import ArgumentError
from ifog.telemetry import OpEvent
from ifog.testing import run_ranks


def forms(named):
    return {
        "dict": dict(named),
        "ordered dict": collections.OrderedDict(named),
        "pairs": list(named),
        "tuple of pairs": tuple(named),
        "generator of pairs": iter(named),
        "tensors": [tensor for _, tensor in named],
        "generator of tensors": (tensor for _, tensor in named),
    }


@pytest.mark.parametrize("form", forms([]))
@pytest.mark.parametrize("n", [1, 3])
def test_parameters_come_in_any_form(form, n):
    def work():
        r = float(ifog.rank())
        named = [("b", torch.full((2,), r)), ("a", torch.tensor(r + 10))]
        ifog.broadcast_parameters(forms(named)[form], n - 1)
        assert named[0][1].tolist() == [n - 1.0] * 2
        assert named[1][1].item() == n + 9.0
        named[0][1].fill_(r)
        ifog.allreduce_parameters(forms(named)[form])
        assert named[0][1].tolist() == [(n - 1) / 2] * 2
        assert named[1][1].item() == n + 9.0

    run_ranks(n, work)


def test_tensors_travel_under_their_names_in_sorted_order():
    events = []

    class Sink:
        def write(self, batch):
            events.extend(e for e in batch if isinstance(e, OpEvent) and e.rank == 0)

    def work():
        params = {name: torch.zeros(1) for name in ("b.weight", "a", "b.bias")}
        ifog.broadcast_parameters(params, 1)
        ifog.allreduce_parameters(params)

    run_ranks(2, work, sink=Sink())
    for op in ("broadcast", "allreduce"):
        assert [e.name for e in events if e.op == op] == ["a", "b.bias", "b.weight"]


def test_views_and_leaves_that_need_gradients_are_written_in_place():
    def work():
        base = torch.full((2, 3), float(ifog.rank()))
        leaf = torch.nn.Parameter(torch.full((2,), float(ifog.rank())))
        ifog.broadcast_parameters({"rows": base.t()[1:], "leaf": leaf}, 2)
        r = float(ifog.rank())
        assert base.tolist() == [[r, 2.0, 2.0]] * 2
        assert leaf.tolist() == [2.0, 2.0]
        assert leaf.is_leaf
        assert leaf.requires_grad
        assert leaf.grad_fn is None

    run_ranks(3, work)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int64, torch.bool]
)
def test_parameters_of_every_dtype_travel(dtype):
    def work():
        x = torch.tensor([ifog.rank() % 2, 1]).to(dtype)
        ifog.broadcast_parameters([x], 1)
        assert x.tolist() == torch.tensor([1, 1]).to(dtype).tolist()

    run_ranks(2, work)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (torch.nn.Linear(2, 2), "params is a Linear; pass model.state_dict"),
        (torch.nn.Sequential(torch.nn.Linear(2, 2)), "params is a Sequential"),
        (torch.ones(3), "params is a Tensor"),
        (None, "params is a NoneType"),
        ("weights", "params is a str"),
        ({"a": 1.0}, "'a' in params is a float"),
        ([torch.ones(1), None], "number 1 in params is a NoneType"),
        ([("a", torch.ones(1)), ("a", torch.ones(1))], "'a' twice"),
        ({3: torch.ones(1)}, "a name and a tensor"),
        ([("a", torch.ones(1), 2)], "a name and a tensor"),
    ],
)
@pytest.mark.parametrize("share", [ifog.broadcast_parameters, ifog.allreduce_parameters])
def test_what_is_no_set_of_parameters_is_named(share, params, message):
    with pytest.raises(ArgumentError, match=message):
        run_ranks(1, lambda: share(params))


def test_a_root_that_is_no_rank_is_refused():
    x = torch.nn.Parameter(torch.ones(1))
    for share in (
        lambda: ifog.broadcast_parameters([x], 2),
        lambda: ifog.broadcast_optimizer_state(torch.optim.SGD([x]), -1),
    ):
        with pytest.raises(ArgumentError, match=r"ranks are 0\.\.1"):
            run_ranks(2, share)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: torch.optim.LBFGS([x]), "LBFGS"),
        (lambda x: torch.optim.SGD([x]).state_dict(), "got dict"),
        (lambda _: None, "got NoneType"),
    ],
)
def test_what_has_no_state_to_share_is_refused(make, message):
    x = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=message):
        run_ranks(1, lambda: ifog.broadcast_optimizer_state(make(x), 0))


def test_the_table_has_the_optimizers_of_torch():
    # Every optimizer is tested by a law over this table; it must not be empty by accident.
    assert {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "SparseAdam"} <= set(
        OPTIMIZERS
    )


def test_options_of_every_kind_travel_exactly():
    def work():
        r = ifog.rank()
        x = torch.nn.Parameter(torch.ones(2))
        adam = torch.optim.Adam([("x", x)], lr=torch.tensor(0.1 / 3, dtype=torch.float64))
        other = torch.optim.Adam([x], lr=0.5, foreach=True)
        mine = adam if r == 1 else other
        if r == 1:
            mine.param_groups[0].update(
                {"capturable": True, "differentiable": False, "warm": (1, None, [True, "a"])}
            )
        else:
            mine.param_groups[0]["cold"] = 3
        group, params = mine.param_groups[0], mine.param_groups[0]["params"]
        ifog.broadcast_optimizer_state(mine, 1)
        assert mine.param_groups[0] is group
        assert group["params"] is params
        return {key: value for key, value in group.items() if key != "params"}

    groups = run_ranks(3, work)
    assert "cold" not in groups[0]
    assert groups[0]["lr"].item() == 0.1 / 3
    for group in groups:
        alike(group, groups[1])


def test_no_step_is_taken_and_no_hook_called():
    def work():
        x = torch.nn.Parameter(torch.full((2,), 3.0))
        sgd = torch.optim.SGD([x], lr=0.1, weight_decay=0.5, momentum=0.9)
        called = []
        sgd.register_step_pre_hook(lambda *_: called.append("step"))
        ifog.broadcast_optimizer_state(sgd, 0)
        assert x.tolist() == [3.0, 3.0]
        assert x.grad is None
        assert not sgd.state
        assert not called

    run_ranks(2, work)


def test_schedulers_go_on_from_the_root_s_rate():
    def work():
        r = ifog.rank()
        x = torch.nn.Parameter(torch.ones(2))
        x.grad = torch.ones(2)
        sgd = torch.optim.SGD([x], lr=0.3 if r else 0.7)
        halving = torch.optim.lr_scheduler.ExponentialLR(sgd, 0.5)
        ifog.broadcast_optimizer_state(sgd, 0)
        sgd.step()
        halving.step()
        return sgd.param_groups[0]["lr"]

    assert run_ranks(3, work) == [0.35, 0.35, 0.35]


def test_received_state_belongs_to_each_rank_alone():
    def work():
        mine, tensors = made(torch.optim.SGD, {"momentum": 0.9}, 0.1, seed=ifog.rank())
        stepped(mine, tensors, 1)
        ifog.broadcast_optimizer_state(mine, 0)
        buffers = [mine.state[x]["momentum_buffer"] for x in tensors]
        assert len({buffer.data_ptr() for buffer in buffers}) == len(tensors)
        ifog.barrier()
        if ifog.rank() == 0:
            buffers[0].zero_()
        ifog.barrier()
        assert bool(buffers[0].any()) == (ifog.rank() != 0)

    run_ranks(3, work)
