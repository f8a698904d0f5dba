"""Checkpoints: what goes in comes out, on any number of ranks, and whatever interrupts a save."""

from __future__ import annotations

import json
import os
import random
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
import torch

import ifog
from ifog import manifest
from ifog.errors import ArgumentError, CheckpointError, ClusterError
from ifog.testing import run_ranks


class State(NamedTuple):
    x: torch.Tensor
    step: int


def values():
    r = float(ifog.rank())
    nested = OrderedDict(a=[torch.full((2,), r), (1, 2.5, None, True)], b={"s": {1, 2}, 3: b"\x00"})
    return {
        "tensor": torch.arange(6.0).reshape(2, 3) + r,
        "half": torch.full((3,), r + 0.5, dtype=torch.bfloat16),
        "whole": torch.tensor([2**60 + ifog.rank()]),
        "empty": torch.empty(0, 4),
        "parameter": torch.nn.Parameter(torch.full((2,), r)),
        "array": np.arange(4.0) * r,
        "text": np.array(["ab", "c"]),
        "scalar": np.float32(r + 0.25),
        "number": r / 3,
        "huge": 7**300,
        "odd": [float("inf"), -0.0, complex(r, -1.5)],
        "nested": nested,
        "dtype": torch.bfloat16,
        "shape": torch.Size([2, 3]),
    }


def equal(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        return (
            one.dtype == other.dtype
            and torch.equal(one, other)
            and one.requires_grad == other.requires_grad
        )
    if isinstance(one, (np.ndarray, np.generic)):
        return one.dtype == other.dtype and bool(np.all(one == other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_every_rank_gets_back_what_it_kept(n, tmp_path):
    def work():
        kept = values()
        assert ifog.save(tmp_path, kept) == tuple(kept)
        return equal(ifog.load(tmp_path, dict.fromkeys(kept)), kept)

    assert run_ranks(n, work) == [True] * n


def trained(steps, model, optimizer, schedule):
    for _ in range(steps):
        optimizer.zero_grad()
        noise = torch.randn(8, 3, generator=torch.Generator().manual_seed(ifog.rank()))
        model(noise).square().mean().backward()
        optimizer.step()
        schedule.step()


def parts():
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)


def test_training_continues_as_if_it_had_not_stopped(tmp_path):
    def work():
        model, optimizer, schedule = parts()
        trained(3, model, optimizer, schedule)
        ifog.save(tmp_path, ["model", "optimizer", "schedule"])
        trained(3, model, optimizer, schedule)
        straight = [p.detach().clone() for p in model.state_dict().values()]
        model, optimizer, schedule = parts()
        loaded = ifog.load(tmp_path)
        assert loaded["model"] is model
        trained(3, model, optimizer, schedule)
        return all(map(torch.equal, model.state_dict().values(), straight))

    assert run_ranks(2, work) == [True, True]


def draw():
    legacy = np.random.rand()  # noqa: NPY002 - the global numbers are what is tested
    return [torch.rand(2).tolist(), legacy, random.random()]


def test_random_numbers_continue_where_they_were(tmp_path):
    def work():
        own = torch.Generator().manual_seed(5)
        numpy_own, python_own = np.random.default_rng(5), random.Random(5)
        kept = {"own": own, "numpy_own": numpy_own, "python_own": python_own}
        ifog.save(tmp_path, kept)

        def numbers():
            own_numbers = [torch.rand(2, generator=own).tolist(), numpy_own.random()]
            return [*draw(), *own_numbers, python_own.random()]

        expected = numbers()
        loaded = ifog.load(tmp_path, kept)
        assert loaded["own"] is own
        return numbers() == expected

    assert run_ranks(1, work) == [True]


def test_a_rank_that_did_not_exist_does_not_repeat_the_random_numbers_of_another(tmp_path):
    run_ranks(1, lambda: ifog.save(tmp_path, {"x": 1}))

    def work():
        for turn in range(3):
            if turn == ifog.rank():
                pass
            ifog.barrier()
        ifog.load(tmp_path)
        ifog.barrier()

    run_ranks(1, work)
    after_own = draw()
    from ifog.stateful import random_states, set_random

    states = random_states()
    seen = []
    for newcomer in (None, 1, 2, 1):
        set_random(states, newcomer)
        seen.append(draw())
    assert seen[1] == seen[3]
    assert len({json.dumps(numbers) for numbers in (after_own, *seen[:3])}) == 4


@pytest.mark.parametrize(("n", "m"), [(2, 4), (5, 2), (4, 1), (1, 4), (3, 3)])
def test_by_assignment_rank_r_takes_the_old_rank_r_modulo_n(tmp_path, n, m):
    run_ranks(n, lambda: ifog.save(tmp_path, {"x": torch.tensor([ifog.rank()]), "r": ifog.rank()}))
    for loaded, r in zip(run_ranks(m, lambda: ifog.load(tmp_path)), range(m), strict=True):
        assert (loaded["x"].tolist(), loaded["r"]) == ([r % n], r % n)


@pytest.mark.parametrize(("n", "m"), [(4, 2), (3, 5), (2, 2)])
def test_by_averaging_floating_point_tensors_are_the_mean_over_the_old_ranks(tmp_path, n, m):
    rows = np.random.default_rng(0).normal(size=(n, 3))

    def keep():
        r = ifog.rank()
        model = torch.nn.Linear(3, 1, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(rows[r : r + 1]))
        x = {"a": torch.from_numpy(rows[r])}
        ifog.save(tmp_path, {"x": x, "y": rows[r], "k": torch.tensor(r), "r": r, "model": model})

    def take():
        model = torch.nn.Linear(3, 1, bias=False)
        objects = {"x": None, "y": None, "k": None, "r": None, "model": model}
        return ifog.load(tmp_path, objects, rule="average")

    run_ranks(n, keep)
    mean = rows.mean(0)
    for r, loaded in enumerate(run_ranks(m, take)):
        np.testing.assert_allclose(loaded["x"]["a"].numpy(), mean, rtol=1e-14)
        np.testing.assert_allclose(loaded["y"], mean, rtol=1e-14)
        np.testing.assert_allclose(loaded["model"].weight.detach().numpy()[0], mean, rtol=1e-6)
        assert (int(loaded["k"]), loaded["r"]) == (r % n, r % n)


def test_different_shapes_cannot_be_averaged_and_nothing_changes(tmp_path):
    def work():
        generator = torch.Generator().manual_seed(1)
        state = generator.get_state()
        ifog.save(tmp_path, {"g": generator, "x": torch.zeros(ifog.rank() + 1)})
        torch.rand(1, generator=generator)
        moved = generator.get_state()
        with pytest.raises(CheckpointError, match=r"x cannot be averaged: rank 1 kept \(\(2,\)"):
            ifog.load(tmp_path, {"g": generator, "x": None}, rule="average")
        assert torch.equal(generator.get_state(), moved)
        ifog.load(tmp_path, {"g": generator})
        return torch.equal(generator.get_state(), state)

    assert run_ranks(2, work) == [True, True]


def test_a_model_that_does_not_fit_on_one_rank_changes_nothing_on_any(tmp_path):
    def work():
        model = torch.nn.Linear(2, 2)
        ifog.save(tmp_path, {"model": model})
        model = torch.nn.Linear(2, 2 + (ifog.rank() == 2))
        before = [p.detach().clone() for p in model.parameters()]
        with pytest.raises(CheckpointError, match=r"bf\.load: rank 2: (?s:.*)size mismatch"):
            ifog.load(tmp_path, {"model": model})
        return all(map(torch.equal, model.parameters(), before))

    assert run_ranks(3, work) == [True] * 3


def test_named_tuples_are_made_of_the_kind_that_is_there(tmp_path):
    def work():
        state = State(torch.ones(2), 3)
        ifog.save(tmp_path, {"state": state})
        with pytest.raises(CheckpointError, match="named tuple of x, step"):
            ifog.load(tmp_path, {"state": None})
        loaded = ifog.load(tmp_path, {"state": State(torch.zeros(2), 0)})["state"]
        return isinstance(loaded, State) and equal(tuple(loaded), tuple(state))

    assert run_ranks(1, work) == [True]


def test_what_cannot_be_kept_is_named_on_every_rank_and_the_old_checkpoint_stays(tmp_path):
    def work():
        ifog.save(tmp_path, {"x": 1})
        bad = {"x": object() if ifog.rank() == 1 else 2}
        with pytest.raises(CheckpointError, match=r"rank 1: 'x': a builtins\.object cannot"):
            ifog.save(tmp_path, bad)
        with pytest.raises(CheckpointError, match="give the same names on every rank"):
            ifog.save(tmp_path, {f"y{ifog.rank()}": 1})
        with pytest.raises(CheckpointError, match="there is no variable 'missing'"):
            ifog.save(tmp_path, ["missing"])
        return ifog.load(tmp_path)["x"]

    assert run_ranks(2, work) == [1, 1]


def test_without_names_everything_that_can_be_kept_is(tmp_path):
    def work():
        x, _hidden, step = torch.ones(1), 2, 3
        helper, module = (lambda: None), os
        kept = set(ifog.save(tmp_path))
        assert {"x", "step"} <= kept
        assert not {"_hidden", "helper", "module"} & kept
        return x, _hidden, step, helper, module

    run_ranks(2, work)


def test_wrong_requests_are_refused(tmp_path):
    def work():
        with pytest.raises(CheckpointError, match=r"no manifest\.json"):
            ifog.load(tmp_path / "nothing")
        ifog.save(tmp_path, {"x": 1})
        with pytest.raises(CheckpointError, match="no 'y', only x"):
            ifog.load(tmp_path, ["y"])
        with pytest.raises(ArgumentError, match="'assign' or 'average'"):
            ifog.load(tmp_path, rule="mean")
        with pytest.raises(ArgumentError, match=r"\['x'\]"):
            ifog.load(tmp_path, "x")

    run_ranks(2, work)


def test_a_save_keeps_one_checkpoint_in_the_folder_and_clears_what_a_killed_one_left(tmp_path):
    (tmp_path / "save-dead.part").mkdir()
    for x in range(3):
        run_ranks(2, lambda x=x: ifog.save(tmp_path, {"x": x}))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        manifest.NAME,
        manifest.read(tmp_path).folder.name,
    ]


def test_a_view_of_a_large_tensor_does_not_bring_all_of_it(tmp_path):
    large = torch.zeros(1_000_000)
    run_ranks(1, lambda: ifog.save(tmp_path, {"x": large[:10]}))
    assert manifest.read(tmp_path).ranks[0].nbytes < 100_000


# On real ranks


@pytest.mark.faults
def test_real_ranks_keep_their_variables_and_go_on_from_them(cluster, tmp_path):
    make = (
        "torch.manual_seed(bf.rank())\n"
        "model = torch.nn.Linear(3, 2)\n"
        "opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)\n"
    )
    step = (
        "for _ in range(2):\n"
        "    opt.zero_grad()\n"
        "    model(torch.randn(4, 3)).square().mean().backward()\n"
        "    opt.step()\n"
    )
    folder = repr(str(tmp_path / "run"))
    first = f"{make}{step}bf.save({folder}, ['model', 'opt'])\n{step}w = model.weight.detach()"
    cluster.run(first, timeout=60).raise_for_error()
    straight = cluster.pull("w")
    again = f"{make}bf.load({folder})\n{step}w = model.weight.detach()"
    cluster.run(again, timeout=60).raise_for_error()
    for rank, w in cluster.pull("w").items():
        assert np.array_equal(w, straight[rank])
    assert len({w.tobytes() for w in straight.values()}) == 4


@pytest.mark.faults
def test_a_rank_that_cannot_save_stops_nobody(cluster, tmp_path):
    cluster.run("x = torch.ones(2)\nif bf.rank() == 2: x = print", timeout=10).raise_for_error()
    result = cluster.run(f"bf.save({str(tmp_path)!r}, ['x'])", timeout=20)
    assert {error.ename for error in result.errors.values()} == {"CheckpointError"}
    assert "rank 2: 'x': a builtins.builtin_function_or_method" in result.errors[0].evalue
    assert cluster.run("bf.barrier()", timeout=10).status == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def notebook(cluster):
    from fakes import RecordingScreen
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    from ifog.cluster import current as running
    from ifog.magics.bf import BfMagics

    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell(config=config)
    BfMagics(shell, RecordingScreen()).register()
    yield shell
    if running() is not cluster:
        running().stop()


@pytest.mark.faults
def test_the_magics_save_and_load_also_on_fewer_ranks(
    cluster, notebook, tmp_path, capsys, monkeypatch
):
    from ifog.cluster import current as running

    folder = tmp_path / "run"
    cluster.run("x = torch.full((2,), float(bf.rank()))\nhelper = print", timeout=10)
    notebook.run_line_magic("bf", f"save {folder}")
    assert capsys.readouterr().out == f"x: kept in {folder}\n"
    cluster.run("x = None", timeout=10)
    with pytest.raises(ArgumentError, match="no 'y', only x"):
        notebook.run_line_magic("bf", f"load {folder} y")
    notebook.run_line_magic("bf", f"load {folder} x")
    assert "x: loaded as 4 ranks saved it on " in capsys.readouterr().out
    assert [float(x[0]) for x in cluster.pull("x").values()] == [0.0, 1.0, 2.0, 3.0]
    notebook.run_line_magic("bf", f"load {folder} -n 2 --rule average")
    assert "tensors averaged over those ranks" in capsys.readouterr().out
    assert [float(x[0]) for x in running().pull("x").values()] == [1.5, 1.5]
    shown = []
    monkeypatch.setattr("ifog.magics.runner.notice", lambda *words: shown.append(words) or ("", ""))
    notebook.run_line_magic("bf", "restart")
    assert shown[-1][1].endswith(f"without variables; the last checkpoint: %bf load {folder}")


@pytest.mark.faults
def test_models_are_not_loaded_into_ranks_that_cannot_have_them(cluster, notebook, tmp_path):
    cluster.run("model = torch.nn.Linear(1, 1)", timeout=10)
    notebook.run_line_magic("bf", f"save {tmp_path} model")
    with pytest.raises(ClusterError, match=r"model must exist before .* -n 2"):
        notebook.run_line_magic("bf", f"load {tmp_path} -n 2")
    assert cluster.pull("model.in_features") == dict.fromkeys(range(4), 1)
    with pytest.raises(CheckpointError, match=r"no manifest\.json"):
        notebook.run_line_magic("bf", f"load {tmp_path / 'nothing'}")
