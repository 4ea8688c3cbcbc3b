"""A bucket on its server's disk: are the directories there that RustFS or MinIO keep for it?

Reads names of directories, never objects, and changes nothing. Absent and not allowed to see are told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import CannotLookError
from kingpost.base.process import CommandError, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kingpost.observe.executors.interface import Executor

#: Where a server keeps what it knows of a bucket, below its data directory. Others keep nothing like it.
METADATA: Final = {"rustfs": ".rustfs.sys/buckets", "minio": ".minio.sys/buckets"}
#: Entries of a directory are counted up to this many.
MOST_ENTRIES: Final = 1000

# POSIX sh, since an image of a server has little else. One line per directory: state, entries, path.
_SCRIPT: Final = """
for d in "$@"; do
  if [ -d "$d" ]; then
    if [ -r "$d" ] && [ -x "$d" ]; then echo "dir $(ls -A "$d" | head -n 1001 | wc -l) $d"
    else echo "closed 0 $d"; fi
  elif [ -e "$d" ] || [ -L "$d" ]; then echo "other 0 $d"
  else echo "absent 0 $d"; fi
done
"""


@dataclass(frozen=True, slots=True)
class Directory:
    """A data directory of the server (one per disk).

    Attributes:
        place: Where it is.
        path: Absolute path there.
        provider: `rustfs`, `minio`, or another one that keeps no metadata directory.

    """

    place: Executor
    path: str
    provider: str = "rustfs"

    def __str__(self) -> str:
        return f"{self.path} on {self.place.describe()}"


@dataclass(frozen=True, slots=True)
class Found:
    """A bucket in one data directory: entries of its data directory, None when absent; metadata likewise."""

    where: str
    entries: int | None
    metadata: bool | None


@dataclass(frozen=True, slots=True)
class DiskView:
    """A bucket on all data directories that were looked at."""

    found: tuple[Found, ...]

    @property
    def data(self) -> bool:
        """Tell whether the data is there, on any disk."""
        return any(one.entries is not None for one in self.found)

    @property
    def metadata(self) -> bool | None:
        """Tell whether the metadata is there, on any disk; None when the server keeps none."""
        known = [one.metadata for one in self.found if one.metadata is not None]
        return any(known) if known else None

    def as_dict(self) -> dict[str, Any]:
        """Give it as evidence."""
        return {
            one.where: {
                "data": one.entries is not None,
                "entries": f"{MOST_ENTRIES}+" if (one.entries or 0) > MOST_ENTRIES else one.entries,
                "metadata": one.metadata,
            }
            for one in self.found
        }


def look(directories: Sequence[Directory], bucket: str) -> DiskView:
    """Look for a bucket's directories.

    Raises:
        CannotLookError: A data directory is not there, may not be read, or the command cannot run there.

    """
    return DiskView(tuple(_look(directory, bucket) for directory in directories))


def _look(directory: Directory, bucket: str) -> Found:
    metadata = METADATA.get(directory.provider)
    system = metadata.split("/")[0] if metadata else ""
    asked = [directory.path, f"{directory.path}/{bucket}"]
    if metadata:
        asked += [f"{directory.path}/{part}" for part in (system, metadata, f"{metadata}/{bucket}")]
    states = _states(directory, asked)
    root = states[0][0]
    if root != "dir":
        wrong = {"absent": "is not there", "closed": "may not be read", "other": "is no directory"}[root]
        raise CannotLookError(
            f"the data directory {wrong}",
            where=str(directory),
            why="whether the bucket is on the disk cannot be seen; this says nothing about its state",
            fix="name the directory that the server serves (RustFS: its volumes), and run as a user who may read it",
        )
    if closed := [path for path, (state, _) in zip(asked, states, strict=True) if state == "closed"]:
        raise CannotLookError(
            f"{closed[0]} may not be read",
            where=str(directory),
            fix="run as the server's user, or as root",
        )
    entries = states[1][1] if states[1][0] == "dir" else None
    return Found(str(directory), entries, states[-1][0] == "dir" if metadata else None)


def _states(directory: Directory, paths: list[str]) -> list[tuple[str, int]]:
    try:
        done = run(directory.place.argv(["sh", "-c", _SCRIPT, "sh", *paths]), timeout=120)
    except CommandError as error:
        raise CannotLookError(
            f"the disk cannot be looked at: {error.why}",
            where=str(directory),
            fix="check by hand: " + " ".join(directory.place.argv(["ls", directory.path])),
        ) from error
    lines = [line.split(" ", 2) for line in done.stdout.splitlines() if line.strip()]
    if [line[2] for line in lines if len(line) == 3] != paths:
        raise CannotLookError(
            "the command there printed something else than asked for",
            where=str(directory),
            why="a login shell that prints a banner, or an image without `sh` and `ls`",
        )
    return [(state, int(entries)) for state, entries, _ in lines]
