"""What a cell prints to: open and heard after whatever a cell did to it."""

from __future__ import annotations

import io
import os
import sys

import pytest

from ifog.outlets import Outlets

DEEDS = {
    "closed": "sys.stdout.close()\nsys.stderr.close()",
    "none": "sys.stdout = None",
    "deleted": "del sys.stderr",
    "replaced and closed": "sys.stdout = open(os.devnull, 'w')\nsys.stdout.close()",
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_stream_that_nothing_can_be_written_to_is_put_back(deed, monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    outlets = Outlets()
    exec(DEEDS[deed], {"sys": sys, "os": os})
    outlets.flush()
    sys.stdout.write("out\n")
    sys.stderr.write("err\n")
    assert (out.getvalue(), err.getvalue()) == ("out\n", "err\n")


def test_a_stream_of_the_users_own_that_works_stays(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    outlets = Outlets()
    mine = io.StringIO()
    sys.stdout = mine
    outlets.flush()
    assert sys.stdout is mine


@pytest.mark.faults
@pytest.mark.parametrize("deed", DEEDS)
def test_a_rank_whose_cell_closed_what_it_prints_to_is_heard_in_the_next_one(cluster, deed):
    lines = ["import os, sys", "if bf.rank() == 2:", *(f"    {x}" for x in DEEDS[deed].split("\n"))]
    assert cluster.run("\n".join(lines), timeout=20).status == "ok"
    result = cluster.run("print(bf.allreduce(torch.ones(1)).item())", timeout=20)
    assert result.status == "ok"
    assert {output.rank: output.text for output in result.outputs} == dict.fromkeys(
        range(4), "1.0\n"
    )
