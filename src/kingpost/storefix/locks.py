"""The locks that Nix takes, taken the way Nix takes them: flock(2) on whole files.

gc.lock         a garbage collection holds it exclusively, verify and every process with temporary roots share it
big-lock        every process that has the store open shares it
temproots/PID   held by the process as long as it lives
<path>.lock     in the store, held while that path is built or copied

Source: src/libstore/{gc,local-store,pathlocks}.cc. POSIX locks (fcntl) would not be seen by Nix.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable

from .errors import BusyError, CannotLookError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .interface import StoreRoot

_STEP = 0.1  # seconds between two tries


def try_lock(fd: int, kind: int) -> bool:
    """Take a lock (fcntl.LOCK_EX or LOCK_SH) if nobody is in the way; tell whether it is ours."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def is_held(path: str | Path) -> bool:
    """Tell whether another process holds a lock file exclusively; a file that is not there is free."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def holders(path: Path) -> list[int]:
    """Give the ids of processes that have a file open, as far as /proc shows them to us."""
    try:
        wanted = path.stat()
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return []
    found = []
    for pid in pids:
        if pid == os.getpid():
            continue
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    status = entry.stat()
                    if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                        found.append(pid)
                        break
        except OSError:
            continue
    return found


class Hold:
    """A lock file held open; `change` moves between shared and exclusive."""

    def __init__(self, path: Path, kind: int, wait: float, told: Callable[[str], None]) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CannotLookError(
                "the lock cannot be opened", where=str(path), why=error.strerror or "", fix="run this as root"
            ) from error
        try:
            self.change(kind, wait, told)
        except BaseException:
            self.release()
            raise

    def change(self, kind: int, wait: float, told: Callable[[str], None]) -> None:
        """Take or change the lock, waiting at most `wait` seconds.

        Raises:
            BusyError: Others held it all that time.

        """
        end = time.monotonic() + wait
        announced = False
        while not try_lock(self._fd, kind):
            if time.monotonic() >= end:
                who = ", ".join(str(pid) for pid in holders(self.path)) or "unknown"
                raise BusyError(
                    "Nix is at work in this store",
                    where=str(self.path),
                    why=f"a garbage collection, a verification or a build holds the lock (process {who})",
                    fix="wait for it to end, or allow more time with --wait SECONDS",
                )
            if not announced:
                told(f"waiting up to {wait:.0f} s for {self.path.name}, which another process holds")
                announced = True
            time.sleep(_STEP)

    def release(self) -> None:
        """Let go; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def refuse_builds(store: StoreRoot, lock_files: Iterable[str]) -> None:
    """Refuse if a path of the store is being built or copied at this moment.

    Args:
        store: The store.
        lock_files: The names that end in `.lock` in the store directory.

    Raises:
        BusyError: One of them is held.

    """
    for name in lock_files:
        if is_held(store.real_store / name):
            raise BusyError(
                "a path is being built or copied",
                where=f"{store.store_dir}/{name[: -len('.lock')]}",
                why="a repair now could take away what it is about to use",
                fix="wait for the build or copy to end, or end it, then run this again",
            )


@contextmanager
def alone(
    store: StoreRoot, wait: float, told: Callable[[str], None], *, strictly: bool = False
) -> Iterator[Hold]:
    """Keep garbage collections, verifications and builds out of the store.

    Args:
        store: The store.
        wait: Seconds to wait for others, at most.
        told: Gets a line for the user when there is something to wait for.
        strictly: Keep every process out that opens the store, queries too (to exchange the database file).

    Yields:
        The lock on gc.lock, which `Hold.change` can share while Nix itself is asked to work.

    Raises:
        BusyError: Others are at work.

    """
    (store.state_dir / "db").mkdir(exist_ok=True)
    big = Hold(store.state_dir / "db" / "big-lock", fcntl.LOCK_EX if strictly else fcntl.LOCK_SH, wait, told)
    try:
        collector = Hold(store.state_dir / "gc.lock", fcntl.LOCK_EX, wait, told)
        try:
            names = [name for name in os.listdir(store.real_store) if name.endswith(".lock")]
            refuse_builds(store, names)
            yield collector
        finally:
            collector.release()
    finally:
        big.release()
