"""The database of a store: opening it safely, and what it says of single paths.

Tables, triggers and pragmas: src/libstore/schema.sql and local-store.cc (2.8 to 2.34, schema version 10).
Text may be any bytes: it is decoded with surrogateescape, and rows are found by their id, never by text.
"""

from __future__ import annotations

import sqlite3
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote

from .errors import CannotLookError, StoreFixError
from .interface import PathInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SCHEMA_VERSION = "10"

SCHEMA = """
create table if not exists ValidPaths (
    id               integer primary key autoincrement not null,
    path             text unique not null,
    hash             text not null,
    registrationTime integer not null,
    deriver          text,
    narSize          integer,
    ultimate         integer,
    sigs             text,
    ca               text
);
create table if not exists Refs (
    referrer  integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
create index if not exists IndexReferrer on Refs(referrer);
create index if not exists IndexReference on Refs(reference);
create trigger if not exists DeleteSelfRefs before delete on ValidPaths
  begin
    delete from Refs where referrer = old.id and reference = old.id;
  end;
create table if not exists DerivationOutputs (
    drv  integer not null,
    id   text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
create index if not exists IndexDerivationOutputs on DerivationOutputs(path);
"""

_TRIES = 20  # to begin several transactions with no write between them
_BATCH = 500  # bound variables in one statement; SQLite before 3.32 allows 999


class MalformedError(StoreFixError):
    """SQLite cannot make sense of the database file."""


def decode(text: bytes) -> str:
    """Give text of the database; bytes that are no UTF-8 survive the way back."""
    return text.decode("utf-8", "surrogateescape")


def connect(path: Path, *, write: bool = False, wait: float = 30) -> sqlite3.Connection:
    """Open a database, read-only unless told otherwise, in autocommit mode with foreign keys on.

    Args:
        path: The database file; it is never created.
        write: Whether to open it for writing.
        wait: Seconds to wait for another writer.

    Raises:
        CannotLookError: It is not there or may not be read.
        MalformedError: It is no usable database.

    """
    if not path.is_file():
        raise CannotLookError("there is no database", where=str(path))
    place = quote(str(path), safe="/")
    try:
        connection = _open(f"file:{place}?mode={'rw' if write else 'ro'}", wait)
    except sqlite3.OperationalError as error:
        wal = path.with_name(path.name + "-wal")
        if write or not _may_be_read_only(error) or (wal.exists() and wal.stat().st_size):
            raise _explained(error, path) from error
        # A read-only disk: nobody can write, so the file holds everything and needs no shared memory beside it.
        connection = _open(f"file:{place}?immutable=1", wait)
    except sqlite3.DatabaseError as error:
        raise _explained(error, path) from error
    return connection


def same_state(path: Path, count: int) -> list[sqlite3.Connection]:
    """Open a database several times for reading, each in a read transaction that sees the same state.

    Another process may write at any moment, so the transactions are begun again until nothing was written between
    the first and the last. Where somebody writes all the time, the same connection is given several times:
    threads then take turns.

    Raises:
        CannotLookError, MalformedError: As `connect`.
        sqlite3.DatabaseError: It cannot be read.

    """
    opened: list[sqlite3.Connection] = []
    try:
        while len(opened) < count:
            opened.append(connect(path))
        for _ in range(_TRIES):
            before = _state(path)
            for connection in opened:
                connection.execute("begin")
                connection.execute("select 1 from ValidPaths limit 1").fetchone()
            if _state(path) == before:
                return opened
            for connection in opened:
                connection.execute("rollback")
        opened[0].execute("begin")
    except BaseException:
        for connection in opened:
            connection.close()
        raise
    for connection in opened[1:]:
        connection.close()
    return opened[:1] * count


def _state(path: Path) -> tuple[bytes, bytes]:
    """Give bytes that change with every transaction that ends.

    With a write-ahead log these are the first header of its index, else the file's own change counter
    (source: sqlite.org/walformat.html, "The WAL-Index File Format"; sqlite.org/fileformat2.html).
    """
    try:
        with path.with_name(path.name + "-shm").open("rb") as file:
            index = file.read(48)
    except OSError:
        index = b""
    with path.open("rb") as file:
        return index, file.read(28)[24:]


def _open(uri: str, wait: float) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=wait, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = decode
        connection.execute("pragma foreign_keys = on")
        connection.execute("pragma synchronous = full")
        connection.execute("select count(*) from sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _may_be_read_only(error: sqlite3.OperationalError) -> bool:
    text = str(error)
    return "unable to open" in text or "readonly" in text


def _explained(error: sqlite3.DatabaseError, path: Path) -> StoreFixError:
    text = str(error)
    if (
        isinstance(error, sqlite3.OperationalError)
        and "malformed" not in text
        and "not a database" not in text
    ):
        return CannotLookError(
            "the database cannot be opened",
            where=str(path),
            why=text,
            fix="run this as root; is the disk there?",
        )
    return MalformedError("the database is malformed", where=str(path), why=text)


def lacks(connection: sqlite3.Connection) -> str:
    """Say which table or column the database lacks that Nix needs; empty if none."""
    needed = {
        "ValidPaths": {
            "id", "path", "hash", "registrationTime", "deriver", "narSize", "ultimate", "sigs", "ca",
        },
        "Refs": {"referrer", "reference"},
        "DerivationOutputs": {"drv", "id", "path"},
    }  # fmt: skip
    for table, columns in needed.items():
        present = {row[1] for row in connection.execute(f"pragma table_info({table})")}
        if not present:
            return f"table {table}"
        if columns - present:
            return f"column {table}.{min(columns - present)}"
    return ""


def in_batches(ids: Iterable[int]) -> Iterator[list[int]]:
    """Cut numbers into lists that fit into one statement."""
    batch: list[int] = []
    for number in ids:
        batch.append(number)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def marks(batch: list[int]) -> str:
    """Give as many question marks as there are numbers."""
    return ",".join("?" * len(batch))


def paths_of(connection: sqlite3.Connection, ids: Iterable[int]) -> dict[int, str]:
    """Give the paths of rows, as the database has them; ids without a row are left out."""
    found: dict[int, str] = {}
    for batch in in_batches(ids):
        query = f"select id, path from ValidPaths where id in ({marks(batch)})"  # noqa: S608 -- only marks
        found.update(connection.execute(query, batch))
    return found


def rows_of(connection: sqlite3.Connection, paths: Iterable[bytes]) -> dict[bytes, int]:
    """Give the ids of paths; those without a row are left out."""
    found: dict[bytes, int] = {}
    todo = iter(paths)
    while True:
        batch = list(islice(todo, _BATCH))
        if not batch:
            return found
        wanted = ",".join(["cast(? as text)"] * len(batch))
        query = f"select cast(path as blob), id from ValidPaths where path in ({wanted})"  # noqa: S608 -- only marks
        found.update(connection.execute(query, batch))


def infos_of(connection: sqlite3.Connection, ids: Iterable[int]) -> dict[int, PathInfo]:
    """Give whole rows with their references; references to rows that are not there are left out."""
    found: dict[int, PathInfo] = {}
    for batch in in_batches(ids):
        references: dict[int, list[str]] = {}
        query = (
            "select referrer, path from Refs join ValidPaths on id = reference "  # noqa: S608 -- only marks
            f"where referrer in ({marks(batch)}) order by path"
        )
        for referrer, path in connection.execute(query, batch):
            references.setdefault(referrer, []).append(path)
        query = (
            "select id, path, hash, narSize, deriver, sigs, ca, ultimate, "  # noqa: S608 -- only marks
            f"registrationTime from ValidPaths where id in ({marks(batch)})"
        )
        for row, path, nar_hash, size, deriver, sigs, ca, ultimate, registered in connection.execute(
            query, batch
        ):
            found[row] = PathInfo(
                path=path,
                nar_hash=nar_hash,
                nar_size=size if isinstance(size, int) else 0,
                references=tuple(references.get(row, ())),
                deriver=deriver or "",
                sigs=tuple((sigs or "").split()),
                ca=ca or "",
                ultimate=bool(ultimate),
                registered=registered if isinstance(registered, int) else 0,
            )
    return found


def fingerprint(connection: sqlite3.Connection) -> str:
    """Give a short text that changes when rows or references are added, removed or edited.

    Counts and sums, not a hash of everything: seconds instead of a minute on a large store.
    """
    paths = connection.execute(
        "select count(*), max(id), total(id), total(narSize), total(registrationTime), total(length(path)), "
        "total(length(sigs)), total(unicode(substr(hash, 8, 1)) * (id % 9973)) from ValidPaths"
    ).fetchone()
    refs = connection.execute("select count(*), total(referrer), total(reference) from Refs").fetchone()
    outputs = connection.execute("select count(*), total(drv) from DerivationOutputs").fetchone()
    return "/".join(str(int(number or 0)) for number in (*paths, *refs, *outputs))


def execute_quietly(connection: sqlite3.Connection, statement: str) -> None:
    """Run a statement whose failure does not matter, as a rollback after an error that is on its way up."""
    try:
        connection.execute(statement)
    except sqlite3.Error:
        return
