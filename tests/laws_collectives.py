"""What all ranks compute together, and what holds for every operation."""

from __future__ import annotations

import torch
from spmd import near, raises, stack

import ifog
from ifog import errors

ALL_DTYPES = (
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
)


def law_identity_of_ranks():
    assert 0 <= ifog.rank() < ifog.size()
    assert 0 <= ifog.local_rank() < ifog.local_size() <= ifog.size()
    everyone = ifog.allgather(torch.tensor([ifog.rank()]))
    assert everyone.tolist() == list(range(ifog.size()))


def law_inputs_are_not_changed_and_outputs_are_new():
    ifog.set_topology("complete")
    x = stack()[ifog.rank()].clone()
    for got in (
        ifog.neighbor_allreduce(x),
        ifog.allreduce(x),
        ifog.broadcast(x, 0),
        ifog.allgather(x),
        ifog.neighbor_allreduce(x, self_weight=1.0, src_weights={}, dst_weights=[]),
    ):
        got.add_(1)
        assert torch.equal(x, stack()[ifog.rank()])


def law_outputs_carry_no_gradient():
    x = stack()[ifog.rank()].requires_grad_()
    assert not ifog.neighbor_allreduce(x).requires_grad
    assert not ifog.allreduce(x).requires_grad


def law_allreduce_sums_and_averages():
    x, r = stack((2, 3)), ifog.rank()
    assert near(ifog.allreduce(x[r]), x.mean(0))
    assert near(ifog.allreduce(x[r], average=False), x.sum(0))
    total = ifog.allreduce(torch.tensor(r + 1), average=False)
    assert total.item() == ifog.size() * (ifog.size() + 1) // 2
    assert ifog.allreduce(torch.tensor(float(r))).item() == (ifog.size() - 1) / 2


def law_allreduce_gives_every_rank_the_same_bits():
    for numel in (10, 50_000):
        got = ifog.allreduce(stack((numel,), torch.float32)[ifog.rank()])
        everyone = ifog.allgather(got[None])
        assert all(torch.equal(row, everyone[0]) for row in everyone)


def law_broadcast_copies_the_root():
    for root in range(ifog.size()):
        for x in (stack(), torch.arange(ifog.size()), stack((20_000,))):
            assert torch.equal(ifog.broadcast(x[ifog.rank()], root), x[root])


def law_allgather_joins_in_rank_order():
    r, n = ifog.rank(), ifog.size()
    got = ifog.allgather(torch.full((r, 2), r))
    assert got.tolist() == [[i, i] for i in range(n) for _ in range(i)]
    raises(errors.ArgumentError, lambda: ifog.allgather(torch.tensor(1.0)), "first dimension")


def law_nonblocking_twins_agree_with_the_blocking_ones():
    ifog.set_topology("ring")
    x = stack()[ifog.rank()]
    handles = [
        ifog.neighbor_allreduce_nonblocking(x),
        ifog.allreduce_nonblocking(x),
        ifog.broadcast_nonblocking(x, 0),
        ifog.allgather_nonblocking(x),
        ifog.neighbor_allgather_nonblocking(x),
    ]
    expected = [
        ifog.neighbor_allreduce(x),
        ifog.allreduce(x),
        ifog.broadcast(x, 0),
        ifog.allgather(x),
        ifog.neighbor_allgather(x),
    ]
    for handle, value in zip(handles, expected, strict=True):
        assert torch.equal(ifog.synchronize(handle), value)
        assert ifog.poll(handle)
        assert torch.equal(ifog.wait(handle), value)


def law_named_operations_match_in_any_order():
    r = ifog.rank()
    names = ["a", "b", "c"] if r % 2 else ["c", "a", "b"]
    handles = {m: ifog.allreduce_nonblocking(torch.tensor(float(ord(m))), name=m) for m in names}
    for m in sorted(handles, reverse=bool(r % 2)):
        assert handles[m].wait().item() == ord(m)


def law_handles_may_be_waited_for_in_any_order():
    x = stack((20_000,))
    first = ifog.allreduce_nonblocking(x[ifog.rank()])
    second = ifog.neighbor_allreduce_nonblocking(x[ifog.rank()])
    for handle in (first, second) if ifog.rank() % 2 else (second, first):
        handle.wait()
    assert near(first.wait(), x.mean(0))


def law_arguments_may_be_given_by_position():
    r, n = ifog.rank(), ifog.size()
    x = torch.tensor([float(r)])
    assert ifog.allreduce(x, False, False, "a").item() == n * (n - 1) / 2
    assert ifog.allreduce_nonblocking(x, True, False, "a").wait().item() == (n - 1) / 2
    assert ifog.broadcast(x, n - 1, "b").item() == n - 1
    assert ifog.allgather(x, "c").tolist() == list(range(n))
    y = x.clone()
    assert ifog.allreduce_(y, False, False, "a") is y
    assert ifog.broadcast_(y, 0, "b") is y


def law_every_dtype_is_broadcast_and_gathered():
    r, n = ifog.rank(), ifog.size()
    ifog.set_topology("ring")
    for dtype in ALL_DTYPES:
        rows = (torch.arange(4 * n).reshape(n, 4) % 3).to(dtype)
        neighbors = [rows[j] for j in sorted(ifog.in_neighbor_ranks())]
        for got, expected in (
            (ifog.broadcast(rows[r], n - 1), rows[n - 1]),
            (ifog.allgather(rows[r]), rows.reshape(-1)),
            (ifog.neighbor_allgather(rows[r]), torch.cat(neighbors or [rows[0][:0]])),
        ):
            assert got.dtype is dtype
            assert torch.equal(got, expected)


def law_every_number_is_summed_and_every_float_averaged():
    r, n = ifog.rank(), ifog.size()
    for dtype in ALL_DTYPES[:-1]:
        x = torch.tensor([r, 2 * r], dtype=dtype)
        total = ifog.allreduce(x, average=False)
        assert total.dtype is dtype
        assert total.tolist() == [n * (n - 1) / 2, n * (n - 1)]
        if dtype.is_floating_point:
            assert ifog.allreduce(x).tolist() == [(n - 1) / 2, n - 1]
        else:
            raises(errors.ArgumentError, lambda: ifog.allreduce(x), "average=False")  # noqa: B023
    raises(errors.ArgumentError, lambda: ifog.allreduce(torch.ones(2) > 0, False), "bool")


def law_half_precision_is_summed_in_single():
    n = ifog.size()
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.tensor([1.0 if ifog.rank() else 2.0 / torch.finfo(dtype).eps], dtype=dtype)
        expected = torch.tensor([2.0 / torch.finfo(dtype).eps + (n - 1)]).to(dtype)
        assert torch.equal(ifog.allreduce(x, average=False), expected)


def law_numbers_and_nothing_can_be_reduced_and_broadcast():
    r, n = ifog.rank(), ifog.size()
    assert ifog.allreduce(torch.tensor(float(r))).shape == ()
    assert ifog.broadcast(torch.tensor(r), n - 1).item() == n - 1
    for shape in ((0,), (3, 0), (0, 2)):
        empty = torch.empty(shape)
        for got in (ifog.allreduce(empty), ifog.broadcast(empty, 0), ifog.allreduce_(empty)):
            assert got.shape == shape
    assert ifog.allgather(torch.empty(0, 3)).shape == (0, 3)


def law_gathers_join_first_dimensions_of_any_length():
    r, n = ifog.rank(), ifog.size()
    x = torch.full((r % 3, 2), r)
    assert ifog.allgather(x)[:, 0].tolist() == [i for i in range(n) for _ in range(i % 3)]
    ifog.set_topology("exponential")
    expected = [j for j in sorted(ifog.in_neighbor_ranks()) for _ in range(j % 3)]
    assert ifog.neighbor_allgather(x)[:, 0].tolist() == expected
    large = torch.full((700 * r, 3), r)
    assert ifog.allgather(large)[:, 0].bincount(minlength=n).tolist() == [700 * i for i in range(n)]


def views(base):
    """Tensors of one value that lie in memory in different ways."""
    yield base.clone()
    yield base.T.contiguous().T
    yield torch.stack((base, base), -1)[..., 0]
    wide = torch.zeros(base.shape[0] + 2, base.shape[1] + 3, dtype=base.dtype)
    wide[1:-1, 2:-1] = base
    yield wide[1:-1, 2:-1]


def law_in_place_forms_write_into_their_argument_whatever_its_strides():
    r, n = ifog.rank(), ifog.size()
    for shape in ((2, 3), (150, 140)):
        x = stack(shape)
        for view, other, third in zip(views(x[r]), views(x[r]), views(x[r]), strict=True):
            assert ifog.allreduce_(view) is view
            assert near(view, x.mean(0))
            assert ifog.allreduce_nonblocking_(other, average=False).wait() is other
            assert near(other, x.sum(0), atol=1e-13)
            assert ifog.broadcast_(third, n - 1) is third
            assert torch.equal(third, x[n - 1])
            handle = ifog.broadcast_nonblocking_(view.copy_(x[r]), 0)
            assert handle.wait() is view
            assert torch.equal(view, x[0])


def law_in_place_forms_leave_what_lies_beside_a_view():
    wide = torch.arange(12.0).reshape(3, 4) + ifog.rank()
    ifog.allreduce_(wide[1:, ::2], average=False)
    untouched = torch.ones(3, 4, dtype=torch.bool)
    untouched[1:, ::2] = False
    assert torch.equal(wide[untouched], (torch.arange(12.0).reshape(3, 4) + ifog.rank())[untouched])


def law_in_place_forms_take_numbers_parameters_and_all_dtypes():
    r, n = ifog.rank(), ifog.size()
    number = torch.tensor(r)
    assert ifog.broadcast_(number, n - 1) is number
    assert number.item() == n - 1
    weight = torch.nn.Parameter(torch.full((3,), float(r)))
    assert ifog.allreduce_(weight) is weight
    assert weight.tolist() == [(n - 1) / 2] * 3
    assert weight.requires_grad
    assert weight.is_leaf
    for dtype in ALL_DTYPES:
        x = torch.tensor([r == 0, True]).to(dtype)
        assert ifog.broadcast_(x, 0).tolist() == [1, 1]
        if dtype is not torch.bool:
            assert ifog.allreduce_(x, average=False).tolist() == [n, n]


def law_an_expanded_tensor_cannot_be_written_into():
    x = torch.ones(1).expand(4)
    for call in (ifog.allreduce_, ifog.broadcast_):
        raises(errors.ArgumentError, lambda: call(x), "expanded", "clone")  # noqa: B023
    assert ifog.allreduce(x).tolist() == [1.0] * 4


def law_every_kind_of_operation_matches_by_name_in_any_order():
    r, n = ifog.rank(), ifog.size()
    ifog.set_topology("complete")
    x = torch.tensor([float(r)])
    start = {
        "mean": lambda: ifog.allreduce_nonblocking(x, name="mean"),
        "mean in place": lambda: ifog.allreduce_nonblocking_(x.clone(), name="mean in place"),
        "root": lambda: ifog.broadcast_nonblocking(x, n - 1, "root"),
        "all": lambda: ifog.allgather_nonblocking(x, "all"),
        "neighbors": lambda: ifog.neighbor_allreduce_nonblocking(x, name="neighbors"),
        "blocks": lambda: ifog.neighbor_allgather_nonblocking(x, name="blocks"),
    }
    order = list(start)
    turn = r % len(order)
    handles = {name: start[name]() for name in order[turn:] + order[:turn]}
    everyone = list(range(n))
    assert handles["mean"].wait().item() == (n - 1) / 2
    assert handles["mean in place"].wait().item() == (n - 1) / 2
    assert handles["root"].wait().item() == n - 1
    assert handles["all"].wait().tolist() == everyone
    assert abs(handles["neighbors"].wait().item() - (n - 1) / 2) < 1e-6
    assert handles["blocks"].wait().tolist() == [j for j in everyone if j != r]
