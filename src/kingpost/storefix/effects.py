"""Every change that store-fix makes to a file system, one small function each, flushed in the right order.

Between any two system calls that change something stands `boundary(name)`. It does nothing here; the crash tests
replace it and kill the process at each boundary in turn, which is how "kill -9 at any moment" is proven.

Directories are opened once and entries named relative to them, so that nothing that is renamed or linked
meanwhile can lead a change somewhere else.
"""
# Descriptors and bytes, not pathlib: names need not be text.

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Callable, Union

if TYPE_CHECKING:
    from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # source: linux/fcntl.h, linux/fs.h

AnyPath = Union[str, bytes, "os.PathLike[str]"]


def _nothing(_name: str) -> None:
    """Stand where a crash test kills."""


boundary: Callable[[str], None] = _nothing


def fsync_directory(directory: AnyPath) -> None:
    """Make the names in a directory survive a power loss."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    boundary("fsync directory")


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put a file in place, whole or not at all: new file, fsync, rename, fsync of the directory.

    A new file left by an earlier crash is replaced.

    Raises:
        OSError: The disk is full or does not answer; the old file is still there.

    """
    new = path.with_name(path.name + ".new")
    boundary("write")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        boundary("written")
        os.fsync(fd)
        boundary("fsync file")
    finally:
        os.close(fd)
    os.rename(new, path)
    boundary("renamed")
    fsync_directory(path.parent)


def append_line(fd: int, line: bytes) -> None:
    """Append a line to a journal and flush it."""
    boundary("append")
    os.write(fd, line + b"\n")
    boundary("appended")
    os.fsync(fd)
    boundary("fsync journal")


def make_directory(directory: Path, mode: int = 0o755) -> None:
    """Make one directory and flush its name; it may be there already."""
    boundary("mkdir")
    try:
        os.mkdir(directory, mode)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(directory).st_mode):
            raise
    boundary("mkdir done")
    fsync_directory(directory.parent)


def move(source: AnyPath, target: AnyPath) -> None:
    """Rename a file, symlink or directory within one file system and flush both directories.

    Raises:
        FileExistsError: There is something at the target: nothing is ever overwritten.

    """
    if os.path.lexists(target):
        raise FileExistsError(17, "something is there already", os.fsdecode(target))
    boundary("move")
    status = os.lstat(source)
    # A directory without write permission cannot be renamed into another parent, for `..` changes.
    loosen = stat.S_ISDIR(status.st_mode) and not status.st_mode & stat.S_IWUSR
    if loosen:
        os.chmod(source, stat.S_IMODE(status.st_mode) | stat.S_IWUSR)
        boundary("loosened")
    os.rename(source, target)
    boundary("moved")
    if loosen:
        os.chmod(target, stat.S_IMODE(status.st_mode))
        boundary("tightened")
    fsync_directory(os.path.dirname(os.fsencode(target)))
    fsync_directory(os.path.dirname(os.fsencode(source)))


def exchange(one: AnyPath, other: AnyPath) -> bool:
    """Let two names of one file system change places at once, and flush both directories.

    A path that is in use is never missing, not even for the moment between two renames, and not after a power
    loss either.

    Returns:
        False if this kernel or file system cannot do it; then nothing was changed.

    Raises:
        OSError: Something else is wrong.

    """
    try:
        import ctypes

        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (ImportError, OSError, AttributeError):  # glibc has it since 2.28
        return False
    boundary("exchange")
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV):
            return False
        raise OSError(number, os.strerror(number), os.fsdecode(one), None, os.fsdecode(other))
    boundary("exchanged")
    fsync_directory(os.path.dirname(os.fsencode(one)))
    fsync_directory(os.path.dirname(os.fsencode(other)))
    return True


def remove(directory_fd: int, name: bytes) -> None:
    """Remove an entry of an open directory with all below it, symlinks themselves and never what they point to.

    It may be gone already.

    Raises:
        OSError: Something cannot be removed.

    """
    try:
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        boundary("unlink")
        os.unlink(name, dir_fd=directory_fd)
        boundary("unlinked")
        return
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory_fd)
    try:
        if not status.st_mode & stat.S_IWUSR:
            os.fchmod(fd, 0o700)
        for entry in os.listdir(fd):
            remove(fd, os.fsencode(entry))
    finally:
        os.close(fd)
    boundary("rmdir")
    os.rmdir(name, dir_fd=directory_fd)
    boundary("rmdir done")


def settle(place: Path) -> None:
    """Give a path that is about to be registered the modes, times and owner that Nix gives, and flush all of it.

    A copy may be complete and not look it: whoever made it was killed before this step (source:
    src/libstore/posix-fs-canonicalise.cc), and may still own it.

    Raises:
        OSError: Something cannot be changed or flushed.

    """
    above = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _settle(above, os.fsencode(place.name))
        os.fsync(above)
    finally:
        os.close(above)
    boundary("settled")


def _settle(directory_fd: int, name: bytes) -> None:
    status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    if status.st_uid != os.geteuid():
        os.chown(name, os.geteuid(), os.getegid(), dir_fd=directory_fd, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
        os.utime(name, (1, 1), dir_fd=directory_fd, follow_symlinks=False)
        return
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory_fd)
    try:
        if stat.S_ISDIR(status.st_mode):
            for entry in os.listdir(fd):
                _settle(fd, os.fsencode(entry))
        os.fchmod(fd, 0o555 if stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IXUSR else 0o444)
        os.utime(fd, (1, 1))
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_below(directory: AnyPath, name: str) -> None:
    """Remove an entry of a directory with all below it, and flush the directory.

    Raises:
        OSError: Something cannot be removed.
        ValueError: The name is no plain name.

    """
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no name of an entry")
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove(fd, os.fsencode(name))
        os.fsync(fd)
        boundary("fsync directory")
    finally:
        os.close(fd)
