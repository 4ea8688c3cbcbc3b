"""Compare a rendered tree with the one on disk, and say what a write would change.

What kingpost wrote before is known by the manifest. A file that is neither what the manifest says nor what is
to be written was edited by a person: it is a conflict, which only `--force` resolves.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import unified_diff
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from kingpost.base.beside import beside
from kingpost.base.errors import KingpostError
from kingpost.render import journal
from kingpost.render.confined import ConfinedDirectory
from kingpost.render.manifest import MANIFEST, Manifest, digest, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path


_MANY: Final = 1000
"""From so many files on, a second process helps to read them."""


class Change(StrEnum):
    """What a write does to one file."""

    CREATE = "create"
    UPDATE = "update"
    REMOVE = "remove"


class FileChange(NamedTuple):
    """One file that differs.

    Attributes:
        path: Relative to the output directory.
        change: What happens to it.
        old: What is there; None if nothing is.
        new: What is to be there; None if nothing is.
        edited: Whether it is not as kingpost left it: edited, or never kingpost's.
        digest: Of `new`.

    """

    path: str
    change: Change
    old: bytes | None
    new: bytes | None
    edited: bool = False
    digest: str | None = None

    def diff(self) -> Iterator[str]:
        """Give the lines of a unified diff, each with its final newline."""
        before = (self.old or b"").decode("utf-8", "replace").splitlines(keepends=True)
        after = (self.new or b"").decode("utf-8", "replace").splitlines(keepends=True)
        origin = "/dev/null" if self.old is None else f"a/{self.path}"
        result = "/dev/null" if self.new is None else f"b/{self.path}"
        for line in unified_diff(before, after, origin, result):
            yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a write would do.

    Attributes:
        changes: In the order of their paths, without the manifest.
        unchanged: How many files are as they should be.
        manifest: The manifest's content afterwards.
        manifest_now: Its content now; None if there is none.
        unfinished: Whether a write was killed; the next one finishes it.

    """

    changes: tuple[FileChange, ...]
    unchanged: int
    manifest: bytes
    manifest_now: bytes | None
    unfinished: bool = False

    @property
    def stale(self) -> bool:
        """Tell whether the tree is not what it should be."""
        return bool(self.changes) or self.manifest != self.manifest_now or self.unfinished

    @property
    def edited(self) -> tuple[str, ...]:
        """Give the paths that a person edited."""
        return tuple(change.path for change in self.changes if change.edited)


@dataclass(frozen=True, slots=True)
class Tree:
    """A rendered tree.

    Attributes:
        files: Content by path.
        topology: Digest of what it was rendered from.
        version: kingpost's.
        inputs: Digest of all that decides the content.

    """

    files: Mapping[str, str]
    topology: str
    version: str
    inputs: str = ""


def unchanged(root: Path, inputs: str) -> Plan | None:
    """Give the plan of a tree that these inputs were rendered to before and nobody touched since: nothing to do.

    None says that one has to render to know, for whatever reason.
    """
    try:
        with ConfinedDirectory(root) as directory:
            content = directory.read(MANIFEST)
            manifest = parse(content, MANIFEST)
            if content is None or manifest.inputs != inputs or journal.is_pending(directory):
                return None
        files = sorted(manifest.files.items())
        half = len(files) // 2
        with beside(partial(_are_there, root, files[half:]), worth=len(files) >= _MANY) as others:
            if not (_are_there(root, files[:half]) and others()):
                return None
    except (OSError, KingpostError):
        return None
    return Plan((), len(manifest.files), content, content)


def _are_there(root: Path, files: Iterable[tuple[str, str]]) -> bool:
    """Tell whether files, each with its digest, are as they were written."""
    with ConfinedDirectory(root) as directory:
        return all(
            (found := directory.read(path)) is not None and digest(found) == sha for path, sha in files
        )


def plan(root: Path, tree: Tree, scope: Callable[[str], bool] | None = None) -> Plan:
    """Say what `write` would do, and change nothing.

    Args:
        root: The output directory; it need not exist.
        tree: What should be in it.
        scope: Which paths this is about; None is all. Others are neither written nor removed.

    Raises:
        KingpostError: The directory cannot be read, or something in it is in the way.

    """
    try:
        with ConfinedDirectory(root) as directory:
            return _plan(directory, tree, scope)
    except FileNotFoundError:
        if root.is_symlink():
            raise _unwritable(root, "it is a symbolic link to nothing") from None
        return _compare(lambda _: None, Manifest(), None, tree, scope)
    except OSError as error:
        raise _unwritable(root, error.strerror or str(error)) from error


def write(root: Path, tree: Tree, scope: Callable[[str], bool] | None = None, *, force: bool = False) -> Plan:
    """Bring the output directory to what should be in it, as a whole.

    Up to one rename the old tree is there, complete; after it a journal says what the new one is, and every
    later run finishes what a killed one began (see `journal`). A file that is as it should be is not touched.

    Args:
        root: The output directory; it and its parents are made.
        tree: What should be in it.
        scope: Which paths this is about; None is all.
        force: Also replace and remove what a person edited.

    Raises:
        KingpostError: A person edited a file; the directory cannot be written, or the disk is full.

    """
    made = False
    try:
        if not root.exists():
            root.mkdir(parents=True)
            made = True
        with ConfinedDirectory(root) as directory, journal.locked(directory):
            journal.recover(directory, force=force)
            planned = _plan(directory, tree, scope)
            if planned.edited and not force:
                raise _edited(root, planned.edited)
            if planned.stale:
                journal.commit(directory, list(_steps(planned)))
            return planned
    except OSError as error:
        raise _unwritable(root, error.strerror or str(error)) from error
    finally:
        if made:
            _remove_if_empty(root)


def _plan(directory: ConfinedDirectory, tree: Tree, scope: Callable[[str], bool] | None) -> Plan:
    current = directory.read(MANIFEST)
    manifest = parse(current, str(directory.root / MANIFEST))
    read = directory.read if directory.names("") else lambda _: None
    return _compare(read, manifest, current, tree, scope, unfinished=journal.is_pending(directory))


def _compare(
    read: Callable[[str], bytes | None],
    manifest: Manifest,
    manifest_now: bytes | None,
    tree: Tree,
    scope: Callable[[str], bool] | None,
    *,
    unfinished: bool = False,
) -> Plan:
    wanted = {path: text.encode() for path, text in tree.files.items() if scope is None or scope(path)}
    others = {path: text for path, text in tree.files.items() if path not in wanted} if scope else {}
    known = manifest.files
    kept = {path: sha for path, sha in known.items() if scope is not None and not scope(path)}
    digests = {path: digest(content) for path, content in wanted.items()}
    changes: list[FileChange] = []
    for path in sorted({*wanted, *known} - set(kept)):
        old, new = read(path), wanted.get(path)
        if old == new:
            continue
        edited = old is not None and known.get(path) != digest(old)
        kind = Change.CREATE if old is None else Change.REMOVE if new is None else Change.UPDATE
        changes.append(FileChange(path, kind, old, new, edited, digests.get(path)))
    files = {**kept, **digests}
    if kept != {path: digest(text.encode()) for path, text in others.items()}:
        # What is left alone is of another topology, or not there: the tree as a whole is of none.
        after = Manifest(manifest.topology, manifest.version or tree.version, files)
    else:
        after = Manifest(tree.topology, tree.version, files, tree.inputs)
    written = sum(1 for change in changes if change.new is not None)
    content = manifest_now if manifest_now is not None and after == manifest else after.render()
    return Plan(tuple(changes), len(wanted) - written, content, manifest_now, unfinished)


def _steps(planned: Plan) -> Iterator[journal.Step]:
    """Give the steps in the order that is taken: new and changed files, removals, the manifest last."""
    for change in planned.changes:
        if change.new is not None:
            yield journal.Step(change.path, _digest(change.old), change.new, change.digest)
    for change in planned.changes:
        if change.new is None:
            yield journal.Step(change.path, _digest(change.old), None, None)
    if planned.manifest != planned.manifest_now:
        old = _digest(planned.manifest_now)
        yield journal.Step(MANIFEST, old, planned.manifest, digest(planned.manifest))


def _digest(content: bytes | None) -> str | None:
    return None if content is None else digest(content)


def _edited(root: Path, paths: tuple[str, ...]) -> KingpostError:
    shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    return KingpostError(
        f"not as kingpost left {'it' if len(paths) == 1 else 'them'}: {shown}",
        where=str(root),
        why="somebody edited what the topology decides, or put another file there; nothing was written",
        fix="see the differences with --diff; move what is wanted into the topology or into a module of your"
        " own, then pass --force to replace them",
    )


_FIXES: Final = {
    "No space left on device": "free some space, then run this again",
    "Disk quota exceeded": "free some space, then run this again",
}


def _unwritable(root: Path, reason: str) -> KingpostError:
    return KingpostError(
        f"the output directory cannot be used: {reason}",
        where=str(root),
        why="nothing in it was changed",
        fix=_FIXES.get(reason, "name a directory that you may write to"),
    )


def _remove_if_empty(root: Path) -> None:
    try:
        root.rmdir()
    except OSError:
        return
