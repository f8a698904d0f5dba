"""The public names: complete, sorted, documented, and free of torch until one is used."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ifog

ROOT = Path(__file__).parent.parent


def test_all_is_sorted_and_every_name_exists():
    names = [name for name in ifog.__all__ if name != "__version__"]
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    for name in names:
        found = getattr(ifog, name)
        home = found.__name__ if inspect.ismodule(found) else found.__module__
        assert home.startswith("ifog.")
        assert name in dir(ifog)


def test_completion_offers_public_names_only():
    shown = [name for name in dir(ifog) if not name.startswith("__")]
    assert sorted([*ifog._MODULE_OF, *ifog._MODULES]) == shown


def test_the_stub_lists_the_same_names():
    tree = ast.parse((ROOT / "ifog" / "__init__.pyi").read_text())
    stubbed = {
        alias.asname: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ifog")
        for alias in node.names
    }
    home = {name: f"ifog.{module}" for name, module in ifog._MODULE_OF.items()}
    assert stubbed == home | dict.fromkeys(ifog._MODULES, "ifog")


def test_every_public_name_has_a_docstring():
    for name in (*ifog._MODULE_OF, *ifog._MODULES):
        assert inspect.getdoc(getattr(ifog, name)), name


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(ifog, "no_such_name")
    with pytest.raises(AttributeError, match="did you mean 'neighbor_allreduce'"):
        _ = ifog.neighbour_allreduce


def test_the_client_never_imports_torch():
    client = (
        "import sys, ifog, ifog.cluster, ifog.cli, ifog.folds, ifog.launcher, ifog.magics, "
        "ifog.widgets; from ifog import Cluster, ring; ring(4); "
        "sys.exit('torch' in sys.modules or 'mpi4py.MPI' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", client], timeout=60, check=False).returncode == 0


def test_the_package_list_matches_the_disk():
    # Python 3.10 has no tomllib; the list is a Python literal as well.
    listed = re.search(r"^packages = (\[[^]]*\])", (ROOT / "pyproject.toml").read_text(), re.M)
    assert listed
    found = set()
    for top, package in (("ifog", "ifog"), ("magics", "ifog.magics"), ("widgets", "ifog.widgets")):
        for init in (ROOT / top).rglob("__init__.py"):
            below = init.parent.relative_to(ROOT / top).parts
            found.add(".".join((package, *below)))
    assert set(ast.literal_eval(listed[1])) == found
