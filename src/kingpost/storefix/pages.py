"""Read the pages of a SQLite file without SQLite, which gives up where a single page is wrong.

Only what a database of Nix has is understood: tables with a rowid, UTF-8 text. Every page is looked at on its
own; where the tree above is intact, it says to which table a page belongs, else its rows' shape does. Pages on
the list of free pages are left out: what they hold was deleted. Format: sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import integrity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TABLE_INNER, _INDEX_INNER, _TABLE_LEAF, _INDEX_LEAF = 5, 2, 13, 10
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_MOST_PAYLOAD = 1 << 24


class _Bad(Exception):  # noqa: N818 -- never leaves this module
    """A page or cell is not what it should be."""


@dataclass
class Tree:
    """What one b-tree holds.

    Attributes:
        rows: Rowid and values; an index has the rowid as its last value, and 0 as rowid.
        whole: Every page of it could be read.

    """

    rows: list[tuple[int, tuple[Any, ...]]] = field(default_factory=list)
    whole: bool = True


class PageFile:
    """A database file with the transactions of its write-ahead log on top, as far as they can be read.

    Args:
        database: The file; `<database>-wal` may lie beside it.

    """

    def __init__(self, database: Path) -> None:
        self._data = database.read_bytes() if database.is_file() else b""
        size = int.from_bytes(self._data[16:18], "big")
        size = 65536 if size == 1 else size
        sound = self._data.startswith(b"SQLite format 3\0") and size >= 512 and not size & (size - 1)
        self.page_size = size if sound else 4096
        reserved = self._data[20] if sound else 0
        self._usable = self.page_size - reserved
        self._newer = _logged(database, self.page_size)
        self.count = max([len(self._data) // self.page_size, *self._newer])
        self.seen: set[int] = set()

    def page(self, number: int) -> bytes:
        """Give a page by its number, which counts from 1."""
        if number in self._newer:
            return self._newer[number]
        return self._data[(number - 1) * self.page_size : number * self.page_size]

    def free(self) -> set[int]:
        """Give the pages on the list of free ones, as far as it can be followed."""
        found: set[int] = set()
        trunk = int.from_bytes(self.page(1)[32:36], "big")
        while 0 < trunk <= self.count and trunk not in found:
            found.add(trunk)
            page = self.page(trunk)
            number = int.from_bytes(page[4:8], "big")
            if number > self.page_size // 4 - 2:
                break
            leaves = struct.unpack(f">{number}I", page[8 : 8 + 4 * number])
            found.update(leaf for leaf in leaves if 0 < leaf <= self.count)
            trunk = int.from_bytes(page[:4], "big")
        return found

    def tree(self, root: int) -> Tree:
        """Read a b-tree from its root page."""
        tree = Tree()
        todo, met = [root], set()
        while todo:
            number = todo.pop()
            if not 0 < number <= self.count or number in met:
                tree.whole = False
                continue
            met.add(number)
            try:
                below = self._read(number, tree)
            except _Bad:
                tree.whole = False
                continue
            self.seen.add(number)
            todo += reversed(below)
        return tree

    def stray(self) -> Tree:
        """Read every leaf page that no tree read so far has reached and that is not free."""
        free = self.free()
        tree = Tree()
        for number in range(1, self.count + 1):
            if number in self.seen or number in free:
                continue
            page = self.page(number)
            if len(page) == self.page_size and page[0] in (_TABLE_LEAF, _INDEX_LEAF):
                try:
                    self._read(number, tree)
                except _Bad:
                    continue
        return tree

    def _read(self, number: int, tree: Tree) -> list[int]:
        """Add the rows of a page to a tree and give the pages below it."""
        page = self.page(number)
        start = 100 if number == 1 else 0
        if len(page) < self.page_size or page[start] not in (2, 5, 10, 13):
            raise _Bad
        kind = page[start]
        cells = int.from_bytes(page[start + 3 : start + 5], "big")
        inner = kind in (_TABLE_INNER, _INDEX_INNER)
        array = start + (12 if inner else 8)
        if array + 2 * cells > self._usable:
            raise _Bad
        below = []
        for place in struct.unpack(f">{cells}H", page[array : array + 2 * cells]):
            position = place
            if inner:
                below.append(int.from_bytes(page[position : position + 4], "big"))
                position += 4
            if kind == _TABLE_INNER:
                continue
            try:
                tree.rows.append(self._cell(page, position, is_table=kind == _TABLE_LEAF))
            except (_Bad, IndexError, UnicodeDecodeError, struct.error):
                tree.whole = False
        if inner:
            below.append(int.from_bytes(page[start + 8 : start + 12], "big"))
        return below

    def _cell(self, page: bytes, position: int, *, is_table: bool) -> tuple[int, tuple[Any, ...]]:
        size, position = _varint(page, position)
        rowid = 0
        if is_table:
            rowid, position = _varint(page, position)
        return rowid, _record(self._payload(page, position, size, is_table=is_table))

    def _payload(self, page: bytes, position: int, size: int, *, is_table: bool) -> bytes:
        """Give a cell's payload, following its overflow pages."""
        if size > _MOST_PAYLOAD:
            raise _Bad
        usable = self._usable
        most = usable - 35 if is_table else (usable - 12) * 64 // 255 - 23
        if size <= most:
            if position + size > usable:
                raise _Bad
            return page[position : position + size]
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= most else least
        parts = [page[position : position + local]]
        following = int.from_bytes(page[position + local : position + local + 4], "big")
        left = size - local
        while left > 0:
            if not 0 < following <= self.count:
                raise _Bad
            over = self.page(following)
            self.seen.add(following)
            parts.append(over[4 : 4 + min(left, usable - 4)])
            left -= usable - 4
            following = int.from_bytes(over[:4], "big")
        return b"".join(parts)


def _logged(database: Path, page_size: int) -> dict[int, bytes]:
    """Give the pages of the write-ahead log up to the last commit whose checksums are right."""
    wal = database.with_name(database.name + "-wal")
    readable = integrity.write_ahead_log(database).frames
    newer: dict[int, bytes] = {}
    if not readable:
        return newer
    with wal.open("rb") as file:
        header = file.read(32)
        if int.from_bytes(header[8:12], "big") != page_size:
            return newer
        for _ in range(readable):
            frame = file.read(24 + page_size)
            newer[int.from_bytes(frame[:4], "big")] = frame[24:]
    return newer


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for count in range(9):
        byte = data[position]
        position += 1
        if count == 8:
            value = value << 8 | byte
            break
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return (value - (1 << 64) if value >= 1 << 63 else value), position


def _record(payload: bytes) -> tuple[Any, ...]:
    """Take a record apart into its values; text that is no UTF-8 keeps its bytes by surrogateescape."""
    end, position = _varint(payload, 0)
    if not 0 < end <= len(payload):
        raise _Bad
    types = []
    while position < end:
        kind, position = _varint(payload, position)
        types.append(kind)
    values: list[Any] = []
    position = end
    for kind in types:
        if kind in _INTEGERS:
            size = _INTEGERS[kind]
            values.append(int.from_bytes(payload[position : position + size], "big", signed=True))
        elif kind in (0, 8, 9):
            size = 0
            values.append(None if kind == 0 else kind - 8)
        elif kind == 7:
            size = 8
            values.append(struct.unpack(">d", payload[position : position + 8])[0])
        elif kind >= 12:
            size = (kind - 12) // 2
            raw = payload[position : position + size]
            values.append(raw.decode("utf-8", "surrogateescape") if kind % 2 else raw)
        else:
            raise _Bad
        position += size
        if position > len(payload):
            raise _Bad
    return tuple(values)


def tables(file: PageFile) -> Iterator[tuple[str, str, int]]:
    """Give kind, name and root page of every table and index that the schema page still tells of."""
    for _, values in file.tree(1).rows:
        if len(values) == 5 and isinstance(values[3], int) and isinstance(values[1], str):
            yield str(values[0]), values[1], values[3]
