"""Unpack a NAR onto the disk: never outside, never through a symlink, flushed before it counts."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Callable, Iterator, List, Optional

from .. import effects
from ..errors import ContentError
from .nar_parser import MAX_DEPTH, Read, Reader, parse

if TYPE_CHECKING:
    from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TIMES = (1, 1)  # what Nix gives every file (source: src/libstore/posix-fs-canonicalise.cc)


def unpack(
    read: Read,
    into: Path,
    *,
    nar_hash: str,
    nar_size: int,
    advance: Optional[Callable[[int], None]] = None,
    endless: bool = False,
) -> None:
    """Unpack a NAR at `into`, check its hash and size, flush it to the disk.

    Args:
        read: Gives the NAR, uncompressed.
        into: Does not exist yet; its directory does.
        nar_hash: As the database spells it.
        nar_size: Bytes; 0 is unknown.
        advance: Told of the bytes as they come.
        endless: The stream stays open behind the NAR.

    Raises:
        ContentError: The bytes are no NAR or not this one. What was written stays.
        OSError: The disk does not take it.

    """
    above = os.open(into.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reader = Reader(read, limit=nar_size or None, advance=advance, endless=endless)
        writer = _Writer(above, os.fsencode(into.name))
        try:
            parse(reader, writer)
        finally:
            writer.close()
        if nar_size and reader.size != nar_size:
            raise ContentError(f"the NAR has {reader.size} bytes instead of {nar_size}")
        if reader.sha256 != nar_hash:
            raise ContentError(f"the NAR's hash is {reader.sha256} instead of {nar_hash}")
        effects.boundary("unpacked")
        _sync(above, into.name)
        os.fsync(above)
        effects.boundary("flushed")
    finally:
        os.close(above)


class _Writer:
    """Writes below one directory, every step relative to an open directory."""

    def __init__(self, above: int, name: bytes) -> None:
        self._open: List[int] = [above]
        self._root = name

    def close(self) -> None:
        """Close what a failed parse left open."""
        while len(self._open) > 1:
            os.close(self._open.pop())

    def enter(self, name: bytes) -> None:
        name = name or self._root
        effects.boundary("unpack directory")
        os.mkdir(name, 0o700, dir_fd=self._open[-1])
        self._open.append(os.open(name, _DIRECTORY, dir_fd=self._open[-1]))

    def leave(self) -> None:
        here = self._open.pop()
        try:
            os.fchmod(here, 0o555)
            os.utime(here, _TIMES)
        finally:
            os.close(here)

    def file(self, name: bytes, *, executable: bool, blocks: Iterator[memoryview]) -> None:
        effects.boundary("unpack file")
        file = os.open(name or self._root, _FILE, 0o600, dir_fd=self._open[-1])
        try:
            for block in blocks:
                effects.boundary("unpack bytes")
                written = os.write(file, block)
                while written < len(block):
                    written += os.write(file, block[written:])
            os.fchmod(file, 0o555 if executable else 0o444)
            os.utime(file, _TIMES)
        finally:
            os.close(file)

    def symlink(self, name: bytes, target: bytes) -> None:
        name = name or self._root
        effects.boundary("unpack symlink")
        os.symlink(target, name, dir_fd=self._open[-1])
        os.utime(name, _TIMES, dir_fd=self._open[-1], follow_symlinks=False)


def _sync(above: int, name: str, depth: int = 0) -> None:
    """Flush a tree, all at the end: far faster than one by one, for the first commits the journal for all."""
    mode = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
    if stat.S_ISREG(mode):
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    elif stat.S_ISDIR(mode):
        if depth > MAX_DEPTH:
            raise ContentError(f"more than {MAX_DEPTH} nested directories", where=name)
        here = os.open(name, _DIRECTORY, dir_fd=above)
        try:
            for child in os.listdir(here):
                _sync(here, child, depth + 1)
            os.fsync(here)
        finally:
            os.close(here)
