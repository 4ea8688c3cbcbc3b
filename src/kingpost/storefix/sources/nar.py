"""The NAR format: a parser that trusts nothing, and a writer for a path on disk.

    nar    = "nix-archive-1" node
    node   = "(" "type" ( "regular" ["executable" ""] "contents" bytes
                        | "symlink" "target" text
                        | "directory" {"entry" "(" "name" text "node" node ")"} ) ")"

Every string is its length (8 bytes, little-endian), its bytes and zeros up to a multiple of 8 (source:
NixOS/nix src/libutil/archive.cc). The parser takes only this canonical form: names sorted, unique and
harmless, padding zero, nothing behind the end. It works in constant memory and without recursion.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Callable, Iterator, List, Optional, Protocol, Tuple, Union

from ..errors import ContentError

Read = Callable[[int], bytes]
"""Gives at most so many bytes, at least one; none at the end."""

BLOCK = 1 << 18
MAX_NAME = 255
MAX_TARGET = 4095
MAX_DEPTH = 256
"""Nested directories. Nix takes 64 since 2.36 and had no limit before; each level costs an open directory."""

_ZEROS = bytes(8)


def _text(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + _ZEROS[: -len(text) % 8]


def _tokens(*texts: str) -> bytes:
    return b"".join(_text(text.encode()) for text in texts)


MAGIC = _tokens("nix-archive-1")
_OPEN = _tokens("(", "type")
_CLOSE = _tokens(")")
_NAME = _tokens("(", "name")
_NODE = _tokens("node")
_EXECUTABLE = _tokens("")
_TARGET = _tokens("target")
_FILE = _tokens("(", "type", "regular", "contents")
_PROGRAM = _tokens("(", "type", "regular", "executable", "", "contents")
_LINK = _tokens("(", "type", "symlink", "target")
_DIRECTORY = _tokens("(", "type", "directory")
_ENTRY = _tokens("entry", "(", "name")
_LONGEST_TAG = len("executable")


class Sink(Protocol):
    """What a parser fills. Names are single path components, checked; the root's is empty."""

    def enter(self, name: bytes) -> None:
        """Begin a directory."""

    def leave(self) -> None:
        """End the directory begun last."""

    def file(self, name: bytes, *, executable: bool, blocks: Iterator[memoryview]) -> None:
        """Take a file; `blocks` must be read to its end, and each block is gone after the next."""

    def symlink(self, name: bytes, target: bytes) -> None:
        """Take a symbolic link."""


class Reader:
    """Buffers a stream, hashes and counts what comes in, and stops a NAR that is longer than promised.

    Args:
        read: The stream.
        limit: Bytes that the NAR may have; None has no limit.
        advance: Told of the bytes as they come.

    """

    def __init__(
        self, read: Read, *, limit: Optional[int] = None, advance: Optional[Callable[[int], None]] = None
    ) -> None:
        self._read = read
        self._limit = limit
        self._advance = advance
        self._buffer = b""
        self._at = 0
        self._sha256 = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """Give the hash of everything read so far, as the database spells it."""
        return f"sha256:{self._sha256.hexdigest()}"

    def _more(self) -> bytes:
        block = self._read(BLOCK)
        if block:
            self._sha256.update(block)
            self.size += len(block)
            if self._limit is not None and self.size > self._limit:
                raise ContentError(f"the NAR is longer than the {self._limit} bytes promised")
            if self._advance is not None:
                self._advance(len(block))
        return block

    def take(self, count: int) -> bytes:
        """Give exactly so many bytes; for the short strings of the format only."""
        while len(self._buffer) - self._at < count:
            block = self._more()
            if not block:
                raise ContentError(f"the NAR ends too early, after {self.size} bytes")
            self._buffer = self._buffer[self._at :] + block
            self._at = 0
        self._at += count
        return self._buffer[self._at - count : self._at]

    def expect(self, tokens: bytes) -> None:
        """Read exactly these tokens."""
        got = self.take(len(tokens))
        if got != tokens:
            raise ContentError(f"bad NAR before byte {self._place()}: not the tokens that the format wants")

    def text(self, longest: int) -> bytes:
        """Read one string."""
        size = int.from_bytes(self.take(8), "little")
        if size > longest:
            raise ContentError(f"bad NAR before byte {self._place()}: a string of {size} bytes")
        text = self.take(size)
        self.padding(size)
        return text

    def padding(self, size: int) -> None:
        """Read the zeros behind a string of this size."""
        if any(self.take(-size % 8)):
            raise ContentError(f"bad NAR before byte {self._place()}: padding that is not zero")

    def blocks(self, size: int) -> Iterator[memoryview]:
        """Read a file's bytes, as they lie in the buffer."""
        left = size
        while left:
            if self._at == len(self._buffer):
                self._buffer, self._at = self._more(), 0
                if not self._buffer:
                    raise ContentError(f"the NAR ends too early, {left} bytes before the end of a file")
            block = memoryview(self._buffer)[self._at : self._at + left]
            self._at += len(block)
            left -= len(block)
            yield block

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self._at != len(self._buffer) or self._more():
            raise ContentError("there are bytes behind the end of the NAR")

    def _place(self) -> int:
        return self.size - len(self._buffer) + self._at


def parse(reader: Reader, sink: Sink) -> None:
    """Read one NAR to its end.

    Raises:
        ContentError: It is no canonical NAR, or ends too early or too late.

    """
    reader.expect(MAGIC)
    names: List[bytes] = []  # of each directory open: the entry read last
    _node(reader, sink, b"", names)
    while names:
        tag = reader.text(_LONGEST_TAG)
        if tag == b"entry":
            reader.expect(_NAME)
            name = reader.text(MAX_NAME)
            if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
                raise ContentError(f"the NAR holds the file name {name!r}", why="it could reach elsewhere")
            if name <= names[-1]:
                raise ContentError(f"the NAR's names are not sorted: {name!r} after {names[-1]!r}")
            names[-1] = name
            reader.expect(_NODE)
            _node(reader, sink, name, names)
        elif tag == b")":
            sink.leave()
            names.pop()
            if names:
                reader.expect(_CLOSE)
        else:
            raise ContentError(f"bad NAR: {tag!r} where an entry or an end belongs")
    reader.end()


def _node(reader: Reader, sink: Sink, name: bytes, names: List[bytes]) -> None:
    """Read a node; of a directory only the beginning, which is pushed on `names`."""
    reader.expect(_OPEN)
    kind = reader.text(_LONGEST_TAG)
    if kind == b"directory":
        if len(names) == MAX_DEPTH:
            raise ContentError(f"the NAR nests more than {MAX_DEPTH} directories")
        sink.enter(name)
        names.append(b"")
        return
    if kind == b"regular":
        tag = reader.text(_LONGEST_TAG)
        executable = tag == b"executable"
        if executable:
            reader.expect(_EXECUTABLE)
            tag = reader.text(_LONGEST_TAG)
        if tag != b"contents":
            raise ContentError(f"bad NAR: {tag!r} where a file's contents belong")
        size = int.from_bytes(reader.take(8), "little")
        sink.file(name, executable=executable, blocks=reader.blocks(size))
        reader.padding(size)
    elif kind == b"symlink":
        reader.expect(_TARGET)
        target = reader.text(MAX_TARGET)
        if not target or b"\0" in target:
            raise ContentError("the NAR holds a symlink without a valid target")
        sink.symlink(name, target)
    else:
        raise ContentError(f"the NAR holds a file of the unknown type {kind!r}")
    reader.expect(_CLOSE)
    if names:
        reader.expect(_CLOSE)


Block = Union[bytes, bytearray, memoryview]
Write = Callable[[Block], object]

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_SMALL = 1 << 16
_LARGE = 1 << 20


def dump(path: Union[str, os.PathLike[str]], write: Write) -> None:
    """Write the NAR of a path on disk. Symlinks are recorded, never followed.

    Args:
        path: A file, directory or symlink.
        write: Gets the bytes in order; it must be done with each block when it returns.

    Raises:
        OSError: Something cannot be read.
        ContentError: A device, socket or pipe is in it, or a file shrank while being read.

    """
    _Dump(write).path(os.fspath(path))


def hash_path(
    path: Union[str, os.PathLike[str]], advance: Optional[Callable[[int], None]] = None
) -> Tuple[str, int]:
    """Give a path's NAR hash, as the database spells it, and NAR size in bytes.

    The interpreter's lock is free while hashing, so threads work side by side.

    Raises:
        OSError: Something cannot be read.
        ContentError: A device, socket or pipe is in it, or a file shrank while being read.

    """
    sha256 = hashlib.sha256()
    size = 0

    def write(block: Block) -> None:
        nonlocal size
        sha256.update(block)
        size += len(block)
        if advance is not None:
            advance(len(block))

    dump(path, write)
    return f"sha256:{sha256.hexdigest()}", size


class _Dump:
    """Collects small tokens and files, and hands large files on as they are read."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._out = bytearray()
        self._large: Optional[memoryview] = None

    def path(self, path: str) -> None:
        parent, _, name = path.rstrip("/").rpartition("/")
        parent = parent or ("/" if path.startswith("/") else ".")
        above = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._out += MAGIC
        try:
            mode = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                self._directory(above, name, path)
            elif stat.S_ISLNK(mode):
                self._symlink(above, name)
            elif stat.S_ISREG(mode):
                self._file(above, name, path)
            else:
                raise ContentError("neither file, directory nor symlink", where=path)
        finally:
            os.close(above)
        self._write(self._out)

    def _directory(self, above: int, name: str, path: str, depth: int = 1) -> None:
        if depth > MAX_DEPTH:
            raise ContentError(f"more than {MAX_DEPTH} nested directories", where=path)
        here = os.open(name, _READ_FLAGS | os.O_DIRECTORY, dir_fd=above)
        try:
            with os.scandir(here) as found:
                entries = sorted((os.fsencode(entry.name), entry) for entry in found)
            self._out += _DIRECTORY
            for raw, entry in entries:
                out = self._out
                out += _ENTRY
                out += _text(raw)
                out += _NODE
                if entry.is_file(follow_symlinks=False):
                    self._file(here, entry.name, path)
                elif entry.is_symlink():
                    self._symlink(here, entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    self._directory(here, entry.name, f"{path}/{entry.name}", depth + 1)
                else:
                    raise ContentError("neither file, directory nor symlink", where=f"{path}/{entry.name}")
                self._out += _CLOSE
            self._out += _CLOSE
        finally:
            os.close(here)

    def _symlink(self, above: int, name: str) -> None:
        self._out += _LINK + _text(os.fsencode(os.readlink(name, dir_fd=above))) + _CLOSE

    def _file(self, above: int, name: str, path: str) -> None:
        file = os.open(name, _READ_FLAGS, dir_fd=above)
        try:
            status = os.fstat(file)
            size = status.st_size
            out = self._out
            out += _PROGRAM if status.st_mode & stat.S_IXUSR else _FILE
            out += size.to_bytes(8, "little")
            if size <= _SMALL:
                left = size
                while left:
                    block = os.read(file, left)
                    if not block:
                        break
                    out += block
                    left -= len(block)
            else:
                left = self._contents(file, size)
        finally:
            os.close(file)
        if left:
            raise ContentError(f"{name!r} lost {left} bytes while it was read", where=path)
        self._out += _ZEROS[: -size % 8] + _CLOSE
        if len(self._out) > _LARGE:
            self._flush()

    def _contents(self, file: int, left: int) -> int:
        self._flush()
        if self._large is None:
            self._large = memoryview(bytearray(_LARGE))
        while left:
            count = os.readv(file, [self._large[: min(left, _LARGE)]])
            if not count:
                break
            self._write(self._large[:count])
            left -= count
        return left

    def _flush(self) -> None:
        self._write(self._out)
        self._out = bytearray()
