"""Every algorithm keeps the laws, and every broken law is noticed and explained."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from algorithm_cases import CASES, N, end_of
from reference import one_thread  # noqa: F401 - a fixture

import ifog
from ifog import algorithms as methods
from ifog.agents import MatrixMixer
from ifog.algorithms.base import Algorithm, descend, iterate
from ifog.compression import identity, top_k
from ifog.conformance import laws_problem
from ifog.errors import ArgumentError, LawError
from ifog.mpiexec import environment, flags, mpiexec
from ifog.problems import Quadratics
from ifog.testing import check_algorithm
from ifog.weights import matrix

CASES_FILE = Path(__file__).with_name("algorithm_cases.py")
MODULES = [f"ifog.algorithms.{found.name}" for found in pkgutil.iter_modules(methods.__path__)]


@pytest.mark.parametrize("name", CASES)
def test_it_keeps_the_laws_on_one_four_and_sixteen_ranks(name):
    case = CASES[name]
    laws = check_algorithm(
        case.algorithm,
        graph=case.graph,
        shape=case.shape,
        conserved=case.conserved,
        exact=case.exact is not None,
        steps=case.exact or 0,
        hosts=(1, 4, 16),
        tolerance=case.tolerance,
    )
    assert laws[-1] == "equivalence"
    assert ("fixed point" in laws) is (case.exact is not None)


@pytest.fixture(scope="module")
def mpi_ends(tmp_path_factory):
    """{case: where all agents ended} on 4 MPI ranks that host 4 agents each."""
    folder = tmp_path_factory.mktemp("ends")
    job = subprocess.run(
        [
            mpiexec(),
            "-n",
            "4",
            *flags(str(folder), str(folder)),
            sys.executable,
            CASES_FILE,
            folder,
        ],
        env={**os.environ, **environment(4), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert job.returncode == 0, job.stdout + job.stderr
    ends = [torch.load(folder / f"{rank}.pt") for rank in range(4)]
    return {name: torch.cat([end[name] for end in ends]) for name in CASES}


@pytest.mark.mpi
@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", CASES)
def test_mpi_ranks_compute_what_one_process_does(name, mpi_ends):
    case = CASES[name]
    alone = end_of(case, MatrixMixer)
    assert mpi_ends[name].shape == (N, *case.shape)
    assert torch.allclose(mpi_ends[name], alone, rtol=0, atol=case.tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_computes_what_the_processor_does(name):
    case = CASES[name]
    there, here = end_of(case, MatrixMixer, "cuda"), end_of(case, MatrixMixer)
    assert torch.allclose(there.cpu(), here, rtol=0, atol=case.tolerance)


def test_every_algorithm_is_in_the_catalog_and_has_a_case():
    listed = [entry.name for entry in methods.catalog()]
    assert sorted(listed) == sorted(CASES)
    others = {"catalog", "iterate", "per_agent", "scheduled", "attacked"}
    public = {name for name in methods.__all__ if inspect.isfunction(getattr(methods, name))}
    assert public - others == set(listed)


def test_the_catalog_says_what_the_docstrings_say():
    for entry in methods.catalog():
        text = inspect.getdoc(entry.make)
        assert entry.equation, entry.name
        assert "arXiv:" in entry.reference or "doi:" in entry.reference
        assert ">>>" in text, f"{entry.name} has no example"
        assert ("may change" in text) is ("changing" in entry.flags), entry.name
        if CASES[entry.name].exact:
            assert "exact" in entry.flags, entry.name
        if "exact" in entry.flags:
            assert "Exact" in text, entry.name
        else:
            confessions = ("Not exact", "Exact for `", "Ends where", "does not work", "bias of O")
            assert any(words in text for words in confessions), entry.name


def test_the_catalog_is_filtered_and_shown():
    exact = methods.catalog(exact=True, directed=True)
    assert [entry.name for entry in exact] == ["push_sum", "push_diging", "push_pull"]
    assert {entry.family for entry in methods.catalog(family="push")} == {"push"}
    assert all("compressed" in entry.flags for entry in methods.catalog(compressed=True))
    text, page = repr(exact), exact._repr_html_()
    assert text.splitlines()[0].split()[:3] == ["name", "family", "graph"]
    assert len(text.splitlines()) == 4
    assert page.count("<tbody>") == 3
    assert "(u, w)+ = C (u - a y, w)" in page
    assert 'href="https://arxiv.org/abs/1607.03218"' in page
    assert exact.rows()[1]["exact"] is True
    assert methods.catalog().named("extra").make is methods.extra
    with pytest.raises(ArgumentError, match="adamax"):
        methods.catalog().named("adamax")
    with pytest.raises(ArgumentError, match="push"):
        methods.catalog(family="pull")


@pytest.mark.parametrize(
    "module", [*MODULES, "ifog.agents", "ifog.compression", "ifog.problems", "ifog.squeezing"]
)
def test_the_examples_run(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_steps_are_short():
    for module in MODULES:
        for _, make in inspect.getmembers(importlib.import_module(module), inspect.isfunction):
            lines = inspect.getsource(make).splitlines()
            starts = [at for at, line in enumerate(lines) if line.startswith("    def step(")]
            for at in starts:
                body = [line for line in lines[at + 1 :] if line.startswith("        ")]
                assert len(body) <= 20, make


class Plain(NamedTuple):
    x: torch.Tensor
    m: torch.Tensor


def plain(step):
    return Algorithm(lambda x: Plain(x, torch.zeros_like(x)), step)


def right(s, grad, mix):
    return Plain(mix(descend(s.x, grad(s.x), 0.1)), s.m)


def number(s, grad, mix):
    return Plain(mix(descend(s.x, grad(s.x), 0.1)), torch.tensor(1.0))


def in_place(s, grad, mix):
    return Plain(mix(s.x - 0.1 * grad(s.x)), s.m.add_(1))


def elsewhere(s, grad, mix):
    x = mix(s.x)
    return Plain(x - 0.1 * grad(x), s.m)


def twice(s, grad, mix):
    return Plain(mix(s.x - 0.1 * (grad(s.x) + grad(s.x))), s.m)


def clips_all(s, grad, mix):
    g = grad(s.x)
    return Plain(mix(s.x - 0.1 * g / g.norm()), s.m)


def draws_globally(s, grad, mix):
    return Plain(mix(s.x - 0.1 * grad(s.x) + 0.0 * torch.randn(1, dtype=s.x.dtype)), s.m)


def loses(s, grad, mix):
    return Plain(0.9 * mix(s.x - 0.1 * grad(s.x)), s.m)


def asks_for_the_rank(s, grad, mix):
    rank = ifog.rank() if len(mix.agents) < mix.total and mix.total == 8 else 0
    return Plain(mix(s.x - 0.1 * grad(s.x)) + rank, s.m)


class Remembering:
    """An algorithm that keeps something outside of the State."""

    def __init__(self):
        self.steps = 0

    def __call__(self, s, grad, mix):
        self.steps += 1
        return Plain(mix(s.x - 0.1 / self.steps * grad(s.x)), s.m)


BROKEN = {
    "axis": (number, "state.m has shape"),
    "no mutation": (in_place, "changed state.m"),
    "point of the gradient": (elsewhere, "another point than state.x"),
    "number of gradients": (twice, r"\[2\] gradients"),
    "locality": (clips_all, "per_agent"),
    "innocence": (draws_globally, "global generator of torch"),
    "conservation": (loses, "W - I"),
    "equivalence": (asks_for_the_rank, "never rank"),
}


@pytest.mark.parametrize("law", BROKEN)
def test_a_broken_law_is_noticed_and_explained(law):
    step, words = BROKEN[law]
    with pytest.raises(LawError, match=words):
        check_algorithm(plain(step), hosts=(1, 2))


def test_what_is_kept_outside_of_the_state_is_noticed():
    with pytest.raises(LawError, match="innocence"):
        check_algorithm(plain(Remembering()), hosts=(1,))


def test_what_still_has_to_be_made_is_not_checked():
    with pytest.raises(ArgumentError, match=r"takes an Algorithm, such as atc\(0\.1\).*got atc"):
        check_algorithm(ifog.algorithms.atc)


def test_a_bias_is_not_exact():
    with pytest.raises(LawError, match="fixed point"):
        check_algorithm(plain(right), exact=True, hosts=(1,))
    assert check_algorithm(plain(right), hosts=(1, 2)) == (
        "axis",
        "single oracle",
        "innocence",
        "locality",
        "conservation",
        "equivalence",
    )


def test_a_state_begins_with_x():
    algorithm = Algorithm(lambda x: (x,), right)
    with pytest.raises(LawError, match="first field"):
        check_algorithm(algorithm)


SIDE_BY_SIDE = {
    "dgd": (methods.dgd, {"lr": (0.05, 0.1)}),
    "atc": (methods.atc, {"lr": (0.05, 0.1)}),
    "extra": (methods.extra, {"lr": (0.05, 0.1)}),
    "exact_diffusion": (methods.exact_diffusion, {"lr": (0.05, 0.1)}),
    "nids": (methods.nids, {"lr": (0.05, 0.5)}),
    "gradient_tracking": (methods.gradient_tracking, {"lr": (0.05, 0.1)}),
    "k_gt": (partial(methods.k_gt, every=3), {"lr": (0.05, 0.1), "outer": (1.0, 0.5)}),
    "push_diging": (methods.push_diging, {"lr": (0.02, 0.05)}),
    "choco_sgd": (
        partial(methods.choco_sgd, compress=top_k(0.5)),
        {"lr": (0.05, 0.1), "gamma": (0.2, 0.4)},
    ),
    "motef": (
        partial(methods.motef, compress=top_k(0.5)),
        {"lr": (0.02, 0.03), "gamma": (0.2, 0.3), "momentum": (0.1, 0.9)},
    ),
    "lead": (
        partial(methods.lead, compress=identity()),
        {"lr": (0.05, 0.1), "gamma": (1.0, 0.5), "alpha": (1.0, 0.5)},
    ),
    "dm_sgd": (methods.dm_sgd, {"lr": (0.05, 0.01), "momentum": (0.0, 0.9)}),
    "decent_lam": (methods.decent_lam, {"lr": (0.05, 0.01), "momentum": (0.0, 0.9)}),
    "qg_dsgdm": (methods.qg_dsgdm, {"lr": (0.05, 0.01), "momentum": (0.0, 0.9)}),
    "momentum_tracking": (
        methods.momentum_tracking,
        {"lr": (0.02, 0.01), "momentum": (0.0, 0.5)},
    ),
    "noloco": (
        partial(methods.noloco, every=3),
        {"lr": (0.05, 0.1), "outer": (0.7, 1.0), "momentum": (0.5, 0.0), "pull": (0.7, 0.5)},
    ),
    "adam": (methods.adam, {"lr": (0.05, 0.1)}),
    "admm": (methods.admm, {"penalty": (0.5, 1.0)}),
    "dlm": (methods.dlm, {"penalty": (0.5, 1.0), "proximity": (1.5, 2.0)}),
    "led": (partial(methods.led, every=3), {"lr": (0.05, 0.1), "dual": (0.2, 0.3)}),
    "clipped_gossip": (methods.clipped_gossip, {"lr": (0.05, 0.1), "radius": (0.1, 1.0)}),
}


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_parameters_may_differ_from_agent_to_agent(name):
    # Two runs that never meet, as one of twice as many agents.
    make, values = SIDE_BY_SIDE[name]
    n, ring = 6, ifog.ring(6)
    runs = ifog.from_matrix(np.kron(np.eye(2), matrix(ring)))
    one = laws_problem((4,), False)(torch.arange(n))
    both = Quadratics(one.h.repeat(2, 1), one.b.repeat(2, 1), torch.arange(2 * n))
    numbers = {key: torch.tensor(of, dtype=torch.float64) for key, of in values.items()}
    columns = {key: of.repeat_interleave(n)[:, None] for key, of in numbers.items()}
    together = iterate(make(**columns), both.zeros(), both, MatrixMixer(runs), 20).x
    for run in range(2):
        own = make(**{key: of[run] for key, of in values.items()})
        alone = iterate(own, one.zeros(), one, MatrixMixer(ring), 20).x
        part = together[run * n : (run + 1) * n]
        assert torch.allclose(part, alone, rtol=0, atol=1e-12), run
