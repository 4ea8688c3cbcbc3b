"""What a machine's methods do, over a real bash in place of the guest's; its network and its initrd."""

from __future__ import annotations

import socket
import subprocess
import time

import pytest

from tests.vm.initrd import TREE, appended
from tests.vm.machine import Machine, MachineError, RequestedAssertionFailed, retry
from tests.vm.vlan import Vlan


@pytest.fixture
def vlan(tmp_path):
    made = Vlan(tmp_path)
    yield made
    made.close()


@pytest.fixture
def machine(tmp_path, vlan):
    """A machine whose shell is a bash of this one."""
    made = Machine("it", tmp_path, tmp_path / "it", {}, vlan, log=lambda _: None)
    made.shell, other = socket.socketpair()
    with subprocess.Popen(
        ["bash", "--norc", "--noprofile"], stdin=other, stdout=other, cwd=tmp_path
    ) as shell:
        other.close()
        made.process, made.connected = shell, True
        yield made
        made.process = None
        made.shell.close()
        shell.kill()


def test_a_command_gives_its_exit_code_and_output(machine):
    assert machine.execute("echo one; echo two >&2; exit 3") == (3, "one\n")
    assert machine.execute("printf 'no newline'") == (0, "no newline")
    assert machine.succeed("echo a", "echo b") == "a\nb\n"
    assert machine.fail("echo c; false") == "c\n"


def test_commands_run_under_strict_rules(machine):
    assert machine.execute("false; true")[0] == 1
    assert machine.execute("false | true")[0] == 1
    assert machine.execute("echo $not_there")[0] == 1


def test_what_is_not_so_raises_with_the_command_and_its_output(machine):
    with pytest.raises(RequestedAssertionFailed, match=r"`echo why; exit 7` failed \(exit code 7\)\nwhy"):
        machine.succeed("echo why; exit 7")
    with pytest.raises(RequestedAssertionFailed, match="`true` unexpectedly succeeded"):
        machine.fail("true")


def test_quotes_bytes_and_size_pass_unchanged(machine):
    text = 'it\'s "quoted" $HOME \\ \u00e4 \u4e16'
    assert machine.succeed(f"cat <<'EOF'\n{text}\nEOF") == f"{text}\n"
    assert len(machine.succeed("head -c 300000 /dev/zero | tr '\\0' x")) == 300_000


def test_a_command_that_takes_too_long_ends_with_124(machine):
    start = time.monotonic()
    assert machine.execute("sleep 30", timeout=1)[0] == 124
    assert time.monotonic() - start < 10


def test_waiting_ends_when_it_is_so_and_says_what_never_was(machine, tmp_path):
    machine.execute(f"(sleep 1; touch {tmp_path}/there) >/dev/null 2>&1 &")
    machine.wait_for_file(f"{tmp_path}/there", timeout=20)
    machine.wait_until_fails("test -e /nowhere", timeout=5)
    with pytest.raises(RequestedAssertionFailed, match="waiting for `false` to succeed: action timed out"):
        machine.wait_until_succeeds("false", timeout=1)


def test_a_shell_that_is_gone_is_no_answer(machine):
    with pytest.raises(MachineError, match="its shell is gone"):
        machine.execute(f"kill -9 {machine.process.pid}")


def test_files_and_folders_are_copied_with_their_rights(machine, tmp_path):
    (tmp_path / "from" / "deep").mkdir(parents=True)
    (tmp_path / "from" / "deep" / "program").write_bytes(bytes(range(256)) * 500)
    (tmp_path / "from" / "deep" / "program").chmod(0o750)
    machine.copy_from_host(str(tmp_path / "from"), str(tmp_path / "to"))
    copied = tmp_path / "to" / "deep" / "program"
    assert copied.read_bytes() == bytes(range(256)) * 500
    assert copied.stat().st_mode & 0o777 == 0o750


def test_retry_tries_once_more_at_the_end():
    tries = []
    with pytest.raises(RequestedAssertionFailed, match="timeout=0"):
        retry(lambda last: tries.append(last) or False, 0)
    assert tries == [True]


def test_frames_reach_every_other_machine_and_one_that_came_back(vlan):
    ends = {}

    def plug(name):
        own, hub = vlan.plug(name)
        ends[name] = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), str(hub))
        ends[name][0].bind(str(own))
        ends[name][0].settimeout(5)

    for name in ("a", "b", "c"):
        plug(name)
    ends["a"][0].sendto(b"frame", ends["a"][1])
    assert ends["b"][0].recv(99) == ends["c"][0].recv(99) == b"frame"
    ends["b"][0].close()
    plug("b")
    ends["c"][0].sendto(b"again", ends["c"][1])
    assert ends["b"][0].recv(99) == b"again"
    assert ends["a"][0].recv(99) == b"again"
    for end, _ in ends.values():
        end.close()


def entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    found, at = {}, 0
    while True:
        assert archive[at : at + 6] == b"070701"
        assert at % 4 == 0
        mode, size, length = (int(archive[at + start : at + start + 8], 16) for start in (14, 54, 94))
        name = archive[at + 110 : at + 110 + length - 1].decode()
        body = at + (110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, archive[body : body + size])
        at = body + (size + 3) // 4 * 4


def test_a_machines_files_follow_the_initrd():
    files = {"etc/a/file": (0o640, b"text"), "usr/link": (0o120777, b"/there")}
    whole = appended(b"12345", files)
    assert whole[:8] == b"12345\0\0\0"
    found = entries(whole[8:])
    assert found[f"{TREE}/etc/a/file"] == (0o100640, b"text")
    assert found[f"{TREE}/usr/link"] == (0o120777, b"/there")
    assert found[f"{TREE}/etc/a"] == (0o040755, b"")
    assert found[f"{TREE}/etc/.machine-files"][1] == b"etc/a/file\nusr/link\n"
    assert list(found).index(f"{TREE}/etc") < list(found).index(f"{TREE}/etc/a/file")
