"""The part of the reference graph that a plan needs: damaged rows, what refers to them, what is alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .database import in_batches, infos_of, marks, paths_of
from .liveness import Liveness

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

    from .contents import Wrong
    from .interface import PathInfo, StoreRoot
    from .scan import Scan


@dataclass
class Damaged:
    """A row that is not what it should be.

    Attributes:
        row: Its id.
        path: Its path; `row 17` for a row that is not there.
        state: What is wrong, in words that follow the path: `is registered, but not on disk`.
        on_disk: Something is at its place.
        fetchable: It is a path of this store with a name, so that a source can be asked for it.
        info: Its row; None for a row that is not there.
        hash_known: The row's hash can be used.
        needed_by: Labels of roots that need it; empty if it is dead.
        live: A root needs it.

    """

    row: int
    path: str
    state: str
    on_disk: bool
    fetchable: bool
    info: PathInfo | None = None
    hash_known: bool = True
    needed_by: tuple[str, ...] = ()
    live: bool = False


class Graph:
    """Damaged rows and the questions a plan asks about references.

    Args:
        connection: The database; gets temporary tables.
        scan: What is wrong.

    """

    def __init__(self, connection: sqlite3.Connection, scan: Scan) -> None:
        self.connection = connection
        self._store: StoreRoot = scan.store
        self._rows: dict[str, int] = {}
        self.liveness = Liveness(connection, scan.store, scan.roots)
        self.damaged: dict[int, Damaged] = {}
        self._add(scan)
        labels = self.liveness.live(self.damaged) if self.damaged else {}
        for position, (row, damaged) in enumerate(self.damaged.items()):
            if row in labels:
                damaged.live = True
                many = position >= 50
                needed = (labels[row],) if many else tuple(self.liveness.needed_by(row))
                damaged.needed_by = needed or (labels[row],)

    def _add(self, scan: Scan) -> None:
        """Make one entry of each damaged row."""
        path = scan.store.path
        wrong_names = paths_of(self.connection, scan.wrong)
        infos = infos_of(self.connection, [*scan.lost, *scan.invalid, *scan.wrong, *scan.unhashed])
        for row, name in scan.lost.items():
            self.damaged[row] = Damaged(row, path(name), "is registered, but not on disk", False, True)
        for row, text in scan.invalid.items():
            self.damaged[row] = Damaged(row, text, "can be no path of this store", False, False)
        for row, name in wrong_names.items():
            self.damaged[row] = Damaged(row, name, _wrong_state(scan.wrong[row]), True, True)
        for row, name in scan.unhashed.items():
            self.damaged[row] = Damaged(
                row, path(name), "has no usable hash in the database", True, True, hash_known=False
            )
        for row, damaged in self.damaged.items():
            damaged.info = infos.get(row)
            if row in scan.lost and damaged.info and not _usable(damaged.info.nar_hash):
                damaged.hash_known = False
        for row in scan.keys.ghosts:
            self.damaged[row] = Damaged(row, f"row {row}", "is referred to, but not there", False, False)

    def row(self, path: str) -> int:
        """Give the id of a path's row; 0 if it has none."""
        if path not in self._rows:
            found = self.connection.execute(
                "select id from ValidPaths where path = cast(? as text)",
                (path.encode("utf-8", "surrogateescape"),),
            ).fetchone()
            self._rows[path] = found[0] if found else 0
        return self._rows[path]

    def referrers(self, rows: Collection[int]) -> dict[int, set[int]]:
        """Give which registered rows refer to each of some ids, themselves left out."""
        found: dict[int, set[int]] = {}
        for batch in in_batches(rows):
            query = (
                "select reference, referrer from Refs join ValidPaths on id = referrer "  # noqa: S608 -- only marks
                f"where reference in ({marks(batch)}) and referrer != reference"
            )
            for reference, referrer in self.connection.execute(query, batch):
                found.setdefault(reference, set()).add(referrer)
        return found

    def lost_below(self, rows: Collection[int]) -> set[int]:
        """Give some ids whose row is lost, and those ids that they refer to, directly or not, with a lost row too."""
        found = set(rows)
        level = found
        while level:
            reached: set[int] = set()
            for batch in in_batches(level):
                query = (
                    f"select reference from Refs where referrer in ({marks(batch)}) "  # noqa: S608 -- only marks
                    "and reference not in (select id from ValidPaths)"
                )
                reached.update(row[0] for row in self.connection.execute(query, batch))
            level = reached - found
            found |= level
        return found

    def references_of(self, rows: Collection[int]) -> int:
        """Count the references that some ids have, whether they have a row or not."""
        query = "select count(*) from Refs where referrer in ({})"
        return sum(
            self.connection.execute(query.format(marks(batch)), batch).fetchone()[0]
            for batch in in_batches(rows)
        )

    def closure_up(self, rows: Collection[int]) -> dict[int, int]:
        """Give everything that refers to some rows, directly or not, each with one row that it refers to.

        The rows themselves are among the keys, pointing to themselves.
        """
        found = {row: row for row in rows}
        level = set(rows)
        while level:
            reached: dict[int, int] = {}
            for reference, referrers in self.referrers(level).items():
                for referrer in referrers:
                    if referrer not in found:
                        reached.setdefault(referrer, reference)
            found.update(reached)
            level = set(reached)
        return found

    def paths(self, rows: Collection[int]) -> dict[int, str]:
        """Give the paths of rows; `row 17` for those that are not there."""
        known = paths_of(self.connection, rows)
        return {row: known.get(row, f"row {row}") for row in rows}

    def infos(self, rows: Collection[int]) -> dict[int, PathInfo]:
        """Give whole rows (see `database.infos_of`)."""
        return infos_of(self.connection, rows)

    def base(self, path: str) -> str:
        """Give the base name of a store path."""
        return self._store.base_name(path)


def _wrong_state(wrong: Wrong) -> str:
    return f"cannot be read: {wrong.error}" if wrong.error else "has other contents than were registered"


def _usable(nar_hash: str) -> bool:
    return len(nar_hash) == 71 and nar_hash.startswith("sha256:")
