"""Rows against names: which registered paths are not on disk, and which names on disk have no row.

Made for millions of paths: SQLite joins the paths of many rows into one value while the kernel lists the
directory, then sets of bytes are subtracted. No Python object is made per row but the name itself.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .database import MalformedError, connect
from .interface import BASE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .interface import StoreRoot

    # rows, path before the first, last path, joined names, how many are odd
    _Chunk = tuple[int, bytes, bytes, bytes, int]

_ROWS = 100_000  # in one joined value: some eight megabytes
_NAME_BYTES = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?="
_HASH_BYTES = b"0123456789abcdfghijklmnpqrsvwxyz"
OURS_AND_NIXS = frozenset({b".links", b".store-fix"})  # names in the store that are no paths and belong there
PLAIN_NAME = re.compile(BASE_NAME.pattern.encode())

# In the order of the index on path, which is smaller than the table. Odd rows are those that can be no path; that
# a row is below the store's directory follows from the first and the last of a range.
_FIRST = "select cast(min(path) as blob) from ValidPaths where path > cast(? as text)"
_LAST = """
select coalesce(
    (select cast(path as blob) from ValidPaths where path > cast(? as text) order by path limit 1 offset {rows}),
    (select cast(max(path) as blob) from ValidPaths))
"""
_JOINED = """
select count(*), cast(group_concat(substr(path, {start}), char(0)) as blob),
    sum(substr(path, {dash}, 1) != '-' or length(path) not between {shortest} and {longest})
from (select path from ValidPaths where path > cast(? as text) and path <= cast(? as text) order by path)
"""
_SINGLE = """
select cast(path as blob) from ValidPaths
where path > cast(? as text) and path <= cast(? as text) order by path
"""


@dataclass
class Comparison:
    """How rows and names differ.

    Attributes:
        rows: Number of rows.
        lost: Base names that have a row and are not on disk, sorted.
        unregistered: Names on disk without a row, whatever they are.
        invalid: Whole paths of rows that can be no path of this store: another prefix, an empty name.

    """

    rows: int = 0
    lost: list[bytes] = field(default_factory=list)
    unregistered: set[bytes] = field(default_factory=set)
    invalid: list[bytes] = field(default_factory=list)


class _Reader(threading.Thread):
    """Reads joined rows ahead in a thread of its own; SQLite works without Python's lock."""

    def __init__(self, store: StoreRoot) -> None:
        super().__init__(daemon=True)
        self._store = store
        self._chunks: queue.Queue[_Chunk | None] = queue.Queue(3)
        self._error: BaseException | None = None
        self._ended = False

    def run(self) -> None:
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001 -- raised again in the thread that waits
            self._error = error
        finally:
            self._chunks.put(None)

    def _read(self) -> None:
        prefix = os.fsencode(self._store.store_dir + "/")
        length = len(self._store.store_dir) + 1
        statement = _JOINED.format(
            start=length + 1, dash=length + 33, shortest=length + 34, longest=length + 33 + 211
        )
        connection = connect(self._store.database)
        try:
            before = b""
            while not self._ended:
                first = connection.execute(_FIRST, (before,)).fetchone()[0]
                if first is None:
                    return
                last = connection.execute(_LAST.format(rows=_ROWS - 1), (before,)).fetchone()[0]
                count, joined, odd = connection.execute(statement, (before, last)).fetchone()
                if last <= before or not count:
                    raise MalformedError(
                        "the index of paths is out of order", where=str(self._store.database)
                    )
                odd += not (first.startswith(prefix) and last.startswith(prefix))
                self._chunks.put((count, before, last, joined, odd))
                before = last
        finally:
            connection.close()

    def chunks(self) -> Iterator[_Chunk]:
        """Give what was read; raises what went wrong in the thread."""
        try:
            while True:
                chunk = self._chunks.get()
                if chunk is None:
                    break
                yield chunk
        finally:
            self._ended = True
            while self.is_alive():
                try:
                    self._chunks.get(timeout=0.05)
                except queue.Empty:
                    continue
            self.join()
        if self._error:
            raise self._error


def compare(store: StoreRoot) -> Comparison:
    """Compare all rows with all names of the store directory.

    Raises:
        OSError: The directory cannot be read.
        sqlite3.DatabaseError, StoreFixError: The database cannot be read to its end.

    """
    reader = _Reader(store)
    reader.start()
    result = Comparison()
    chunks = reader.chunks()
    try:
        names = set(os.listdir(os.fsencode(store.real_store)))
        for count, before, last, joined, odd in chunks:
            result.rows += count
            here = joined.split(b"\0")
            if odd or len(here) != count or not _all_plain(joined, here):
                here = _valid_only(store, before, last, result)
            some = set(here)
            result.lost.extend(some - names)
            names -= some
    finally:
        chunks.close()  # type: ignore[attr-defined]  # it is a generator
    names -= OURS_AND_NIXS
    result.unregistered = names
    result.lost.sort()
    return result


def _all_plain(joined: bytes, names: list[bytes]) -> bool:
    """Tell whether every name is made of the right characters, with few calls for many names.

    Length and dash were looked at by SQLite.
    """
    return len(joined.translate(None, _NAME_BYTES)) == len(names) - 1 and not b"".join(
        [name[:32] for name in names]
    ).translate(None, _HASH_BYTES)


def _valid_only(store: StoreRoot, before: bytes, last: bytes, result: Comparison) -> list[bytes]:
    """Read a range of rows one by one; what is no path of this store goes to `result.invalid`."""
    prefix = (store.store_dir + "/").encode()
    good = []
    connection = connect(store.database)
    try:
        for (path,) in connection.execute(_SINGLE, (before, last)):
            name = path[len(prefix) :]
            if path.startswith(prefix) and PLAIN_NAME.fullmatch(name):
                good.append(name)
            else:
                result.invalid.append(path)
    finally:
        connection.close()
    return good
