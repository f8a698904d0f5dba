"""Small models in the decentralized optimizer, for the tests of it."""

from __future__ import annotations

import torch

import ifog

SPARSE = torch.optim.SparseAdam


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


def trainer(order="atc", kind=torch.optim.Adam, **options):
    model = network(ifog.rank())
    mix = ifog.neighbor_mixer(ifog.one_peer(ifog.size()))
    return model, wrapped(kind(model.parameters(), lr=0.05), order, mix, **options)


def train(model, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        backward(model, 10 * step + ifog.rank())
        optimizer.step()
