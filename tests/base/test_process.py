from __future__ import annotations

import sys

import pytest

from kingpost.base.errors import CannotLookError
from kingpost.base.process import CommandError, run


def test_output_exit_code_and_stdin():
    done = run([sys.executable, "-c", "import sys; print(sys.stdin.read().upper())"], stdin="secret")
    assert (done.returncode, done.stdout) == (0, "SECRET\n")
    assert "secret" not in " ".join(done.argv)


def test_a_failure_says_the_command_and_its_last_words():
    with pytest.raises(CommandError) as error:
        run([sys.executable, "-c", "import sys; sys.exit('it broke')"])
    assert "exit code 1" in str(error.value)
    assert "it broke" in str(error.value)


def test_a_missing_program_cannot_look():
    with pytest.raises(CannotLookError, match="not on PATH"):
        run(["kingpost-no-such-program"])


def test_a_slow_program_is_ended():
    with pytest.raises(CannotLookError, match=r"within 0\.2 s"):
        run([sys.executable, "-c", "import time; time.sleep(30)"], timeout=0.2)


def test_undecodable_output_is_no_crash():
    assert "\ufffd" in run([sys.executable, "-c", r"import sys; sys.stdout.buffer.write(b'\xff')"]).stdout
