"""What ``ifog run`` is asked to run, on which machines, and what it says about the end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from ifog import hosts, program
from ifog.errors import ArgumentError
from ifog.launched.__main__ import _where
from ifog.mpiexec import environment
from ifog.program import Program
from ifog.run import Job
from ifog.streams import Lines
from ifog.verdict import End, last_words, status_of


def report(cause="ValueError: mine", text="Traceback\nValueError: mine\n", peer=False, where=""):
    return {"time": 0.0, "cause": cause, "text": text, "where": where, "peer": peer}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("script.py").touch()
    Path("data").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["script.py", "-n", "5"], Program("script", ("script.py", "-n", "5"))),
        (["python", "script.py", "a"], Program("script", ("script.py", "a"))),
        (["python", "-m", "json.tool", "-h"], Program("module", ("json.tool", "-h"))),
        (["python", "-c", "pass", "a"], Program("code", ("pass", "a"))),
        (
            ["python", "-W", "error", "-O", "script.py"],
            Program("script", ("script.py",), ("-W", "error", "-O")),
        ),
        (["env", "python"], Program("command", ("env", "python"))),
    ],
)
def test_programs_of_this_python_are_told_from_other_commands(folder, words, expected):
    found = program.of_words(words)
    assert found.kind == expected.kind
    assert found.options == expected.options
    assert [Path(found.words[0]).name, *found.words[1:]] == list(expected.words)


def test_a_console_script_of_this_environment_is_a_script(folder):
    found = program.of_words(["pytest", "-q"])
    assert found.kind == "script"
    assert Path(found.words[0]).parent == Path(sys.executable).parent


def test_python_without_a_program_is_a_command(folder):
    assert program.of_words(["python", "--version"]).kind == "command"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.py"], "no file 'gone.py'"),
        (["python", "gone.py"], "no file 'gone.py'"),
        (["python", "."], "is a folder"),
        (["no-such-command"], "no command 'no-such-command'"),
        (["./data"], "name it ./data.py"),
        ([], "nothing to run"),
    ],
)
def test_what_cannot_be_run_is_named(folder, words, message):
    with pytest.raises(ArgumentError, match=message.replace(".", r"\.")):
        program.of_words(words)


def test_a_module_needs_a_name():
    with pytest.raises(ArgumentError, match="-m needs"):
        program.of_module([])


def test_hosts_are_read_with_their_slots():
    assert hosts.from_list("a:2,b:3, c,a:1").slots == (("a", 3), ("b", 3), ("c", 1))
    assert hosts.from_list("a:2,b").total == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("a:x", "'x' is no number"), ("a:0", "'0' is no number"), (":2", "'' is no name")],
)
def test_a_wrong_host_is_named(text, message):
    with pytest.raises(ArgumentError, match=message):
        hosts.from_list(text)


def test_a_host_file_has_slots_comments_and_empty_lines(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# ours\n\nnode1 slots=2\nnode2 slots = 3 # the big one\nnode3\n")
    assert hosts.from_file(str(path)).slots == (("node1", 2), ("node2", 3), ("node3", 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("node1 slots=2\nnode2 slot=2\n", "line 2 of .*slot=2"),
        ("node1 slots=two\n", "line 1 of .*'two' is no number"),
        ("\n\n!bad slots=1\n", "line 3 of .*'!bad' is no name"),
        ("# nothing\n", "names no machine"),
    ],
)
def test_an_error_in_a_host_file_has_its_line(tmp_path, text, message):
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=message):
        hosts.from_file(str(path))
    with pytest.raises(ArgumentError, match="cannot be read"):
        hosts.from_file(str(tmp_path / "gone"))


def test_a_cluster_has_as_many_ranks_as_its_hosts_have_slots():
    assert hosts.placed(None, "", "", sealed=False) == (4, None)
    assert hosts.placed(None, "localhost:3", "", sealed=False) == (3, None)
    n, places = hosts.placed(None, "n1:2,n2:4", "10.0.0.0/24", sealed=False)
    assert (n, places.slots, places.network) == (6, (("n1", 2), ("n2", 4)), "10.0.0.0/24")
    assert hosts.placed(2, "n1:2,n2:4", "10.0.0.0/24", sealed=False)[0] == 2
    with pytest.raises(ArgumentError, match="--hosts n1:2,n2:4 --network"):
        hosts.placed(None, "n1:2,n2:4", "", sealed=False)
    with pytest.raises(ArgumentError, match="need sockets"):
        hosts.placed(None, "n1:2,n2:4", "10.0.0.0/24", sealed=True)
    with pytest.raises(ArgumentError, match="0 ranks"):
        hosts.placed(0, "", "", sealed=False)


def test_this_machine_is_found_in_its_network():
    assert hosts.address_in("127.0.0.0/8") == "127.0.0.1"
    with pytest.raises(ArgumentError, match="no address in 203"):
        hosts.address_in("203.0.113.0/24")
    with pytest.raises(ArgumentError, match="'eth0' is no network"):
        hosts.address_in("eth0")


def pairs(command):
    return list(pairwise(command))


def test_one_machine_needs_no_network():
    job = Job(Program("script", ("s.py",)), 4, hosts.from_list("localhost:4"))
    command = job.command({"OMP_NUM_THREADS": "1"}, "/s", "/m")
    assert ("--host", "localhost:4") in pairs(command)
    assert ("btl_tcp_if_include", "lo") in pairs(command)
    assert ("prte_tmpdir_base", "/s") in pairs(command)
    assert "-x" not in command


def test_several_machines_are_told_the_variables_they_need():
    variables = {"OMP_NUM_THREADS": "1", "BLUEFOG_TIMELINE": "t", "IFOG_TOKEN": "x", "HOME": "h"}
    job = Job(Program("script", ("s.py",)), 4, hosts.from_list("n1:2,n2:2"), "10.0.0.0/24")
    command = job.command(variables, "/s", "/m")
    found = pairs(command)
    assert ("-n", "4") in found
    assert ("--host", "n1:2,n2:2") in found
    assert ("--with-ft", "ulfm") in found
    assert ("btl_tcp_flags", "0x1") in found
    assert "mpi_ft_detector" not in command  # with it programs never come to an end
    assert ("mpi_ft_propagator_with_rbcast", "true") in found
    assert ("prte_if_include", "10.0.0.0/24") in found
    assert ("btl_tcp_if_include", "10.0.0.0/24") in found
    assert ("btl_tcp_if_include", "lo") not in found
    assert "/s" not in command
    assert {b for a, b in found if a == "-x"} == {
        "OMP_NUM_THREADS",
        "BLUEFOG_TIMELINE",
        "IFOG_TOKEN",
        "IFOG_NETWORK=10.0.0.0/24",
    }


def test_threads_are_shared_out_unless_the_caller_says_otherwise():
    assert environment(64, {})["OMP_NUM_THREADS"] == "1"
    mine = environment(64, {"OMP_NUM_THREADS": "3"})
    assert (mine["OMP_NUM_THREADS"], mine["IFOG_THREADS"], mine["MKL_NUM_THREADS"]) == ("3",) * 3


def test_what_a_program_starts_comes_from_its_own_environment():
    here = str(Path(sys.executable).parent)
    assert environment(2, {"PATH": "/usr/bin"})["PATH"] == f"{here}{os.pathsep}/usr/bin"
    activated = f"{here}{os.pathsep}/usr/bin"
    assert environment(2, {"PATH": activated})["PATH"] == activated
    assert Path(shutil.which("mpirun", path=environment(2)["PATH"])).parent == Path(here)


def written(tagged, *pieces):
    out = []
    lines = Lines(lambda stream, data: out.append((stream, data)), tagged=tagged)
    for rank, stream, data in pieces:
        lines.take(rank, stream, data)
    for rank in range(3):
        lines.finish(rank)
    return out


def test_lines_of_ranks_are_never_cut():
    out = written(False, (0, 1, b"a"), (1, 1, b"b\n"), (0, 1, b"c\nd"), (0, 2, b"e\n"))
    assert out == [(1, b"b\n"), (1, b"ac\n"), (2, b"e\n"), (1, b"d")]


def test_tagged_lines_carry_their_rank():
    out = written(True, (0, 1, b"a"), (1, 1, b"b\n\nb2\n"), (0, 1, b"c\rd"))
    assert b"".join(data for _, data in out) == b"[1] b\n[1] \n[1] b2\n[0] ac\r[0] d\n"


def test_a_line_without_end_is_shown_after_a_while(monkeypatch):
    out, clock = [], [0.0]
    monkeypatch.setattr("ifog.streams.time.monotonic", lambda: clock[0])
    lines = Lines(lambda _, data: out.append(data), tagged=False)
    lines.take(0, 1, b"continue? ")
    lines.show_parts()
    assert out == []
    clock[0] = 1.0
    lines.show_parts()
    assert out == [b"continue? "]


def test_the_rank_that_failed_first_decides():
    ends = {
        0: End(1, 1.0, report("PeerFailedError: rank 2", peer=True)),
        1: End(0, 9.0),
        2: End(3, 5.0),
        3: End(4, 6.0),
    }
    assert status_of(ends) == 3
    assert status_of({0: End(0, 1.0)}) == 0
    assert status_of({0: End(128 + signal.SIGKILL, 1.0)}) == 137
    assert status_of({0: End(137, 1.0, killed=True)}, signal.SIGTERM) == 128 + signal.SIGTERM


def test_the_traceback_of_the_first_comes_last():
    ends = {
        0: End(1, 2.0, report("PeerFailedError: rank 2 stopped", "other\n", peer=True)),
        1: End(137, 8.0, killed=True),
        2: End(1, 1.0, report()),
        3: End(1, 3.0, report("KeyError: 'k'", "theirs\n")),
    }
    words = last_words(ends)
    assert words.endswith("rank 2 failed:\nTraceback\nValueError: mine\n")
    assert "other" not in words
    assert "theirs" not in words
    assert "rank 3: KeyError: 'k'\n" in words
    assert "rank 0 stopped when it did\n" in words
    assert "rank 1 did not end and was killed\n" in words


def test_the_same_error_everywhere_is_told_once():
    words = last_words({rank: End(1, rank, report()) for rank in range(4)})
    assert words.count("Traceback") == 1
    assert "ranks 1-3 ended with the same: ValueError: mine\n" in words


def test_other_ends_are_told_in_a_line():
    assert last_words({0: End(0, 0.0)}) == ""
    assert last_words({0: End(0, 0.0), 1: End(3, 0.0)}) == "ifog: rank 1 ended with status 3\n"
    assert last_words({0: End(139, 0.0)}) == "ifog: rank 0 was killed by SIGSEGV\n"
    asked = {0: End(143, 0.0), 1: End(143, 0.0)}
    assert last_words(asked, signal.SIGTERM) == "ifog: ranks 0-1 were ended by SIGTERM\n"
    stopped = report("KeyboardInterrupt", "", where="a.py:7")
    words = last_words({0: End(130, 0.0, stopped), 1: End(130, 0.0, stopped)}, signal.SIGINT)
    assert words == "".join(f"ifog: rank {r} was interrupted at a.py:7\n" for r in (0, 1))


def test_where_is_the_innermost_line_of_the_program_itself(tmp_path):
    (tmp_path / "lib").mkdir()
    inner = compile("raise ValueError", str(tmp_path / "lib" / "x.py"), "exec")
    outer = compile("\n\nexec(inner)", str(tmp_path / "main.py"), "exec")
    with pytest.raises(ValueError) as caught:
        exec(outer, {"inner": inner})
    trace = caught.tb
    while trace.tb_frame.f_code.co_filename != str(tmp_path / "main.py"):
        trace = trace.tb_next
    assert _where(trace) == f"{tmp_path / 'main.py'}:3"


def test_bluefog_is_put_in_front_of_the_callers_path():
    from ifog.commands.arguments import with_bluefog

    path = with_bluefog({"PYTHONPATH": "/mine"})["PYTHONPATH"].split(os.pathsep)
    assert (Path(path[0]) / "sitecustomize.py").is_file()
    assert path[1] == "/mine"
