"""Decentralized algorithms, written once for one agent a rank and for thousands in one process."""

from __future__ import annotations

from ifog.algorithms.base import Algorithm, Both, Mix, iterate, per_agent, scheduled
from ifog.algorithms.diffusion import atc, dgd, local_dgd
from ifog.algorithms.exact import d2, exact_diffusion, extra, nids
from ifog.algorithms.push import push_diging, push_pull, push_sum, sgp
from ifog.algorithms.tracking import aug_dgm, diging, gradient_tracking, gt_saga, k_gt

__all__ = [
    "Algorithm",
    "Both",
    "Mix",
    "atc",
    "aug_dgm",
    "d2",
    "dgd",
    "diging",
    "exact_diffusion",
    "extra",
    "gradient_tracking",
    "gt_saga",
    "iterate",
    "k_gt",
    "local_dgd",
    "nids",
    "per_agent",
    "push_diging",
    "push_pull",
    "push_sum",
    "scheduled",
    "sgp",
]
