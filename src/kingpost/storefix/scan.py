"""Look at a store and say what is wrong with it. Reads only, takes no lock that anybody waits for."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import contents, describe, leftovers, roots
from .compare import OURS_AND_NIXS, PLAIN_NAME, Comparison, Span, compare
from .database import MalformedError, connect, lacks, paths_of, rows_of, same_state
from .errors import CannotLookError
from .findings import PROBLEM, Finding
from .hashing import hash_contents
from .integrity import ForeignKeys, foreign_keys, pages_look_sound, path_entries, sqlite_complaint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .interface import Settings, StoreRoot
    from .progress import Progress


@dataclass
class Scan:
    """What was seen.

    Attributes:
        store: The store.
        rows: Number of registered paths.
        names: Number of names in the store directory.
        database: What SQLite says against the database as a whole; empty if it is usable.
        lost: Rows whose path is not on disk: id to base name.
        invalid: Rows that can be no path of this store: id to what they say.
        unhashed: Rows without a usable hash: id to base name.
        keys: What points to rows that are not there.
        orphans: Base names on disk without a row, leftovers excluded.
        wrong: Rows whose content was hashed and is not what it should be: id to what it is.
        bad_links: Names in `.links` that do not fit their content.
        roots: Everything that keeps paths alive.
        findings: All of this for people and JSON, most important first.
        hashed: All contents were looked at.
        recent: How many paths were hashed because they were registered last, when not all were.
        seconds: How long it took.

    """

    store: StoreRoot
    rows: int = 0
    names: int = 0
    database: str = ""
    lost: dict[int, str] = field(default_factory=dict)
    invalid: dict[int, str] = field(default_factory=dict)
    unhashed: dict[int, str] = field(default_factory=dict)
    keys: ForeignKeys = field(default_factory=ForeignKeys)
    orphans: list[str] = field(default_factory=list)
    wrong: dict[int, contents.Wrong] = field(default_factory=dict)
    bad_links: list[str] = field(default_factory=list)
    roots: list[roots.Root] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    hashed: bool = False
    recent: int = 0
    seconds: float = 0.0

    @property
    def healthy(self) -> bool:
        """Tell whether nothing is wrong; notes do not count."""
        return not any(finding.severity == PROBLEM for finding in self.findings)


def scan(
    store: StoreRoot,
    settings: Settings,
    progress: Progress,
    *,
    hashed: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Scan:
    """Look at a store.

    Args:
        store: The store.
        settings: Its nix.conf.
        progress: Shown while contents are hashed.
        hashed: Whether to hash every path and have SQLite check the whole database.
        environment: Where the narinfo cache of this user is; os.environ by default.

    Raises:
        CannotLookError: The store cannot be read.

    """
    start = time.monotonic()
    result = Scan(store, hashed=hashed)
    names: set[bytes] = set()
    spans: list[Span] = []
    try:
        names, spans = _look(result, thorough=hashed)
    except OSError as error:
        raise CannotLookError(
            "the store cannot be read", where=str(store.real_store), why=str(error), fix="run this as root"
        ) from error
    except (MalformedError, sqlite3.DatabaseError) as error:
        result.database = getattr(error, "why", "") or str(error)
    if result.database:
        names = set(os.listdir(os.fsencode(store.real_store))) - OURS_AND_NIXS
        result.names = len(names)
    result.orphans = sorted(
        name
        for name in map(os.fsdecode, names)
        if PLAIN_NAME.fullmatch(os.fsencode(name)) and not leftovers.trash(store, name)
    )
    unsettled = bool(result.lost or result.orphans or result.keys.ghosts or result.invalid)
    result.roots = roots.find(store, processes=unsettled or hashed)
    if not result.database:
        connection = connect(store.database)
        try:
            without = {*result.lost, *result.invalid, *result.unhashed}
            looked = hash_contents(
                store, connection, progress, everything=hashed, without=without, spans=spans
            )
            still = paths_of(connection, looked.wrong)  # Nix may have collected some meanwhile
            result.wrong = {row: wrong for row, wrong in looked.wrong.items() if row in still}
            result.bad_links = looked.bad_links
            result.recent = 0 if hashed else looked.paths
            if result.wrong and not (unsettled or hashed):
                result.roots = roots.find(store, processes=True)
            describe.rows(result, connection)
            describe.links(result)
        finally:
            connection.close()
    describe.database(result)
    describe.surroundings(result, names, settings, environment)
    result.seconds = time.monotonic() - start
    return result


def _look(result: Scan, *, thorough: bool) -> tuple[set[bytes], list[Span]]:
    """Compare rows with names while SQLite checks the keys; give the names without a row, and when rows were made.

    Everything is read from one state of the database, and what differs from the disk is looked at once more
    in its latest: Nix may be at work.
    """
    store = result.store
    if not store.database.exists():
        result.database = "it is missing"
        return set(), []
    reading = same_state(store.database, 2)
    try:
        missing = lacks(reading[0])
        if missing:
            result.database = f"{missing} is missing"
            return set(), []
        ahead = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            checked = pool.submit(_second_core, store, reading[1], ahead)
            try:
                compared = compare(store, reading[0], ahead)
            finally:
                ahead.set()
            result.keys, sound, entries = checked.result()
        if thorough or not sound:
            result.database = sqlite_complaint(reading[0], thorough=thorough)
        elif entries not in (None, compared.rows):
            result.database = f"the index of paths has {entries} entries, and its table {compared.rows} rows"
    finally:
        for connection in reading:
            connection.close()
    result.rows, result.names = compared.rows, compared.names
    _identify(result, compared)
    return compared.unregistered, compared.spans


def _second_core(
    store: StoreRoot, connection: sqlite3.Connection, free: threading.Event
) -> tuple[ForeignKeys, bool, int | None]:
    """Look at what needs no names, once reading ahead for the comparison leaves the second core free."""
    free.wait()
    return foreign_keys(connection), pages_look_sound(store.database), path_entries(connection)


def _identify(result: Scan, compared: Comparison) -> None:
    """Give lost and invalid paths their ids; leave out what was registered or deregistered while we looked."""
    store = result.store
    prefix = store.store_dir + "/"
    start = os.fsencode(prefix)
    connection = connect(store.database)
    try:
        rows = rows_of(connection, [start + name for name in compared.lost])
        for name in compared.lost:
            if start + name in rows and not os.path.lexists(
                os.path.join(os.fsencode(store.real_store), name)
            ):
                result.lost[rows[start + name]] = os.fsdecode(name)
        for path, row in rows_of(connection, compared.invalid).items():
            result.invalid[row] = os.fsdecode(path)
        registered = rows_of(connection, [start + name for name in compared.unregistered])
        compared.unregistered.difference_update(path[len(start) :] for path in registered)
    finally:
        connection.close()
    others = {*result.lost, *result.invalid}
    result.unhashed = {
        row: path[len(prefix) :]
        for row, path in compared.unhashed.items()
        if row not in others and path.startswith(prefix)
    }
