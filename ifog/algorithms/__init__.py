"""Decentralized algorithms, written once for one agent a rank and for thousands in one process."""

from __future__ import annotations

from ifog.algorithms.base import Algorithm, Both, Mix, per_agent, scheduled

__all__ = ["Algorithm", "Both", "Mix", "per_agent", "scheduled"]
