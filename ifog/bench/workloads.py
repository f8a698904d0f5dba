"""What the training race trains: models, and batches of the shape of ImageNet's, drawn once.

The images are noise: they say how fast a step is, not whether it learns. That is told on the
digits, which are real.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["WORKLOADS", "Workload", "digits_network"]

_CLASSES = 1000
_PIXELS = 224


class Workload(NamedTuple):
    """A model and what it is fed with.

    Attributes:
        title: in tables.
        model: makes one, from torch's generator.
        batch: images a rank and step.
    """

    title: str
    model: Callable[[], nn.Module]
    batch: int

    def data(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A batch of images and their labels."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch, 3, _PIXELS, _PIXELS, generator=generator)
        labels = torch.randint(_CLASSES, (self.batch,), generator=generator)
        return images.to(dtype), labels


def perceptron(widths: Sequence[int]) -> nn.Module:
    """Images shrunk to 28 x 28, then dense layers of these widths: few operations a parameter."""
    sizes = [3 * (_PIXELS // 8) ** 2, *widths, _CLASSES]
    layers: list[nn.Module] = [nn.AvgPool2d(8), nn.Flatten()]
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutions() -> nn.Module:
    """Five convolutions, 1.2 million parameters: many operations a parameter."""
    layers: list[nn.Module] = []
    widths = (3, 32, 64, 128, 256, 256)
    for place, (before, after) in enumerate(pairwise(widths)):
        kernel, stride = (7, 4) if place == 0 else (3, 2 if place < 4 else 1)
        layers += [nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], _CLASSES)
    )


def digits_network() -> nn.Module:
    """Two convolutions and two dense layers for images of 8 x 8 pixels, [m, 64] -> [m, 10]."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


WORKLOADS = {
    "dense": Workload("dense, 25 M parameters", lambda: perceptron((3072, 3072, 2048)), 64),
    "convolutions": Workload("convolutions, 1.2 M parameters", convolutions, 32),
    "small": Workload("dense, 0.8 M parameters", lambda: perceptron((256,)), 8),
}
