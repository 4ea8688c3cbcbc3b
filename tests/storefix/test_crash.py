"""Killed at every boundary between two changes, or out of disk: the next run brings the store to the same end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from tests.storefix.paper import NAMES, Paper, path_of, remove

from kingpost.storefix import effects


@pytest.fixture
def paper():
    # In memory where that is: every change is flushed, and a disk takes its time for that.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Paper(Path(directory))
        remove(Path(directory) / "root")
        remove(Path(directory) / "twin")


def break_it(paper: Paper) -> None:
    """Something for every kind of action."""
    paper.reset()
    paper.lose("c", "e")  # fetched in place
    paper.rewrite("b", b"")  # fetched, the old copy moved aside
    paper.sql(("delete from ValidPaths where path = ?", path_of("a")), keys=True)  # registered from disk
    paper.sql(("delete from Refs where referrer = 3",), ("delete from ValidPaths where id = 3",))  # f: orphan
    paper.sql(("insert into Refs values (777, 6)",))  # forgotten
    (paper.real / f"{Path(path_of('b')).name}.lock").touch()  # cleaned


def killed_at(number: int, *words: str) -> bool:
    """Run store-fix in a child that dies at a boundary; tell whether it got that far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside the threads of the test runner
        child = os.fork()
    if not child:
        left = number

        def boundary(_name):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        effects.boundary = boundary
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            from kingpost.storefix import cli

            os._exit(10 + cli.main(list(words)))
        finally:
            os._exit(99)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 10, f"boundary {number}: exit code {os.WEXITSTATUS(status)}"
    return False


def test_killed_anywhere_in_apply(paper, tmp_path):
    plan = tmp_path / "plan.json"
    break_it(paper)
    code, said = paper.run("plan", "--contents", "-o", plan)
    assert code == 1
    assert "Left as it is" not in said
    kinds = {kind for kind in ("clean", "fetch", "forget", "register") if f"  {kind}: " in said}
    assert kinds == {"clean", "fetch", "forget", "register"}, said
    # The end that everything must come to:
    code, said = paper.run("apply", plan)
    assert code == 0, said
    paper.assert_sound()
    wanted = paper.dump()

    words = ("apply", "--root", str(paper.root), "--from", str(paper.twin), "--no-check-sigs", str(plan))
    number = 0
    while True:
        break_it(paper)
        if not killed_at(number, *words):
            break
        assert paper.rows("pragma integrity_check") == [("ok",)]
        if number % 2:
            code, said = paper.run("apply", plan)  # the same plan goes on where it stopped
            if code == 1 and "not as it was" in said:  # it had come to its very end
                code, said = paper.run("scan")
            assert code == 0, f"boundary {number}: {said}"
            assert paper.dump() == wanted, f"boundary {number}"
        else:
            code, said = paper.run("repair", "--contents", "--yes")  # a new plan covers the rest
            assert code == 0, f"boundary {number}: {said}"
        paper.assert_sound()
        number += 1
    assert number > 60
    paper.assert_sound()


def test_killed_anywhere_in_undo(paper):
    break_it(paper)
    before = paper.dump()
    assert paper.run("repair", "--contents", "--yes")[0] == 0
    repaired = paper.dump()
    saved = paper.root.with_name("saved")
    subprocess.run(["cp", "-a", paper.root, saved], check=True)
    number = 0
    while True:
        subprocess.run(["rm", "-rf", paper.root], check=True)
        subprocess.run(["cp", "-a", saved, paper.root], check=True)
        if not killed_at(number, "undo", "--root", str(paper.root)):
            break
        assert paper.dump() in (before, repaired)
        code, said = paper.run("undo")
        assert (code, "nothing to undo" in said) in ((0, False), (2, True)), said
        assert paper.dump() == before
        number += 1
    assert number > 5


def test_killed_anywhere_in_salvage(paper, tmp_path):
    plan = tmp_path / "plan.json"

    def garble():
        paper.reset()
        data = paper.database.read_bytes()
        paper.database.write_bytes(b"\0" * 16 + data[16:])

    garble()
    assert paper.run("plan", "-o", plan)[0] == 1
    number = 0
    while True:
        garble()
        if not killed_at(number, "apply", "--root", str(paper.root), str(plan)):
            break
        code, said = paper.run("repair", "--contents", "--yes")
        assert code == 0, f"boundary {number}: {said}"
        paper.assert_sound()
        number += 1
    assert number > 15
    paper.assert_sound()


def test_full_disk(tmp_path):
    if os.geteuid():
        pytest.skip("needs root: mounts a tmpfs")
    paper = Paper(tmp_path)
    break_it(paper)
    saved = tmp_path / "saved"
    paper.root.rename(saved)
    paper.root.mkdir()
    used = int(
        subprocess.run(["du", "-sk", saved], capture_output=True, text=True, check=True).stdout.split()[0]
    )
    full = refused = 0
    for spare in range(0, 400, 24):
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={used + spare}k", "none", paper.root], check=True
        )
        try:
            copied = subprocess.run(["cp", "-a", f"{saved}/.", paper.root], capture_output=True, check=False)
            if copied.returncode:
                continue
            code, said = paper.run("repair", "--contents", "--yes")
            if code:
                full += 1
                refused += "disk is full" in said or "refuses" in said
                subprocess.run(["mount", "-o", "remount,size=64m", paper.root], check=True)
                code, said = paper.run("repair", "--contents", "--yes")
            assert code == 0, said
            paper.assert_sound()
        finally:
            subprocess.run(["umount", paper.root], check=True)
    assert full
    assert refused


def test_terminated_while_fetching(paper):
    # A signal is not a kill: the program says where it stands, and the next run goes on.
    break_it(paper)
    script = (
        "import os, signal, sys\n"
        "from kingpost.storefix import cli, effects\n"
        "def boundary(name):\n"
        "    if name == 'unpacked':\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "effects.boundary = boundary\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    words = [
        "repair",
        "--root",
        paper.root,
        "--from",
        paper.twin,
        "--no-check-sigs",
        "--no-rebuild",
        "--contents",
    ]
    done = subprocess.run(
        [sys.executable, "-c", script, *words, "--yes"],
        env={**os.environ, "PYTHONPATH": str(Path(effects.__file__).parents[2])},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr
    assert paper.run("repair", "--contents", "--yes")[0] == 0
    paper.assert_sound(NAMES)
