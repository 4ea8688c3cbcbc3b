"""The outline of a zstd stream: where frames and blocks begin and end, so that its end can be told from a cut.

libzstd's stream says nothing when its input stops in the middle of a frame. The outline costs three bytes read per
block of up to 128 KiB. Format: RFC 8878, section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from kingpost.cache.compression import Source

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = b"\x2a\x4d\x18"
_DICTIONARY_BYTES: Final = (0, 1, 2, 4)
_CONTENT_BYTES: Final = (0, 2, 4, 8)
_RLE: Final = 1
_RESERVED: Final = 3


class DecompressionError(ValueError):
    """The compressed stream is damaged."""


class TruncatedError(DecompressionError):
    """The compressed stream ends before its end mark."""


class TrailingError(DecompressionError):
    """The compressed stream is complete, and something that is no part of it follows."""


class ZstdFrames:
    """A source that passes its bytes on and follows the frames in them.

    Bytes that follow the last frame and begin no frame are held back, so that the frames before are still read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._read = 0
        self._skip = 0
        self._kept = b""  # of a header that the end of a read cut in two
        self._held = b""  # of a magic number likewise; not passed on before it is known to be one
        self._wanted = 4
        self._state: Callable[[bytes], None] = self._magic
        self._checksum = 0
        self._frames = 0
        self._trailing = False

    def check_end(self) -> None:
        """Judge the end, once the source has no more.

        Raises:
            TruncatedError: A frame is open, or there was none.
            TrailingError: Something that is no frame follows the last one.

        """
        read = f"{self._read} bytes of it were read"
        between = self._state == self._magic and not self._skip and self._frames > 0
        if self._trailing or (between and self._held and not _MAGIC.startswith(self._held)):
            raise TrailingError(f"bytes that are no zstd frame follow the last one; {read}")
        if not between or self._held:
            raise TruncatedError(f"the zstd stream ends in the middle of a frame; {read}")

    def read(self, size: int, /) -> bytes:
        """Read on; nothing more once something follows that is no frame."""
        while not self._trailing:
            fresh = self._source.read(size)
            if not fresh:
                break
            self._read += len(fresh)
            data, self._held = self._held + fresh, b""
            if good := self._follow(data):
                return data if good == len(data) else data[:good]
        return b""

    def _follow(self, data: bytes) -> int:
        """Follow the frames and give how many of the bytes may be passed on."""
        position, end = 0, len(data)
        while position < end:
            if self._skip:
                step = min(self._skip, end - position)
                self._skip -= step
                position += step
                continue
            if self._state == self._block and not self._kept:
                position = self._blocks(data, position, end)
                if self._skip or position == end:
                    continue
            between = self._state == self._magic
            if between and end - position < 4:
                self._held = data[position:]
                return position
            take = min(self._wanted - len(self._kept), end - position)
            self._kept += data[position : position + take]
            if len(self._kept) == self._wanted:
                head, self._kept = self._kept, b""
                self._state(head)
            if self._trailing:
                return position
            position += take
        return end

    def _blocks(self, data: bytes, position: int, end: int) -> int:
        """Pass whole blocks that are not the last of their frame; gives where the first other one begins."""
        while position + 3 <= end:
            header = data[position] | data[position + 1] << 8 | data[position + 2] << 16
            kind = header >> 1 & 3
            if header & 1 or kind == _RESERVED:
                break
            position += 4 if kind == _RLE else 3 + (header >> 3)
        if position > end:
            self._skip, position = position - end, end
        return position

    def readinto(self, buffer: memoryview, /) -> int:
        """Not used: zstandard calls `read`."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _expect(self, wanted: int, state: Callable[[bytes], None]) -> None:
        self._wanted, self._state = wanted, state

    def _magic(self, head: bytes) -> None:
        if head == _MAGIC:
            self._expect(1, self._descriptor)
        elif head[1:] == _SKIPPABLE and head[0] >> 4 == 5:
            self._expect(4, self._skippable)
        elif self._frames:
            self._trailing = True
        else:
            self._damaged()

    def _skippable(self, head: bytes) -> None:
        self._skip = int.from_bytes(head, "little")
        self._frames += 1
        self._expect(4, self._magic)

    def _descriptor(self, head: bytes) -> None:
        flags = head[0]
        single = flags >> 5 & 1
        content = _CONTENT_BYTES[flags >> 6] or single
        self._checksum = 4 if flags & 4 else 0
        self._skip = (0 if single else 1) + _DICTIONARY_BYTES[flags & 3] + content
        self._expect(3, self._block)

    def _block(self, head: bytes) -> None:
        header = int.from_bytes(head, "little")
        kind = header >> 1 & 3
        if kind == _RESERVED:
            self._damaged()
            return
        self._skip = 1 if kind == _RLE else header >> 3
        if header & 1:
            self._skip += self._checksum
            self._frames += 1
            self._expect(4, self._magic)

    def _damaged(self) -> None:
        """Follow no further: libzstd will say what is wrong. The stream never counts as complete."""
        self._frames = -(2**62)
        self._skip = 2**62
