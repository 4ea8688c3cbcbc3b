"""Files written so that a reader, or a kill -9, never meets half of one."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from kingpost.base.errors import KingpostError


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a text file under a temporary name beside its place, then rename it there.

    What is no file (`/dev/stdout`, a pipe, a terminal) is written to and stays what it is.

    Args:
        path: Where it goes; its directory must exist.
        text: The content, written as UTF-8.
        mode: Its permissions, set before any content is in it.

    Raises:
        KingpostError: It cannot be written.

    """
    temporary = ""
    try:
        if _is_stream(path):
            with path.open("a", encoding="utf-8") as stream:
                stream.write(text)
            return
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            with suppress(OSError):
                Path(temporary).unlink()
        raise KingpostError(
            f"the file cannot be written: {error.strerror}",
            where=str(path),
            fix="name a file in a directory that exists and that you may write to",
        ) from error


def _is_stream(path: Path) -> bool:
    """Tell a device or pipe, or a name for what is open already, from a file (those in /dev/shm are files)."""
    names = path.absolute().parts[1:3]
    opened = names[:1] == ("proc",) or names in (("dev", "stdout"), ("dev", "stderr"), ("dev", "fd"))
    return opened or path.is_char_device() or path.is_fifo()
