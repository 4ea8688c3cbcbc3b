"""What a machine's own programs become on a guest's disk."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.vm import real_programs
from tests.vm.real_programs import MOUNTED, make_disk, missing, real


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Two programs that are here: one with libraries, one without."""
    shutil.copy("/bin/true", tmp_path / "atticd")
    (tmp_path / "atticadm").write_text("#!/bin/sh\necho tokens\n")
    (tmp_path / "atticadm").chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    monkeypatch.setenv("KINGPOST_ATTICD", str(tmp_path / "atticd"))
    monkeypatch.delenv("KINGPOST_ATTIC", raising=False)
    return tmp_path


def test_a_program_is_named_by_a_variable_and_its_twin_is_beside_it(programs):
    assert real("attic-server") == {"atticd": programs / "atticd", "atticadm": programs / "atticadm"}
    (programs / "atticadm").unlink()
    assert real("attic-server") == {}


def test_what_is_missing_is_named_with_its_variable(programs):
    assert missing(("attic-server",)) == ""
    assert missing(("attic-server", "attic-client")) == "attic (name it with KINGPOST_ATTIC)"


def test_a_disk_has_programs_with_their_libraries_and_loader(programs, tmp_path):
    if not shutil.which("mke2fs"):
        pytest.skip("mke2fs is not here: run `make vm` (as root) first")
    image = tmp_path / "disk.img"
    make_disk(["attic-server"], image)

    def read(path: str) -> bytes:
        return subprocess.run(["debugfs", "-R", f"cat {path}", image], capture_output=True, check=True).stdout

    wrapper = read("attic-server/bin/atticd").decode()
    loader = wrapper.split()[2].removeprefix(f"/{MOUNTED}/")
    assert f"--library-path /{MOUNTED}/attic-server/lib " in wrapper
    assert read(loader)[:4] == read("attic-server/libexec/atticd")[:4] == b"\x7fELF"
    assert read("attic-server/bin/atticadm") == (programs / "atticadm").read_bytes()
    assert real_programs.PROGRAMS.keys() >= {"attic-server", "attic-client", "rclone"}
