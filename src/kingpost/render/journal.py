"""Change many files as one: kill -9 or a full disk leaves the old tree, or one that the next run finishes.

Everything happens in `.kingpost/` inside the output directory, so on the same file system:

1. stage: every new content is written to `.kingpost/NUMBER` and made durable, and new folders are made. No file
   of the tree has changed; what a run that is killed here leaves, the next one removes.
2. commit: one rename makes `.kingpost/journal.json`, the list of steps, appear.
3. apply: staged files are renamed to their places, old ones removed, the manifest last. Nothing here needs
   space for content. A run that is killed here is finished by the next one: a step that was taken is known by
   its staged file being gone.
4. clean: the journal is removed first, then the folder.

A file that a person edits between a kill and the next run is not lost: the journal holds the digest of what it
replaces, and meeting anything else stops the recovery.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import KingpostError
from kingpost.render.confined import is_confined, write_at
from kingpost.render.manifest import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kingpost.render.confined import ConfinedDirectory

FOLDER: Final = ".kingpost"
JOURNAL: Final = f"{FOLDER}/journal.json"
_DRAFT: Final = f"{FOLDER}/journal.draft"
_IGNORE: Final = f"{FOLDER}/.gitignore"
_FOLDERS: Final = f"{FOLDER}/folders"
_SCHEMA: Final = "kingpost.journal/1"
_MANY: Final = 256
"""From so many files on, one sync of the whole file system is cheaper than one for each."""


@dataclass(frozen=True, slots=True)
class Step:
    """One file: what is there (None: nothing) and what will be (None: nothing)."""

    path: str
    old: bytes | None
    new: bytes | None


@contextmanager
def locked(directory: ConfinedDirectory) -> Iterator[None]:
    """Keep other writers out for a `with` block.

    Raises:
        KingpostError: Another one is at it.

    """
    try:
        fcntl.flock(directory.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise KingpostError(
            "another kingpost writes into this directory",
            where=str(directory.root),
            fix="wait for it to end, then run this again",
        ) from error
    yield  # closing the directory gives the lock back


def is_pending(directory: ConfinedDirectory) -> bool:
    """Tell whether a committed write waits to be finished."""
    return directory.read(JOURNAL) is not None


def commit(directory: ConfinedDirectory, steps: Sequence[Step]) -> None:
    """Take all steps, or none.

    Raises:
        OSError: Nothing was changed.
        KingpostError: Some steps were taken; the next run takes the others.

    """
    try:
        journalled = _stage(directory, steps)
    except BaseException:
        with suppress(OSError):
            _clean(directory)
        raise
    _apply(directory, journalled, force=True)


def recover(directory: ConfinedDirectory, *, force: bool) -> None:
    """Finish what a killed run began, or clean up what it only prepared.

    Raises:
        KingpostError: A person edited a file since (unless `force`), or steps cannot be taken.

    """
    steps = _read(directory)
    if steps is None:
        _clean(directory)
    else:
        _apply(directory, steps, force=force)


def _stage(directory: ConfinedDirectory, steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Write every new content and the journal; gives the journal's steps."""
    directory.write_new(_IGNORE, b"*\n")
    many = len(steps) > _MANY
    folders = {step.path.rpartition("/")[0] for step in steps if step.new is not None}
    _refuse_mounts(directory, folders)
    _make_folders(directory, folders)
    document: list[dict[str, Any]] = []
    with directory.opened(FOLDER) as staged:
        for number, step in enumerate(steps):
            entry: dict[str, Any] = {"path": step.path, "old": None if step.old is None else digest(step.old)}
            if step.new is not None:
                entry |= {"from": str(number), "new": digest(step.new)}
                write_at(staged, str(number), step.new, sync=not many)
            document.append(entry)
    text = json.dumps({"schema": _SCHEMA, "steps": document})
    directory.write_new(_DRAFT, text.encode(), sync=not many)
    if many:
        _sync_file_system(directory.fd)
    with directory.opened(FOLDER) as staged:
        directory.rename(staged, _DRAFT.rpartition("/")[2], JOURNAL)
    directory.sync(FOLDER)
    return document


def _refuse_mounts(directory: ConfinedDirectory, folders: set[str]) -> None:
    """Refuse another file system inside the output before anything is changed: a rename cannot cross over."""
    device = os.fstat(directory.fd).st_dev
    for folder in sorted(folders):
        with suppress(FileNotFoundError):  # what is yet to be made is on its parent's, seen on its own turn
            parent, _ = directory.parent(f"{folder}/x" if folder else "x")
            if os.fstat(parent).st_dev != device:
                raise OSError(errno.EXDEV, f"{folder} is another file system")


def _make_folders(directory: ConfinedDirectory, folders: set[str]) -> None:
    """Make what is missing of these folders, after noting which: those that stay empty are removed again."""
    missing = directory.missing(folders)
    directory.write_new(_FOLDERS, "".join(f"{folder}\n" for folder in missing).encode())
    for folder in missing:
        directory.make(folder)


def _sync_file_system(descriptor: int) -> None:
    """Make everything on a file system durable: syncfs(2), which reports late write errors since Linux 5.8."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):  # macOS
        os.sync()
    elif library.syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _read(directory: ConfinedDirectory) -> list[dict[str, Any]] | None:
    content = directory.read(JOURNAL)
    if content is None:
        return None
    try:
        return _parse(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KingpostError(
            f"the journal of a killed run cannot be read: {error}",
            where=str(directory.root / JOURNAL),
            why="a kingpost of another version wrote it, or it was damaged",
            fix=f"finish with that version, or remove {directory.root / FOLDER} and pass --force",
        ) from error


def _parse(content: bytes) -> list[dict[str, Any]]:
    document = json.loads(content)
    if document["schema"] != _SCHEMA:
        raise ValueError(f"its schema is {document['schema']!r}")
    steps = list(document["steps"])
    for step in steps:
        if not is_confined(step["path"]) or not step.get("from", "0").isdigit() or "old" not in step:
            raise ValueError(f"{step!r} is no step of kingpost's")
    return steps


def _apply(directory: ConfinedDirectory, steps: list[dict[str, Any]], *, force: bool) -> None:
    taken, folders = 0, {""}
    try:
        if not force:
            _refuse_edits(directory, steps)
        with directory.opened(FOLDER) as staged:
            for step in steps:
                _take(directory, staged, step)
                taken += 1
                folders.add(step["path"].rpartition("/")[0])
        if len(folders) > _MANY:
            _sync_file_system(directory.fd)
        else:
            for folder in sorted(folders):
                with suppress(FileNotFoundError):  # a removal may have left it empty, and so removed it
                    directory.sync(folder)
    except OSError as error:
        raise KingpostError(
            f"{taken} of {len(steps)} files are in place, then: {error.strerror or error}",
            where=str(directory.root),
            why=f"the others wait, complete, in {FOLDER}; old and new files stand side by side until then",
            fix="remove the cause and run this again: it finishes before it does anything else",
        ) from error
    _clean(directory)


def _refuse_edits(directory: ConfinedDirectory, steps: list[dict[str, Any]]) -> None:
    staged = set(directory.names(FOLDER))
    for step in steps:
        if "from" in step and step["from"] not in staged:
            continue  # taken before the kill; what is there now may be edited as any other file
        content = directory.read(step["path"])
        found = None if content is None else digest(content)
        if found not in {step["old"], step.get("new"), None}:
            raise KingpostError(
                f"{step['path']} was edited since a run was killed that was to replace it",
                where=str(directory.root),
                why="finishing that run would lose the edit; nothing was written",
                fix="copy the edit elsewhere, then pass --force",
            )


def _take(directory: ConfinedDirectory, staged: int, step: dict[str, Any]) -> None:
    if "from" not in step:
        directory.remove(step["path"])
        return
    with suppress(FileNotFoundError):  # taken before the kill: the staged file is in its place
        directory.rename(staged, step["from"], step["path"])


def _clean(directory: ConfinedDirectory) -> None:
    """Remove the journal, then what else this module made; nothing else that lies there."""
    directory.remove(JOURNAL)
    for folder in reversed((directory.read(_FOLDERS) or b"").decode().splitlines()):
        directory.remove_folder(folder)
    for name in directory.names(FOLDER):
        if name in {"journal.draft", ".gitignore"} or name.isdigit():
            directory.remove(f"{FOLDER}/{name}")
    directory.remove(_FOLDERS)
    directory.remove_folder(FOLDER)
