"""Change many files as one: kill -9 or a full disk leaves the old tree, or one that the next run finishes.

Everything happens in `.kingpost/` inside the output directory, so on the same file system:

1. stage: every new content is written to `.kingpost/NUMBER` and made durable; a folder that the tree has not yet
   is staged whole, as one. Nothing of the tree has changed; what a run that is killed here leaves, the next one
   removes.
2. commit: one rename makes `.kingpost/journal.json`, the list of steps, appear.
3. apply: staged files and folders are renamed to their places, old files removed, the manifest last. Nothing
   here needs space for content. A run that is killed here is finished by the next one: a step that was taken is
   known by what it had staged being gone.
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
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kingpost.base.beside import beside
from kingpost.base.errors import KingpostError
from kingpost.render.confined import is_confined, write_at
from kingpost.render.manifest import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kingpost.render.confined import ConfinedDirectory

FOLDER: Final = ".kingpost"
JOURNAL: Final = f"{FOLDER}/journal.json"
_DRAFT: Final = f"{FOLDER}/journal.draft"
_IGNORE: Final = f"{FOLDER}/.gitignore"
_SCHEMA: Final = "kingpost.journal/1"
_MANY: Final = 256
"""From so many files on, one sync of the whole file system is cheaper than one for each."""


class Step(NamedTuple):
    """One file.

    Attributes:
        path: Relative to the output directory.
        old: Digest of what is there; None: nothing.
        new: What will be there; None: nothing.
        digest: Of `new`.

    """

    path: str
    old: str | None
    new: bytes | None
    digest: str | None


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
    sync = len(steps) <= _MANY
    singly, folders = _new_folders(directory, steps)
    _refuse_mounts(directory, [*(step.path for step in singly if step.new is not None), *folders])
    document: list[dict[str, Any]] = [
        {"path": path, "old": None, "from": str(number), "folder": True}
        for number, path in enumerate(folders)
    ]
    inside = [
        _Folder(f"{FOLDER}/{number}{folder[len(path) :]}", into)
        for number, (path, those) in enumerate(folders.items())
        for folder, into in those.items()
    ]
    here, there = _halves(inside)
    write = partial(_write_folders, directory, sync=sync)
    with (
        beside(partial(write, there), worth=bool(there) and not sync) as written,
        directory.opened(FOLDER) as staged,
    ):
        write(here)
        for step in singly:
            entry: dict[str, Any] = {"path": step.path, "old": step.old}
            if step.new is not None:
                entry |= {"from": str(len(document)), "new": step.digest}
                write_at(staged, entry["from"], step.new, sync=sync)
            document.append(entry)
        written()
    if sync:
        _sync_folders(directory, inside)
    text = json.dumps({"schema": _SCHEMA, "steps": document})
    directory.write_new(_DRAFT, text.encode(), sync=sync)
    if not sync:
        _sync_file_system(directory.fd)
    with directory.opened(FOLDER) as staged:
        directory.rename(staged, _DRAFT.rpartition("/")[2], JOURNAL)
    directory.sync(FOLDER)
    return document


def _new_folders(
    directory: ConfinedDirectory, steps: Sequence[Step]
) -> tuple[list[Step], dict[str, dict[str, list[Step]]]]:
    """Sort out what goes into folders that are not there yet.

    Gives the other steps in their order, and by the outermost new folder the steps of each folder in it.
    """
    singly: list[Step] = []
    found: dict[str, dict[str, list[Step]]] = {}
    roots: dict[str, str | None] = {}
    for step in steps:
        folder = step.path.rpartition("/")[0]
        if step.new is None:
            singly.append(step)
            continue
        if folder not in roots:
            roots[folder] = directory.missing(folder)
        root = roots[folder]
        if root is None:
            singly.append(step)
        else:
            found.setdefault(root, {}).setdefault(folder, []).append(step)
    return singly, found


class _Folder(NamedTuple):
    """A folder below one that is not there yet: where it is staged, and the steps whose files go into it."""

    target: str
    steps: list[Step]


def _halves(folders: Sequence[_Folder]) -> tuple[Sequence[_Folder], Sequence[_Folder]]:
    """Divide folders where about half of the files are before."""
    half = sum(len(folder.steps) for folder in folders) / 2
    before = 0
    for number, folder in enumerate(folders):
        before += len(folder.steps)
        if before >= half:
            return folders[: number + 1], folders[number + 1 :]
    return folders, []


def _write_folders(directory: ConfinedDirectory, folders: Iterable[_Folder], *, sync: bool) -> None:
    """Write folders with their files; may be called again after it failed, or was killed in another process."""
    for target, steps in folders:
        directory.write_all(target, ((step.path, step.new or b"") for step in steps), sync=sync)


def _sync_folders(directory: ConfinedDirectory, folders: Iterable[_Folder]) -> None:
    """Make the entries of staged folders durable, and of those above them up to the one that is renamed."""
    for path in {
        target[:end] for target, _ in folders for end in _ends(target) if target[:end].count("/") > 0
    }:
        directory.sync(path)


def _ends(folder: str) -> list[int]:
    """Give where the names in a folder's path end."""
    return [*(at for at, char in enumerate(folder) if char == "/"), len(folder)]


def _refuse_mounts(directory: ConfinedDirectory, targets: Iterable[str]) -> None:
    """Refuse another file system inside the output before anything is changed: a rename cannot cross over."""
    device = os.fstat(directory.fd).st_dev
    for folder in sorted({target.rpartition("/")[0] for target in targets}):
        parent, _ = directory.parent(f"{folder}/x" if folder else "x")
        if os.fstat(parent).st_dev != device:
            raise OSError(errno.EXDEV, f"{folder} is another file system")


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
            f"{taken} of {len(steps)} changes are in place, then: {error.strerror or error}",
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
        for path, known in _replaced(directory, step):
            content = directory.read(path)
            if content is not None and digest(content) not in known:
                raise KingpostError(
                    f"{path} was edited since a run was killed that was to replace it",
                    where=str(directory.root),
                    why="finishing that run would lose the edit; nothing was written",
                    fix="copy the edit elsewhere, then pass --force",
                )


def _replaced(directory: ConfinedDirectory, step: dict[str, Any]) -> Iterator[tuple[str, set[str | None]]]:
    """Give the files that a step would replace, with the digests that no person's edit has."""
    if "folder" not in step:
        yield step["path"], {step["old"], step.get("new")}
    elif directory.names(step["path"]):  # somebody made it meanwhile
        staged = f"{FOLDER}/{step['from']}"
        for file in directory.files(staged):
            yield f"{step['path']}/{file}", {digest(directory.read(f"{staged}/{file}") or b"")}


def _take(directory: ConfinedDirectory, staged: int, step: dict[str, Any]) -> None:
    if "from" not in step:
        directory.remove(step["path"])
        return
    with suppress(FileNotFoundError):  # taken before the kill: what was staged is in its place
        try:
            directory.rename(staged, step["from"], step["path"])
        except OSError as error:
            if "folder" not in step or error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            _merge(directory, f"{FOLDER}/{step['from']}", step["path"])


def _merge(directory: ConfinedDirectory, staged: str, path: str) -> None:
    """Put the files of a staged folder into one that somebody made meanwhile."""
    for file in list(directory.files(staged)):
        directory.move(f"{staged}/{file}", f"{path}/{file}")
    directory.remove_tree(staged)


def _clean(directory: ConfinedDirectory) -> None:
    """Remove the journal, then what else this module made; nothing else that lies there."""
    directory.remove(JOURNAL)
    for name in directory.names(FOLDER):
        if name in {"journal.draft", ".gitignore"} or name.isdigit():
            directory.remove_tree(f"{FOLDER}/{name}")
    directory.remove_folder(FOLDER)
