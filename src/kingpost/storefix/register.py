"""Enter paths into the database as Nix does, and take them out."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from .database import in_batches, marks
from .errors import StoreFixError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Sequence

    from .interface import PathInfo, StoreRoot

# ("out","/nix/store/…","",""): name, path, and for fixed outputs algorithm and hash.
_OUTPUT = re.compile(rb'\("((?:[^"\\]|\\.)*)","((?:[^"\\]|\\.)*)","[^"]*","[^"]*"\)')


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def row_of(connection: sqlite3.Connection, path: str) -> int:
    """Give the id of a path's row; 0 if it has none."""
    found = connection.execute(
        "select id from ValidPaths where path = cast(? as text)", (_text(path),)
    ).fetchone()
    return int(found[0]) if found else 0


def register(connection: sqlite3.Connection, store: StoreRoot, infos: Iterable[PathInfo]) -> None:
    """Enter paths, or set the rows of registered ones right, with their references.

    For derivations the outputs are entered too, as LocalStore::addValidPath does (src/libstore/local-store.cc).
    References may name each other in any order; the caller holds the transaction.

    Args:
        connection: The database, foreign keys on.
        store: The store, for the contents of derivations.
        infos: What to enter.

    Raises:
        StoreFixError: A reference is not registered.
        sqlite3.Error: The database refuses.

    """
    wanted = list(infos)
    rows: dict[str, int] = {}
    for info in wanted:
        row = row_of(connection, info.path)
        values = (
            info.nar_hash,
            info.registered,
            _text(info.deriver) if info.deriver else None,
            info.nar_size or None,
            1 if info.ultimate else None,
            " ".join(info.sigs) or None,
            info.ca or None,
        )
        if row:
            connection.execute(
                "update ValidPaths set hash = ?, registrationTime = ?, deriver = cast(? as text), narSize = ?, "
                "ultimate = ?, sigs = ?, ca = ? where id = ?",
                (*values, row),
            )
        else:
            cursor = connection.execute(
                "insert into ValidPaths (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca) "
                "values (cast(? as text), ?, ?, cast(? as text), ?, ?, ?, ?)",
                (_text(info.path), *values),
            )
            row = int(cursor.lastrowid or 0)
        if info.path.endswith(".drv"):
            outputs(connection, store, info.path, row)
        rows[info.path] = row
    for info in wanted:
        connection.execute("delete from Refs where referrer = ?", (rows[info.path],))
        for reference in info.references:
            row = rows.get(reference) or row_of(connection, reference)
            if not row:
                raise StoreFixError(
                    f"it refers to {reference}, which is not registered",
                    where=info.path,
                    why="a path may only be registered with everything that it needs",
                    fix="make a new plan",
                )
            connection.execute("insert or ignore into Refs values (?, ?)", (rows[info.path], row))


def outputs(connection: sqlite3.Connection, store: StoreRoot, path: str, row: int) -> None:
    """Enter the outputs of a registered derivation, as its file names them; floating ones have no path yet."""
    for name, output in derivation_outputs(store, path):
        connection.execute(
            "insert or replace into DerivationOutputs (drv, id, path) values (?, ?, ?)", (row, name, output)
        )


def derivation_outputs(store: StoreRoot, path: str) -> list[tuple[str, str]]:
    """Read names and paths of a derivation's outputs from its file; none if it is no derivation."""
    try:
        text = store.real(path).read_bytes()
    except OSError:
        return []
    if not text.startswith(b"Derive(["):
        return []
    found: list[tuple[str, str]] = []
    position = len(b"Derive([")
    while True:
        match = _OUTPUT.match(text, position)
        if match is None:
            return found
        if match.group(2):
            found.append((os.fsdecode(match.group(1)), os.fsdecode(match.group(2))))
        position = match.end() + 1


def drop(connection: sqlite3.Connection, rows: Collection[int]) -> None:
    """Deregister rows, whatever their order; none but themselves may refer to them.

    Raises:
        sqlite3.IntegrityError: Another row refers to one of them.

    """
    for batch in in_batches(rows):
        connection.execute(f"delete from Refs where referrer in ({marks(batch)})", batch)  # noqa: S608 -- only marks
    for batch in in_batches(rows):
        connection.execute(f"delete from ValidPaths where id in ({marks(batch)})", batch)  # noqa: S608 -- only marks


def cut(connection: sqlite3.Connection, row: int, referrers: Sequence[str]) -> None:
    """Take the references to a row away from some paths, and from rows that are not there, but from no others."""
    connection.execute(
        "delete from Refs where reference = ? and referrer not in (select id from ValidPaths)", (row,)
    )
    for path in referrers:
        connection.execute(
            "delete from Refs where reference = ? and referrer = ?", (row, row_of(connection, path))
        )


def forget(connection: sqlite3.Connection, table: str, keep: Collection[int] = ()) -> None:
    """Delete the rows of a table that belong to no registered path.

    References *to* rows that are not there are no such rows: they belong to their referrer.

    Args:
        connection: The database, foreign keys on.
        table: Its name.
        keep: Of `Refs`, ids without a row whose references stay.

    """
    if table == "Refs":
        connection.execute("create temp table kept(id integer primary key)")
        connection.executemany("insert into temp.kept values (?)", [(row,) for row in keep])
        connection.execute(
            "delete from Refs where referrer not in (select id from ValidPaths) "
            "and referrer not in (select id from temp.kept)"
        )
        connection.execute("drop table temp.kept")
    elif table == "DerivationOutputs":
        connection.execute("delete from DerivationOutputs where drv not in (select id from ValidPaths)")
    else:
        name = table.replace('"', '""')
        while True:
            rows = {row[1] for row in connection.execute(f'pragma foreign_key_check("{name}")')}
            if not rows:
                return
            connection.executemany(
                f'delete from "{name}" where rowid = ?',  # noqa: S608 -- quoted, and it names a table
                [(row,) for row in sorted(rows)],
            )
