"""The command line: what a person reads, in which order, how often, in which colour; and the exit codes."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.storefix.paper import Paper, path_of

import kingpost
from kingpost.storefix import cli
from kingpost.storefix.progress import Progress, line

SOURCES = str(Path(kingpost.__file__).parents[1])


@pytest.fixture
def paper(tmp_path):
    return Paper(tmp_path)


@pytest.mark.parametrize("command", ["repair", "apply"])
def test_what_was_done_is_said_once(paper, tmp_path, command):
    paper.lose("c")
    words = ["--yes"] if command == "repair" else [tmp_path / "plan.json"]
    if command == "apply":
        paper.run("plan", "-o", *words)
    code, said = paper.run(command, *words)
    assert code == 0
    assert said.count("Done: 1 fetch.") == 1
    assert said.count("Backup of the database") == 1
    assert said.rstrip().endswith(f"Back to before: store-fix undo --root {paper.root}")


def test_each_round_of_a_repair_says_what_it_did(paper):
    paper.lose("c")
    data = paper.database.read_bytes()
    paper.database.write_bytes(b"\0" * 16 + data[16:])
    code, said = paper.run("repair", "--yes")
    assert code == 0, said
    assert re.findall(r"Done: (.*)\.", said) == ["1 salvage", "1 fetch"]


def test_summary_first_then_details_then_the_next_command(paper):
    paper.lose("c")
    _, said = paper.run("scan")
    lines = said.splitlines()
    assert lines[0] == "This store is damaged: 1 registered, but not on disk."
    assert lines[-1].startswith(f"Next: store-fix plan -o plan.json --root {paper.root}")
    assert any(path_of("c") in text for text in lines[1:-1])


def test_the_next_command_works_as_it_is_printed(paper, tmp_path):
    paper.lose("c")
    _, said = paper.run("scan")
    words = said.splitlines()[-1].removeprefix("Next: store-fix ").split("   ")[0].split()
    words[words.index("plan.json")] = str(tmp_path / "plan.json")
    assert cli.main([*words, "--from", str(paper.twin), "--no-check-sigs", "--quiet"]) == 1
    assert (tmp_path / "plan.json").exists()


def on_terminal(*words, **environment):
    """Run store-fix on a terminal of its own; gives everything that it wrote there."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "kingpost.storefix", *map(str, words)],
        stdin=side, stdout=side, stderr=side,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES, "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(side)
    said = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not piece:
            break
        said += piece
    os.close(main)
    process.wait()
    return said.decode()


def test_colours_are_for_terminals_that_want_them(paper):
    paper.lose("c")
    assert "\033[1;31mThis store is damaged" in on_terminal("scan", "--root", paper.root)
    assert "\033" not in on_terminal("scan", "--root", paper.root, NO_COLOR="1")
    assert "\033" not in paper.run("scan")[1]


def test_nothing_is_done_unless_the_answer_is_yes(paper):
    """On a terminal `repair` asks; an empty answer is a no."""
    paper.lose("c")
    main, side = pty.openpty()
    argv = [sys.executable, "-m", "kingpost.storefix", "repair", "--root", str(paper.root), "--from",
            str(paper.twin), "--no-check-sigs", "--no-rebuild"]  # fmt: skip
    process = subprocess.Popen(
        argv, stdin=side, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES},
    )  # fmt: skip
    os.close(side)
    os.write(main, b"\n")
    said, _ = process.communicate(timeout=60)
    os.close(main)
    assert process.returncode == 1, said
    assert "Execute these 1 actions? A backup is made first. [y/N]" in said
    assert not paper.place("c").exists()


def test_a_long_task_shows_its_rate_and_the_time_left():
    assert line("hashing", 3 << 30, 12 << 30, "bytes", 30) == (
        "hashing: 3.0 GiB of 12.0 GiB (25%), 102.4 MiB/s, 1 min 30 s left"
    )
    assert line("fetching", 5, 0, "paths", 2) == "fetching: 5 paths, 2 paths/s"


def test_a_terminal_gets_one_line_that_is_rewritten_and_a_log_a_line_now_and_then(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    clock = [0.0]
    monkeypatch.setattr("kingpost.storefix.progress.time.monotonic", lambda: clock[0])
    said = []
    for stream in (Terminal(), io.StringIO()):
        clock[0] = 0.0
        with Progress(stream).task("hashing", 100, "paths") as advance:
            for _ in range(100):
                clock[0] += 1
                advance(1)
        said.append(stream.getvalue())
    terminal, log = said
    assert terminal.count("\r") > 50
    assert "\n" not in terminal
    assert terminal.endswith("\r")
    assert log.splitlines() == [
        "hashing: 30 paths of 100 paths (30%), 1 paths/s, 1 min 10 s left",
        "hashing: 60 paths of 100 paths (60%), 1 paths/s, 40 s left",
        "hashing: 90 paths of 100 paths (90%), 1 paths/s, 10 s left",
    ]


def test_exit_codes(paper, tmp_path):
    assert paper.run("scan")[0] == 0
    paper.lose("c")
    assert paper.run("scan")[0] == 1
    assert paper.run("repair", "--yes", source=False)[0] == 1
    assert paper.run("scan", "--frobnicate")[0] == 2
    assert cli.main(["scan", "--root", str(tmp_path / "nowhere")]) == 3
    assert paper.run("repair", "--yes")[0] == 0


def test_json_is_one_document_whatever_else_is_said(paper):
    paper.lose("c")
    done = subprocess.run(
        [sys.executable, "-m", "kingpost.storefix", "repair", "--yes", "--json", "--no-rebuild", "--no-check-sigs",
         "--root", paper.root, "--from", paper.twin],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["after"]["healthy"] is True
    assert "Done: 1 fetch." in done.stderr
