"""Decompression as it streams: bounded memory, and an end that is really the end.

The libraries' own streams stop quietly when their input does. Here a cut-off frame, bytes after the last frame and
damage are three different errors. Frames may be concatenated: Attic joins one frame per chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, cast

from kingpost.cache.zstd_frames import DecompressionError, TrailingError, TruncatedError, ZstdFrames

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of compressed input read at once. Larger is slower: it falls out of the processor's cache.
READ_BYTES: Final = 128 * 1024
#: Bytes that bz2 and lzma are asked for at once: CPython gives more than its first block by copying it together.
_STEP_BYTES: Final = 32 * 1024
#: Most memory that a frame may ask for: libzstd's and libarchive's own limit, and so Nix's.
MAX_WINDOW_BYTES: Final = 128 * 1024 * 1024

#: Every compression that can be looked into, by the names that narinfo files use, and HTTP's Content-Encoding.
KNOWN: Final = ("none", "zstd", "xz", "lzma", "bzip2", "br", "gzip", "deflate")


class Source(Protocol):
    """Bytes from a cache."""

    def read(self, size: int, /) -> bytes:
        """Give up to `size` bytes; none at the end."""
        ...

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a buffer from its front and give how many bytes were written; 0 at the end."""
        ...


class UnknownCompressionError(ValueError):
    """The narinfo names a compression that kingpost cannot read."""


def decompressor(compression: str, source: Source) -> Source:
    """Give a source of the uncompressed bytes.

    Reading from it raises `DecompressionError` or one of its two kinds; errors of `source` pass through.

    Raises:
        UnknownCompressionError: The name is not one of `KNOWN`.

    """
    if compression in ("none", "", "identity"):
        return source
    if compression == "zstd":
        return _Zstd(source)
    form = _FORMATS.get(compression)
    if form is None:
        raise UnknownCompressionError(f"the compression {compression[:40]!r} is not known")
    return _Members(source, form)


class _Reader:
    """`read` in terms of `readinto`."""

    def readinto(self, buffer: memoryview, /) -> int:
        raise NotImplementedError

    def read(self, size: int, /) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(memoryview(buffer))])


#: Decoders of streams that have ended: to make one takes longer than to decompress a small NAR.
_spare: list[Any] = []
_MOST_SPARE: Final = 4


class _Zstd(_Reader):
    def __init__(self, source: Source) -> None:
        import zstandard  # noqa: PLC0415 - only for caches that use it

        self._frames = ZstdFrames(source)
        try:
            self._decoder: Any = _spare.pop()
        except IndexError:
            self._decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._stream = self._decoder.stream_reader(
            cast("IO[bytes]", self._frames), read_size=READ_BYTES, read_across_frames=True
        )
        self._error = zstandard.ZstdError

    def readinto(self, buffer: memoryview, /) -> int:
        if self._decoder is None:
            return 0
        try:
            count = self._stream.readinto(buffer)
        except self._error as error:
            raise DecompressionError(f"zstd: {error}") from error
        if not count and len(buffer):
            self._frames.check_end()
            if len(_spare) < _MOST_SPARE:
                _spare.append(self._decoder)
            self._decoder = None
        return int(count)


class _Member(Protocol):
    """One compressed stream, as bz2 and lzma decompress it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Format:
    """How to read one format; `magic` begins a further stream, zeros in multiples of `padding` may lie behind one."""

    make: Callable[[], _Member]
    magic: bytes = b""
    padding: int = 0


class _Members(_Reader):
    """Streams one after the other, each decompressed into at most the room that there is."""

    def __init__(self, source: Source, form: _Format) -> None:
        self._source = source
        self._form = form
        self._member = form.make()
        self._pending = b""
        self._done = False

    def readinto(self, buffer: memoryview, /) -> int:
        filled = 0
        while not self._done and filled < len(buffer):
            if self._member.eof:
                if filled:
                    break
                self._next_member()
                continue
            data, self._pending = self._pending, b""
            if not data and self._member.needs_input:
                if filled:
                    break
                data = self._source.read(READ_BYTES)
                if not data:
                    raise TruncatedError("the compressed stream ends in the middle")
            try:
                out = self._member.decompress(data, min(_STEP_BYTES, len(buffer) - filled))
            except Exception as error:  # each library raises its own class, some a bare Exception
                raise DecompressionError(f"it cannot be decompressed: {error}") from error
            buffer[filled : filled + len(out)] = out
            filled += len(out)
        return filled

    def _next_member(self) -> None:
        zeros = 0
        data = self._member.unused_data
        while True:
            rest = data.lstrip(b"\0") if self._form.padding else data
            zeros += len(data) - len(rest)
            if rest:
                break
            data = self._source.read(READ_BYTES)
            if not data:
                self._done = True
                if zeros and zeros % self._form.padding:
                    raise TrailingError(f"{zeros} zero bytes follow the end of the compressed stream")
                return
        magic = self._form.magic
        odd = zeros and zeros % self._form.padding
        if odd or not magic or not rest.startswith(magic[: len(rest)]):
            self._done = True
            raise TrailingError(f"{zeros + len(rest)} bytes or more follow the end of the compressed stream")
        self._member, self._pending = self._form.make(), rest


class _Gzip:
    """zlib with the manners of bz2."""

    def __init__(self, window_bits: int) -> None:
        import zlib  # noqa: PLC0415 - only for caches that use it

        self._inner = zlib.decompressobj(window_bits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        # With a full buffer the library may hold more output even when it has taken all input.
        self.needs_input = not self._inner.unconsumed_tail and len(out) < max_length
        return out


class _Brotli:
    """brotli with the manners of bz2. It tells bytes behind the end from damage only in a read of their own."""

    unused_data = b""

    def __init__(self) -> None:
        import brotli  # type: ignore[import-untyped] # noqa: PLC0415 - has no types; only for caches that use it

        self._inner = brotli.Decompressor()
        if not hasattr(self._inner, "can_accept_more_data"):
            raise UnknownCompressionError(
                "brotli needs the Python library brotli 1.2, which bounds its memory"
            )
        self._over = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return not self._over and bool(self._inner.is_finished())

    def decompress(self, data: bytes, max_length: int) -> bytes:
        # Its limit is rounded up to a block of its own size.
        out = self._over or self._inner.process(data, output_buffer_limit=max_length)
        self._over = out[max_length:]
        # It may hold more output even when it has taken all input: only a call that gives none says otherwise.
        self.needs_input = not out and bool(self._inner.can_accept_more_data())
        return bytes(out[:max_length])


def _xz() -> _Member:
    import lzma  # noqa: PLC0415 - only for caches that use it

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW_BYTES)


def _lzma() -> _Member:
    import lzma  # noqa: PLC0415 - only for caches that use it

    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_WINDOW_BYTES)


def _bz2() -> _Member:
    import bz2  # noqa: PLC0415 - only for caches that use it

    return bz2.BZ2Decompressor()


_FORMATS: Final[dict[str, _Format]] = {
    "xz": _Format(_xz, b"\xfd7zXZ\0", padding=4),  # the .xz file format, section 2.2
    "lzma": _Format(_lzma),
    "bzip2": _Format(_bz2, b"BZh"),
    "gzip": _Format(lambda: _Gzip(31), b"\x1f\x8b", padding=1),
    "deflate": _Format(lambda: _Gzip(15)),
    "br": _Format(_Brotli),
}
