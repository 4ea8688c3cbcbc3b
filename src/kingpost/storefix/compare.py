"""Rows against names: which registered paths are not on disk, and which names on disk have no row.

Made for millions of paths: SQLite joins the paths of many rows into one value while the kernel lists the
directory, then that is cut at the store's directory and subtracted from the names. No Python object is made per
row but the name itself.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .interface import BASE_NAME

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from .interface import StoreRoot

_IDS = 100_000  # in one joined value: some eight megabytes
_AHEAD = 8  # values at most that wait for the listing
_LEAST_ID = -(2**63)
_NAME_BYTES = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?="
_HASH_BYTES = b"0123456789abcdfghijklmnpqrsvwxyz"
_HEAD = 34  # hash part, dash, and one character of the name
_MOST_NAME = 33 + 211
OURS_AND_NIXS = frozenset({b".links", b".store-fix"})  # names in the store that are no paths and belong there
PLAIN_NAME = re.compile(BASE_NAME.pattern.encode())

# In the order of the table, which is read once for everything that a scan wants of it: a path cannot begin with
# anything but the store's directory without giving other pieces when it is cut there.
_FIRST = "select min(id) from ValidPaths where id > ?"
_BAD_HASH = "(length(hash) != 71 or hash not between 'sha256:' and 'sha256;')"
_JOINED = f"""
select count(*), cast(group_concat(path, '/') as blob), count(*) filter (where {_BAD_HASH}), max(registrationTime)
from ValidPaths not indexed where id between ? and ?
"""  # noqa: S608 -- constants
_SINGLE = "select cast(path as blob) from ValidPaths where id between ? and ?"
_UNHASHED = f"select id, path from ValidPaths where id between ? and ? and {_BAD_HASH}"  # noqa: S608 -- constants


class Span(NamedTuple):
    """A range of ids, ends included, and the latest registration in it, in seconds since the epoch."""

    first: int
    last: int
    newest: int


@dataclass
class Comparison:
    """How rows and names differ.

    Attributes:
        rows: Number of rows.
        names: Number of names on disk, without those that are no paths and belong there.
        lost: Base names that have a row and are not on disk, sorted.
        unregistered: Names on disk without a row, whatever they are.
        invalid: Whole paths of rows that can be no path of this store: another prefix, an empty name.
        unhashed: Rows without a usable hash: id to path.
        spans: All rows, by when they were registered.

    """

    rows: int = 0
    names: int = 0
    lost: list[bytes] = field(default_factory=list)
    unregistered: set[bytes] = field(default_factory=set)
    invalid: list[bytes] = field(default_factory=list)
    unhashed: dict[int, str] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)


class _Chunk(NamedTuple):
    span: Span
    rows: int
    joined: bytes
    unhashed: int


class _Reader(threading.Thread):
    """Reads joined rows ahead in a thread of its own; SQLite works without Python's lock."""

    def __init__(self, connection: sqlite3.Connection, ahead: threading.Event) -> None:
        super().__init__(daemon=True)
        self._connection = connection
        self._is_ahead = ahead
        self._chunks: queue.Queue[_Chunk | None] = queue.Queue(_AHEAD)
        self._error: BaseException | None = None
        self._ended = False

    def run(self) -> None:
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001 -- raised again in the thread that waits
            self._error = error
        finally:
            self._is_ahead.set()
            self._chunks.put(None)

    def _read(self) -> None:
        last = _LEAST_ID
        while not self._ended:
            first = self._connection.execute(_FIRST, (last,)).fetchone()[0]
            if first is None:
                return
            last = min(first + _IDS - 1, -(_LEAST_ID + 1))
            count, joined, bad, newest = self._connection.execute(_JOINED, (first, last)).fetchone()
            span = Span(first, last, newest if isinstance(newest, int) else 0)
            if self._chunks.full():
                self._is_ahead.set()
            self._chunks.put(_Chunk(span, count, joined or b"", bad))

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


def compare(
    store: StoreRoot, connection: sqlite3.Connection, ahead: threading.Event | None = None
) -> Comparison:
    """Compare all rows with all names of the store directory.

    What is registered or deregistered meanwhile may show as a difference: the caller looks again at each.

    Args:
        store: The store.
        connection: Its database, in a read transaction that began before this: then what is registered was on
            disk before the directory was listed.
        ahead: Set once a second core has nothing to do for this any more.

    Raises:
        OSError: The directory cannot be read.
        sqlite3.DatabaseError: The database cannot be read to its end.

    """
    prefix = os.fsencode(store.store_dir + "/")
    reader = _Reader(connection, ahead or threading.Event())
    reader.start()
    result = Comparison()
    chunks = reader.chunks()
    try:
        listed = os.listdir(os.fsencode(store.real_store))
        names = set(listed)
        names.difference_update(OURS_AND_NIXS)
        result.names = len(names)
        present: frozenset[bytes] | None = None  # made when something is lost
        for chunk in chunks:
            result.rows += chunk.rows
            result.spans.append(chunk.span)
            if chunk.unhashed:
                result.unhashed.update(connection.execute(_UNHASHED, chunk.span[:2]))
            here = _plain(chunk, prefix)
            if here is None:
                here = _valid_only(connection, chunk.span, prefix, result)
            before = len(names)
            names.difference_update(here)
            if before - len(names) != len(here):
                present = present or frozenset(listed)
                result.lost += [name for name in here if name not in present]
    finally:
        chunks.close()  # type: ignore[attr-defined]  # it is a generator
    result.unregistered = names
    result.lost.sort()
    return result


def _plain(chunk: _Chunk, prefix: bytes) -> list[bytes] | None:
    """Cut joined paths into base names, with few calls for many; None if one of them may be no path."""
    joined, count = chunk.joined, chunk.rows
    names = joined.split(b"/" + prefix)
    if len(names) != count or not joined.startswith(prefix):
        return None
    names[0] = names[0][len(prefix) :]
    odd_in_prefix = len(prefix.translate(None, _NAME_BYTES))
    if len(joined.translate(None, _NAME_BYTES)) != count * odd_in_prefix + count - 1:
        return None
    heads = b"".join([name[:_HEAD] for name in names])
    if len(heads) != count * _HEAD or heads[_HEAD - 2 :: _HEAD] != b"-" * count:
        return None
    first = heads[_HEAD - 1 :: _HEAD]  # of the name; a dot there may make it none
    odd = len(heads.translate(None, _HASH_BYTES)) - len(first.translate(None, _HASH_BYTES))
    return names if odd == count and b"." not in first and max(set(map(len, names))) <= _MOST_NAME else None


def _valid_only(connection: sqlite3.Connection, span: Span, prefix: bytes, result: Comparison) -> list[bytes]:
    """Read a range of rows one by one; what is no path of this store goes to `result.invalid`."""
    good = []
    for (path,) in connection.execute(_SINGLE, span[:2]):
        name = path[len(prefix) :]
        if path.startswith(prefix) and PLAIN_NAME.fullmatch(name):
            good.append(name)
        else:
            result.invalid.append(path)
    return good
