"""The decentralized optimizer around every torch optimizer, and with all that training does to one.

That it equals the dense recursion on any number of ranks is in ``laws_training.py``.
"""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from laws_handovers import VARIANTS, alike, made, stepped
from wrapping import SPARSE, backward, batch, network, train, trainer, wrapped

import ifog
from ifog.telemetry import OpEvent
from ifog.testing import run_ranks

CASES = [
    (label, order)
    for label, (kind, _) in VARIANTS.items()
    for order in ("atc", "awc", "gradient")
    if not (kind is SPARSE and order == "gradient")  # refused, see below
]


@pytest.mark.parametrize(("label", "order"), CASES)
def test_without_mixing_every_optimizer_steps_as_it_does_alone(label, order):
    kind, options = VARIANTS[label]

    def work():
        alone, theirs = made(kind, options, 0.05, seed=1)
        inner, mine = made(kind, options, 0.05, seed=1)
        stepped(alone, theirs, 2)
        stepped(inner, mine, 2)  # state that exists already is kept
        optimizer = wrapped(inner, order)
        for round_ in range(3):
            stepped(alone, theirs, 1, seed=round_)
            if kind is SPARSE:
                stepped_sparse(optimizer, mine, round_)
            else:
                stepped(optimizer, mine, 1, seed=round_)
        alike([x.detach() for x in mine], [x.detach() for x in theirs])
        state = optimizer.state_dict()
        state.pop("decentralized")
        alike(state, alone.state_dict())

    run_ranks(1, work)


def stepped_sparse(optimizer, tensors, seed):
    generator = torch.Generator().manual_seed(seed)
    for x in tensors:
        x.grad = torch.randn(x.shape, generator=generator).to_sparse()
    optimizer.step()


@pytest.mark.parametrize(("label", "order"), CASES)
def test_ranks_alike_stay_alike_with_every_optimizer(label, order):
    # Equal parameters and gradients on two ranks: mixing must not change a bit.
    kind, options = VARIANTS[label]

    def work():
        alone, theirs = made(kind, options, 0.05, seed=1)
        inner, mine = made(kind, options, 0.05, seed=1)
        optimizer = wrapped(inner, order, ifog.neighbor_mixer())
        for round_ in range(3):
            stepped(alone, theirs, 1, seed=round_)
            step = stepped_sparse if kind is SPARSE else lambda o, x, s: stepped(o, x, 1, seed=s)
            step(optimizer, mine, round_)
        alike([x.detach() for x in mine], [x.detach() for x in theirs])

    run_ranks(2, work)


@pytest.mark.parametrize("order", ["atc", "awc", "gradient"])
def test_one_message_for_each_neighbour_and_step(order):
    events = []

    class Sink:
        def write(self, new):
            events.extend(e for e in new if isinstance(e, OpEvent) and e.rank == 0)

    def work():
        model = network()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = wrapped(sgd, order, ifog.neighbor_mixer(ifog.ring(4)))
        for step in range(3):
            optimizer.zero_grad()
            backward(model, step)
            optimizer.step()

    run_ranks(4, work, sink=Sink())
    assert [e.op for e in events if e.nbytes > 100].count("neighbor_allreduce") == 3
    assert all(e.dst == (1, 3) for e in events if e.op == "neighbor_allreduce")


SCHEDULERS = {
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
    "CosineAnnealingLR": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 5),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, total_steps=8),
    "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda k: 1 / (k + 1)),
    "ReduceLROnPlateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "CyclicLR": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2),
}


@pytest.mark.parametrize("before", [False, True], ids=["around the wrapper", "around the wrapped"])
@pytest.mark.parametrize("label", SCHEDULERS)
def test_learning_rate_schedulers_drive_it(label, before):
    def work():
        rates = []
        for decentralized in (False, True):
            model = network()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            scheduler = SCHEDULERS[label](optimizer) if before else None
            optimizer = wrapped(optimizer) if decentralized else optimizer
            scheduler = scheduler or SCHEDULERS[label](optimizer)
            seen = []
            for step in range(6):
                optimizer.zero_grad()
                backward(model, step)
                optimizer.step()
                args = [1.0] if label == "ReduceLROnPlateau" else []
                scheduler.step(*args)
                seen.append(optimizer.param_groups[0]["lr"])
            rates.append((seen, [x.detach().clone() for x in model.parameters()]))
        alike(rates[0], rates[1])
        assert len(set(rates[0][0])) > 1

    run_ranks(1, work)


@pytest.mark.parametrize("options", [{}, {"every": 3}, {"order": "awc", "overlap": True}])
def test_after_a_checkpoint_the_next_steps_are_bitwise_the_same(tmp_path, options):
    def work():
        model, optimizer = trainer(**options)
        train(model, optimizer, range(5))
        ifog.save(tmp_path, {"model": model, "optimizer": optimizer})
        train(model, optimizer, range(5, 9))
        expected = [x.detach().clone() for x in model.parameters()]
        optimizer.finish()
        other, again = trainer(**options)
        train(other, again, range(2))
        again.finish()
        ifog.load(tmp_path, {"model": other, "optimizer": again})
        train(other, again, range(5, 9))
        again.finish()
        alike([x.detach() for x in other.parameters()], expected)

    run_ranks(4, work)


def test_a_state_goes_to_and_comes_from_the_optimizer_alone():
    def work():
        model, optimizer = trainer()
        train(model, optimizer, range(3))
        state = copy.deepcopy(optimizer.state_dict())
        alone = torch.optim.Adam(network().parameters(), lr=0.7)
        alone.load_state_dict(state)
        assert alone.param_groups[0]["lr"] == 0.05
        alike(alone.state_dict()["state"], state["state"])
        optimizer.load_state_dict(alone.state_dict())
        assert optimizer.state_dict()["decentralized"] == {"steps": 0, "rounds": 0}
        optimizer.optimizer.load_state_dict(state)  # behind its back
        train(model, optimizer, range(3, 5))
        assert optimizer.state is optimizer.optimizer.state
        assert optimizer.param_groups is optimizer.optimizer.param_groups

    run_ranks(2, work)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("order", ["atc", "awc", "gradient"])
def test_running_statistics_are_mixed_when_asked_for(order, mixed):
    def work():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.BatchNorm1d(3, momentum=1.0), torch.nn.Linear(3, 1))
        sgd = torch.optim.SGD(model.parameters(), lr=0.0)
        buffers = model.buffers() if mixed else ()
        optimizer = wrapped(sgd, order, ifog.allreduce_mixer(), buffers=buffers)
        model(torch.full((2, 3), float(ifog.rank()))).sum().backward()
        optimizer.step()
        expected = 0.5 if mixed else float(ifog.rank())
        assert model[0].running_mean.tolist() == [expected] * 3
        assert model[0].num_batches_tracked.item() == 1

    run_ranks(2, work)


@pytest.mark.parametrize("order", ["atc", "awc", "gradient"])
def test_frozen_parameters_stay_as_they_are(order):
    def work():
        model = network(ifog.rank())
        model[0].requires_grad_(False)
        before = [x.clone() for x in model[0].parameters()]
        train(model, wrapped(torch.optim.SGD(model.parameters(), lr=0.1), order, mix()), range(3))
        alike([x.detach() for x in model[0].parameters()], [x.detach() for x in before])

    def mix():
        return ifog.allreduce_mixer()

    run_ranks(3, work)


def test_tied_weights_are_one_parameter():
    def work():
        first, last = torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False)
        last.weight = first.weight
        model = torch.nn.Sequential(first, last)
        with torch.no_grad():
            first.weight.fill_(float(ifog.rank()))
        optimizer = wrapped(
            torch.optim.SGD(model.parameters(), lr=0.0), "atc", ifog.allreduce_mixer()
        )
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        assert first.weight is last.weight
        assert first.weight.tolist() == [[0.5] * 3] * 3

    run_ranks(2, work)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("order", ["atc", "awc", "gradient"])
def test_automatic_mixed_precision_trains(order, dtype):
    def work():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1)
        sgd = torch.optim.SGD(model.parameters(), lr=0.05)
        optimizer = wrapped(sgd, order, ifog.neighbor_mixer())
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=dtype is torch.float16)
        losses = []
        x = batch(ifog.rank()).float()
        for _ in range(30):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = (model(x).float() - x.sum(1, keepdim=True)).square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
        assert losses[-1] < losses[0] / 4
        assert model.weight.dtype is torch.float32
        assert all(x.grad.isfinite().all() for x in model.parameters())

    run_ranks(2, work)


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("order", ["atc", "awc", "gradient"])
def test_a_rank_whose_gradient_overflows_mixes_but_does_not_step(order, unscaled):
    def work():
        r = ifog.rank()
        x = torch.nn.Parameter(torch.tensor([float(r)]))
        optimizer = wrapped(torch.optim.SGD([x], lr=1.0), order, ifog.allreduce_mixer())
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        scaler.scale((x * (torch.inf if r == 0 else 1.0)).sum()).backward()
        if unscaled:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        # Rank 1 alone would step from 1 to 0.
        expected = {"atc": 0.0, "awc": 0.5 - r, "gradient": float(r)}
        assert x.item() == expected[order]
        assert scaler.get_scale() == (2.0 if r == 0 else 4.0)

    run_ranks(2, work)


@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a compiler"
)
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_compiled_models_train_as_plain_ones():
    def work():
        results = []
        for compiled in (False, True):
            model = network()
            run = torch.compile(model) if compiled else model
            sgd = torch.optim.SGD(run.parameters(), lr=0.1)
            optimizer = wrapped(sgd, "atc")
            for step in range(3):
                optimizer.zero_grad()
                backward(run, step)
                optimizer.step()
            results.append([x.detach().clone() for x in model.parameters()])
        for plain, fast in zip(*results, strict=True):
            assert torch.allclose(plain, fast, rtol=0, atol=1e-12)

    run_ranks(1, work, timeout=110)


def test_a_closure_is_evaluated_once():
    def work():
        x = torch.nn.Parameter(torch.ones(1))
        optimizer = wrapped(torch.optim.SGD([x], lr=0.1))
        calls = []

        def closure():
            optimizer.zero_grad()
            loss = x.sum()
            loss.backward()
            calls.append(loss)
            return loss

        assert optimizer.step(closure) is calls[0]
        assert len(calls) == 1
        assert x.item() == pytest.approx(0.9)

    run_ranks(1, work)


def test_a_mixer_may_be_chosen_in_each_round():
    def work():
        chosen = []

        def mix(round_):
            chosen.append(round_)
            return ifog.allreduce_mixer() if round_ == 1 else ifog.local_mixer()

        x = torch.nn.Parameter(torch.tensor([float(ifog.rank())]))
        optimizer = wrapped(torch.optim.SGD([x], lr=0.0), mix=mix, every=2)
        values = []
        for _ in range(4):
            x.sum().backward()
            optimizer.step()
            values.append(x.item())
        assert chosen == [0, 1]
        assert values == [float(ifog.rank())] * 3 + [0.5]

    run_ranks(2, work)
