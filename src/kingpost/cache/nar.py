"""Is it a NAR? A validator of the archive's structure that streams and never looks at a file's contents.

The format (NixOS/nix doc/manual/source/protocols/nix-archive.md): every word is its length in 8 bytes, little-endian,
then its bytes, zero-padded to a multiple of 8. What lies between two names or contents is always one of a few fixed
runs of words, so each is compared as a whole: a file costs two comparisons however large it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: Room that a caller leaves before each chunk for the bytes that `feed` keeps.
HEADROOM: Final = 16 * 1024
#: No file system that Nix runs on has longer names or symlink targets, in bytes.
MAX_NAME: Final = 4096
#: Linux cannot name anything deeper: PATH_MAX is 4096 and each level costs at least two bytes.
MAX_DEPTH: Final = 2048


def _word(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + bytes(-len(text) % 8)


_MAGIC: Final = _word(b"nix-archive-1")
_TYPE: Final = _word(b"(") + _word(b"type")
_ENTRY: Final = _word(b"entry") + _word(b"(") + _word(b"name")
_NODE: Final = _word(b"node") + _TYPE
_REGULAR: Final = _word(b"regular")
_CONTENTS: Final = _REGULAR + _word(b"contents")
_EXECUTABLE: Final = _REGULAR + _word(b"executable") + _word(b"") + _word(b"contents")
_SYMLINK: Final = _word(b"symlink") + _word(b"target")
_DIRECTORY: Final = _word(b"directory")
_CLOSE: Final = _word(b")")
_CLOSE_BOTH: Final = _CLOSE + _CLOSE
_ROOT_END: Final = tuple(bytes(padding) + _CLOSE for padding in range(8))
_ENTRY_END: Final = tuple(bytes(padding) + _CLOSE_BOTH for padding in range(8))
_LENGTH: Final[Callable[[Any, int], tuple[int]]] = Struct("<Q").unpack_from

# The shortest thing that can follow a node's type word: `directory`, `)`.
_SHORTEST_NODE: Final = len(_DIRECTORY) + len(_CLOSE)
_WAIT: Final = -1


class NarError(ValueError):
    """The bytes are no NAR; the message says what is wrong and at which byte of the NAR."""


@dataclass(slots=True)
class NarCounts:
    """What a NAR holds."""

    files: int = 0
    executables: int = 0
    symlinks: int = 0
    directories: int = 0


class NarValidator:
    """Takes a NAR piece by piece and raises at the first byte that cannot be there.

    Memory is bounded: at most `HEADROOM` bytes are kept between pieces, and a name per open directory.
    """

    def __init__(self) -> None:
        self.counts = NarCounts()
        self._state: Callable[[bytearray, int, int], int] = self._start
        self._before = 0
        self._skip = 0
        self._padding = 0
        self._last = b""
        self._open: list[bytes] = []

    def feed(self, buffer: bytearray, end: int) -> int:
        """Take `buffer[:end]`, which begins with what the last call kept, and give how many bytes it keeps.

        The bytes kept are moved to the front of `buffer`; the next piece belongs right behind them.

        Raises:
            NarError: This is no NAR.

        """
        position = 0
        while True:
            if self._skip:
                step = min(self._skip, end - position)
                position += step
                self._skip -= step
                if self._skip:
                    break
            after = self._state(buffer, position, end)
            if after < 0:
                break
            position = after
        kept = end - position
        if kept and position:
            buffer[:kept] = buffer[position:end]
        self._before += position
        return kept

    def finish(self, kept: int) -> None:
        """Say that nothing follows; `kept` is what the last `feed` gave.

        Raises:
            NarError: The archive is not complete.

        """
        if self._state != self._ended:
            at = self._before + kept
            raise NarError(f"the NAR ends at byte {at} in the middle of its structure")

    def _wrong(self, position: int, wanted: str) -> NarError:
        return NarError(f"at byte {self._before + position} of the NAR there is no {wanted}")

    def _start(self, buffer: bytearray, position: int, end: int) -> int:
        head = len(_MAGIC) + len(_TYPE)
        if end - position < head + _SHORTEST_NODE:
            if not (_MAGIC + _TYPE).startswith(buffer[position : min(end, position + head)]):
                raise self._wrong(position, "`nix-archive-1`")
            return _WAIT
        if not buffer.startswith(_MAGIC, position):
            raise self._wrong(position, "`nix-archive-1`")
        if not buffer.startswith(_TYPE, position + len(_MAGIC)):
            raise self._wrong(position + len(_MAGIC), "`( type`")
        return self._node(buffer, position + head, end)

    def _node(self, buffer: bytearray, position: int, end: int) -> int:
        """Take a node from the word after `type`; the state changes only when it does not have to wait."""
        if buffer.startswith(_CONTENTS, position):
            return self._contents(buffer, position + len(_CONTENTS))
        if buffer.startswith(_DIRECTORY, position):
            if len(self._open) >= MAX_DEPTH:
                raise NarError(
                    f"directories are nested deeper than {MAX_DEPTH} at byte {self._before + position}"
                )
            self.counts.directories += 1
            self._open.append(self._last)
            self._last = b""
            self._state = self._directory
            return position + len(_DIRECTORY)
        if buffer.startswith(_REGULAR, position):
            if end - position < len(_EXECUTABLE) + 8:
                return _WAIT
            if not buffer.startswith(_EXECUTABLE, position):
                raise self._wrong(position + len(_REGULAR), "`contents` or `executable`")
            self.counts.executables += 1
            return self._contents(buffer, position + len(_EXECUTABLE))
        if buffer.startswith(_SYMLINK, position):
            return self._symlink(buffer, position + len(_SYMLINK), end)
        raise self._wrong(position, "`regular`, `symlink` or `directory`")

    def _contents(self, buffer: bytearray, position: int) -> int:
        (size,) = _LENGTH(buffer, position)
        self.counts.files += 1
        self._skip = size
        self._padding = -size % 8
        self._state = self._file_end
        return position + 8

    def _file_end(self, buffer: bytearray, position: int, end: int) -> int:
        wanted = (_ENTRY_END if self._open else _ROOT_END)[self._padding]
        if end - position < len(wanted):
            return _WAIT
        if not buffer.startswith(wanted, position):
            raise self._wrong(position, "zero padding and `)` after a file's contents")
        self._state = self._directory if self._open else self._ended
        return position + len(wanted)

    def _symlink(self, buffer: bytearray, position: int, end: int) -> int:
        if end - position < 8:
            return _WAIT
        (size,) = _LENGTH(buffer, position)
        if not 0 < size <= MAX_NAME:
            raise NarError(f"a symlink's target at byte {self._before + position} is {size} bytes long")
        wanted = (_ENTRY_END if self._open else _ROOT_END)[-size % 8]
        stop = position + 8 + size
        if end < stop + len(wanted):
            return _WAIT
        if not buffer.startswith(wanted, stop):
            raise self._wrong(stop, "zero padding and `)` after a symlink's target")
        if 0 in buffer[position + 8 : stop]:
            raise NarError(f"a symlink's target at byte {self._before + position} has a zero byte in it")
        self.counts.symlinks += 1
        self._state = self._directory if self._open else self._ended
        return stop + len(wanted)

    def _directory(self, buffer: bytearray, position: int, end: int) -> int:
        if end - position < len(_CLOSE):
            return _WAIT
        if buffer.startswith(_CLOSE, position):
            return self._directory_end(buffer, position, end)
        if end < position + len(_ENTRY) + 8:
            return _WAIT
        if not buffer.startswith(_ENTRY, position):
            raise self._wrong(position, "`entry ( name` or `)` in a directory")
        return self._entry(buffer, position + len(_ENTRY) + 8, end)

    def _entry(self, buffer: bytearray, name_at: int, end: int) -> int:
        (size,) = _LENGTH(buffer, name_at - 8)
        if not 0 < size <= MAX_NAME:
            raise NarError(f"a name at byte {self._before + name_at} is {size} bytes long")
        padding = -size % 8
        node_at = name_at + size + padding
        type_at = node_at + len(_NODE)
        if end < type_at + _SHORTEST_NODE:
            return _WAIT
        name = bytes(buffer[name_at : name_at + size])
        if b"/" in name or b"\0" in name or name in (b".", b"..") or name <= self._last:
            fault = "out of order" if name <= self._last else "not allowed"
            raise NarError(f"the name {name[:80]!r} at byte {self._before + name_at} is {fault}")
        if padding and any(buffer[name_at + size : node_at]):
            raise self._wrong(name_at + size, "zero padding after a name")
        if not buffer.startswith(_NODE, node_at):
            raise self._wrong(node_at, "`node ( type`")
        last, self._last = self._last, name
        after = self._node(buffer, type_at, end)
        if after < 0:
            self._last = last
        return after

    def _directory_end(self, buffer: bytearray, position: int, end: int) -> int:
        if len(self._open) == 1:
            self._open.clear()
            self._state = self._ended
            return position + len(_CLOSE)
        if end - position < len(_CLOSE_BOTH):
            return _WAIT
        if not buffer.startswith(_CLOSE_BOTH, position):
            raise self._wrong(position + len(_CLOSE), "`)` after a directory")
        self._last = self._open.pop()
        return position + len(_CLOSE_BOTH)

    def _ended(self, _buffer: bytearray, position: int, end: int) -> int:
        if end > position:
            raise NarError(f"the archive ends at byte {self._before + position}, and more follows")
        return _WAIT
