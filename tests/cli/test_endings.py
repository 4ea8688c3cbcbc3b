"""How a command ends when what it has to say cannot be said: a full disk, a reader that has gone, no output at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kingpost.base.ledger import opened


@pytest.fixture
def audit(tmp_path):
    """Give a function that audits an empty cache in a shell command that ends as given."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "nix-cache-info").write_text("StoreDir: /nix/store\n")

    def run(ending, *words):
        argv = [sys.executable, "-m", "kingpost", "cache", "audit", tmp_path / "cache", "0" * 32, *words]
        line = f'"$0" "$@" {ending}; echo "code ${{PIPESTATUS[0]}}" >&2'
        return subprocess.run(
            ["bash", "-c", line, *map(str, argv)],
            env={"PATH": "/usr/bin:/bin", "KINGPOST_LEDGER": str(tmp_path / "ledger.sqlite")},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_full_disk_is_said(audit, form):
    assert audit("> /dev/full", *form).stderr == (
        "kingpost: the output cannot be written: No space left on device\ncode 1\n"
    )


def test_a_reader_that_has_gone_costs_neither_files_nor_record(audit, tmp_path):
    done = audit("| true", "--json", "--junit", str(tmp_path / "junit.xml"))
    assert done.stderr == "code 1\n"
    assert "KP-CACHE-NARINFO-MISSING" in (tmp_path / "junit.xml").read_text()
    with opened(tmp_path / "ledger.sqlite") as ledger:
        assert [row["exit_code"] for row in ledger.db.query("select exit_code from runs")] == [1]


def test_a_reader_that_has_gone_is_no_failure():
    line = '"$0" -m kingpost schema | true; echo ${PIPESTATUS[0]}'
    done = subprocess.run(["bash", "-c", line, sys.executable], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_no_output_at_all(audit):
    assert audit(">&-").stderr == "code 1\n"


def test_a_report_on_standard_output_replaces_no_device(audit):
    done = audit("", "--junit", "/dev/stdout")
    assert "<testsuite" in done.stdout
    assert done.stdout.startswith("failed")


def test_a_ledger_that_fills_up_does_not_lose_what_was_found(tmp_path):
    code = (
        "import sys, kingpost.base.ledger as ledger\n"
        "from kingpost.cli.main import main\n"
        "real = ledger.Ledger.start\n"
        "def start(self, command):\n"
        "    run = real(self, command)\n"
        "    self.db.execute('pragma max_page_count = 1')\n"
        "    return run\n"
        "ledger.Ledger.start = start\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = [f"{n:032}" for n in range(300)]
    (tmp_path / "nix-cache-info").write_text("StoreDir: /nix/store\n")
    argv = [
        sys.executable, "-c", code, "cache", "audit", tmp_path, *words, "--json", "--ledger", tmp_path / "l.sqlite",
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stdout.count("KP-CACHE-NARINFO-MISSING") == 300
    assert "warning: not recorded" in done.stderr
    assert "database or disk is full" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_command_says_so(tmp_path):
    """And reading what has no end, and no lines, holds little of it: /dev/zero is no log."""
    argv = [sys.executable, "-m", "kingpost", "trace", "--no-ledger", "--log", "/dev/zero"]
    # A shell starts what is in its background with Ctrl-C ignored, and this test may run there.
    child = subprocess.Popen(
        ["env", "--default-signal=INT", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        time.sleep(3)
        status = Path(f"/proc/{child.pid}/status").read_text()
        child.send_signal(signal.SIGINT)
        out, error = child.communicate(timeout=30)
    finally:
        child.kill()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 300_000, "KiB"
    assert (out, error, child.returncode) == ("", "kingpost: interrupted; nothing was left half-done\n", 130)
