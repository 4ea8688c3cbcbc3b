"""A directory that files are read from and changed in, and never anything outside of it.

The output of `generate` lies in somebody's git checkout, so a path in its manifest, or a symbolic link on the
way, may be anybody's. Every component is therefore opened relative to its parent, without following links.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from kingpost.base.errors import KingpostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


_PART: Final = r"(?!\.\.?(?:/|\Z))[^/\x00-\x1f\x7f]+"
_CONFINED: Final = re.compile(rf"{_PART}(?:/{_PART})*")


def is_confined(path: str) -> bool:
    """Tell whether a path is relative, in its shortest form, and leads nowhere else."""
    return _CONFINED.fullmatch(path) is not None


@lru_cache(4096)  # every host has files of the same names
def _is_name(text: str) -> bool:
    return "/" not in text and is_confined(text)


class ConfinedDirectory:
    """An open directory. Paths are relative to it, with `/`, as `is_confined` wants them.

    It keeps the folders down to the last file open: files are best visited in the order of their paths.

    Args:
        root: The directory; it must exist. It may itself be reached through links: the user named it.

    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fd: Final = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_below(0)
        os.close(self.fd)

    def _close_below(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])

    def parent(self, path: str, *, create: bool = False) -> tuple[int, str]:
        """Give the open parent directory of a path, valid until the next call, and the path's last part.

        Raises:
            FileNotFoundError: A directory on the way is missing and `create` is not set.
            KingpostError: Something on the way is a link or no directory, or the path leads outside.

        """
        if not is_confined(path):
            raise self._outside(path)
        *folders, name = path.split("/")
        return self._walk(folders, create=create), name

    def _outside(self, path: str) -> KingpostError:
        return KingpostError(
            f"the path {path!r} leads out of the output directory",
            where=str(self.root),
            fix="restore manifest.json from version control, or delete it and pass --force",
        )

    def _walk(self, folders: list[str], *, create: bool) -> int:
        """Give the last of these folders, each in the one before it, open."""
        known = 0
        for (name, _), wanted in zip(self._open, folders, strict=False):
            if name != wanted:
                break
            known += 1
        self._close_below(known)
        current = self._open[-1][1] if self._open else self.fd
        for name in folders[known:]:
            current = self._enter(name, current, create=create)
            self._open.append((name, current))
        return current

    def _enter(self, name: str, parent: int, *, create: bool) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            if not create:
                raise
            with suppress(FileExistsError):  # another process of ours was faster
                os.mkdir(name, 0o777, dir_fd=parent)
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except NotADirectoryError as error:
            link = stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
            above = "/".join(folder for folder, _ in self._open)
            place = f" in {above!r}" if above else ""
            raise KingpostError(
                f"{name!r}{place} is a {'symbolic link' if link else 'file'}, not a directory",
                where=str(self.root),
                why="kingpost follows no link inside its output, so that it cannot be led to other files",
                fix="move it away, or generate into another directory",
            ) from error

    def read(self, path: str) -> bytes | None:
        """Give a file's content, or None if nothing is there.

        Raises:
            KingpostError: Something is there that is no regular file.

        """
        try:
            parent, name = self.parent(path)
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):
            what = "symbolic link" if stat.S_ISLNK(found.st_mode) else "directory or special file"
            raise KingpostError(
                f"{path} is a {what}, where a file is to be written",
                where=str(self.root),
                fix="move it away, or generate into another directory",
            )
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            return file.read()

    def missing(self, folder: str) -> str | None:
        """Give the outermost of a folder and those above it that is not there; None if all are."""
        known = ""
        for part in folder.split("/") if folder else ():
            known = f"{known}/{part}" if known else part
            try:
                self.parent(f"{known}/x")
            except FileNotFoundError:
                return known
        return None

    def names(self, folder: str) -> list[str]:
        """Give the names in a folder (empty: the directory itself), sorted; none if it is not there."""
        try:
            parent, _ = self.parent(f"{folder}/x" if folder else "x")
        except FileNotFoundError:
            return []
        return sorted(os.listdir(parent))  # noqa: PTH208 - pathlib knows no descriptors

    def write_new(self, path: str, content: bytes, *, sync: bool = False) -> None:
        """Write a file that does not exist yet."""
        parent, name = self.parent(path, create=True)
        write_at(parent, name, content, sync=sync)

    def write_all(self, folder: str, files: Iterable[tuple[str, bytes]], *, sync: bool = False) -> None:
        """Write files into one folder, which is made; only the last part of each path counts.

        The folder is this process's own: what is there is what another one left when it was killed, and is replaced.
        """
        parent, _ = self.parent(f"{folder}/x", create=True)
        for path, content in files:
            name = path.rpartition("/")[2]
            if not _is_name(name):
                raise self._outside(path)
            try:
                write_at(parent, name, content, sync=sync)
            except FileExistsError:
                os.unlink(name, dir_fd=parent)
                write_at(parent, name, content, sync=sync)

    @contextmanager
    def opened(self, folder: str) -> Iterator[int]:
        """Keep a folder of the top level open for a `with` block, whatever else is visited meanwhile."""
        descriptor = os.open(folder, _DIRECTORY, dir_fd=self.fd)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def rename(self, source: int, name: str, target: str) -> None:
        """Put a file where `target` says, replacing what is there; it comes from a folder that is `opened`."""
        parent, final = self.parent(target, create=True)
        os.rename(name, final, src_dir_fd=source, dst_dir_fd=parent)

    def move(self, path: str, target: str) -> None:
        """Put a file where `target` says, replacing what is there."""
        parent, name = self.parent(path)
        source = os.dup(parent)
        try:
            self.rename(source, name, target)
        finally:
            os.close(source)

    def remove(self, path: str) -> None:
        """Remove a file if it is there, then every directory above it that this left empty."""
        with suppress(FileNotFoundError):
            parent, name = self.parent(path)
            os.unlink(name, dir_fd=parent)
        folder = path.rpartition("/")[0]
        while folder and self.remove_folder(folder):
            folder = folder.rpartition("/")[0]

    def remove_tree(self, path: str) -> None:
        """Remove a file or a folder with all that is in it, if it is there; no link is followed."""
        try:
            parent, name = self.parent(path)
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return

    def files(self, folder: str) -> Iterator[str]:
        """Give the files in a folder and below it, relative to it, sorted; no link is followed."""
        for name in self.names(folder):
            path = f"{folder}/{name}"
            parent, _ = self.parent(path)
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                yield from (f"{name}/{inner}" for inner in self.files(path))
            else:
                yield name

    def remove_folder(self, folder: str) -> bool:
        """Remove a folder if it is there and empty; tells whether it did."""
        try:
            parent, name = self.parent(folder)  # which closes the folder itself, if it was open
            os.rmdir(name, dir_fd=parent)
        except OSError:
            return False
        return True

    def sync(self, path: str) -> None:
        """Make the entries of a folder durable; the empty path is the directory itself."""
        if not path:
            os.fsync(self.fd)
            return
        parent, name = self.parent(path)
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_at(folder: int, name: str, content: bytes, *, sync: bool = False) -> None:
    """Write a file that does not exist yet into an open folder."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o666, dir_fd=folder)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
