"""Programs under ``ifog run``, which do not outlive their test."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

SECONDS = 60
IFOG = str(Path(sys.executable).with_name("ifog"))
START = "import ifog, os, sys, time, torch\nifog.init()\nrank = ifog.rank()\nifog.barrier()\n"
# Without torch a rank is there in a tenth of the time.
MPI = "import os, sys, time\nfrom mpi4py import MPI\nworld = MPI.COMM_WORLD\nrank = world.rank\n"


class Program:
    """A process that is killed at the end of its test."""

    def __init__(self, command, folder, **variables):
        private = folder / "private"
        private.mkdir(exist_ok=True)
        self.private = private
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(private), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self):
        try:
            out, err = self.process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate(timeout=SECONDS)
            pytest.fail(f"still running after {SECONDS} s: {out}\n{err}")
        return self.process.returncode, out, err

    def lines(self, count):
        """The first lines of output, within the time."""
        clock = threading.Timer(SECONDS, self.process.kill)
        clock.start()
        try:
            found = [self.process.stdout.readline() for _ in range(count)]
        finally:
            clock.cancel()
        assert all(found), f"the output ended early: {found} {self.process.stderr.read()}"
        return found


@contextmanager
def programs(folder):
    """A function that starts ``ifog run`` with these words, in ``folder``, where the script is."""
    started = []

    def run(*words, script=None, **variables):
        if script is not None:
            (folder / "program.py").write_text(script)
        started.append(Program([IFOG, "run", *words], folder, **variables))
        return started[-1]

    try:
        yield run
    finally:
        for program in started:
            # The guard then ends the ranks.
            program.process.kill()
            program.process.communicate(timeout=SECONDS)
