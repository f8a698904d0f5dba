"""What ranks hand to each other besides tensors: whole models, optimizers, and their own edges."""

from __future__ import annotations

import copy
import functools

import networkx as nx
import numpy as np
import torch
from spmd import raises

import ifog
from ifog import errors

LR = 0.1 / 3  # not a float32
OTHER_LR = 0.5
OPTIMIZERS = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind not in (torch.optim.Optimizer, torch.optim.LBFGS)
}
VARIANTS = {
    **{name: (kind, {}) for name, kind in OPTIMIZERS.items()},
    "SGD with momentum": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "SGD with decay": (torch.optim.SGD, {"weight_decay": 0.5}),
    "SGD fused": (torch.optim.SGD, {"momentum": 0.9, "fused": True}),
    "Adam with maxima": (torch.optim.Adam, {"amsgrad": True, "betas": (0.8, 0.99)}),
    "Adam fused": (torch.optim.Adam, {"fused": True}),
    "Adam for each": (torch.optim.Adam, {"foreach": True}),
    "Adam one by one": (torch.optim.Adam, {"foreach": False}),
    "AdamW upwards": (torch.optim.AdamW, {"maximize": True}),
    "RMSprop in full": (torch.optim.RMSprop, {"centered": True, "momentum": 0.9}),
    "Adagrad from 1": (torch.optim.Adagrad, {"initial_accumulator_value": 1.0}),
}


def drawn(shape, generator):
    return torch.randn(shape, generator=generator, device="cpu").to(torch.get_default_device())


def made(kind, options, lr, seed):
    """An optimizer over two groups of tensors drawn with ``seed``, and the tensors."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, 3), (2, 3), (5, 1)]
    if kind is not OPTIMIZERS.get("Muon"):
        shapes += [(3,), (7,)]
    tensors = [torch.nn.Parameter(drawn(shape, generator)) for shape in shapes]
    groups = [{"params": tensors[:2]}, {"params": tensors[2:], "lr": lr / 7}]
    return kind(groups, lr=lr, **options), tensors


def stepped(optimizer, tensors, times, seed=5):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(times):
        for x in tensors:
            gradient = drawn(x.shape, generator)
            sparse = isinstance(optimizer, torch.optim.SparseAdam)
            x.grad = gradient.to_sparse() if sparse else gradient
        optimizer.step()


def alike(a, b, where=""):
    assert type(a) is type(b), f"{where}: {a!r} and {b!r}"
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), f"{where}: {a.keys()} and {b.keys()}"
        for key in a:
            alike(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for place, (one, other) in enumerate(zip(a, b, strict=True)):
            alike(one, other, f"{where}/{place}")
    else:
        assert a == b, f"{where}: {a!r} and {b!r}"


def optimizer_law(kind, options, root_steps, other_steps):
    """Root's state arrives, nothing else changes, and all go on as the root would alone."""
    root, r = ifog.size() - 1, ifog.rank()
    reference, theirs = made(kind, options, LR, seed=100)
    stepped(reference, theirs, root_steps)
    if r == root:
        mine, tensors = made(kind, options, LR, seed=100)
    else:
        mine, tensors = made(kind, {}, OTHER_LR, seed=r)
    stepped(mine, tensors, root_steps if r == root else other_steps, seed=5 if r == root else r)
    values = [x.detach().clone() for x in tensors]
    gradients = [None if x.grad is None else x.grad.to_dense().clone() for x in tensors]
    before = copy.deepcopy(mine.state_dict())
    ifog.broadcast_optimizer_state(mine, root)
    alike(values, [x.detach() for x in tensors], "parameters")
    alike(gradients, [None if x.grad is None else x.grad.to_dense() for x in tensors], "gradients")
    alike(mine.state_dict(), reference.state_dict())
    if r == root:
        alike(mine.state_dict(), before)
    ifog.broadcast_parameters(tensors, root)
    for optimizer, xs in ((mine, tensors), (reference, theirs)):
        stepped(optimizer, xs, 2, seed=9)
    alike([x.detach() for x in tensors], [x.detach() for x in theirs], "two steps on")


def _every_optimizer(root_steps, other_steps):
    # All of them at each small size; many ranks on few cores take a fifth.
    stride = 1 if ifog.size() <= 4 else 5
    for label, (kind, options) in list(VARIANTS.items())[::stride]:
        try:
            optimizer_law(kind, options, root_steps, other_steps)
        except AssertionError as error:
            raise AssertionError(f"{label}: {error}") from error


law_every_optimizer_takes_the_state_of_a_root_that_is_ahead = functools.partial(
    _every_optimizer, 3, 0
)
law_every_optimizer_forgets_what_the_root_does_not_have = functools.partial(_every_optimizer, 0, 2)
law_every_optimizer_takes_the_state_of_the_root_for_its_own = functools.partial(
    _every_optimizer, 2, 4
)
law_fresh_optimizers_take_the_options_of_the_root = functools.partial(_every_optimizer, 0, 0)


def network():
    layers = [torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)]
    return torch.nn.Sequential(*layers).double()


def law_a_model_and_its_buffers_become_those_of_the_root():
    r, root = ifog.rank(), ifog.size() // 2
    model, expected = network(), network()
    for place, (mine, theirs) in enumerate(
        zip(model.state_dict().values(), expected.state_dict().values(), strict=True)
    ):
        # Counters too: each rank is 10 r further than the tensor's place.
        mine.fill_(10 * r + place)
        theirs.fill_(10 * root + place)
    identities = {name: id(x) for name, x in model.named_parameters()}
    ifog.broadcast_parameters(model.state_dict(), root)
    alike(dict(model.state_dict()), dict(expected.state_dict()))
    assert identities == {name: id(x) for name, x in model.named_parameters()}
    assert model[1].num_batches_tracked.dtype == torch.int64
    assert all(x.requires_grad for x in model.parameters())


def law_parameters_are_matched_by_name_whatever_their_order():
    r = ifog.rank()
    names = ["b", "a", "c"] if r % 2 else ["c", "b", "a"]
    values = {name: torch.full((2,), 10.0 * r + "abc".index(name)) for name in names}
    ifog.broadcast_parameters(list(values.items()), 0)
    assert {name: x.tolist() for name, x in values.items()} == {
        name: [float(place)] * 2 for place, name in enumerate("abc")
    }


def law_the_mean_of_models_replaces_them():
    r, n = ifog.rank(), ifog.size()
    model = network()
    with torch.no_grad():
        for place, x in enumerate(model.parameters()):
            x.fill_(r * r + place)
    mean = sum(q * q for q in range(n)) / n
    ifog.allreduce_parameters(model.named_parameters())
    for place, x in enumerate(model.parameters()):
        assert torch.allclose(x, torch.full_like(x, mean + place), rtol=0, atol=1e-14)


def law_other_models_and_optimizers_are_refused_on_every_rank():
    if ifog.size() == 1:
        return
    odd = ifog.rank() == 1
    x = torch.nn.Parameter(torch.full((3,), float(ifog.rank())))
    y = torch.zeros(2)
    adam = torch.optim.Adam([x] if odd else [x, y])
    sgd = torch.optim.SGD([x]) if odd else torch.optim.Adam([x])
    wrong = errors.MismatchError
    for share in (ifog.broadcast_parameters, ifog.allreduce_parameters):
        other = {"x": x, "y": torch.zeros(3)} if odd else {"x": x, "y": y}
        raises(wrong, lambda: share(other), "rank 0 has 'y': shape (2,)", "rank 1 has")  # noqa: B023
        less = [x] if odd else [x, y]
        raises(wrong, lambda: share(less), "rank 1 has nothing more")  # noqa: B023
    raises(wrong, lambda: ifog.broadcast_optimizer_state(adam, 0), "2 parameters", "1 parameters")
    raises(wrong, lambda: ifog.broadcast_optimizer_state(sgd, 0), "Adam", "rank 1 has optimizer")
    root = int(odd)
    raises(wrong, lambda: ifog.broadcast_parameters([x], root), "root_rank: 0", "root_rank: 1")
    assert x.tolist() == [float(ifog.rank())] * 3
    ifog.broadcast_parameters([x], 1)
    assert x.tolist() == [1.0] * 3


def law_what_the_root_cannot_send_is_refused_on_every_rank():
    x = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([x], lr=0.5)
    if ifog.rank() == 0:
        optimizer.param_groups[0]["warm"] = [print]
    words = ("rank 0 cannot send 'warm'", "print")
    raises(errors.ArgumentError, lambda: ifog.broadcast_optimizer_state(optimizer, 0), *words)
    assert ifog.allreduce(torch.ones(1)).item() == 1.0


def law_integers_have_no_mean_on_any_rank():
    x, counter = torch.full((2,), float(ifog.rank())), torch.tensor(3)
    params = {"x": x, "counter": counter}
    words = ("'counter' is int64", "named_parameters")
    raises(errors.ArgumentError, lambda: ifog.allreduce_parameters(params), *words)
    assert x.tolist() == [float(ifog.rank())] * 2


def law_edges_are_found_from_either_end():
    r, n = ifog.rank(), ifog.size()
    for seed in range(3):
        links = nx.gnp_random_graph(n, 0.4, seed=seed, directed=True)
        to, sources = sorted(links.successors(r)), sorted(links.predecessors(r))
        assert ifog.infer_source_from_destination_ranks(to) == sources
        found, adjacency = ifog.infer_destination_from_source_ranks(sources, True)
        assert found == to
        assert np.allclose(adjacency.sum(axis=0), 1, rtol=0, atol=1e-15)
        assert np.flatnonzero(adjacency[r]).tolist() == sorted([*to, r])
