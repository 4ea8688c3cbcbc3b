"""What the bytes on disk alone can tell of paths without a row: their hash and what they refer to.

Nobody vouches for such bytes: a file that was cut off hashes as well as a whole one. So this is only done when
the user asks for it (`--adopt`), for what is alive, and for copies that look complete.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from . import nar
from .interface import PathInfo

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from .interface import StoreRoot
    from .progress import Progress
    from .roots import Root
    from .scan import Scan

# Derive([outputs],[inputDrvs],[inputSrcs],…): paths behind the outputs (source: src/libstore/derivations.cc).
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"')


class Reader:
    """Reads paths on disk for what they refer to.

    Args:
        store: The store.
        connection: The database, for the names that a path can refer to.
        orphans: Names on disk without a row.

    """

    def __init__(self, store: StoreRoot, connection: sqlite3.Connection, orphans: Iterable[str]) -> None:
        self._store = store
        self._names: dict[bytes, str] = {}
        cut = len(store.store_dir) + 1
        for (path,) in connection.execute("select path from ValidPaths"):
            self._names[os.fsencode(path[cut : cut + 32])] = path[cut:]
        for name in orphans:
            self._names.setdefault(os.fsencode(name[:32]), name)

    def references(self, name: str) -> tuple[str, ...]:
        """Give the base names that a path on disk refers to.

        Raises:
            OSError, NotArchivableError: It cannot be read.

        """
        place = self._store.real_store / name
        parts = derivation_inputs(place) if name.endswith(".drv") and place.is_file() else None
        if parts is None:
            parts = nar.hash_parts(place, self._names)
        return tuple(sorted({self._names[part] for part in parts if part in self._names}))


def derivation_inputs(place: Path) -> set[bytes] | None:
    """Give the hash parts of the inputs of a derivation; None if it is none.

    Its own outputs stand in it too, but it does not refer to them.
    """
    text = place.read_bytes()
    if not text.startswith(b"Derive([") or not text.endswith(b")"):
        return None
    end = _end_of_list(text, len(b"Derive("))
    second = _end_of_list(text, end + 1)
    third = _end_of_list(text, second + 1)
    words = _QUOTED.findall(text[end:third])
    return {word.rsplit(b"/", 1)[1][:32] for word in words if b"/" in word}


def _end_of_list(text: bytes, start: int) -> int:
    """Give where the list that begins at `start` ends; strings may hold brackets."""
    depth, position = 0, start
    while position < len(text):
        here = text[position : position + 1]
        if here == b'"':
            match = _QUOTED.match(text, position)
            if match is None:
                break
            position = match.end()
            continue
        depth += (here == b"[") - (here == b"]")
        position += 1
        if not depth:
            return position
    return len(text)


def reached(scan: Scan, connection: sqlite3.Connection) -> list[Root]:
    """Give what roots need by way of paths on disk that no row knows: the database cannot tell that it is alive.

    Args:
        scan: Its roots and orphans; it is not changed.
        connection: The database.

    """
    store, orphans = scan.store, set(scan.orphans)
    todo = [root for root in scan.roots if root.base_name in orphans]
    if not todo:
        return []
    reader = Reader(store, connection, orphans)
    seen = {(root.base_name, root.label) for root in todo}
    found = []
    while todo:
        root = todo.pop()
        try:
            names = reader.references(root.base_name)
        except (OSError, nar.NotArchivableError):
            continue
        for name in names:
            if (name, root.label) not in seen:
                seen.add((name, root.label))
                below = replace(root, base_name=name, link="")
                found.append(below)
                if name in orphans:
                    todo.append(below)
    return found


def infos(
    store: StoreRoot,
    connection: sqlite3.Connection,
    orphans: Iterable[str],
    needed: Iterable[str],
    *,
    proven: Mapping[str, PathInfo],
    progress: Progress,
) -> dict[str, PathInfo]:
    """Give what can be told of the paths that are needed, and of those that they need in turn.

    Args:
        store: The store.
        connection: Its database.
        orphans: Base names on disk without a row.
        needed: Those of them to begin with; registered ones whose references are in doubt may be among them.
        proven: Full paths for which a source vouches; they are passed over.
        progress: Shown meanwhile.

    """
    among = set(orphans)
    reader = Reader(store, connection, among)
    found: dict[str, PathInfo] = {}
    todo = sorted(set(needed))
    seen = set(todo)
    with progress.task("reading paths without a row", 0, "paths") as advance:
        while todo:
            name = todo.pop()
            path = store.path(name)
            advance(1)
            if path in proven:
                continue
            try:
                references = reader.references(name)
                if name in among:
                    if not nar.metadata(store.real_store / name).canonical:
                        continue
                    digest = nar.digest(store.real_store / name)
                    full = tuple(sorted(map(store.path, references)))
                    found[path] = PathInfo(path, digest.nar_hash, digest.nar_size, full)
            except (OSError, nar.NotArchivableError):
                continue
            more = [reference for reference in references if reference in among and reference not in seen]
            seen.update(more)
            todo += more
    return found
