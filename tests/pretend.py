"""A device that this machine has not: host memory behind streams whose events pass late.

``install`` puts it in the place of CUDA. What goes from device to device then goes through gloo,
whose groups take the same calls as NCCL's. Every average of tensors takes the way of devices.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta

import torch
from torch.distributed import ProcessGroupGloo

from ifog import neighbors, ops, window_arguments
from ifog.operation import host, staged
from ifog.transport import cuda

SECONDS = 20
COPYING = (neighbors, ops, window_arguments)  # who asks for tensors in host memory


class Late:
    """An event that has not passed at the first looks."""

    def __init__(self, looks):
        self.looks = looks

    def query(self):
        self.looks -= 1
        return self.looks < 0


class PretendStreams:
    def __init__(self, looks):
        self.looks = looks

    def caller(self):
        return contextlib.nullcontext

    def follow(self):
        pass

    join = follow

    def beside(self):
        return contextlib.nullcontext()

    def mark(self):
        return Late(self.looks)

    def lane(self, _after):
        return contextlib.nullcontext(self.mark)


class Pretend:
    """The driver.

    Attributes:
        number: what this rank's device is called; those of one name are one device.
        refuses: why memory cannot be pinned, or empty.
        pinned: the addresses that were.
        transfers: the bytes of what went from device to device.
    """

    def __init__(self, number, *, refuses="", lacks="", looks=2):
        self.number, self.refuses, self.lacks, self.looks = number, refuses, lacks, looks
        self.pinned = []
        self.breaks = False

    def equipped(self):
        return True

    def takes(self, x):
        return isinstance(x, torch.Tensor)

    def look(self, _device):
        return self.number, "Pretended", self.lacks

    def streams(self, _device):
        return PretendStreams(self.looks)

    def pin(self, memory, _device):
        if self.refuses:
            raise RuntimeError(self.refuses)
        assert memory.ctypes.data not in self.pinned, "pinned twice"
        self.pinned.append(memory.ctypes.data)

    def unpin(self, memory):
        self.pinned.remove(memory.ctypes.data)

    def backend(self, store, place, size, _device):
        if self.breaks:
            raise RuntimeError("no such luck")
        options = ProcessGroupGloo._Options()
        options._devices = [ProcessGroupGloo.create_device(interface="lo")]
        options._timeout = timedelta(seconds=SECONDS)
        return ProcessGroupGloo(store, place, size, options)


def install(number, **how):
    """Let this process have such a device, and all tensors be on it; before ``ifog.init``."""
    cuda.driver = Pretend(number, **how)
    for module in COPYING:
        module.host = fetched
    return cuda.driver


def fetched(x, op, *, at_once=False):
    """What ``operation.host`` does of a tensor on a device."""
    if not isinstance(x, torch.Tensor):
        return host(x, op)
    return staged(x.detach(), at_once=at_once)
