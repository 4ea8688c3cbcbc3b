"""A store that is mounted read-only, as on NixOS, in mount namespaces that the tests make."""

import subprocess
import sys

import pytest
from tests.real.conftest import require_root

WRITE = """
import sys, threading
from pathlib import Path
from kingpost.storefix.writable import make_writable
store = Path(sys.argv[1])
try:
    (store / "before").touch()
except OSError as error:
    print("before:", error.strerror)
make_writable(store)
writer = threading.Thread(target=(store / "after").touch)
writer.start()
writer.join()
print("after:", (store / "after").exists())
"""

UNCHANGED = """
import os, sys
from pathlib import Path
from kingpost.storefix.writable import make_writable
before = os.readlink("/proc/self/ns/mnt")
make_writable(Path(sys.argv[1]))
print(before == os.readlink("/proc/self/ns/mnt"))
"""


def inside(tmp_path, mounts, program):
    """Run Python in a new mount namespace after some mounts; gives what it printed and whether it is still so."""
    script = (
        f"set -e\n{mounts}\n{sys.executable} -c '{program}' {tmp_path}/store\ntouch {tmp_path}/store/outside"
    )
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def store(tmp_path):
    require_root()
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.mark.parametrize("flags", ["", ",nosuid,nodev,noatime", ",relatime"])
def test_a_read_only_bind_mount_is_writable_for_us_alone(tmp_path, flags):
    mounts = (
        f"mount --bind {tmp_path}/store {tmp_path}/store\nmount -o remount,bind,ro{flags} {tmp_path}/store"
    )
    done = inside(tmp_path, mounts, WRITE)
    assert done.stdout.splitlines() == ["before: Read-only file system", "after: True"]
    assert "Read-only file system" in done.stderr, "the shell beside us still cannot write"


def test_a_disk_that_is_read_only_itself_is_refused(tmp_path):
    mounts = f"mount -t tmpfs none {tmp_path}/store\nmount -o remount,ro {tmp_path}/store"
    done = inside(tmp_path, mounts, WRITE)
    assert done.returncode
    assert "the store is mounted read-only" in done.stderr
    assert "the file system itself is read-only" in done.stderr


def test_a_writable_store_needs_no_namespace(tmp_path):
    done = inside(tmp_path, "", UNCHANGED)
    assert done.stdout.strip() == "True"
