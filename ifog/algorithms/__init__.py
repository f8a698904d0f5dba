"""Decentralized algorithms, written once for one agent a rank and for thousands in one process.

``catalog()`` is the table of them.
"""

from __future__ import annotations

from ifog.algorithms.adaptive import accum_adam, adam
from ifog.algorithms.asynchronous import ad_psgd
from ifog.algorithms.base import Algorithm, Both, Mix, iterate, per_agent, scheduled
from ifog.algorithms.compressed import (
    beer,
    choco_gossip,
    choco_sgd,
    deep_squeeze,
    lead,
    motef,
    naive_compressed,
)
from ifog.algorithms.diffusion import atc, dgd, local_dgd
from ifog.algorithms.exact import d2, exact_diffusion, extra, nids
from ifog.algorithms.momentum import decent_lam, dm_sgd, momentum_tracking, qg_dsgdm
from ifog.algorithms.outer import diloco, gossip_pga, local_sgd, noloco, slow_mo
from ifog.algorithms.power_gossip import power_gossip
from ifog.algorithms.primal_dual import admm, dlm, led, prox_skip
from ifog.algorithms.push import push_diging, push_pull, push_sum, sgp
from ifog.algorithms.relay import relay_sgd, relay_sum
from ifog.algorithms.robust import attacked, clipped_gossip, trimmed_mean
from ifog.algorithms.table import catalog
from ifog.algorithms.tracking import aug_dgm, diging, gradient_tracking, gt_saga, k_gt

__all__ = [
    "Algorithm",
    "Both",
    "Mix",
    "accum_adam",
    "ad_psgd",
    "adam",
    "admm",
    "atc",
    "attacked",
    "aug_dgm",
    "beer",
    "catalog",
    "choco_gossip",
    "choco_sgd",
    "clipped_gossip",
    "d2",
    "decent_lam",
    "deep_squeeze",
    "dgd",
    "diging",
    "diloco",
    "dlm",
    "dm_sgd",
    "exact_diffusion",
    "extra",
    "gossip_pga",
    "gradient_tracking",
    "gt_saga",
    "iterate",
    "k_gt",
    "lead",
    "led",
    "local_dgd",
    "local_sgd",
    "momentum_tracking",
    "motef",
    "naive_compressed",
    "nids",
    "noloco",
    "per_agent",
    "power_gossip",
    "prox_skip",
    "push_diging",
    "push_pull",
    "push_sum",
    "qg_dsgdm",
    "relay_sgd",
    "relay_sum",
    "scheduled",
    "sgp",
    "slow_mo",
    "trimmed_mean",
]
