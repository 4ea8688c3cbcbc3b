"""Read a NAR while it streams, trusting nothing in it.

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
from typing import Callable, Iterator, List, Optional, Protocol

from ..errors import ContentError

Read = Callable[[int], bytes]
"""Gives at most so many bytes, at least one; none at the end."""

BLOCK = 1 << 18
MAX_NAME = 255
MAX_TARGET = 4095
MAX_DEPTH = 256
"""Nested directories. Nix takes 64 since 2.36 and had no limit before; each level costs an open directory."""


def _tokens(*texts: str) -> bytes:
    return b"".join(len(text).to_bytes(8, "little") + text.encode() + bytes(-len(text) % 8) for text in texts)


MAGIC = _tokens("nix-archive-1")
_OPEN = _tokens("(", "type")
_CLOSE = _tokens(")")
_NAME = _tokens("(", "name")
_NODE = _tokens("node")
_EXECUTABLE = _tokens("")
_TARGET = _tokens("target")
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
        endless: The stream stays open behind the NAR, so its end must not be waited for.

    """

    def __init__(
        self,
        read: Read,
        *,
        limit: Optional[int] = None,
        advance: Optional[Callable[[int], None]] = None,
        endless: bool = False,
    ) -> None:
        self._read = read
        self._limit = limit
        self._advance = advance
        self._endless = endless
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
        if self._at != len(self._buffer) or (not self._endless and self._more()):
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
