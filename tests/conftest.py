"""What many tests need: a cluster of four ranks, and pages of a JupyterLab."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import lab
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


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Opens a notebook, given as a file or as cells; server and browser are there once."""
    folder, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("home")
    numbers = count()
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        server = stack.enter_context(lab.lab(folder, home))
        chromium = stack.enter_context(lab.browser())

        def open_page(content: Any, **options: Any) -> Any:
            name = f"page{next(numbers)}.ipynb"
            if isinstance(content, Path):
                shutil.copy(content, folder / name)
            else:
                lab.write_notebook(folder / name, content)
            return lab.opened(chromium, server, name, **options)

        yield open_page
