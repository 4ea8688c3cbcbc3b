"""Which contents a scan hashes, and what came of it.

A power cut leaves registered paths whose files are empty (Nix syncs them only with `fsync-store-paths`): the ones
that were registered last before it. So even a quick scan looks at those.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import contents

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence

    from .compare import Span
    from .interface import StoreRoot
    from .progress import Progress

RECENT_SECONDS = 600
"""A quick scan hashes what was registered in the last ten minutes before the newest registration."""
RECENT_BYTES = 2 * 1024**3
"""Of that, the newest first, no more than so much."""

_ALL = "select id, path, hash, narSize from ValidPaths order by path"
_NEWEST = "select min(id), max(id), max(registrationTime) from ValidPaths"
_LAST = """
    select id, path, hash, narSize, registrationTime from ValidPaths
    where id between ? and ? and registrationTime >= ?
"""


@dataclass
class Hashed:
    """What hashing found.

    Attributes:
        paths: How many paths were looked at.
        wrong: Rows whose content is not what it should be: id to what it is.
        bad_links: Names in `.links` that do not fit their content, sorted.

    """

    paths: int = 0
    wrong: dict[int, contents.Wrong] = field(default_factory=dict)
    bad_links: list[str] = field(default_factory=list)


def hash_contents(
    store: StoreRoot,
    connection: sqlite3.Connection,
    progress: Progress,
    *,
    everything: bool,
    without: Collection[int],
    spans: Sequence[Span] = (),
) -> Hashed:
    """Hash every path and every file of `.links`, or only the paths that were registered last.

    Args:
        store: The store.
        connection: Its database.
        progress: Shown meanwhile.
        everything: Not only the last ones.
        without: Ids of rows that have nothing to hash.
        spans: Where the rows are, by when they were registered; only saves time.

    """
    real = os.fsencode(store.real_store) + b"/"
    cut = len(store.store_dir) + 1
    rows = connection.execute(_ALL) if everything else _last(connection, spans)
    tasks = [
        contents.Task(row, real + os.fsencode(path[cut:]), nar_hash, size or 0)
        for row, path, nar_hash, size in rows
        if row not in without
    ]
    if not everything:
        tasks = _newest(tasks, RECENT_BYTES)
    found = Hashed(len(tasks))
    links: list[str] = []
    if everything:
        _add_links(real + b".links", tasks, links)
    if not tasks:
        return found
    with progress.task("hashing", sum(task.nar_size for task in tasks), "bytes") as advance:
        for wrong in contents.check(tasks, lambda _paths, size: advance(size)):
            if wrong.key >= 0:
                found.wrong[wrong.key] = wrong
            else:
                found.bad_links.append(links[-1 - wrong.key])
    found.bad_links.sort()
    return found


def _last(connection: sqlite3.Connection, spans: Sequence[Span]) -> list[tuple[int, str, str, int | None]]:
    """Give id, path, hash and size of the rows that were registered last, the newest first."""
    if not spans:
        spans = [span for span in [connection.execute(_NEWEST).fetchone()] if span[0] is not None]
    since = max((newest for _, _, newest in spans), default=0) - RECENT_SECONDS
    found = []
    for first, last, newest in spans:
        if newest >= since:
            found += connection.execute(_LAST, (first, last, since)).fetchall()
    found.sort(key=lambda row: (row[4], row[0]), reverse=True)
    return [row[:4] for row in found]


def _newest(tasks: list[contents.Task], limit: int) -> list[contents.Task]:
    """Give the first tasks that together have no more than `limit` bytes, at least one."""
    total = 0
    for position, task in enumerate(tasks):
        total += task.nar_size
        if total > limit and position:
            return tasks[:position]
    return tasks


def _add_links(directory: bytes, tasks: list[contents.Task], links: list[str]) -> None:
    """Add the files of `.links`; their keys count down from -1, by their place in `links`."""
    if not os.path.isdir(directory) or os.path.islink(directory):
        return
    for entry in os.scandir(directory):
        task = contents.link_task(directory, entry.name, 0)
        if task:
            tasks.append(contents.Task(-1 - len(links), task.place, task.nar_hash, 0))
            links.append(os.fsdecode(entry.name))
