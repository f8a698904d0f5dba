"""Decentralized training equals its dense recursion on every transport and number of ranks.

Rank i has the loss f_i(x) = sum h_i (x - c_i)^2 / 2. The expected side keeps all ranks' x as rows
of one array and multiplies by W.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
from spmd import dense, fail_and_heal, layouts, near, on, raises, stack

import ifog
from ifog import errors

LR = 0.1
STEPS = 7
SHAPES = ((2, 2), (3,), ())
SIZES = (4, 3, 1)


class Problem:
    """One rank's parameters and loss, and the values of all ranks in numpy."""

    def __init__(self, seed=0, dtype=torch.float64):
        r = ifog.rank()
        self.x, self.h, self.c = (stack((8,), seed=seed + k).numpy() for k in range(3))
        self.h = self.h**2 + 0.5
        self.mine = [torch.from_numpy(each[r]).to(dtype) for each in (self.x, self.h, self.c)]
        self.tensors = [
            torch.nn.Parameter(part.clone().view(shape))
            for part, shape in zip(self.mine[0].split(SIZES), SHAPES, strict=True)
        ]

    def flat(self):
        return torch.cat([x.reshape(-1) for x in self.tensors])

    def backward(self):
        _, h, c = self.mine
        loss = (h * (self.flat() - c) ** 2).sum() / 2
        loss.backward()
        return loss

    def gradient(self, x):
        return self.h * (x - self.c)

    def train(self, optimizer, steps=STEPS):
        for _ in range(steps):
            optimizer.zero_grad()
            self.backward()
            optimizer.step()

    def holds(self, x, atol=1e-12):
        assert near(self.flat().detach(), torch.from_numpy(x[ifog.rank()]), atol=atol)


def mixers():
    """(mixer, k -> W) pairs: the graph in use, one of its own, a schedule, everybody."""
    n = ifog.size()
    ring, peers = ifog.ring(n), ifog.one_peer(n)
    even = dense(ifog.exponential(n), weighted=False).numpy()
    return [
        (ifog.neighbor_mixer(), lambda _: even),
        (ifog.neighbor_mixer(ring, check=True), lambda _: dense(ring, weighted=True).numpy()),
        (ifog.neighbor_mixer(peers), lambda k: dense(peers(k), weighted=True).numpy()),
        (ifog.allreduce_mixer(), lambda _: np.full((n, n), 1 / n)),
        (ifog.local_mixer(), lambda _: np.eye(n)),
    ]


def sgd(tensors, **options):
    return torch.optim.SGD(tensors, lr=LR, **options)


def law_adapt_then_combine_is_the_dense_recursion():
    for mix, w in mixers():
        problem = Problem()
        optimizer = ifog.DecentralizedOptimizer(sgd(problem.tensors), mix, order="atc")
        problem.train(optimizer)
        x = problem.x
        for k in range(STEPS):
            x = w(k) @ (x - LR * problem.gradient(x))
        problem.holds(x)


def law_adapt_with_combine_is_the_dense_recursion_overlapped_or_not():
    for overlap in (False, True):
        for mix, w in mixers()[: 4 if overlap else 5]:
            problem = Problem()
            optimizer = ifog.DecentralizedOptimizer(
                sgd(problem.tensors), mix, order="awc", overlap=overlap
            )
            problem.train(optimizer)
            optimizer.finish()
            x = problem.x
            for k in range(STEPS):
                x = w(k) @ x - LR * problem.gradient(x)
            problem.holds(x)


def law_mixed_gradients_of_everybody_are_those_of_the_big_batch():
    problem = Problem()
    problem.x = np.repeat(problem.x[:1], ifog.size(), axis=0)
    ifog.broadcast_parameters(problem.tensors, 0)
    optimizer = ifog.DecentralizedOptimizer(
        sgd(problem.tensors, momentum=0.9), ifog.allreduce_mixer(), order="gradient"
    )
    problem.train(optimizer)
    x = torch.nn.Parameter(torch.from_numpy(problem.x[0]))
    alone = sgd([x], momentum=0.9)
    h, c = torch.from_numpy(problem.h), torch.from_numpy(problem.c)
    for _ in range(STEPS):
        alone.zero_grad()
        ((h * (x - c) ** 2).sum() / 2 / ifog.size()).backward()
        alone.step()
    assert near(problem.flat().detach(), x.detach(), atol=1e-12)


def law_local_steps_come_between_mixed_ones():
    for order in ("atc", "awc"):
        for overlap in {False, order == "awc"}:
            (mix, w), problem = mixers()[2], Problem()
            optimizer = ifog.DecentralizedOptimizer(
                sgd(problem.tensors), mix, order=order, every=3, overlap=overlap
            )
            problem.train(optimizer, 7)
            optimizer.finish()
            x, k = problem.x, 0
            for step in range(1, 8):
                g = problem.gradient(x)
                if step % 3:
                    x = x - LR * g
                else:
                    x = w(k) @ (x - LR * g) if order == "atc" else w(k) @ x - LR * g
                    k += 1
            problem.holds(x)


def law_momentum_can_be_mixed_too():
    (mix, w), problem = mixers()[2], Problem()
    optimizer = ifog.DecentralizedOptimizer(
        sgd(problem.tensors, momentum=0.9), mix, mix_state=["momentum_buffer"]
    )
    problem.train(optimizer)
    x, m = problem.x, np.zeros_like(problem.x)
    for k in range(STEPS):
        m = 0.9 * m + problem.gradient(x)
        x, m = w(k) @ (x - LR * m), w(k) @ m
    problem.holds(x)


def law_accumulated_gradients_count_once():
    for order in ("atc", "awc", "gradient"):
        (mix, w), problem = mixers()[1], Problem()
        optimizer = ifog.DecentralizedOptimizer(sgd(problem.tensors), mix, order=order)
        for _ in range(3):
            optimizer.zero_grad()
            problem.backward()
            problem.backward()
            optimizer.step()
        x = problem.x
        for k in range(3):
            g = 2 * problem.gradient(x)
            moved = {
                "atc": w(k) @ (x - LR * g),
                "awc": w(k) @ x - LR * g,
                "gradient": x - LR * (w(k) @ g),
            }
            x = moved[order]
        problem.holds(x)


def law_machines_mix_their_means():
    n, r = ifog.size(), ifog.rank()
    for machines in layouts():
        with on(machines):
            count = max(machines) + 1
            ring = ifog.ring(count)
            w = dense(ring, weighted=True).numpy()
            x = stack((5,), seed=3)
            means = np.stack(
                [x[[q for q in range(n) if machines[q] == m]].mean(0) for m in range(count)]
            )
            expected = torch.from_numpy(w @ means)[machines[r]]
            assert near(ifog.hierarchical_mixer(ring, check=True)(x[r]), expected)
            ifog.set_machine_topology(ring, is_weighted=True)
            assert near(ifog.hierarchical_mixer()(x[r]), expected)


def law_a_mixer_sends_all_tensors_of_a_dtype_in_one_message():
    r = ifog.rank()
    x, y = stack((2, 3), seed=1), stack((), seed=2)
    z = stack((4,), torch.float32, seed=3)
    *across, (alone, eye) = mixers()
    for mix, w in (*across, (alone, eye)):
        first = torch.from_numpy(w(0))
        under_way = mix.start(x[r], y[r], z[r])
        assert len(under_way.handles) == (0 if mix is alone else 2)
        got = under_way.wait()
        assert near(got[0], torch.einsum("vu,uij->vij", first, x)[r])
        assert near(got[1], (first @ y)[r])
        assert got[2].dtype is torch.float32
        assert near(got[2], (first @ z.double())[r].float(), atol=1e-6)
        under_way = mix.start(x[r])
        again = torch.einsum("vu,uij->vij", torch.from_numpy(w(1)), x)[r]
        assert near(under_way.wait(), again)
        assert under_way.done()


def law_windows_average_what_was_put_or_is_there():
    n, r = ifog.size(), ifog.rank()
    x = stack((4,), seed=5)
    w = dense(ifog.exponential(n), weighted=False)
    for kind in ("put", "get"):
        with ifog.window_mixer(kind, name=kind) as mix:
            for _ in range(3):
                under_way = mix.start(x[r])
                assert all(handle.wait() is None for handle in under_way.handles)
                ifog.barrier()  # now everybody has put, or holds, this round's
                assert near(under_way.wait(), (w @ x)[r])
                ifog.barrier()
        assert ifog.get_current_created_window_names() == []


def law_push_sum_keeps_the_mean_on_a_graph_that_is_not_balanced():
    n, r = ifog.size(), ifog.rank()
    ifog.set_topology(ifog.star(n) if n > 1 else ifog.ring(1))
    x = stack((3,), seed=6)
    with ifog.push_sum_mixer() as mix:
        y = x[r]
        for _ in range(120):
            y = mix(y)
            ifog.barrier()
        assert near(y, x.mean(0), atol=1e-9)
        # What happens to x between rounds enters with its full weight, whatever p is.
        y = y + 1.0 if r == 0 else y
        for _ in range(120):
            y = mix(y)
            ifog.barrier()
        assert near(y, x.mean(0) + 1 / n, atol=1e-9)
    ifog.set_topology(ifog.exponential(n))


def law_push_sum_training_finds_the_optimum_of_all_on_a_graph_that_is_not_balanced():
    n, problem = ifog.size(), Problem()
    problem.mine[1].fill_(1.0)
    ifog.set_topology(ifog.star(n) if n > 1 else ifog.ring(1))
    with ifog.push_sum_mixer(name="training") as mix:
        optimizer = ifog.DecentralizedOptimizer(torch.optim.SGD(problem.tensors, lr=0.02), mix)
        for _ in range(400):
            optimizer.zero_grad()
            problem.backward()
            optimizer.step()
            ifog.barrier()
        mean = ifog.allreduce(problem.flat().detach())
        assert near(mean, torch.from_numpy(problem.c.mean(0)), atol=0.05)
    ifog.set_topology(ifog.exponential(n))


def law_nobody_waits_for_a_slow_rank_in_asynchronous_training():
    for make in (ifog.push_sum_mixer, ifog.window_mixer):
        problem = Problem()
        with make(name="slow") as mix:
            gently = torch.optim.SGD(problem.tensors, lr=LR / 10)
            optimizer = ifog.DecentralizedOptimizer(gently, mix)
            problem.train(optimizer, 1)  # makes the window, together
            if ifog.rank() == 0:
                ifog.barrier()  # which the others reach after their last step
            problem.train(optimizer, 20)
            if ifog.rank() > 0:
                ifog.barrier()
            # The optimum is within 4; who ran ahead alone has not lost its weight, and not the way.
            assert float(problem.flat().detach().abs().max()) < 20


def law_a_gradient_that_one_rank_lacks_is_zero_and_one_that_all_lack_stays_none():
    n, r = ifog.size(), ifog.rank()
    used = [torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2)]
    unused = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = ifog.DecentralizedOptimizer(
        sgd([*used, unused], weight_decay=0.5), ifog.allreduce_mixer(), order="gradient"
    )
    loss = used[0].sum() + (used[1].sum() if r == 0 else 0.0)
    loss.backward()
    optimizer.step()
    assert near(used[0].detach(), torch.full((2,), 1 - LR * 1.5, dtype=torch.float64))
    expected = torch.full((2,), 1 - LR * (1 / n + 0.5), dtype=torch.float64)
    assert near(used[1].detach(), expected)
    assert unused.grad is None
    assert unused.tolist() == [1.0] * 3


def law_other_parameters_are_refused_on_every_rank():
    if ifog.size() == 1:
        return
    odd = ifog.rank() == 1
    x = [torch.nn.Parameter(torch.ones(3 if odd else 2)), torch.nn.Parameter(torch.ones(2))]

    def wrap(**options):
        ifog.DecentralizedOptimizer(sgd(x), ifog.neighbor_mixer(), **options)

    raises(errors.MismatchError, wrap, "rank 0 has parameter 0: shape (2,)", "shape (3,)")
    x[0] = torch.nn.Parameter(torch.ones(2))
    every = 2 if odd else 1
    raises(errors.MismatchError, lambda: wrap(every=every), "every 1", "every 2")
    wrap()


def law_training_goes_on_after_ranks_were_stopped_at_different_steps():
    n, r = ifog.size(), ifog.rank()
    if n == 1:
        return
    peers = ifog.one_peer(n)
    for order in ("atc", "awc", "gradient"):
        for overlap in (False, True):
            problem = Problem()
            sgd = torch.optim.SGD(problem.tensors, lr=LR)
            mix = ifog.neighbor_mixer(peers)
            optimizer = ifog.DecentralizedOptimizer(sgd, mix, order=order, overlap=overlap)
            with suppress(errors.PeerFailedError):
                problem.train(optimizer, 3 if r == 0 else STEPS)  # the others run into its failure
            fail_and_heal()
            optimizer.finish()
            x = ifog.allgather(problem.flat().detach()[None]).cpu().numpy()
            problem.train(optimizer, 3)
            optimizer.finish()
            rounds = optimizer.state_dict()["decentralized"]["rounds"]
            for k in range(rounds - 3, rounds):
                w = dense(peers(k), weighted=True).cpu().numpy()
                g = problem.gradient(x)
                if order == "atc":
                    x = w @ (x - LR * g)
                else:
                    x = w @ x - LR * g if order == "awc" else x - LR * (w @ g)
            problem.holds(x)


def law_mixers_count_alike_after_a_failure():
    r, n = ifog.rank(), ifog.size()
    if n == 1:
        return
    schedule = ifog.one_peer(ifog.exponential(n))
    agents = ifog.agent_mixer(ifog.exponential(n))
    mixers = [ifog.neighbor_mixer(schedule), ifog.agent_mixer(schedule)]
    for mix in (*mixers, agents):
        mix.step = r  # as if each rank had been stopped at another round
    fail_and_heal()
    x = torch.arange(float(n), dtype=torch.float64)
    for mix in mixers:
        expected = dense(schedule(n - 1), weighted=True) @ x
        assert abs(float(mix(x[r : r + 1, None])) - expected[r]) < 1e-12
        assert mix.step == n
    expected = dense(ifog.exponential(n), weighted=True) @ x
    assert abs(float(agents(x[r : r + 1, None])) - expected[r]) < 1e-12
