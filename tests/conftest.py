"""One cluster of four ranks for all tests that need real ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ifog.cluster import Cluster

_CLEAN = """
for _name in [_k for _k in globals() if not _k.startswith("_")]:
    if _name not in ("bf", "ifog", "torch", "In", "Out", "exit", "quit", "get_ipython", "open"):
        del globals()[_name]
"""


@pytest.fixture(scope="session")
def four_ranks() -> Iterator[Cluster]:
    cluster = Cluster(4).start()
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(four_ranks: Cluster) -> Cluster:
    """The session's cluster, without variables, on the exponential graph, and nothing running."""
    if not four_ranks.running:
        four_ranks.start()
    four_ranks.interrupt()
    status = four_ranks.status()
    if status.trouble or any(row.state == "dead" for row in status.rows):
        four_ranks.restart()
    four_ranks.run(_CLEAN, timeout=20).raise_for_error()
    four_ranks.set_topology("exponential")
    return four_ranks
