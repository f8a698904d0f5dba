"""Programs of BlueFog's users that train, written anew: every factory brings the ranks together."""

from __future__ import annotations

import unittest
import warnings

import bluefog.torch as bf
import torch
from bluefog.common import topology_util

FACTORIES = [
    bf.DistributedAdaptThenCombineOptimizer,
    bf.DistributedAdaptWithCombineOptimizer,
    bf.DistributedGradientAllreduceOptimizer,
    bf.DistributedWinPutOptimizer,
    bf.DistributedAllreduceOptimizer,
    bf.DistributedNeighborAllreduceOptimizer,
]


def data(m=64, d=3):
    """Noisy samples of one linear map, other ones on each rank."""
    generator = torch.Generator().manual_seed(bf.rank())
    x = torch.randn(m, d, generator=generator)
    return x, x @ torch.arange(1.0, d + 1)[:, None] + 0.01 * torch.randn(m, 1, generator=generator)


class Training(unittest.TestCase):
    def setUp(self):
        bf.init()
        bf.win_free()
        bf.init()
        torch.manual_seed(bf.rank())

    def train(self, factory, kind=torch.optim.SGD, rounds=120, before=lambda _: None, **options):
        x, y = data()
        model = torch.nn.Sequential(torch.nn.Linear(3, 1, bias=False))
        optimizer = kind(model.parameters(), lr=0.1)
        bf.broadcast_parameters(model.state_dict(), root_rank=0)
        bf.broadcast_optimizer_state(optimizer, root_rank=0)
        optimizer = factory(optimizer, model=model, **options)
        for step in range(rounds):
            before(optimizer)
            for _ in range(options.get("num_steps_per_communication", 1)):
                loss = torch.nn.functional.mse_loss(model(x), y)
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if factory is bf.DistributedWinPutOptimizer and step % 5 == 0:
                bf.barrier()
        bf.barrier()
        found = model[0].weight.detach().flatten()
        self.assertLess((found - torch.tensor([1.0, 2.0, 3.0])).abs().max().item(), 0.1)
        bf.win_free()

    def test_every_factory_learns_the_map(self):
        for factory in FACTORIES:
            with self.subTest(factory.__name__), warnings.catch_warnings():
                warnings.simplefilter("ignore", PendingDeprecationWarning)
                self.train(factory)

    def test_adam_learns_it_with_accumulated_gradients(self):
        for factory in FACTORIES[:3]:
            with self.subTest(factory.__name__):
                self.train(factory, torch.optim.Adam, num_steps_per_communication=3)

    def test_the_topology_may_change_in_each_round(self):
        turns = topology_util.GetDynamicOnePeerSendRecvRanks(bf.load_topology(), bf.rank())

        def choose(optimizer):
            if bf.size() == 1:
                return
            to, sources = next(turns)
            share = 1 / (len(sources) + 1)
            optimizer.dst_weights = to
            optimizer.src_weights = dict.fromkeys(sources, share)
            optimizer.self_weight = share

        for factory in FACTORIES[:2]:
            with self.subTest(factory.__name__):
                self.train(factory, before=choose)


if __name__ == "__main__":
    unittest.main()
