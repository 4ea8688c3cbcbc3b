"""`--host`: the program that is sent, the Python that is found, what comes back and what stays (nothing)."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.real import sshd as sshd_module
from tests.real.conftest import require

from kingpost.storefix import bundle, remote
from kingpost.storefix.errors import CannotLookError, UsageError

# Stands in for the one file: says what it got, keeps a plan, can wait for its end.
STUB = """\
import os, sys, time
print("python", sys.version_info[:2] >= (3, 9), "flags", sys.flags.isolated, sys.flags.no_site)
words = sys.argv[1:]
if words[0] == "plan":
    open(words[2], "w").write("a plan")
if words[0] == "apply":
    print("applies", open(words[1]).read(), *words[2:])
if words[0] == "wait":
    open(words[1], "w").write(str(os.getpid()))
    time.sleep(60)
sys.stderr.write("an error\\n")
sys.exit(int(os.environ.get("STUB_CODE", "0")))
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    (tmp_path / "far").mkdir()
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "far"), "STUB_CODE": "1"}
    with sshd_module.running(tmp_path / "sshd", require("sshd"), environment) as running:
        monkeypatch.setenv("NIX_SSHOPTS", running.nix_sshopts)
        monkeypatch.setattr(bundle, "build", STUB.encode)
        yield running


def left(tmp_path):
    return list((tmp_path / "far").iterdir())


def test_output_exit_code_and_nothing_left(server, tmp_path, capfd):
    assert remote.run("127.0.0.1", ["scan", "it's", "$(touch /tmp/x)"]) == 1
    out, err = capfd.readouterr()
    assert "python True flags 1 1" in out
    assert "an error" in err
    assert left(tmp_path) == []


def test_a_plan_comes_back_and_goes_there(server, tmp_path, capfd):
    plan = tmp_path / "plan.json"
    assert remote.run("127.0.0.1", ["plan", "-o", str(plan)]) == 1
    assert plan.read_text() == "a plan"
    remote.run("127.0.0.1", ["apply", str(plan), "--yes"])
    assert "applies a plan --yes" in capfd.readouterr().out
    assert left(tmp_path) == []


def test_with_sudo(server, tmp_path, capfd):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sudo").write_text('#!/bin/sh\n[ "$1" = -n ] || exit 9\nshift\necho as root\nexec "$@"\n')
    (programs / "sudo").chmod(0o755)
    config = server.folder / "sshd_config"
    config.write_text(config.read_text().replace('"PATH=', f'"PATH={programs}:'))
    server.stop()
    server.start()
    plan = tmp_path / "plan.json"
    assert remote.run("127.0.0.1", ["plan", "-o", str(plan)], sudo=True) == 1
    assert "as root" in capfd.readouterr().out
    assert plan.read_text() == "a plan"
    assert left(tmp_path) == []


def test_a_machine_without_python(server, tmp_path):
    config = server.folder / "sshd_config"
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("mktemp", "cat", "rm"):
        (programs / name).symlink_to(f"/bin/{name}")
    config.write_text(config.read_text().replace(f'"PATH={os.environ["PATH"]}"', f'"PATH={programs}"'))
    server.stop()
    server.start()
    with pytest.raises(CannotLookError, match="no Python"):
        remote.run("127.0.0.1", ["scan"])
    assert left(tmp_path) == []


def test_an_old_python_is_passed_over(server, tmp_path, capfd):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3").write_text("#!/bin/sh\nexit 1\n")
    (programs / "python3.12").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    config = server.folder / "sshd_config"
    config.write_text(config.read_text().replace('"PATH=', f'"PATH={programs}:'))
    server.stop()
    server.start()
    assert remote.run("127.0.0.1", ["scan"]) == 1
    assert "python True" in capfd.readouterr().out


def test_a_machine_that_cannot_be_reached(server, tmp_path):
    server.stop()
    with pytest.raises(CannotLookError, match="could not be sent") as caught:
        remote.run("127.0.0.1", ["scan"])
    assert "check `ssh 127.0.0.1 true`" in caught.value.fix
    with pytest.raises(UsageError, match="names no machine"):
        remote.run("-x", ["scan"])


def wait_for(condition):
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within ten seconds")


def alive(pid):
    try:
        os.kill(pid, 0)
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except (ProcessLookupError, FileNotFoundError):  # the second: it ended between both
        return False


RUN = """
import sys
from kingpost.storefix import bundle, remote
bundle.build = lambda: open(sys.argv[1], "rb").read()
sys.exit(remote.run("127.0.0.1", ["wait", sys.argv[2]]))
"""


@pytest.mark.parametrize("way", ["interrupt", "kill", "hang up", "console"])
def test_whatever_ends_us_ends_it_there_and_leaves_nothing(server, tmp_path, way):
    (tmp_path / "stub").write_text(STUB)
    mark = tmp_path / "pid"
    argv = [sys.executable, "-c", RUN, tmp_path / "stub", mark]
    ours, theirs = pty.openpty() if way == "console" else (None, None)
    standard = theirs if way == "console" else subprocess.DEVNULL
    process = subprocess.Popen(argv, stdin=standard, stdout=standard, stderr=standard, start_new_session=True)
    try:
        wait_for(lambda: mark.exists() and mark.read_text())
        pid = int(mark.read_text())
        assert alive(pid)
        assert len(left(tmp_path)) == 1
        if way == "interrupt":
            os.killpg(process.pid, signal.SIGINT)
        elif way == "kill":
            os.killpg(process.pid, signal.SIGKILL)
        elif way == "hang up":
            server.stop()  # the listener; the sessions have processes of their own
            for session in _children(server):
                os.kill(session, signal.SIGKILL)
        else:
            os.write(ours, b"\x03")
        wait_for(lambda: not alive(pid))
        wait_for(lambda: left(tmp_path) == [])
        process.wait(20)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if ours is not None:
            os.close(ours)
            os.close(theirs)


def _children(server):
    """Give the session processes of this sshd: those with its configuration's port on their end of a socket."""
    found = subprocess.run(
        ["ss", "-Htnp", "sport", "=", f":{server.port}"], capture_output=True, text=True, check=True
    ).stdout
    return {int(word.split(",")[0]) for word in found.split("pid=")[1:]}
