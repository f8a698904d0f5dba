"""Checkpoints that were damaged, forged, or whose saving was killed: the last good one stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ifog
from ifog import manifest
from ifog.errors import CheckpointError
from ifog.testing import run_ranks


def damaged(path: Path, how: str) -> None:
    saved = manifest.read(path)
    file = saved.folder / saved.ranks[1].file
    text = (path / manifest.NAME).read_text()
    content = json.loads(text)
    if how == "missing":
        file.unlink()
    elif how == "cut":
        os.truncate(file, 100)
    elif how == "flipped":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif how == "half a manifest":
        (path / manifest.NAME).write_text(text[: len(text) // 2])
    elif how == "another format":
        (path / manifest.NAME).write_text(json.dumps({**content, "format": 9}))
    elif how == "a path out of the folder":
        content["ranks"][1]["file"] = "../../etc/passwd"
        (path / manifest.NAME).write_text(json.dumps(content))


HARM = {
    "missing": "cannot be read",
    "cut": "is damaged",
    "flipped": "is damaged",
    "half a manifest": "cannot be read",
    "another format": "has format 9",
    "a path out of the folder": "is damaged",
}


@pytest.mark.parametrize("how", HARM)
def test_a_damaged_checkpoint_is_refused_by_all_and_changes_nothing(tmp_path, how):
    run_ranks(2, lambda: ifog.save(tmp_path, {"g": torch.Generator().manual_seed(ifog.rank())}))
    damaged(tmp_path, how)

    def work():
        generator = torch.Generator().manual_seed(7)
        before = generator.get_state()
        with pytest.raises(CheckpointError, match=HARM[how]):
            ifog.load(tmp_path, {"g": generator})
        return torch.equal(generator.get_state(), before)

    assert run_ranks(2, work) == [True, True]


class Evil:
    def __reduce__(self):
        return (os.system, ("touch owned",))


def test_a_file_that_would_run_code_is_refused_even_with_the_right_checksum(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_ranks(1, lambda: ifog.save("safe", {"x": 1}))
    saved = manifest.read("safe")
    file = Path("safe") / saved.folder.name / saved.ranks[0].file
    torch.save({"tree": Evil(), "tensors": [], "random": []}, file)
    content = json.loads(Path("safe", manifest.NAME).read_text())
    content["ranks"][0] |= {"nbytes": file.stat().st_size, "sha256": manifest.checksum(file)}
    Path("safe", manifest.NAME).write_text(json.dumps(content))

    def work():
        with pytest.raises(CheckpointError, match="cannot be read"):
            ifog.load("safe")

    run_ranks(1, work)
    assert not Path("owned").exists()


KILLED = """
import os, signal, sys, torch
import ifog
from ifog import checkpoint, manifest
from ifog.testing import run_ranks
from pathlib import Path

torch.set_num_threads(1)
target = Path(sys.argv[1])
run_ranks(2, lambda: ifog.save(target, {"x": torch.full((3,), 0.0)}))

def counted(function, state):
    def call(*arguments, **options):
        state[0] += 1
        if state[0] == state[1]:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

def child(step, value):
    state = [0, step]
    for owner, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir"),
                        (os, "open"), (torch, "save"), (os, "rmdir"), (os, "unlink"),
                        (manifest, "checksum"), (manifest, "replace")):
        setattr(owner, name, counted(getattr(owner, name), state))
    run_ranks(2, lambda: ifog.save(target, {"x": torch.full((3,), float(value))}))
    os._exit(0)

last, step, old, new = 0, 0, 0, 0
while True:
    step += 1
    pid = os.fork()
    if pid == 0:
        child(step, step)
    _, status = os.waitpid(pid, 0)
    found = [int(v["x"][0]) for v in run_ranks(2, lambda: ifog.load(target))]
    assert found in ([last, last], [step, step]), (step, last, found)
    old, new = old + (found[0] == last), new + (found[0] == step)
    last = found[0]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0 and last == step, (status, last, step)
        break
assert sorted(p.name for p in target.iterdir())[0] == "manifest.json"
assert len(list(target.iterdir())) == 2
print("killed", step - 1, "times, kept the old", old, "and had the new", new - 1)
"""


def test_a_save_killed_at_any_step_leaves_the_last_good_checkpoint(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert int(words[1]) >= 15
    assert int(words[6]) >= 10
    assert int(words[-1]) >= 1
