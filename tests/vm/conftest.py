"""Fixtures of the machines: what boots them, or a skip that says how to get it."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests.real.conftest import Nix, require

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents and "machines" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.vm)
            # Each machine emulates its processors on those of this one: one test at a time.
            item.add_marker(pytest.mark.xdist_group("vm"))
        elif HERE in item.path.parents and "nix_new" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)


@cache
def provided() -> dict[str, Path]:
    """Give what boots machines, by name (see `provide`)."""
    done = subprocess.run([HERE / "provide"], capture_output=True, text=True, check=True)
    pairs = (line.split("=", 1) for line in done.stdout.splitlines())
    return {name: Path(path) for name, path in pairs}


@pytest.fixture
def nix_new(tmp_path):
    """The newest real Nix, with a private store."""
    return Nix("2.34", require("nix234"), tmp_path / "nix-2.34")


@pytest.fixture
def machines():
    """What boots machines: (image, QEMU's directory, a folder with a short path for their state)."""
    for name in ("qemu", "image"):
        if name not in provided():
            pytest.skip(f"{name} is not here: run `make vm` (as root) first")
    with tempfile.TemporaryDirectory(prefix="kp-vm.") as folder:
        yield provided()["image"], provided()["qemu"], Path(folder)
