"""What lies around a store: trash of builds that ended early, dead sessions, damaged caches, causes of damage."""
# Bytes and descriptors, not pathlib: names need not be text.

from __future__ import annotations

import os
import re
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Mapping

from .findings import (
    DISK_FULL,
    FSYNC_OFF,
    INTERRUPTED,
    LEFTOVER,
    NARINFO_CACHE,
    NOTE,
    PROBLEM,
    SERVE_PROCESS,
    Finding,
)
from .integrity import sqlite_complaint
from .locks import is_held
from .roots import process_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .interface import Settings, StoreRoot

_HASH = "[0-9abcdfghijklmnpqrsvwxyz]{32}"
# Source: src/libstore/{pathlocks,build/derivation-building-goal,optimise-store,local-store}.cc.
# Group 1 is the path that something stands beside.
_LOCK = re.compile(f"{_HASH}-.+\\.lock")
_BESIDE = (
    (re.compile(f"({_HASH}-.+)\\.chroot"), "sandbox of a build"),
    (re.compile(f"({_HASH}-.+)\\.check"), "result of a check build"),
    (re.compile(f"({_HASH}-.+)\\.old-\\d+-\\d+"), "path that Nix had moved aside"),
)
_ALONE = (
    (re.compile(r"\.tmp-link-\d+-\d+"), "half-made hard link"),
    (re.compile(r"tmp-\d+-\d+"), "temporary directory of a copy"),
)
_FULL_SHARE, _FULL_BYTES = 0.01, 512 << 20
_MOST_LOCK_BYTES = 1


def trash(store: StoreRoot, name: str) -> str:
    """Say what a name in the store directory is a leftover of; empty if of nothing known.

    A path may be named like one, and then it is no leftover: a check result stands beside the path that it is
    of, which a path named `foo.check` does not, for no two paths share their hash part. Nor is a path that Nix
    moved aside while it is all that there is of it.
    """
    place = store.real_store / name
    if _LOCK.fullmatch(name):
        try:
            status = place.lstat()
        except OSError:
            return ""
        # A source file named flake.lock has contents, or the time of a path at least.
        lock = stat.S_ISREG(status.st_mode) and status.st_size <= _MOST_LOCK_BYTES
        return "lock file of a build or copy" if lock and status.st_mtime != 1 else ""
    for pattern, what in _BESIDE:
        match = pattern.fullmatch(name)
        if match:
            return what if os.path.lexists(store.real_store / match.group(1)) else ""
    return next((what for pattern, what in _ALONE if pattern.fullmatch(name)), "")


def find_trash(store: StoreRoot, names: Iterable[str]) -> list[Finding]:
    """Find leftovers among the names without a row, in `.links`, and in the directory of builds."""
    found = []
    names = sorted(names)
    for name in names:
        what = trash(store, name)
        if what and not _in_use(store, name):
            found.append(_leftover(store.path(name), what))
    half = [name for name in _list(store.real_store / ".links") if name.startswith(".tmp-link-")]
    found += [_leftover(store.path(f".links/{name}"), "half-made hard link") for name in half]
    builds = store.state_dir / "builds"
    # Whose directory it is, its name does not tell: while anything is being built, none is a leftover.
    if not any(name.endswith(".lock") and is_held(store.real_store / name) for name in names):
        found += [_leftover(str(builds / name), "directory of a build") for name in _list(builds)]
    return found


def _leftover(subject: str, what: str) -> Finding:
    return Finding(LEFTOVER, NOTE, subject, f"{what}, left behind")


def _list(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _in_use(store: StoreRoot, name: str) -> bool:
    """Tell whether a build that runs holds a leftover, so that it is none yet."""
    for suffix in (".chroot", ".check", ".lock"):
        if name.endswith(suffix):
            return is_held(store.real_store / (name[: -len(suffix)] + ".lock"))
    return False


def serve_processes(store: StoreRoot) -> list[Finding]:
    """Find `nix-store --serve` processes on this store whose session has ended: they block the next copy.

    Such a process has been given to init, or nobody holds the other end of its standard input
    (NixOS/nix#2699).
    """
    if not store.is_live_system:
        return []
    found = []
    for name in _list(Path("/proc")):
        if not name.isdecimal():
            continue
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            if b"--serve" not in words or not os.path.basename(words[0]).startswith(b"nix"):
                continue
            parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if _uses(int(name), store) and (parent == 1 or _input_is_dead(int(name))):
            found.append(
                Finding(
                    SERVE_PROCESS,
                    PROBLEM,
                    f"process {name}",
                    f"serves a session that has ended; after a look at it: kill {name}",
                    evidence={"pid": int(name), "parent": parent, "name": process_name(int(name))},
                )
            )
    return found


def _uses(pid: int, store: StoreRoot) -> bool:
    """Tell whether a process has files of the store's database directory open."""
    directory = os.path.realpath(store.state_dir / "db") + "/"
    for descriptor in _list(Path(f"/proc/{pid}/fd")):
        try:
            if os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith(directory):
                return True
        except OSError:
            continue
    return False


def _input_is_dead(pid: int) -> bool:
    """Tell whether a process reads from a pipe that nobody else has open."""
    try:
        pipe = os.readlink(f"/proc/{pid}/fd/0")
    except OSError:
        return False
    if not pipe.startswith("pipe:"):
        return False
    for name in _list(Path("/proc")):
        if not name.isdecimal() or int(name) == pid:
            continue
        for descriptor in _list(Path(f"/proc/{name}/fd")):
            try:
                if os.readlink(f"/proc/{name}/fd/{descriptor}") == pipe:
                    return False
            except OSError:
                continue
    return True


def narinfo_caches(store: StoreRoot, environment: Mapping[str, str]) -> list[Finding]:
    """Find damaged `binary-cache-v*.sqlite`: what a client remembers of substituters, safe to remove."""
    if store.is_live_system:
        home = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME", "/root"), ".cache")
        directory = Path(home) / "nix"
    else:
        directory = store.relocate("/root/.cache/nix")
    found = []
    for name in _list(directory):
        if re.fullmatch(r"binary-cache-v\d+\.sqlite", name):
            complaint = _complaint(directory / name)
            if complaint:
                found.append(
                    Finding(
                        NARINFO_CACHE,
                        PROBLEM,
                        str(directory / name),
                        f"damaged, safe to remove: {complaint}",
                    )
                )
    return found


def _complaint(path: Path) -> str:
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)
    except sqlite3.Error as error:
        return str(error)
    try:
        return sqlite_complaint(connection)
    finally:
        connection.close()


def causes(store: StoreRoot, settings: Settings) -> list[Finding]:
    """Find what may have caused damage: a full disk, a Nix that does not flush."""
    found = []
    for what, place in (("store", store.real_store), ("database", store.state_dir)):
        status = os.statvfs(place)
        free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
        if free < min(_FULL_BYTES, size * _FULL_SHARE) or (status.f_files and not status.f_favail):
            found.append(
                Finding(
                    DISK_FULL,
                    PROBLEM,
                    str(place),
                    f"the disk of the {what} is full: {free >> 20} MiB of {size >> 20} MiB and "
                    f"{status.f_favail} inodes are free",
                    evidence={"free_bytes": free, "size_bytes": size, "free_inodes": status.f_favail},
                )
            )
    if not settings.fsync_store_paths:
        found.append(
            Finding(
                FSYNC_OFF,
                NOTE,
                str(store.conf_dir / "nix.conf"),
                "a power loss can leave registered paths empty; set `fsync-store-paths = true` (Nix 2.25+)",
            )
        )
    return found


def interrupted(store: StoreRoot) -> list[Finding]:
    """Find runs of `apply` that did not come to their end."""
    runs = store.state_dir / "store-fix"
    what = "was interrupted; its backup is whole, and a new plan covers what is left"
    return [
        Finding(INTERRUPTED, NOTE, str(runs / name), what)
        for name in _list(runs)
        if (runs / name / "unfinished").exists()
    ]
