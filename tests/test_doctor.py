"""``ifog doctor``: it finds what is there, names what is not, and says so by its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ifog import cli, doctor
from ifog.errors import ClusterError

IFOG = str(Path(sys.executable).with_name("ifog"))


@pytest.mark.mpi
def test_a_healthy_machine_has_nothing_bad(tmp_path):
    out = tmp_path / "found.json"
    done = subprocess.run(
        [IFOG, "doctor", "--json", str(out)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    found = {each["what"]: each for each in json.loads(out.read_text())}
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["2 ranks"]["state"] == "good", found["2 ranks"]
    assert "messages by shared memory" in found["2 ranks"]["found"]
    assert "torch 2" in found["packages"]["found"]
    assert done.stdout.count("\n") >= len(found)


def findings(monkeypatch, **told):
    """The findings, where ranks told this instead of being started."""

    def measured(*_, **__):
        if "trouble" in told:
            raise ClusterError(told["trouble"])
        return told

    monkeypatch.setattr(doctor, "measure", measured)
    monkeypatch.setattr(doctor, "_devices", lambda: doctor.Finding("torch", "good", ""))
    return {finding.what: finding for finding in doctor.examine()}


GOOD = {
    "error": "",
    "microseconds": 40.0,
    "library": "Open MPI",
    "wire": "shared memory",
    "threads": True,
    "shared": True,
    "survives": True,
    "devices": "",
}


@pytest.mark.parametrize(
    ("lacking", "says"),
    [
        ("survives", "no fault tolerance"),
        ("threads", "at the same time"),
        ("shared", "copied twice"),
    ],
)
def test_what_the_ranks_lack_is_said(monkeypatch, lacking, says):
    found = findings(monkeypatch, **GOOD | {lacking: False})["2 ranks"]
    assert (found.state, says in found.advice) == ("fair", True)


def test_how_tensors_of_devices_travel_is_said_where_there_are_devices(monkeypatch):
    way = "pinned host memory: 2 ranks share NVIDIA H100"
    found = findings(monkeypatch, **GOOD | {"devices": way})["2 ranks"]
    assert found.found.endswith(f"; device tensors: {way}")
    assert "device" not in findings(monkeypatch, **GOOD)["2 ranks"].found


def test_ranks_that_do_not_start_or_cannot_add_are_bad(monkeypatch):
    assert findings(monkeypatch, **GOOD)["2 ranks"].state == "good"
    wrong = findings(monkeypatch, **GOOD | {"error": "the mean of the ranks is 3, not 0.5"})
    assert wrong["2 ranks"].state == "bad"
    broken = findings(monkeypatch, trouble="no slots\nlog")
    assert (broken["2 ranks"].state, broken["2 ranks"].found) == ("bad", "no slots\nlog")


def test_missing_packages_are_named_with_the_command_that_brings_them(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_NEEDED", ("torch", "no-such-package"))
    monkeypatch.setattr(doctor, "measure", lambda *_, **__: GOOD)
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "\N{BALLOT X} packages        no-such-package not installed" in said
    assert "to do: " in said and "-m pip install ifog" in said
