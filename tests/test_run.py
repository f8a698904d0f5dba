"""``ifog run`` on real ranks: programs run as they would alone, and their ends are passed on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from programs import MPI, SECONDS, START, programs

from ifog import launched
from ifog.mpiexec import environment, flags, mpiexec

pytestmark = pytest.mark.mpi


@pytest.fixture
def start(tmp_path):
    with programs(tmp_path) as start:
        yield start


LOOK = """
import json, os, pickle, sys
class Mine: pass
assert type(pickle.loads(pickle.dumps(Mine()))) is Mine
assert sys.modules["__main__"].Mine is Mine
print(json.dumps([sys.argv, __file__, __name__, sys.path[:1], __spec__ is None, os.getcwd(),
    sorted(name for name in globals() if name not in ("__loader__", "__cached__"))]))
"""


def test_a_script_sees_what_it_sees_under_python(start, tmp_path):
    program = start("-n", "1", "sub/../program.py", "-n", "a b", script=LOOK)
    (tmp_path / "sub").mkdir()
    alone = [sys.executable, "sub/../program.py", "-n", "a b"]
    expected = subprocess.run(
        alone, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert program.finish() == (0, expected.stdout, "")
    assert json.loads(expected.stdout)[0][1:] == ["-n", "a b"]


def test_a_module_sees_what_it_sees_under_python(start, tmp_path):
    look = "import json, sys\nprint(json.dumps([sys.argv, __name__, sys.path[0], __package__]))\n"
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(look)
    program = start("-n", "1", "-m", "package", "-m", "x")
    expected = subprocess.run(
        [sys.executable, "-m", "package", "-m", "x"],
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    assert program.finish() == (0, expected.stdout, "")


@pytest.mark.parametrize("n", [1, 3])
def test_every_rank_runs_the_script(start, n):
    script = START + "print(rank, ifog.allreduce(torch.tensor([float(rank)])).item())\n"
    program = start("-n", str(n), "program.py", script=script)
    status, out, err = program.finish()
    assert (status, err) == (0, "")
    assert sorted(out.splitlines()) == [f"{rank} {(n - 1) / 2}" for rank in range(n)]
    assert list(program.private.iterdir()) == []


def test_sixteen_ranks_fit_on_any_machine(start):
    code = "import os; print(os.environ['OMPI_COMM_WORLD_RANK'])"
    status, out, _ = start("-n", "16", "python", "-c", code).finish()
    assert status == 0
    assert sorted(map(int, out.split())) == list(range(16))


def test_the_number_of_ranks_is_that_of_the_slots(start):
    script = MPI + "print(rank, world.size)\n"
    status, out, err = start("-H", "localhost:2", "program.py", script=script).finish()
    assert (status, err) == (0, "")
    assert sorted(out.splitlines()) == ["0 2", "1 2"]


def test_without_a_launcher_the_script_is_the_only_rank(tmp_path):
    (tmp_path / "program.py").write_text(START + "print(rank, ifog.size(), ifog.local_size())\n")
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 1 1\n", "")


def test_tagged_lines_are_whole_and_name_their_rank(start):
    code = (
        "import os, sys\n"
        "for k in range(50):\n"
        "    sys.stdout.write(f'line {k} ' + 'x' * 300); sys.stdout.flush(); print(' end')\n"
        "print('bad', file=sys.stderr)"
    )
    status, out, err = start("-n", "3", "--tag", "python", "-c", code).finish()
    assert status == 0
    lines = [re.fullmatch(r"\[([012])\] line (\d+) x{300} end", line) for line in out.splitlines()]
    assert all(lines)
    for rank in "012":
        assert [int(found[2]) for found in lines if found[1] == rank] == list(range(50))
    assert sorted(err.splitlines()) == [f"[{rank}] bad" for rank in range(3)]


def test_output_comes_while_the_program_runs(start):
    script = MPI + "print('here')\nwhile True: time.sleep(0.1)\n"
    program = start("-n", "2", "program.py", script=script)
    assert program.lines(2) == ["here\n", "here\n"]


def test_ranks_in_different_operations_are_told_of(start):
    script = START + "ifog.barrier() if rank < 2 else ifog.allreduce(torch.ones(3), name='x')\n"
    program = start("-n", "3", "--stall", "1", "program.py", script=script)
    clock = threading.Timer(SECONDS, program.process.kill)
    clock.start()
    try:
        line = program.process.stderr.readline()
    finally:
        clock.cancel()
    assert re.fullmatch(
        r"ifog: ranks 0 and 1 have waited [\d.]+\ss for rank 2 in barrier \(program.py:5\); "
        r"rank 2 has waited [\d.]+\ss for ranks 0 and 1 in allreduce\('x'\) \(program.py:5\); "
        "this cannot end by itself\n",
        line,
    ), line


def test_a_rank_that_computes_long_is_told_of_as_such(start):
    script = START + "if rank == 1: time.sleep(3)\nifog.barrier()\n"
    status, _, err = start("-n", "2", "--stall", "1", "program.py", script=script).finish()
    assert status == 0
    assert re.match(
        r"ifog: rank 0 has waited [\d.]+\ss for rank 1 in barrier \(program.py:6\); "
        "rank 1 is still computing\n",
        err,
    )
    assert 2 <= len(err.splitlines()) <= 3  # at one second, at two, and not after each


def test_nothing_is_said_of_waits_when_that_is_off(start):
    script = START + "if rank == 1: time.sleep(2)\nifog.barrier()\n"
    assert start("-n", "2", "--stall", "0", "program.py", script=script).finish() == (0, "", "")


def test_an_unknown_option_shows_the_usage_of_run(start):
    status, _, err = start("--frobnicate", "x.py").finish()
    assert status == 2
    assert err.startswith("usage: ifog run ")


def test_other_commands_run_too(start):
    status, out, err = start("-n", "2", "sh", "-c", "echo $OMPI_COMM_WORLD_RANK; exit 5").finish()
    assert status == 5
    assert sorted(out.split()) == ["0", "1"]
    assert err.endswith("ended with status 5\n")


def test_a_users_threads_are_kept(start):
    code = "import os; print(os.environ['OMP_NUM_THREADS'])"
    words = ("-n", "2", "python", "-c", code)
    assert start(*words, OMP_NUM_THREADS="3").finish() == (0, "3\n3\n", "")


def test_programs_for_bluefog_find_ifog_even_in_child_processes(start):
    script = (
        "import subprocess, sys\n"
        "import bluefog.torch as bf, torch\n"
        "from bluefog.common import topology_util\n"
        "bf.init(topology_util.RingGraph)\n"
        "x = bf.neighbor_allreduce(torch.tensor([float(bf.rank())]))\n"
        "print(bf.size(), x.item(), flush=True)\n"
        "look = 'import bluefog.torch as bf; print(bf.init.__module__)'\n"
        "subprocess.run([sys.executable, '-c', look], check=True)\n"
    )
    status, out, err = start("-n", "2", "--as-bluefog", "program.py", script=script).finish()
    assert (status, err) == (0, "")
    assert sorted(out.splitlines()) == ["2 0.5"] * 2 + ["ifog.bluefog.lifecycle"] * 2


def test_without_being_asked_bluefog_is_not_there(start):
    program = start("-n", "1", "program.py", script="import bluefog\n")
    assert program.finish()[2].endswith("ModuleNotFoundError: No module named 'bluefog'\n")


def test_a_launcher_on_another_machine_is_told_by_marked_lines(tmp_path):
    code = "import os, sys; print('out'); sys.exit(os.environ['OMPI_COMM_WORLD_RANK'] == '1')"
    done = subprocess.run(
        [
            *(mpiexec(), "-n", "2", *flags(str(tmp_path), str(tmp_path)), sys.executable),
            *(str(Path(launched.__file__).parent), "/no/such/socket", "1", "code", code),
        ],
        env={**os.environ, **environment(2)},
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert sorted(done.stdout.splitlines()) == ["[0] out", "[1] out"]
    said = [json.loads(line[6:]) for line in done.stderr.split("\n") if line[:6] == "\x1eifog "]
    assert sorted(m["rank"] for m in said if m["kind"] == "hello") == [0, 1]
    assert {m["rank"]: m["status"] for m in said if m["kind"] == "end"} == {0: 0, 1: 1}
