"""Mixing many agents: the same numbers whether one process hosts them or several ranks do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spmd import dense, mixed, near

import ifog
from ifog.agents import MatrixMixer
from ifog.errors import ArgumentError, MismatchError
from ifog.links import Links
from ifog.testing import run_ranks

N = 16
HOSTS = (1, 2, 3, 4, 5, 16)
GRAPHS = {
    "grid": ifog.grid2d(N),  # symmetric, agents of different degree
    "exponential": ifog.exponential(N),  # directed
    "loops only": ifog.from_matrix(np.diag(np.arange(1.0, N + 1))),
    "hub": ifog.from_matrix(np.eye(N) + np.eye(N)[0]),  # 0 hears nobody, all others hear 0
}


def values(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, *shape, generator=generator, dtype=torch.float64).to(dtype)


def hosted(hosts, work):
    """What ``work(rows)`` gives on ranks that each host some rows, as one tensor."""

    def on_rank():
        agents = ifog.agent_mixer(ifog.ring(N)).agents
        return work(lambda x: x[agents])

    return torch.cat(run_ranks(hosts, on_rank))


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_round_is_the_dense_product(graph, dtype):
    x, y = values(3, 2, dtype=dtype), values(1, dtype=dtype, seed=1)
    got = MatrixMixer(graph)(x, y)
    w = dense(graph, weighted=True)
    for one, other in zip(got, (x, y), strict=True):
        expected = mixed(w, other.double())
        assert one.dtype is dtype
        assert near(one.double(), expected, atol=40 * torch.finfo(dtype).eps)


def test_arrays_of_edges_are_graphs_too():
    n, offsets = 1000, (0, 1, 7, 400)
    source = np.tile(np.arange(n), len(offsets))
    target = (source + np.repeat(offsets, n)) % n
    weight = np.repeat((0.1, 0.2, 0.3, 0.4), n)
    mix = MatrixMixer(Links(n, source, target, weight))
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((n, 3)))
    expected = sum(w * x.roll(o, 0) for o, w in zip(offsets, (0.1, 0.2, 0.3, 0.4), strict=True))
    assert near(mix(x), expected)


@pytest.mark.parametrize("hosts", HOSTS)
@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_ranks_that_host_blocks_mix_as_one_process_does(graph, hosts):
    x, y = values(3, 2), values(1, dtype=torch.float32, seed=1)
    w = dense(graph, weighted=True)
    assert near(hosted(hosts, lambda rows: ifog.agent_mixer(graph)(rows(x))), mixed(w, x))
    both = hosted(hosts, lambda rows: ifog.agent_mixer(graph)(rows(x), rows(y))[1])
    assert both.dtype is torch.float32
    assert near(both.double(), mixed(w, y.double()), atol=1e-5)


@pytest.mark.parametrize("hosts", HOSTS)
def test_a_schedule_gives_each_round_its_graph(hosts):
    schedule, x = ifog.one_peer(N), values(2)

    def rounds(rows):
        mix, mine = ifog.agent_mixer(schedule), rows(x)
        for _ in range(6):
            mine = mix(mine)
        return mine

    expected = x
    for k in range(6):
        expected = mixed(dense(schedule(k), weighted=True), expected)
    assert near(hosted(hosts, rounds), expected)


@pytest.mark.parametrize("hosts", HOSTS)
def test_the_mean_is_that_of_all_agents(hosts):
    x = values(2, 2)
    got = hosted(hosts, lambda rows: ifog.agent_mixer(ifog.ring(N)).mean(rows(x)))
    assert near(got, x.mean(0).expand(N, 2, 2))


@pytest.mark.parametrize("hosts", HOSTS)
@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_gathered_neighbours_make_up_the_weighted_average(graph, hosts):
    x = values(3)

    def average(rows):
        near_by = ifog.agent_mixer(graph).gather(rows(x))
        own = near_by.own[:, None] * rows(x)
        return own + (near_by.weights[..., None] * near_by.values).sum(1)

    assert near(hosted(hosts, average), mixed(dense(graph, weighted=True), x))


@pytest.mark.parametrize("hosts", HOSTS)
def test_what_one_says_to_another_arrives_in_the_others_slot(hosts):
    graph = GRAPHS["grid"]
    places = {v: [u for u in sorted(graph.predecessors(v)) if u != v] for v in graph}
    degree = max(map(len, places.values()))
    # Agent i says 100 i + j to its neighbour j.
    says, hears = torch.zeros(2, N, degree, dtype=torch.float64)
    ids = torch.full((N, degree), -1)
    for i, others in places.items():
        for slot, j in enumerate(others):
            ids[i, slot], says[i, slot], hears[i, slot] = j, 100 * i + j, 100 * j + i
    assert torch.equal(hosted(hosts, lambda _: ifog.agent_mixer(graph).slots().ids), ids)
    got = hosted(hosts, lambda rows: ifog.agent_mixer(graph).swap(rows(says)))
    assert torch.equal(got, hears)


def test_rounds_are_started_and_awaited():
    x, w = values(2), dense(GRAPHS["grid"], weighted=True)

    def twice(rows):
        mix = ifog.agent_mixer(GRAPHS["grid"])
        first, second = mix.start(rows(x)), mix.start(rows(2 * x))
        results = second.wait() + first.wait()
        assert first.done()
        return results

    assert near(hosted(4, twice), 3 * mixed(w, x))


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: MatrixMixer(7), "int"),
        (lambda: MatrixMixer(ifog.ring(4))(torch.ones(5, 2)), "4 agents"),
        (lambda: MatrixMixer(ifog.ring(4))(torch.ones(4, dtype=torch.int64)), "int64"),
        (lambda: MatrixMixer(ifog.one_peer(4)).slots(), "static"),
        (lambda: MatrixMixer(ifog.ring(4)).swap(torch.ones(4, 3, 1)), r"\(4, 2\)"),
        (lambda: MatrixMixer(ifog.exponential(8)).swap(torch.ones(8, 3, 1)), "both ways"),
        (lambda: MatrixMixer(lambda k: ifog.ring(4 + k)).gather(torch.ones(4)), None),
        (lambda: run_ranks(3, lambda: ifog.agent_mixer(ifog.ring(2))), "3 ranks"),
    ],
)
def test_what_cannot_be_mixed_is_refused(use, words):
    if words is None:
        assert use().values.shape == (4, 2)
        return
    with pytest.raises(ArgumentError, match=words):
        use()


def test_a_schedule_that_changes_the_number_of_agents_is_refused():
    mix = MatrixMixer(lambda k: ifog.ring(4 + k))
    mix(torch.ones(4))
    with pytest.raises(ArgumentError, match="round 1 is over 5 agents"):
        mix(torch.ones(4))


def test_ranks_that_pass_different_shapes_are_told():
    def work():
        ifog.agent_mixer(ifog.ring(4))(torch.ones(2, 2 + ifog.rank()))

    with pytest.raises(MismatchError, match="expects"):
        run_ranks(2, work)
