"""The command line answers wrong input at once and clearly, and stays light."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import ifog
from ifog import cli
from ifog.commands import lab
from ifog.errors import ClusterStartError


def ended(capsys, *arguments):
    """The exit status and what was written to standard output and error."""
    with pytest.raises(SystemExit) as ending:
        cli.main(arguments)
    return ending.value.code, *capsys.readouterr()


def test_version_is_that_of_the_package(capsys):
    status, out, _ = ended(capsys, "--version")
    assert (status, out) == (0, f"ifog {ifog.__version__}\n")
    assert metadata.version("ifog") == ifog.__version__


def test_help_names_the_commands(capsys):
    status, out, _ = ended(capsys, "--help")
    assert status == 0
    for name in ("demo", "lab", "run", "bluefog", "timeline", "bench", "chaos"):
        assert name in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("demo", "-n", "0"), "0 ranks cannot run anything"),
        (("demo", "-n", "-2"), "-2 ranks cannot run anything"),
        (("demo", "-n", "x"), "'x' is not a number of ranks"),
        (("demo", "-n", "2.5"), "'2.5' is not a number of ranks"),
        (("demo", "--json", "no/such/folder/out.json"), "a folder that exists"),
        (("demo", "--json", "."), "must be a file"),
        (("demo", "--fast"), "unknown arguments: --fast"),
        (("dance",), "invalid choice"),
        (("run",), "nothing to run"),
        (("run", "-n", "0", "x.py"), "0 ranks cannot run anything"),
        (("run", "-np", "x", "x.py"), "'x' is not a number of ranks"),
        (("run", "-n", "2", "no/such.py"), "no file 'no/such.py'"),
        (("run", "-n", "2", "-m"), "-m needs the name of a module"),
        (("run", "--hostfile", "no/such", "x.py"), "cannot be read"),
        (("run", "--grace", "soon", "x.py"), "'soon' is no time"),
        (("run", "--fast", "x.py"), "unknown arguments: --fast"),
        (("bluefog",), "required"),
        (("bluefog", "start"), "required: -np"),
        (("bluefog", "start", "-np", "0"), "0 ranks cannot run anything"),
        ((), "required"),
    ],
)
def test_wrong_input_is_named_with_status_2(capsys, arguments, message):
    status, out, err = ended(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err


def failing_demo(monkeypatch, error):
    def run(n, screen):
        raise error

    monkeypatch.setattr("ifog.demo.run", run)


def test_an_error_of_ifog_is_one_line_and_status_1(monkeypatch, capsys):
    failing_demo(monkeypatch, ClusterStartError("no rank came up"))
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().err == "ifog: no rank came up\n"


def test_an_interrupt_gives_the_status_shells_know(monkeypatch, capsys):
    failing_demo(monkeypatch, KeyboardInterrupt())
    assert cli.main(["demo"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.fixture
def executed(monkeypatch):
    """The command lines that would have replaced this process."""
    commands = []
    monkeypatch.setattr(os, "execv", lambda _, command: commands.append(command))
    return commands


def test_lab_opens_the_tutorial_on_loopback_without_asking_the_network(
    monkeypatch, executed, tmp_path
):
    (tmp_path / "ifog").mkdir()
    (tmp_path / "tutorials").mkdir()
    (tmp_path / "tutorials" / "00_start.ipynb").touch()
    monkeypatch.setattr(ifog, "__file__", str(tmp_path / "ifog" / "__init__.py"))
    cli.main(["lab", "--no-browser", "--port", "9999"])
    (command,) = executed
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert command[3] == str(tmp_path / "tutorials" / "00_start.ipynb")
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--LabApp.news_url=None" in command
    assert command[-3:] == ["--no-browser", "--port", "9999"]


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_lab_runs_as_root_where_the_user_is_root(monkeypatch, executed, user, allowed):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    cli.main(["lab"])
    assert ("--allow-root" in executed[0]) == allowed


def test_lab_options_exist_in_jupyterlab():
    from jupyterlab.handlers.announcements import NeverCheckForUpdate
    from jupyterlab.labapp import LabApp

    app = LabApp()
    app.parse_command_line(list(lab.QUIET))
    assert app.news_url is None
    assert app.check_for_updates_class is NeverCheckForUpdate
    assert app.extension_manager == "readonly"


def test_hosts_are_given_once(capsys, tmp_path):
    path = tmp_path / "hosts"
    path.write_text("a slots=2\n")
    status, _, err = ended(capsys, "run", "-H", "a:1", "--hostfile", str(path), "x.py")
    assert status == 2
    assert "not allowed with argument" in err


def test_lab_lets_its_kernels_import_bluefog(monkeypatch, executed):
    monkeypatch.setenv("PYTHONPATH", "/mine")
    cli.main(["lab", "--as-bluefog", "--no-browser"])
    first, mine = os.environ["PYTHONPATH"].split(os.pathsep)
    code = "import bluefog, ifog; print(bluefog.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": first}, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert (done.stdout, mine) == (b"0.3.0\n", "/mine")
    assert executed[0][-1] == "--no-browser"


def test_options_of_the_program_are_its_own(monkeypatch):
    jobs = []
    monkeypatch.setattr("ifog.run.run", lambda job: jobs.append(job) or 7)
    assert cli.main(["run", "-n", "3", "--tag", "-m", "json.tool", "-n", "5", "--help"]) == 7
    assert cli.main(["run", "-n", "3", __file__, "--tag", "--", "-m"]) == 7
    assert [job.program.words for job in jobs] == [
        ("json.tool", "-n", "5", "--help"),
        (__file__, "--tag", "--", "-m"),
    ]
    assert [(job.n, job.tagged) for job in jobs] == [(3, True), (3, False)]


def test_lab_without_the_tutorials_says_where_they_are(monkeypatch, capsys, executed, tmp_path):
    monkeypatch.setattr(ifog, "__file__", str(tmp_path / "ifog" / "__init__.py"))
    assert cli.main(["lab"]) == 1
    assert "from a checkout" in capsys.readouterr().err
    assert executed == []


def test_the_command_line_does_not_import_torch():
    code = "import sys, ifog.cli, ifog.demo, ifog.screen; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == 0


def test_the_installed_program_is_this_command_line():
    program = Path(sys.executable).with_name("ifog")
    done = subprocess.run([program, "--version"], capture_output=True, timeout=60, check=False)
    assert done.stdout.decode() == f"ifog {ifog.__version__}\n"
