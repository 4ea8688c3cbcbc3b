"""Servers and clients that Debian does not have, taken from the machine that runs the tests where it has them.

A variable names each (`KINGPOST_ATTICD=/somewhere/atticd`), or it is on PATH. With the shared libraries that it needs
it goes onto a disk of its own for the guest.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.real.conftest import provided

PROGRAMS = {
    "attic-server": {"atticd": "KINGPOST_ATTICD", "atticadm": "KINGPOST_ATTICADM"},
    "attic-client": {"attic": "KINGPOST_ATTIC"},
    "gitlab-runner": {"gitlab-runner": "KINGPOST_GITLAB_RUNNER"},
    "rclone": {"rclone": "KINGPOST_RCLONE"},
}
"""By package: each program, and the variable that names its file."""

MOUNTED = "opt/kingpost-real"
"""Where a guest has them."""


def real(package: str) -> dict[str, Path]:
    """Give the files of a package's programs by name; empty unless all of them are here."""
    found = {name: _find(name, variable) for name, variable in PROGRAMS.get(package, {}).items()}
    there = {name: path for name, path in found.items() if path}
    return there if len(there) == len(found) else {}


def missing(packages: tuple[str, ...]) -> str:
    """Say which programs are not here, and how to name them; empty when all are."""
    wanted = [
        f"{name} (name it with {variable})"
        for package in packages
        if not real(package)
        for name, variable in PROGRAMS[package].items()
    ]
    return ", ".join(wanted)


def _find(name: str, variable: str) -> Path | None:
    if name == "rclone" and "rclone" in provided():
        return provided()["rclone"] / "rclone"
    named = os.environ.get(variable) or shutil.which(name)
    if not named and name == "atticadm" and (server := _find("atticd", "KINGPOST_ATTICD")):
        named = shutil.which("atticadm", path=str(server.parent))
    return Path(named) if named and Path(named).is_file() else None


def make_disk(packages: list[str], image: Path) -> None:
    """Make a disk with packages' programs in it: PACKAGE/bin/PROGRAM."""
    tree = image.with_suffix(".tree")
    for package in packages:
        for name, program in real(package).items():
            _install(tree / package, name, program)
    size = sum(file.stat().st_size for file in tree.rglob("*") if file.is_file()) * 5 // 4 + (16 << 20)
    subprocess.run(["truncate", "-s", str(size), image], check=True)
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image], check=True, env=environment)
    shutil.rmtree(tree)


def _install(folder: Path, name: str, program: Path) -> None:
    """Copy a program, with its libraries and the loader that fits them: the guest's may be older."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    libraries = [Path(path) for path in re.findall(r"(/\S+) \(0x", said)]
    loader = next((path for path in libraries if path.name.startswith("ld-")), None)
    if loader is None:
        shutil.copy(program, folder / "bin" / name)
        return
    (folder / "lib").mkdir(exist_ok=True)
    (folder / "libexec").mkdir(exist_ok=True)
    for library in libraries:
        shutil.copy(library, folder / "lib" / library.name)
    shutil.copy(program, folder / "libexec" / name)
    place = f"/{MOUNTED}/{folder.name}"
    wrapper = (
        f'#!/bin/sh\nexec {place}/lib/{loader.name} --library-path {place}/lib {place}/libexec/{name} "$@"\n'
    )
    (folder / "bin" / name).write_text(wrapper)
    (folder / "bin" / name).chmod(0o755)
