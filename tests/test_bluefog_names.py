"""Every name of BlueFog is there, with BlueFog's signature, and stands in the README's table."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

import ifog.bluefog
from ifog.bluefog.finder import MODULES
from ifog.bluefog.names import ROWS, replaced

ROOT = Path(__file__).parent.parent


def frozen():
    """{module of BlueFog: {name: signature or ""}}, as its version 0.3.0 has them."""
    modules = {}
    for block in (ROOT / "tests/data/bluefog_names.txt").read_text().strip().split("\n\n"):
        module, *entries = block.splitlines()
        names = {entry.partition("(")[0]: entry for entry in entries}
        modules[module] = {name: e[len(name) :] for name, e in names.items()}
    return modules


NAMES = [(module, name) for module, names in frozen().items() for name in names]


def plain(function):
    """The signature without annotations."""
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(parameters))


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_name_has_bluefogs_signature(module, name):
    if module == "bluefog":
        assert ifog.bluefog.__version__ == "0.3.0"
        return
    found = getattr(importlib.import_module(MODULES[module]), name)
    signature = frozen()[module][name]
    if signature:
        assert plain(found) == signature
        assert inspect.getdoc(found)


def test_modules_hold_what_is_exported_at_the_top_as_well():
    operations = importlib.import_module(MODULES["bluefog.torch.mpi_ops"])
    for name in frozen()["bluefog.torch"]:
        assert getattr(operations, name) is getattr(ifog.bluefog, name)


def test_the_table_names_everything_once():
    listed = [name for row in ROWS for name in row.names.split()]
    assert len(listed) == len(set(listed))
    assert set(listed) == {name for _, name in NAMES}


def test_what_the_table_calls_the_same_is_a_name_of_ifog():
    for row in ROWS:
        if row.here.startswith("the same"):
            for name in row.names.split():
                assert name.removeprefix("neighbor_win") == name or "neighbor_" in row.here
                assert hasattr(ifog, name.replace("neighbor_win_", "win_")), name


def test_the_readme_has_the_table_as_it_is_made():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert replaced(readme) == readme, "run python -m ifog.bluefog README.md"


def test_a_page_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="one after the other"):
        replaced("# no table here")
