"""BlueFog's optimizer factories count passes: local steps, accumulation, synchronize, warnings."""

from __future__ import annotations

import warnings

import pytest
import torch
from bluefog_training import FACTORIES, in_use, made, train
from laws_training import LR

import ifog
import ifog.bluefog as bf
from ifog.testing import run_ranks


def letters(model, optimizer, text):
    """F: forward and backward; s: a step."""
    optimizer.zero_grad()
    for letter in text.lower():
        if letter == "f":
            model().backward()
        else:
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("text", ["FFFS", "FsFsFS", "FFsFS", "FsFFS", "FFFSFFFS"])
@pytest.mark.parametrize("factory", FACTORIES)
def test_passes_within_the_number_are_fine(factory, text):
    def work():
        _, model, optimizer = made(factory, num_steps_per_communication=3)
        letters(model, optimizer, text)
        bf.win_free()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_ranks(2, work)


@pytest.mark.parametrize("text", ["FFFFS", "FFsFFS", "FFFFFS"])
@pytest.mark.parametrize("factory", FACTORIES)
def test_passes_beyond_the_number_are_warned_of_once(factory, text):
    def work():
        _, model, optimizer = made(factory, num_steps_per_communication=3)
        letters(model, optimizer, text)
        letters(model, optimizer, text)
        bf.win_free()

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run_ranks(2, work)
    texts = [str(w.message) for w in told if issubclass(w.category, UserWarning)]
    assert len(texts) == 2  # one on each rank
    assert all(text.startswith("Unexpected behavior") for text in texts)


@pytest.mark.parametrize("factory", FACTORIES[:3])
def test_accumulated_gradients_are_all_used(factory):
    def work():
        problem, model, optimizer = made(factory, num_steps_per_communication=2)
        letters(model, optimizer, "FFS")
        x, w = problem.x, in_use(2)
        g = 2 * problem.gradient(x)
        moved = {"atc": w @ (x - LR * g), "awc": w @ x - LR * g, "gradient": x - LR * (w @ g)}
        problem.holds(moved[optimizer.order])

    run_ranks(2, work)


@pytest.mark.parametrize("factory", FACTORIES[:3])
def test_local_steps_come_between(factory):
    def work():
        problem, model, optimizer = made(factory, num_steps_per_communication=3)
        letters(model, optimizer, "FsFsFS" * 2)
        x, w = problem.x, in_use(2)
        for step in range(1, 7):
            g = problem.gradient(x)
            if step % 3:
                x = x - LR * g
            elif optimizer.order == "atc":
                x = w @ (x - LR * g)
            else:
                x = w @ x - LR * g if optimizer.order == "awc" else x - LR * (w @ g)
        problem.holds(x)

    run_ranks(2, work)


def test_forward_passes_in_evaluation_do_not_count():
    def work():
        _, model, optimizer = made(bf.DistributedAdaptWithCombineOptimizer)
        model.eval()
        for _ in range(3):
            model()
        model.train()
        train(model, optimizer, 2)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_ranks(2, work)


def test_gradients_on_their_way_cannot_be_forgotten():
    def work():
        for factory in (FACTORIES[0], FACTORIES[2]):
            _, model, optimizer = made(factory)
            model().backward()
            with pytest.raises(AssertionError, match="would lose the gradients"):
                optimizer.zero_grad()
            optimizer.step()
            optimizer.zero_grad()

    run_ranks(2, work)


@pytest.mark.parametrize("factory", FACTORIES[1:])
def test_synchronize_may_come_before_the_step(factory):
    def work():
        results = []
        for early in (False, True):
            problem, model, optimizer = made(factory)
            for _ in range(3):
                optimizer.zero_grad()
                model().backward()
                ifog.barrier()
                if early:
                    optimizer.synchronize()
                    with optimizer.skip_synchronize():
                        optimizer.step()
                else:
                    optimizer.step()
                ifog.barrier()
            results.append(problem.flat().detach())
            bf.win_free()
        assert torch.equal(*results)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_ranks(2, work)


def test_a_step_after_synchronize_is_warned_of():
    def work():
        _, model, optimizer = made(bf.DistributedGradientAllreduceOptimizer)
        model().backward()
        optimizer.synchronize()
        optimizer.step()

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run_ranks(2, work)
    assert ["skip_synchronize" in str(w.message) for w in told] == [True, True]
