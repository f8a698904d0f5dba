"""The decentralized optimizer around every torch optimizer, and with all that training does to one.

That it equals the dense recursion on any number of ranks is in ``laws_training.py``.
"""

from __future__ import annotations

import copy
import shutil
from types import SimpleNamespace

import pytest
import torch
from laws_handovers import VARIANTS, alike, made, stepped

import ifog
from ifog import pipeline, window_mixing
from ifog.errors import ArgumentError
from ifog.telemetry import OpEvent
from ifog.testing import run_ranks

SPARSE = torch.optim.SparseAdam
CASES = [
    (label, order)
    for label, (kind, _) in VARIANTS.items()
    for order in ("atc", "awc", "gradient")
    if not (kind is SPARSE and order == "gradient")  # refused, see below
]


def wrapped(optimizer, order="atc", mix=None, **options):
    return ifog.DecentralizedOptimizer(optimizer, mix or ifog.local_mixer(), order=order, **options)


def network(seed=0, *layers):
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 4), *layers, torch.nn.Tanh(), torch.nn.Linear(4, 1)
    ).double()
    # The global generator is shared by the threads.
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for x in model.parameters():
            x.copy_(torch.rand(x.shape, generator=generator, dtype=x.dtype) - 0.5)
    return model


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 3, generator=generator, dtype=torch.float64)


def backward(model, seed):
    model(batch(seed)).square().mean().backward()


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


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("order", ["atc", "awc", "gradient"])
@pytest.mark.parametrize("every", [1, 3])
def test_buckets_on_their_way_during_backward_end_as_whole_messages_do(
    order, every, named, monkeypatch
):
    monkeypatch.setattr(pipeline, "NBYTES", 1)
    if order == "gradient" and every > 1:
        every = 1

    def work():
        results = []
        for overlap in (False, True):
            model = network(ifog.rank(), torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
            model.register_parameter("unused", torch.nn.Parameter(torch.ones(2).double()))
            adam = torch.optim.Adam(model.parameters(), lr=0.05)
            mix = ifog.neighbor_mixer(ifog.one_peer(ifog.size()), name="x" if named else None)
            optimizer = wrapped(adam, order, mix, overlap=overlap, every=every)
            for step in range(5):
                optimizer.zero_grad()
                y = batch(10 * step + ifog.rank())
                for place, layer in enumerate(model):
                    # One rank leaves a layer out in some steps: its gradients never come there.
                    if not (place == 1 and ifog.rank() == 1 and step % 2):
                        y = layer(y)
                y.square().mean().backward()
                optimizer.step()
            optimizer.finish()
            results.append([x.detach().clone() for x in model.parameters()])
            assert not overlap or len((optimizer._relay or optimizer._pipeline).buckets) == 9
        for whole, piecewise in zip(*results, strict=True):
            assert torch.allclose(whole, piecewise, rtol=0, atol=1e-14)

    run_ranks(4, work)


def test_a_bucket_is_on_its_way_before_backward_has_ended():
    seen = []

    def work():
        sent = []
        mix = ifog.neighbor_mixer()
        start = mix.start
        mix.start = lambda *xs: sent.append(len(xs)) or start(*xs)
        model = torch.nn.Sequential(torch.nn.Linear(600, 2000), torch.nn.Linear(2000, 600))
        optimizer = wrapped(torch.optim.SGD(model.parameters(), lr=0.1), "atc", mix, overlap=True)
        model[0].weight.register_hook(lambda _: seen.append(len(sent)))
        model(torch.ones(1, 600)).sum().backward()
        optimizer.step()
        assert len(sent) == 2

    run_ranks(1, work)
    assert seen == [1]


@pytest.mark.parametrize("order", ["atc", "gradient"])
def test_what_came_too_early_for_overlap_is_refused(order):
    def work(scaled):
        x = torch.nn.Parameter(torch.ones(2))
        optimizer = wrapped(
            torch.optim.SGD([x], lr=0.1), order, ifog.allreduce_mixer(), overlap=True
        )
        x.sum().backward()
        if scaled:
            scaler = torch.amp.GradScaler("cpu")
            scaler.scale(torch.ones(1))
            scaler.step(optimizer)
        x.sum().backward()

    with pytest.raises(ArgumentError, match="second gradient before step"):
        run_ranks(1, lambda: work(False))
    with pytest.raises(ArgumentError, match="before a GradScaler"):
        run_ranks(1, lambda: work(True))


@pytest.mark.parametrize("order", ["atc", "awc", "gradient"])
def test_between_machines_a_thread_moves_what_is_overlapped(order):
    def work():
        transport = ifog.context.current().transport
        served, results = [], []
        background = ifog.context.current().progress.background
        serve = background.serve
        background.serve = lambda: served.append(1) or serve()
        for machines in ((0, 0, 0, 0), (0, 0, 1, 1)):
            transport.machines = machines
            model, optimizer = trainer(order, overlap=True)
            train(model, optimizer, range(4))
            optimizer.finish()
            results.append([x.detach().clone() for x in model.parameters()])
            assert bool(served) == (len(set(machines)) > 1)
        alike(*results)

    run_ranks(4, work)


def test_a_step_that_mixes_nothing_is_not_synchronized():
    def work():
        x = torch.nn.Parameter(torch.tensor([float(ifog.rank())]))
        sgd = torch.optim.SGD([x], lr=0.0)
        optimizer = wrapped(sgd, "awc", ifog.allreduce_mixer(), every=2)
        values = []
        for _ in range(2):
            x.sum().backward()
            optimizer.synchronize()
            values.append(x.item())
            optimizer.step()
        assert values == [float(ifog.rank()), 0.5]

    run_ranks(2, work)


def trainer(order="atc", kind=torch.optim.Adam, **options):
    model = network(ifog.rank())
    mix = ifog.neighbor_mixer(ifog.one_peer(ifog.size()))
    return model, wrapped(kind(model.parameters(), lr=0.05), order, mix, **options)


def train(model, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        backward(model, 10 * step + ifog.rank())
        optimizer.step()


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


def test_what_is_mixed_by_overlap_may_be_changed_after_finish():
    def work():
        results = []
        for overlap in (False, True):
            model, optimizer = trainer("awc", overlap=overlap)
            train(model, optimizer, range(3))
            optimizer.finish()
            with torch.no_grad():
                for x in model.parameters():
                    x.add_(1.0)
            train(model, optimizer, range(3, 6))
            optimizer.finish()
            results.append([x.detach().clone() for x in model.parameters()])
        alike(results[0], results[1])

    run_ranks(4, work)


def test_synchronize_lets_the_mixed_gradient_be_clipped():
    def work():
        x = torch.nn.Parameter(torch.zeros(1))
        sgd = torch.optim.SGD([x], lr=1.0)
        optimizer = wrapped(sgd, "gradient", ifog.allreduce_mixer())
        for sign in (1.0, -1.0):
            optimizer.zero_grad()
            (sign * x * (ifog.rank() + 1.0)).sum().backward()
            optimizer.synchronize()
            assert x.grad.item() == sign * 1.5
            torch.nn.utils.clip_grad_norm_([x], 0.5, foreach=False)
            optimizer.step()
            assert x.item() == pytest.approx(-0.5 if sign > 0 else 0.0, abs=1e-6)

    run_ranks(2, work)


def test_awc_may_be_synchronized_before_the_step():
    def work():
        x = torch.nn.Parameter(torch.full((1,), float(ifog.rank())))
        optimizer = wrapped(torch.optim.SGD([x], lr=1.0), "awc", ifog.allreduce_mixer())
        x.sum().backward()
        optimizer.synchronize()
        assert x.item() == 0.5
        optimizer.step()
        assert x.item() == -0.5

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


def refused(message, change, step=True, order="atc"):
    def work():
        model = network()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = wrapped(sgd, order)
        change(model, optimizer)
        if step:
            backward(model, 0)
            optimizer.step()

    with pytest.raises(ArgumentError, match=message):
        run_ranks(1, work)


def test_what_happens_to_parameters_afterwards_is_refused():
    extra = torch.nn.Parameter(torch.ones(1))
    refused("cannot be added", lambda _, o: o.add_param_group({"params": [extra]}), step=False)
    refused(
        "had 4 parameters and has others now .5.",
        lambda _, o: o.optimizer.add_param_group({"params": [extra]}),
    )
    refused("parameter 0 was frozen", lambda m, _: m[0].weight.requires_grad_(False))
    refused("call model.to", lambda m, _: m.float().double())
    refused("call model.to", lambda m, _: setattr(m[0].weight, "data", torch.zeros(4, 3).double()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: wrapped(torch.optim.LBFGS([x])), "LBFGS searches along lines"),
        (lambda x: wrapped([x]), "wraps a torch optimizer, got list"),
        (lambda x: wrapped(wrapped(torch.optim.SGD([x]))), "one already"),
        (lambda x: wrapped(torch.optim.SGD([x]), "cta"), "choose one of"),
        (lambda x: wrapped(torch.optim.SGD([x]), every=0), "whole number from 1"),
        (lambda x: wrapped(torch.optim.SGD([x]), "gradient", every=2), "drift apart"),
        (lambda x: wrapped(torch.optim.SGD([x]), mix=ifog.ring(3)), "pass a mixer"),
        (lambda x: wrapped(torch.optim.SGD([x]), mix_state="m"), "a list of names"),
        (lambda x: wrapped(torch.optim.SGD([x]), "awc", mix_state=["m"]), "order='atc'"),
        (
            lambda x: wrapped(
                torch.optim.SGD([x]), mix=ifog.allreduce_mixer(), overlap=True, mix_state=["m"]
            ),
            "mix_state cannot be mixed with overlap",
        ),
        (
            lambda x: wrapped(torch.optim.SGD([x]), "awc", overlap=True, buffers=[torch.ones(1)]),
            "buffers change",
        ),
        (
            lambda x: wrapped(torch.optim.SGD([x]), "awc", ifog.window_mixer(), overlap=True),
            "waits for nobody",
        ),
        (lambda x: wrapped(torch.optim.SGD([x.requires_grad_(False)])), "requires a gradient"),
        (
            lambda x: wrapped(torch.optim.SGD([x, torch.nn.Parameter(x.detach()[1:])])),
            "share memory",
        ),
        (
            lambda _: wrapped(
                torch.optim.SGD([torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))])
            ),
            "complex64; only dense floating-point",
        ),
        (
            lambda _: wrapped(torch.optim.SGD(torch.nn.LazyLinear(2).parameters())),
            "call the lazy model once",
        ),
        (lambda _: ifog.neighbor_mixer(3), "needs a graph or a schedule, got int"),
        (lambda _: ifog.window_mixer("push"), "use 'put' or 'get'"),
    ],
)
def test_what_cannot_be_wrapped_is_named(make, message):
    x = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ArgumentError, match=message):
        run_ranks(1, lambda: make(x))


def test_sparse_gradients_are_stepped_on_but_not_mixed():
    def work(order):
        embedding = torch.nn.Embedding(4, 2, sparse=True)
        optimizer = wrapped(SPARSE(list(embedding.parameters())), order, ifog.allreduce_mixer())
        embedding(torch.tensor([ifog.rank()])).sum().backward()
        optimizer.step()
        mean = ifog.allreduce(embedding.weight.detach())
        assert torch.equal(mean, embedding.weight.detach())

    run_ranks(2, lambda: work("atc"))
    with pytest.raises(ArgumentError, match="sparse gradient"):
        run_ranks(1, lambda: work("gradient"))


def test_one_window_has_one_shape():
    def work():
        with ifog.window_mixer() as mix:
            mix(torch.ones(2))
            with pytest.raises(ArgumentError, match=r"shape \(3,\), the rounds before had \(2,\)"):
                mix(torch.ones(3))

    run_ranks(2, work)


@pytest.mark.parametrize(
    ("n", "news", "gives_way"), [(2, False, True), (2, True, False), (1, False, False)]
)
def test_a_rank_without_news_of_its_neighbours_gives_way(monkeypatch, n, news, gives_way):
    moments = []
    clock = SimpleNamespace(sleep=lambda _: moments.append(ifog.rank()))
    monkeypatch.setattr(window_mixing, "time", clock)

    def work():
        with ifog.window_mixer(weights=lambda: None if news else {}) as mix:
            under_way = mix.start(torch.ones(2))
            for handle in under_way.handles:
                handle.wait()
            ifog.barrier()
            under_way.wait()
            ifog.barrier()
            return ifog.rank() in moments

    assert run_ranks(n, work) == [gives_way] * n


def test_named_parameters_are_called_by_their_names():
    def work():
        model = network()
        optimizer = wrapped(torch.optim.SGD(model.named_parameters(), lr=0.1))
        model[0].bias.requires_grad_(False)
        with pytest.raises(ArgumentError, match=r"'0\.bias' was frozen"):
            optimizer.step()

    run_ranks(1, work)
