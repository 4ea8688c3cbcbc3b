"""Save what can be read of a malformed database into a new one.

The malformed files are only read, from their copy in the run's directory. Rows come from every page that can be
read, references from the table or from its index, whichever is whole; if neither is, from the contents of the
paths themselves, so that no closure gets shorter. What cannot be saved shows in the next scan as paths without a
row, where disk and substituters prove what they can.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import effects, nar
from .adopt import Reader
from .database import SCHEMA, SCHEMA_VERSION, connect, fingerprint
from .errors import StoreFixError
from .integrity import sqlite_complaint
from .interface import BASE_NAME
from .pages import PageFile, tables
from .register import outputs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .backup import Run
    from .interface import StoreRoot
    from .pages import Tree
    from .progress import Progress

_NEW = "db.sqlite.store-fix"


@dataclass
class Saved:
    """What could be read.

    Attributes:
        paths: Row id to the values of ValidPaths.
        named: Row id to path, where only the index of paths still knows it.
        references: Pairs of referrer and reference.
        outputs: Derivation's id, output name, output path.
        references_whole: The references are all there.

    """

    paths: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    named: dict[int, str] = field(default_factory=dict)
    references: set[tuple[int, int]] = field(default_factory=set)
    outputs: set[tuple[int, str, str]] = field(default_factory=set)
    references_whole: bool = False


def replace(store: StoreRoot, run: Run, progress: Progress) -> Saved:
    """Put a new database with all that could be saved in the place of the malformed one.

    The caller keeps every other process out and has the malformed files copied to `run.raw`.

    Raises:
        StoreFixError: The new database is not sound.
        OSError: The disk is full; the old files are where they were.

    """
    directory = store.database.parent
    saved = read(store, run.raw / store.database.name)
    for suffix in ("", "-wal", "-shm", "-journal"):
        effects.remove_below(directory, _NEW + suffix)
    _write(directory / _NEW, saved)
    _outputs_from_disk(store, directory / _NEW)
    if not saved.references_whole:
        _references_from_disk(store, directory / _NEW, progress)
    _check(directory / _NEW)
    # The old log goes first: SQLite would replay it into whatever file has the database's name.
    for suffix in ("-wal", "-shm", "-journal"):
        effects.remove_below(directory, store.database.name + suffix)
    effects.boundary("exchange")
    os.rename(directory / _NEW, store.database)
    effects.boundary("exchanged")
    effects.fsync_directory(directory)
    effects.write_file(directory / "schema", SCHEMA_VERSION.encode())
    connection = connect(store.database)
    try:
        run.note(commit=fingerprint(connection))
    finally:
        connection.close()
    progress.say(
        f"saved {len(saved.paths):,} registered paths, {len(saved.named):,} names without their row, "
        f"{len(saved.references):,} references"
    )
    return saved


def read(store: StoreRoot, database: Path) -> Saved:
    """Read everything that can be read of a database file."""
    saved = Saved()
    file = PageFile(database)
    whole = {"Refs": False, "sqlite_autoindex_Refs_1": False}
    for kind, name, root in list(tables(file)):
        if kind not in ("table", "index"):
            continue
        tree = file.tree(root)
        if name in whole:
            whole[name] = tree.whole
        _take(store, saved, name, tree)
    _take_stray(store, saved, file.stray())
    saved.references_whole = any(whole.values())
    for row in saved.paths:
        saved.named.pop(row, None)
    taken = {values[0] for values in saved.paths.values()}
    saved.named = {row: path for row, path in saved.named.items() if path not in taken}
    return saved


def _take(store: StoreRoot, saved: Saved, name: str, tree: Tree) -> None:
    """Take the rows of a table or index whose name is known."""
    for rowid, values in tree.rows:
        if name == "ValidPaths":
            _take_path(store, saved, rowid, values)
        elif (name == "Refs" and _integers(values, 2)) or (
            name == "sqlite_autoindex_Refs_1" and _integers(values, 3)
        ):
            saved.references.add((values[0], values[1]))
        elif name == "sqlite_autoindex_ValidPaths_1" and len(values) == 2 and _is_path(store, values[0]):
            saved.named.setdefault(int(values[1]), values[0])
        elif name == "DerivationOutputs" and len(values) == 3 and isinstance(values[0], int):
            saved.outputs.add((values[0], str(values[1]), str(values[2])))


def _take_stray(store: StoreRoot, saved: Saved, tree: Tree) -> None:
    """Take rows of pages that no tree reaches, by their shape; what the trees said has precedence."""
    for rowid, values in tree.rows:
        if len(values) == 9:
            _take_path(store, saved, rowid, values)
        elif (_integers(values, 2) and rowid) or (_integers(values, 3) and not rowid):
            saved.references.add((values[0], values[1]))
        elif len(values) == 3 and isinstance(values[0], int) and rowid and _is_path(store, values[2]):
            saved.outputs.add((values[0], str(values[1]), values[2]))


def _integers(values: tuple[Any, ...], count: int) -> bool:
    return len(values) == count and all(isinstance(value, int) and value > 0 for value in values)


def _is_path(store: StoreRoot, text: object) -> bool:
    prefix = store.store_dir + "/"
    return (
        isinstance(text, str) and text.startswith(prefix) and bool(BASE_NAME.fullmatch(text[len(prefix) :]))
    )


def _take_path(store: StoreRoot, saved: Saved, rowid: int, values: tuple[Any, ...]) -> None:
    # The id is an alias of the rowid: SQLite stores NULL in its place.
    if len(values) != 9 or rowid <= 0 or rowid in saved.paths:
        return
    _, path, nar_hash, registered, deriver, size, ultimate, sigs, ca = values
    if not _is_path(store, path) or not isinstance(nar_hash, str) or not isinstance(registered, int):
        return
    saved.paths[rowid] = (path, nar_hash, registered, deriver, size, ultimate, sigs, ca)


def _write(new: Path, saved: Saved) -> None:
    """Make a database with the rows that were saved, under their old ids."""
    effects.boundary("new database")
    connection = sqlite3.connect(str(new), isolation_level=None)
    try:
        connection.execute("pragma synchronous = off")  # flushed as a whole before it is used
        connection.executescript(SCHEMA)
        connection.execute("begin")
        known: set[str] = set()
        for row, values in sorted(saved.paths.items()):
            if values[0] not in known:
                known.add(values[0])
                _insert(connection, row, values)
        for row, path in sorted(saved.named.items()):
            # Without a hash: the next plan finds one, or says that it cannot.
            if path not in known:
                known.add(path)
                _insert(connection, row, (path, "", 0, None, None, None, None, None))
        connection.executemany("insert or ignore into Refs values (?, ?)", sorted(saved.references))
        connection.execute("delete from Refs where referrer not in (select id from ValidPaths)")
        connection.executemany(
            "insert or ignore into DerivationOutputs values (?, ?, ?)", sorted(saved.outputs)
        )
        connection.execute("delete from DerivationOutputs where drv not in (select id from ValidPaths)")
        connection.execute("commit")
    finally:
        connection.close()


def _insert(connection: sqlite3.Connection, row: int, values: tuple[Any, ...]) -> None:
    with contextlib.suppress(sqlite3.Error, UnicodeEncodeError):  # a row that cannot be is none
        connection.execute("insert into ValidPaths values (?, ?, ?, ?, ?, ?, ?, ?, ?)", (row, *values))


def _outputs_from_disk(store: StoreRoot, new: Path) -> None:
    """Enter the outputs that the derivations on disk name: without them Nix does not find what it has built."""
    connection = sqlite3.connect(str(new), isolation_level=None)
    try:
        derivations = connection.execute("select id, path from ValidPaths where path like '%.drv'").fetchall()
        connection.execute("begin")
        for row, path in derivations:
            outputs(connection, store, path, row)
        connection.execute("commit")
    finally:
        connection.close()


def _references_from_disk(store: StoreRoot, new: Path, progress: Progress) -> None:
    """Add the references that the contents of registered paths show.

    Fixed-output paths are left out: they refer to nothing, whatever they mention.
    """
    connection = sqlite3.connect(str(new), isolation_level=None)
    try:
        reader = Reader(store, connection, ())
        rows = {path: row for row, path in connection.execute("select id, path from ValidPaths")}
        fixed = {row[0] for row in connection.execute("select path from ValidPaths where ca like 'fixed:%'")}
        connection.execute("begin")
        with progress.task("reading references from contents", len(rows), "paths") as advance:
            for path in _on_disk(store, rows):
                advance(1)
                if path in fixed:
                    continue
                try:
                    names = reader.references(store.base_name(path))
                except (OSError, nar.NotArchivableError):
                    continue
                connection.executemany(
                    "insert or ignore into Refs values (?, ?)",
                    [(rows[path], rows[store.path(name)]) for name in names],
                )
        connection.execute("commit")
    finally:
        connection.close()


def _on_disk(store: StoreRoot, paths: Iterable[str]) -> list[str]:
    names = set(os.listdir(store.real_store))
    return [path for path in sorted(paths) if store.base_name(path) in names]


def _check(new: Path) -> None:
    """Set the journal mode that Nix uses, check the new database and flush it."""
    connection = sqlite3.connect(str(new), isolation_level=None)
    try:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma wal_checkpoint(truncate)")
        complaint = sqlite_complaint(connection, thorough=True)
    finally:
        connection.close()
    if complaint:
        raise StoreFixError(
            "the new database is not sound", where=str(new), why=complaint, fix="please report this"
        )
    fd = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    effects.boundary("fsync file")
