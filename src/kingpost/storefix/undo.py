"""Go back to the database before the last apply."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from . import backup, effects, integrity
from .database import connect, fingerprint
from .errors import StoreChangedError, StoreFixError, UsageError
from .locks import alone

if TYPE_CHECKING:
    from .backup import Run
    from .interface import StoreRoot


@dataclass(frozen=True)
class Undone:
    """What undo did.

    Attributes:
        run: The run that was undone.
        moved: Number of copies that were moved back to their place.
        missing: Copies that are gone, since a garbage collection removed them.

    """

    run: Run
    moved: int
    missing: tuple[str, ...]


def undo(store: StoreRoot, wait: float, told: Callable[[str], None], *, force: bool = False) -> Undone:
    """Put the database of the last run back, and what it moved aside where there is nothing now.

    Paths that were fetched stay on disk: those that the old database knows are whole again, the others are left
    to the next garbage collection.

    Args:
        store: The store.
        wait: Seconds to wait for locks.
        told: Gets lines about waiting.
        force: Go back although the database was changed since.

    Raises:
        UsageError: There is nothing to undo.
        BusyError: Nix is at work.
        StoreChangedError: Paths were registered or removed since.

    """
    done = [run for run in backup.runs(store) if not run.undone]
    done = [run for run in done if run.backup.exists() or run.raw.exists()]
    if not done:
        raise UsageError("there is nothing to undo", where=str(backup.directory_of(store)))
    run = done[-1]
    salvaged = run.raw.exists()
    with alone(store, wait, told, strictly=salvaged):
        if not force:
            _refuse_changed(store, run)
        if salvaged:
            _put_raw_back(store, run)
        else:
            _put_back(store, run)
        moved, missing = _move_back(run)
        effects.write_file(run.directory / "undone", b"")
        if run.unfinished:
            run.finish()
    return Undone(run, moved, tuple(missing))


def _refuse_changed(store: StoreRoot, run: Run) -> None:
    committed = run.committed()
    if not committed:
        return  # it never wrote to the database
    connection = connect(store.database)
    try:
        now = fingerprint(connection)
        before = ""
        if run.backup.exists():
            kept = connect(run.backup)
            try:
                before = fingerprint(kept)
            finally:
                kept.close()
    finally:
        connection.close()
    if now not in (committed, before):
        raise StoreChangedError(
            "Nix has registered or removed paths since the repair",
            where=str(store.database),
            why="going back would forget them: their files would be left without a row",
            fix="go back all the same with --force, then run: store-fix repair",
        )


def _put_back(store: StoreRoot, run: Run) -> None:
    """Copy the backup into the database in one transaction; other processes may have it open."""
    source = connect(run.backup)
    try:
        complaint = integrity.sqlite_complaint(source)
        if complaint:
            raise StoreFixError("the backup is damaged", where=str(run.backup), why=complaint)
        target = sqlite3.connect(str(store.database), timeout=30)
        try:
            target.execute("pragma synchronous = full")
            effects.boundary("restore")
            source.backup(target)
            effects.boundary("restored")
            target.execute("pragma journal_mode = wal")
            target.execute("pragma wal_checkpoint(truncate)")
        finally:
            target.close()
    finally:
        source.close()


def _put_raw_back(store: StoreRoot, run: Run) -> None:
    """Put the files of a malformed database back; nobody else has it open."""
    directory = store.database.parent
    for suffix in ("-wal", "-shm", "-journal"):
        effects.remove_below(directory, store.database.name + suffix)
    kept = sorted(os.listdir(run.raw))
    if store.database.name not in kept:
        effects.remove_below(directory, store.database.name)
    for name in kept:
        effects.write_file(directory / name, (run.raw / name).read_bytes())


def _move_back(run: Run) -> tuple[int, list[str]]:
    """Move back what the journal says was moved aside, where nothing has taken its place."""
    moved, missing = 0, []
    for item in reversed(run.journal()):
        if "moved" not in item:
            continue
        place, aside = Path(item["moved"]), Path(item["aside"])
        if os.path.lexists(place):
            continue
        if not os.path.lexists(aside):
            missing.append(str(place))
            continue
        effects.move(aside, place)
        moved += 1
    return moved, missing
