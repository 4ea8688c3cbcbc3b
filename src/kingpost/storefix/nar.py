"""The Nix archive (NAR) of a path on disk: its hash, its size, what it refers to. Nothing is ever written here.

Format: src/libutil/archive.cc. Every string is its length in 8 bytes, little-endian, its bytes, and zeros up to
the next multiple of 8.
"""
# Bytes and descriptors, not pathlib: a file name need not be text, and this is the innermost loop.

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from collections.abc import Collection

_SMALL = 1 << 16  # a file up to this size is read in one call and hashed together with its neighbours
_CHUNK = 1 << 18  # small enough to be still in the core's own cache when it is hashed
_HASH_RUN = re.compile(rb"[0-9abcdfghijklmnpqrsvwxyz]{32,}")
_PAD = tuple(b"\0" * (-n % 8) for n in range(8))

_threads = threading.local()  # a buffer for each

Emit = Callable[[bytes], None]


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + _PAD[len(text) % 8]


_MAGIC = _string(b"nix-archive-1")
_REGULAR = _string(b"(") + _string(b"type") + _string(b"regular") + _string(b"contents")
_EXECUTABLE = (
    _string(b"(") + _string(b"type") + _string(b"regular") + _string(b"executable") + _string(b"")
    + _string(b"contents")
)  # fmt: skip
_SYMLINK = _string(b"(") + _string(b"type") + _string(b"symlink") + _string(b"target")
_DIRECTORY = _string(b"(") + _string(b"type") + _string(b"directory")
_ENTRY = _string(b"entry") + _string(b"(") + _string(b"name")
_NODE = _string(b"node")
_END = _string(b")")


class NotArchivableError(Exception):
    """A path has something in it that no NAR can hold: a device, a socket, a file that changes."""


@dataclass(frozen=True)
class NarDigest:
    """What a NAR of a path on disk comes to: `sha256:` with 64 hexadecimal digits, and its bytes."""

    nar_hash: str
    nar_size: int


def digest(path: str | os.PathLike[str] | bytes) -> NarDigest:
    """Hash the NAR of a path.

    Raises:
        OSError: It cannot be read.
        NotArchivableError: It has no NAR.

    """
    sha = hashlib.sha256()
    size = 0

    def update(data: bytes | bytearray | memoryview) -> None:
        nonlocal size
        sha.update(data)
        size += len(data)

    dump(os.fsencode(path), update)
    return NarDigest("sha256:" + sha.hexdigest(), size)


def dump(path: bytes, emit: Callable[[bytes], None]) -> None:
    """Give the NAR of a path to `emit`, in pieces of some hundred kilobytes that are only valid during the call.

    Raises:
        OSError: It cannot be read.
        NotArchivableError: It has no NAR.

    """
    parts = [_MAGIC]
    waiting = 0
    # Directories still to finish: their sorted entries in reverse, so that pop() gives the next one.
    stack: list[tuple[bytes, list[tuple[bytes, int]]]] = []
    here, mode = path, os.lstat(path).st_mode
    kind = stat.S_IFMT(mode)
    add = parts.append
    while True:
        if kind == stat.S_IFREG:
            waiting += _regular(here, parts, emit, waiting)
            if waiting >= _CHUNK:
                emit(b"".join(parts))
                parts.clear()
                waiting = 0
        elif kind == stat.S_IFLNK:
            target = os.readlink(here)
            add(_SYMLINK + _string(target) + _END)
            waiting += len(target)
        elif kind == stat.S_IFDIR:
            add(_DIRECTORY)
            stack.append((here + b"/", _entries(here)))
        else:
            raise NotArchivableError(f"{os.fsdecode(here)}: no file, directory or symbolic link")
        if kind != stat.S_IFDIR and stack:
            add(_END)
        while stack and not stack[-1][1]:
            stack.pop()
            add(_END if not stack else _END + _END)
        if not stack:
            break
        prefix, rest = stack[-1]
        name, kind = rest.pop()
        here = prefix + name
        add(_ENTRY + _string(name) + _NODE)
    emit(b"".join(parts))


def _entries(directory: bytes) -> list[tuple[bytes, int]]:
    """Give names and kinds of a directory's entries, last name first."""
    with os.scandir(directory) as entries:
        found = [
            (
                entry.name,
                stat.S_IFLNK
                if entry.is_symlink()
                else stat.S_IFDIR
                if entry.is_dir(follow_symlinks=False)
                else stat.S_IFREG
                if entry.is_file(follow_symlinks=False)
                else 0,
            )
            for entry in entries
        ]
    found.sort(reverse=True)
    return found


def _regular(path: bytes, parts: list[bytes], emit: Emit, waiting: int) -> int:
    """Add one regular file; give by how many bytes `parts` grew, which may be less than nothing after a flush."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        size = status.st_size
        parts.append(
            (_EXECUTABLE if status.st_mode & stat.S_IXUSR else _REGULAR) + size.to_bytes(8, "little")
        )
        if size <= _SMALL:
            data = os.read(fd, size + 1) if size else b""
            if len(data) != size:
                raise NotArchivableError(f"{os.fsdecode(path)}: changes while it is read")
            parts.append(data)
            parts.append(_PAD[size % 8] + _END)
            return size + 128
        emit(b"".join(parts))
        parts.clear()
        _stream(fd, size, path, emit)
        parts.append(_PAD[size % 8] + _END)
        return -waiting
    finally:
        os.close(fd)


def _stream(fd: int, size: int, path: bytes, emit: Emit) -> None:
    """Give `size` bytes of a descriptor to `emit` through one buffer."""
    buffer = getattr(_threads, "buffer", None)
    if buffer is None:
        buffer = _threads.buffer = memoryview(bytearray(_CHUNK))
    done = 0
    while done < size:
        count = os.readv(fd, [buffer[: min(size - done, _CHUNK)]])
        if not count:
            raise NotArchivableError(f"{os.fsdecode(path)}: changes while it is read")
        emit(buffer[:count])  # type: ignore[arg-type]  # a view: joined, hashed or searched, like bytes
        done += count


def hash_parts(path: str | os.PathLike[str], among: Collection[bytes]) -> set[bytes]:
    """Give those of the 32-character hash parts `among` that occur in a path's NAR, as Nix finds references.

    Source: src/libutil/references.cc. Raises what `digest` raises.
    """
    found: set[bytes] = set()
    tail = b""

    def search(data: bytes) -> None:
        nonlocal tail
        text = tail + bytes(data)
        for run in _HASH_RUN.finditer(text):
            word = run.group()
            for start in range(len(word) - 31):
                part = word[start : start + 32]
                if part in among:
                    found.add(part)
        tail = text[-31:]

    dump(os.fsencode(path), search)
    return found


@dataclass(frozen=True)
class Metadata:
    """What can be told of a path without reading its contents.

    Attributes:
        canonical: Every mode is 0444 or 0555 and every time 1, as Nix leaves them just before it registers a
            path; a copy that was cut off is not.
        empty_files: Regular files of no bytes, relative to the path; Nix stores have few.
        nar_size: What its NAR would come to, in bytes; 0 if it has none.

    """

    canonical: bool
    empty_files: tuple[str, ...]
    nar_size: int


def metadata(path: str | os.PathLike[str]) -> Metadata:
    """Look at every entry of a path without reading contents; symlinks are not followed.

    Raises:
        OSError: It cannot be looked at.

    """
    top = os.fsencode(path)
    canonical, size, empty, archivable = True, len(_MAGIC), [], True
    todo = [top]
    while todo:
        here = todo.pop()
        status = os.lstat(here)
        kind = stat.S_IFMT(status.st_mode)
        if here != top:
            name = here.rsplit(b"/", 1)[1]
            size += len(_ENTRY) + len(_string(name)) + len(_NODE) + len(_END)
        if status.st_mtime_ns != 1_000_000_000 or (
            kind != stat.S_IFLNK and stat.S_IMODE(status.st_mode) not in (0o444, 0o555)
        ):
            canonical = False
        if kind == stat.S_IFDIR:
            size += len(_DIRECTORY) + len(_END)
            todo += [here + b"/" + name for name in os.listdir(here)]
        elif kind == stat.S_IFREG:
            head = _EXECUTABLE if status.st_mode & stat.S_IXUSR else _REGULAR
            size += len(head) + 8 + status.st_size + -status.st_size % 8 + len(_END)
            if not status.st_size:
                empty.append(os.fsdecode(here[len(top) + 1 :]))
        elif kind == stat.S_IFLNK:
            size += len(_SYMLINK) + len(_string(os.readlink(here))) + len(_END)
        else:
            archivable = False
    return Metadata(canonical, tuple(sorted(empty)), size if archivable else 0)
