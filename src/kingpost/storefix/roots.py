"""What keeps paths alive: gcroots, profile generations, running processes, temporary roots; and links to nothing.

Source: LocalStore::findRoots, findRuntimeRoots and findTempRoots in src/libstore/gc.cc. Only symlinks directly
into the store, or to another symlink into the store, are roots; so is a regular file named like a store path.
"""
# Bytes and descriptors, not pathlib: names need not be text, and /proc is read file by file.

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CannotLookError
from .interface import BASE_NAME
from .locate import resolve_inside
from .locks import is_held

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .interface import StoreRoot

_GENERATION = re.compile(r"(.+)-(\d+)-link")
_MOST_MAPS = 1 << 24  # bytes read of one file below /proc


@dataclass(frozen=True)
class Root:
    """One reason why a path is alive.

    Attributes:
        base_name: The store path; empty for a link that leads nowhere at all.
        label: For people: `current system`, `profile system generation 41`, `process 812 (nginx)`.
        link: The link's place on this machine; empty for a process.
        rank: 0 the running or current system, 1 other links, 2 processes.
        current: It is the current generation of a profile, or the running system.

    """

    base_name: str
    label: str
    link: str
    rank: int
    current: bool = False


def find(store: StoreRoot, *, processes: bool = True) -> list[Root]:
    """Find every root, most important first, then by label.

    Args:
        store: The store.
        processes: Whether to look at running processes too, which takes longest.

    Raises:
        CannotLookError: A root cannot be read. Without it what is alive would look dead, and be dropped.

    """
    try:
        found = [*_links(store), *_temporary(store)]
    except OSError as error:
        raise CannotLookError(
            "a root cannot be read, so what is alive cannot be told",
            where=str(error.filename or store.state_dir),
            why=error.strerror or str(error),
            fix="read the kernel's log (dmesg): the disk may be failing; copy it before anything else",
        ) from error
    if processes:
        found += _processes(store)
    unique = {(root.base_name, root.label): root for root in reversed(found)}
    return sorted(unique.values(), key=lambda root: (root.rank, root.label, root.base_name))


def _links(store: StoreRoot) -> Iterator[Root]:
    for directory in ("gcroots", "profiles"):
        for place in _walk(store.state_dir / directory):
            root = _link(store, place)
            if root:
                yield root
    for name in ("current-system", "booted-system"):
        system = f"/run/{name}"
        if store.is_live_system and store.store_dir == "/nix/store" and os.path.islink(system):
            root = _link(store, system)
            if root:
                yield root


def _walk(directory: Path) -> Iterator[str]:
    """Give every entry that is no directory, following no symlink.

    Only who is not root passes over what may not be read.
    """
    todo = [str(directory)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        yield entry.path
        except OSError as error:
            if not _may_be_missing(error):
                raise


def _may_be_missing(error: OSError) -> bool:
    """Tell whether something is gone, or hidden from a user who is not root: anything else is a failure."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return True
    return error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0


def _target(place: str) -> str | None:
    """Give where a symlink leads; empty if it is none, None if there is nothing.

    Raises:
        OSError: It cannot be told.

    """
    try:
        if not stat.S_ISLNK(os.lstat(place).st_mode):
            return ""
        return os.readlink(place)
    except OSError as error:
        if _may_be_missing(error):
            return None
        raise


def _link(store: StoreRoot, place: str) -> Root | None:
    """Tell what root an entry below gcroots or profiles is; None if it is none."""
    name = os.path.basename(place)
    target = _target(place)
    if target is None:
        return None
    if not target:
        if BASE_NAME.fullmatch(name) and stat.S_ISREG(os.lstat(place).st_mode):
            return Root(name, f"gcroot file {name}", place, 1)
        return None
    base = store_name(store, target)
    if base:
        label, rank, current = _describe(store, place, "")
        return Root(base, label, place, rank, current)
    # An indirect root: the target must itself be a symlink into the store.
    label, rank, current = _describe(store, place, target)
    try:
        final = _target(_resolve(store, place, target))
    except CannotLookError:  # symlinks that lead in circles
        final = None
    if final is None:
        return Root("", label, place, rank, current)
    base = store_name(store, final)
    return Root(base, label, place, rank, current) if base else None


def _resolve(store: StoreRoot, place: str, target: str) -> str:
    """Give where a link's target is on this machine; its last component is not followed."""
    if not target.startswith("/"):
        return os.path.join(os.path.dirname(place), target)
    if store.is_live_system:
        return target
    parent, name = os.path.split(target)
    return str(resolve_inside(store.root, parent) / name)


def store_name(store: StoreRoot, target: str) -> str:
    """Give the base name of the store path that a path is or lies in; empty if it is outside of the store."""
    if not target.startswith(store.store_dir + "/"):
        return ""
    name = target[len(store.store_dir) + 1 :].split("/", 1)[0]
    return name if BASE_NAME.fullmatch(name) else ""


def _describe(store: StoreRoot, place: str, target: str) -> tuple[str, int, bool]:
    """Give label, rank and whether it is current, of a link."""
    name = os.path.basename(place)
    if name in ("current-system", "booted-system"):
        return name.replace("-", " "), 0, True
    profiles = str(store.state_dir / "profiles") + "/"
    if place.startswith(profiles):
        generation = _GENERATION.fullmatch(place[len(profiles) :])
        if generation:
            profile, number = generation.groups()
            current = _current_generation(profiles + profile) == name
            label = f"profile {profile} generation {number}" + (" (current)" if current else "")
            return label, 0 if current else 1, current
        return f"profile {place[len(profiles) :]}", 0, True
    return f"gcroot {target or place[len(str(store.state_dir)) + 1 :]}", 1, False


def _current_generation(profile: str) -> str:
    try:
        return os.path.basename(os.readlink(profile))
    except OSError:
        return ""


def _temporary(store: StoreRoot) -> Iterator[Root]:
    """Give the temporary roots of processes that live: their file is locked."""
    directory = store.state_dir / "temproots"
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        if not is_held(directory / name):
            continue
        try:
            text = (directory / name).read_bytes()
        except OSError:
            continue
        for path in text.split(b"\0")[:-1]:
            base = store_name(store, os.fsdecode(path))
            if base:
                yield Root(base, f"temporary root of process {name}", "", 2)


def _processes(store: StoreRoot) -> Iterator[Root]:
    """Give what running processes use: program, directory, open and mapped files, environment."""
    pattern = path_pattern(store)
    try:
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    except OSError:
        return
    for pid in pids:
        if pid == os.getpid():
            continue
        names = {match.group(1) for text in _texts(pid) for match in pattern.finditer(text)}
        if names:
            label = f"process {pid} ({process_name(pid)})"
            for name in sorted(names):
                yield Root(os.fsdecode(name), label, "", 2)


def path_pattern(store: StoreRoot) -> re.Pattern[bytes]:
    """Give a pattern for store paths as processes of this machine see them; group 1 is the base name."""
    places = {os.fsencode(store.real_store)}
    if store.is_live_system:
        places.add(os.fsencode(store.store_dir))
    some = b"|".join(re.escape(place) for place in sorted(places))
    return re.compile(b"(?:" + some + b")/(" + BASE_NAME.pattern.encode() + b")")


def _texts(pid: int) -> Iterator[bytes]:
    """Give every text of /proc that may name store paths of a process; what may not be read is passed over."""
    base = f"/proc/{pid}"
    for link in ("exe", "cwd", "root"):
        try:
            yield os.fsencode(os.readlink(f"{base}/{link}"))
        except OSError:
            continue
    try:
        descriptors = os.listdir(f"{base}/fd")
    except OSError:
        descriptors = []
    for descriptor in descriptors:
        try:
            yield os.fsencode(os.readlink(f"{base}/fd/{descriptor}"))
        except OSError:
            continue
    for name in ("maps", "environ"):
        try:
            with open(f"{base}/{name}", "rb") as file:
                yield file.read(_MOST_MAPS)
        except OSError:
            continue


def process_name(pid: int) -> str:
    """Give the short name of a process; `?` if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"
