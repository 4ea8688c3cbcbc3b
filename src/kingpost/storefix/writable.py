"""Make a store writable that is mounted read-only, as NixOS mounts /nix/store: for this process alone.

As Nix does: a mount namespace of our own, in which the bind mount is remounted with the flags it has but
read-only (source: src/libutil/linux/linux-namespaces.cc, remountReadOnlyWritable). What the machine sees does not
change, and nothing is left when the process ends.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .errors import CannotLookError

if TYPE_CHECKING:
    from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MS_REMOUNT, _MS_BIND = 0x20, 0x1000
# nosuid, nodev, noexec, sync, noatime, nodiratime: the same bits for statvfs and mount (source: linux/statfs.h,
# linux/mount.h). Without them a remount in a user namespace is refused.
_KEPT = 2 | 4 | 8 | 16 | 0x400 | 0x800
_ST_RELATIME, _MS_RELATIME = 0x1000, 0x200000


def is_read_only(directory: Path) -> bool:
    """Tell whether the file system at a directory is mounted read-only."""
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def make_writable(directory: Path) -> None:
    """Let this process, and the threads and programs that it starts from now on, write below a directory.

    Call it before any thread is started: a thread that is there already keeps the old view.

    Raises:
        CannotLookError: It is read-only and cannot be made writable, as without root or on a read-only disk.

    """
    if not is_read_only(directory):
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    flags = os.statvfs(directory).f_flag
    kept = flags & _KEPT | (_MS_RELATIME if flags & _ST_RELATIME else 0)
    target = os.fsencode(directory)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(None, target, b"none", _MS_REMOUNT | _MS_BIND | kept, None):
        reason = os.strerror(ctypes.get_errno())
    elif not is_read_only(directory):
        return
    else:
        reason = "the file system itself is read-only"
    raise CannotLookError(
        "the store is mounted read-only",
        where=str(directory),
        why=f"it could not be made writable for this process: {reason}",
        fix="run this as root; if the disk itself is read-only: mount -o remount,rw on its mount point, "
        "and read the kernel's log first (dmesg), for it may have failed",
    )
