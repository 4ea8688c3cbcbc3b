"""One pass over a body: decompressed, hashed, counted and read as a NAR, with none of it kept.

A piece of 128 KiB is decompressed into a buffer that stays in the processor's cache, hashed there, and its NAR
structure followed there; nothing is copied. Decompression and hashing release Python's lock.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kingpost.cache.compression import Source, UnknownCompressionError, decompressor
from kingpost.cache.fetch import FetchError, Trouble
from kingpost.cache.hashes import Hash
from kingpost.cache.nar import HEADROOM, NarError, NarValidator
from kingpost.cache.zstd_frames import DecompressionError

if TYPE_CHECKING:
    from kingpost.cache.fetch import Body
    from kingpost.cache.narinfo import NarInfo

#: Bytes decompressed at once. Larger pieces are slower: they fall out of the processor's cache.
PIECE: Final = 128 * 1024
_HEAD: Final = 64

_buffers = threading.local()


@dataclass(frozen=True, slots=True)
class Measured:
    """What came.

    Attributes:
        nar_bytes: Of the uncompressed NAR, as far as it was read.
        nar_hash: Of those bytes.
        file_bytes: Of the body, compressed.
        file_hash: Of those bytes.
        structure: Empty for a whole NAR, else what is wrong with it.
        trouble: What ended the reading early, or None.
        overlong: More than NarSize came, and the rest was not read.
        head: The body's first bytes.

    """

    nar_bytes: int
    nar_hash: Hash
    file_bytes: int
    file_hash: Hash
    structure: str
    trouble: FetchError | DecompressionError | None
    overlong: bool
    head: bytes


def measure(body: Body, info: NarInfo) -> Measured:
    """Read a body to its end, or to the first thing that cannot be mended.

    Raises:
        UnknownCompressionError: The narinfo names a compression that cannot be read.

    """
    tap = _Tap(_decoded(body), hashed=info.compression != "none")
    source = decompressor(info.compression, tap)
    digest = hashlib.sha256()
    count = kept = 0
    trouble: FetchError | DecompressionError | None = None
    structure = ""
    validator: NarValidator | None = NarValidator()
    buffer, view = _buffer()
    try:
        while fresh := source.readinto(view[kept : kept + PIECE]):
            end = kept + fresh
            digest.update(view[kept:end])
            count += fresh
            if count > info.nar_size:
                break
            if validator is not None:
                try:
                    kept = validator.feed(buffer, end)
                except NarError as error:
                    structure, validator, kept = str(error), None, 0
        if validator is not None and count <= info.nar_size:
            validator.finish(kept)
    except NarError as error:
        structure = str(error)
    except (FetchError, DecompressionError) as error:
        trouble = error
    nar_hash = Hash("sha256", digest.digest())
    return Measured(
        nar_bytes=count,
        nar_hash=nar_hash,
        file_bytes=tap.count,
        file_hash=nar_hash if info.compression == "none" else tap.hash(),
        structure=structure,
        trouble=trouble,
        overlong=count > info.nar_size,
        head=tap.head,
    )


def hash_body(body: Body, info: NarInfo, most: int) -> Measured:
    """Hash a body as it is, up to `most` bytes and a piece: what a NAR was taken out of before needs no more.

    The result speaks of the NAR as if it had been read; it holds only if `file_hash` is that of the body before.
    """
    source = _decoded(body)
    digest = hashlib.sha256()
    _, view = _buffer()
    count = 0
    while count <= most and (fresh := source.readinto(view)):
        digest.update(view[:fresh])
        count += fresh
    found = Hash("sha256", digest.digest())
    return Measured(info.nar_size, info.nar_hash, count, found, "", None, overlong=False, head=b"")


def _buffer() -> tuple[bytearray, memoryview]:
    """Give this thread's buffer, which is used again for every body."""
    if not hasattr(_buffers, "pair"):
        memory = bytearray(HEADROOM + PIECE)
        _buffers.pair = (memory, memoryview(memory))
    pair: tuple[bytearray, memoryview] = _buffers.pair
    return pair


def _decoded(body: Body) -> Source:
    """Undo HTTP's Content-Encoding, which is no part of the file."""
    encoding = body.encoding.removeprefix("x-")
    try:
        return decompressor(encoding, body)
    except UnknownCompressionError as error:
        raise FetchError(
            Trouble.PROTOCOL,
            f"the Content-Encoding {encoding[:40]!r} was not asked for",
            url=body.hops[-1].url,
        ) from error


class _Tap:
    """Count, and hash when wanted, what flows to the decompressor."""

    def __init__(self, source: Source, *, hashed: bool) -> None:
        self._source = source
        self._digest: Any = hashlib.sha256() if hashed else None
        self.count = 0
        self.head = b""

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        if self._digest is not None:
            self._digest.update(data)
        if len(self.head) < _HEAD:
            self.head = (self.head + data[:_HEAD])[:_HEAD]
        self.count += len(data)
        return data

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._source.readinto(buffer)
        if self._digest is not None:
            self._digest.update(buffer[:count])
        if len(self.head) < _HEAD:
            self.head = (self.head + bytes(buffer[: min(count, _HEAD)]))[:_HEAD]
        self.count += count
        return count

    def hash(self) -> Hash:
        return Hash("sha256", self._digest.digest())
