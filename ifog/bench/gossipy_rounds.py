"""A round of GossiPy (``pip install gossipy-dfl``), a simulator of gossip learning, for comparison.

It is not the same work: every node keeps a model object and an optimizer, and pushes its model to
one neighbour a round. So its time is an order of magnitude to look at, no ratio to claim.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
import types
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch.nn.functional import mse_loss

from ifog.links import Links

__all__ = ["round_seconds"]

_SAMPLES = 4
_ROUNDS = 3


def round_seconds(links: Links, dimension: int) -> float | str:
    """Seconds of one round of linear models over these links; why not, where it cannot be.

    Args:
        links: the graph.
        dimension: of a linear model.
    """
    try:
        modules = _modules()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    core, node, handler, simul = modules
    there = np.zeros((links.n, links.n))
    there[links.without_loops()] = 1
    network = core.StaticP2PNetwork(links.n, there)
    generator = torch.Generator().manual_seed(0)
    nodes = {}
    for i in range(links.n):
        data = torch.randn(_SAMPLES, dimension, generator=generator), torch.zeros(_SAMPLES, 1)
        model = handler.TorchModelHandler(
            _linear(dimension),
            torch.optim.SGD,
            {"lr": 0.05},
            mse_loss,
            batch_size=_SAMPLES,
            create_model_mode=core.CreateModelMode.MERGE_UPDATE,
        )
        nodes[i] = node.GossipNode(i, (data, None), 2, model, network)
    simulator = simul.GossipSimulator(nodes, _Untested(), 2, core.AntiEntropyProtocol.PUSH)
    with redirect_stdout(StringIO()), torch.enable_grad():
        simulator.init_nodes()
        simulator.start(1)
        begun = time.thread_time()
        simulator.start(_ROUNDS)
    return (time.thread_time() - begun) / _ROUNDS


def _modules() -> tuple[Any, ...]:
    # It asks for torchvision only to load images, and there is seldom one that fits torch.
    sys.modules.setdefault("torchvision", types.ModuleType("torchvision"))
    logging.disable(logging.CRITICAL)
    names = ("core", "node", "model.handler", "simul")
    return tuple(importlib.import_module(f"gossipy.{name}") for name in names)


class _Untested:
    """What the simulator asks where its data come from."""

    def has_test(self) -> bool:
        """Nothing is evaluated."""
        return False

    def size(self) -> int:
        """Of nothing."""
        return 0


def _linear(dimension: int) -> Any:
    """A linear model of its own kind."""
    base: Any = importlib.import_module("gossipy.model").TorchModel

    class Linear(base):  # type: ignore[misc] # a class that is known only now
        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.Linear(dimension, 1, bias=False)

        def init_weights(self) -> None:
            torch.nn.init.zeros_(self.model.weight)

        def forward(self, x: torch.Tensor) -> Any:
            return self.model(x)

    return Linear()
