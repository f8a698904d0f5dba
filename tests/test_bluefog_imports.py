"""``install()``: BlueFog's modules are ifog's, in this process only."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ifog.bluefog.environment import env
from ifog.commands.arguments import with_bluefog


def python(code, *, path=None, flags=(), added=None, executable=sys.executable):
    """What a fresh process prints; its errors are those of the test."""
    done = subprocess.run(
        [executable, *flags, "-c", textwrap.dedent(code)],
        cwd=path,
        env={**os.environ, **(added or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_all_modules_of_bluefog_are_there():
    python("""
        import ifog.bluefog
        ifog.bluefog.install()
        import bluefog
        import bluefog.torch as bf
        import bluefog.torch.mpi_ops as mpi_ops
        import bluefog.torch.optimizers, bluefog.torch.utility
        import bluefog.common.basics
        from bluefog.common import topology_util, util
        from bluefog.common.util import env
        from bluefog.torch import topology_util as infer
        from bluefog.torch.mpi_ops import pair_gossip, win_lock
        assert bluefog.__version__ == "0.3.0"
        assert bf is ifog.bluefog
        assert bf.torch is __import__("torch") and bf.os is __import__("os")
        assert mpi_ops.allreduce is bf.allreduce
        assert topology_util.RingGraph is bf.RingGraph
        assert infer.InferSourceFromDestinationRanks is bf.InferSourceFromDestinationRanks
        assert bluefog.torch.optimizers.CommunicationType is bf.CommunicationType
        assert bf.neighbor_win_put is bf.win_put
    """)


def test_installing_twice_changes_nothing():
    python("""
        import sys
        import ifog.bluefog
        ifog.bluefog.install()
        import bluefog
        import bluefog.torch
        finders = list(sys.meta_path)
        ifog.bluefog.install()
        assert sys.modules["bluefog"] is bluefog
        assert sys.meta_path == finders
    """)


def test_nothing_in_ifog_imports_the_alias():
    root = Path(__file__).parent.parent
    for path in [*(root / "ifog").rglob("*.py"), *(root / "magics").rglob("*.py")]:
        if (root / "ifog" / "bluefog") in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            assert not [name for name in names if name.startswith("ifog.bluefog")], path


def test_without_install_there_is_no_bluefog():
    python("""
        import importlib.util
        import ifog.bluefog
        assert importlib.util.find_spec("bluefog") is None
    """)


def test_importing_loads_no_torch_before_a_name_is_used():
    python("""
        import sys
        import ifog.bluefog
        ifog.bluefog.install()
        import bluefog.torch as bf
        assert "torch" not in sys.modules
        bf.allreduce
        assert "torch" in sys.modules
    """)


def test_a_module_ifog_does_not_have_is_named():
    told = python("""
        import ifog.bluefog
        ifog.bluefog.install()
        try:
            import bluefog.tensorflow
        except ModuleNotFoundError as error:
            print(error, error.name)
        try:
            import bluefog.torch.state
        except ModuleNotFoundError as error:
            print(error.name)
    """).stdout
    assert "'bluefog.tensorflow'" in told
    assert "bluefog.torch.mpi_ops" in told
    assert told.splitlines()[-1] == "bluefog.torch.state"


def test_an_installed_bluefog_is_hidden_with_a_warning(tmp_path):
    package = tmp_path / "bluefog"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = 'theirs'\n")
    (package / "torch.py").write_text("")
    code = """
        import {first}
        import ifog.bluefog
        ifog.bluefog.install()
        import bluefog, bluefog.torch
        print(bluefog.__version__, bluefog.torch.__name__)
    """
    for first in ("sys", "bluefog.torch"):
        done = python(code.format(first=first), path=tmp_path)
        assert done.stdout.split() == ["0.3.0", "ifog.bluefog"]
        assert "RuntimeWarning" in done.stderr
        assert str(package / "__init__.py") in done.stderr


def test_a_folder_called_bluefog_needs_no_warning(tmp_path):
    (tmp_path / "bluefog").mkdir()
    done = python(
        "import ifog.bluefog; ifog.bluefog.install(); import bluefog.torch", path=tmp_path
    )
    assert done.stderr == ""


def test_a_package_may_install_while_it_is_being_imported(tmp_path):
    package = tmp_path / "bluefog"
    package.mkdir()
    (package / "__init__.py").write_text("import ifog.bluefog\n\nifog.bluefog.install()\n")
    python(
        """
        import sys
        import bluefog
        import bluefog.torch as bf
        from bluefog.common import topology_util
        assert bluefog is sys.modules["bluefog"]
        assert bluefog.__version__ == "0.3.0"
        assert bluefog.torch is bf is sys.modules["bluefog.torch"]
        assert bluefog.__spec__.name == "bluefog"
        """,
        path=tmp_path,
        flags=("-W", "ignore::RuntimeWarning"),
    )


def test_a_checkout_of_bluefog_as_working_directory_does_not_get_in_the_way(tmp_path):
    theirs = tmp_path / "bluefog"
    theirs.mkdir()
    (theirs / "__init__.py").write_text("raise ImportError('this one needs a compiler')\n")
    done = python(
        "import bluefog.torch as bf, bluefog; print(bluefog.__version__, bf.__name__)",
        path=tmp_path,
        added=with_bluefog({}),
    )
    assert (done.stdout.split(), done.stderr) == (["0.3.0", "ifog.bluefog"], "")


def test_what_the_start_of_python_did_before_it_still_does(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('mine')\n")
    added = with_bluefog({"PYTHONPATH": str(tmp_path)})
    assert python("import bluefog.torch", added=added).stdout == "mine\n"


def test_a_python_without_ifog_starts_as_ever():
    done = python("pass", added=with_bluefog({}), executable=sys._base_executable)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_environment_is_changed_for_a_while(monkeypatch):
    monkeypatch.setenv("IFOG_TEST_A", "before")
    monkeypatch.delenv("IFOG_TEST_B", raising=False)
    with pytest.raises(KeyError, match="mine"), env(IFOG_TEST_A="1", IFOG_TEST_B="2", PATH=None):
        assert (os.environ["IFOG_TEST_A"], os.environ["IFOG_TEST_B"]) == ("1", "2")
        assert os.environ["PATH"]
        raise KeyError("mine")
    assert os.environ["IFOG_TEST_A"] == "before"
    assert "IFOG_TEST_B" not in os.environ
