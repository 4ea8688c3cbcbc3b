"""What makes a repair undoable: a directory for each run with a backup of the database and a journal of moves.

<state>/store-fix/<time>-<plan>/
    unfinished      there until the run has come to its end
    plan.json       what was executed
    db.sqlite       the database before the first write, checked before anything is written
    raw/            instead, when the database was malformed: its files, byte for byte
    journal.jsonl   every move aside, written before it is done; the state of the database after the run
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

from . import effects, integrity
from . import plan as plans
from .database import connect, fingerprint
from .errors import StoreFixError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .interface import StoreRoot
    from .plan import Plan

_PIECE_PAGES = 4096


class Run:
    """One run of `apply`, which may be continued after it was interrupted.

    Args:
        directory: Where it keeps its files.

    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def backup(self) -> Path:
        """Give the place of the database's backup."""
        return self.directory / "db.sqlite"

    @property
    def raw(self) -> Path:
        """Give the place of the files of a malformed database."""
        return self.directory / "raw"

    @property
    def unfinished(self) -> bool:
        """Tell whether it has not come to its end."""
        return (self.directory / "unfinished").exists()

    @property
    def undone(self) -> bool:
        """Tell whether it was undone."""
        return (self.directory / "undone").exists()

    def journal(self) -> list[dict[str, Any]]:
        """Read what was noted; a last line that was cut off is left out."""
        try:
            lines = (self.directory / "journal.jsonl").read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [item for item in found if isinstance(item, dict)]

    def note(self, **fields: Any) -> None:
        """Add to the journal, flushed before this returns."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self.directory / "journal.jsonl", flags, 0o644)
        try:
            effects.append_line(fd, json.dumps(fields).encode())
        finally:
            os.close(fd)

    def committed(self) -> str:
        """Give the fingerprint of the database that this run committed; empty if it has not."""
        marks = [item["commit"] for item in self.journal() if "commit" in item]
        return str(marks[-1]) if marks else ""

    def finish(self) -> None:
        """Mark the run as done."""
        effects.remove_below(self.directory, "unfinished")


def directory_of(store: StoreRoot) -> Path:
    """Give the directory that holds all runs."""
    return store.state_dir / "store-fix"


def runs(store: StoreRoot) -> list[Run]:
    """Give all runs, oldest first."""
    try:
        names = os.listdir(directory_of(store))
    except OSError:
        return []
    found = [name for name in names if (directory_of(store) / name / "plan.json").is_file()]
    return [Run(directory_of(store) / name) for name in sorted(found)]


def begin(store: StoreRoot, plan: Plan) -> Run:
    """Start a run, or go on with the run of the same plan, and make sure that its backup is there and opens.

    Raises:
        StoreFixError: The backup cannot be made, or does not open.
        OSError: The disk is full.

    """
    effects.make_directory(directory_of(store), 0o700)
    run = Run(directory_of(store) / f"{plan.created:012d}-{plan.id}")
    effects.make_directory(run.directory, 0o700)
    effects.write_file(run.directory / "unfinished", b"")
    if run.undone:  # it was applied, undone, and is applied again
        effects.remove_below(run.directory, "undone")
    if run.undone:  # the same plan once more, on the same database
        effects.remove_below(run.directory, "journal.jsonl")
        effects.remove_below(run.directory, "undone")
    if plan.of(plans.SALVAGE):
        if not run.raw.exists():
            _copy_raw(store, run)
    elif not run.backup.exists():
        _copy(store, run)
    effects.write_file(run.directory / "plan.json", plans.to_json(plan).encode())
    return run


def _copy(store: StoreRoot, run: Run) -> None:
    """Make an online backup, which includes the write-ahead log, and open it."""
    new = run.backup.with_name("db.sqlite.new")
    for name in (new.name, new.name + "-journal", new.name + "-wal", new.name + "-shm"):
        effects.remove_below(run.directory, name)
    source = connect(store.database)
    try:
        effects.boundary("backup")
        target = sqlite3.connect(str(new))
        try:
            source.backup(target, pages=_PIECE_PAGES, progress=lambda *_: effects.boundary("backing up"))
            target.execute("pragma journal_mode = delete")
        finally:
            target.close()
        wanted = fingerprint(source)
    finally:
        source.close()
    _flush(new)
    opened = connect(new)
    try:
        complaint = integrity.sqlite_complaint(opened)
        if complaint or fingerprint(opened) != wanted:
            raise StoreFixError(
                "the backup is not what it should be",
                where=str(new),
                why=complaint or "its rows differ from the database's",
                fix="nothing was changed; is the disk full or failing?",
            )
    finally:
        opened.close()
    os.rename(new, run.backup)
    effects.boundary("backup in place")
    effects.fsync_directory(run.directory)


def _copy_raw(store: StoreRoot, run: Run) -> None:
    """Copy the files of a database that cannot be opened."""
    new = run.directory / "raw.new"
    effects.remove_below(run.directory, new.name)
    effects.make_directory(new, 0o700)
    for name in raw_files(store):
        effects.boundary("copy")
        shutil.copyfile(store.database.parent / name, new / name)
        _flush(new / name)
    effects.fsync_directory(new)
    os.rename(new, run.raw)
    effects.boundary("backup in place")
    effects.fsync_directory(run.directory)


def raw_files(store: StoreRoot) -> Iterator[str]:
    """Give the names of the files that make up the database."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        name = store.database.name + suffix
        if (store.database.parent / name).is_file():
            yield name


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    effects.boundary("fsync file")
