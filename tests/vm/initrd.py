"""What is appended to a guest's initrd: a cpio archive in the format "newc" (cpio(5))."""

from __future__ import annotations

import re

DIRECTORY, FILE, LINK = 0o040000, 0o100000, 0o120000
TREE = "machine"
"""The folder that guest/machine copies over the guest's root."""


def appended(initrd: bytes, files: dict[str, tuple[int, bytes]]) -> bytes:
    """Give an initrd with an archive of `files` below TREE after it.

    A file's mode of LINK makes a symbolic link to its content. The list of the files is among them, for the next
    boot to remove them.
    """
    listed = "".join(f"{path}\n" for path in sorted(files)).encode()
    whole = {**files, "etc/.machine-files": (0o600, listed)}
    folders = {f"{TREE}/{path}".rpartition("/")[0] for path in whole}
    folders |= {folder[: at.start()] for folder in folders for at in re.finditer("/", folder)}
    out = [_padded(initrd)]  # the kernel takes a header at a multiple of 4 only
    number = 1
    for folder in sorted(folders):
        out.append(_entry(number, folder, DIRECTORY | 0o755, b""))
        number += 1
    for path, (mode, content) in sorted(whole.items()):
        kind = mode if mode & 0o170000 else FILE | mode
        out.append(_entry(number, f"{TREE}/{path}", kind, content))
        number += 1
    out.append(_entry(0, "TRAILER!!!", 0, b""))
    return b"".join(out)


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    numbers = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08x" % value for value in numbers)
    start = header + encoded
    return _padded(start) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
