"""Which paths are alive, and what needs them: the closure of the roots, computed inside SQLite.

Everything is kept in temporary tables of the connection: `live(id, root)` holds each live row and one root that
reaches it. The database itself is only read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .database import in_batches, marks

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Mapping

    from .interface import StoreRoot
    from .roots import Root

# One level of the closure: twice as fast on large stores as a recursive query, which keeps a queue of its own.
_STEP = """
insert or ignore into temp.{there} select reference from temp.{here} as here cross join Refs on referrer = here.id
where not exists (select 1 from temp.live where live.id = reference)
"""

_UP = """
with recursive up(id) as (
    select ? union select referrer from Refs join up on reference = up.id
)
select distinct number from temp.root_row join up on up.id = root_row.id order by number limit ?
"""


class Liveness:
    """Answers what is alive.

    Args:
        connection: The database; gets temporary tables.
        store: The store.
        roots: In order of importance, as `roots.find` gives them.

    """

    def __init__(self, connection: sqlite3.Connection, store: StoreRoot, roots: Iterable[Root]) -> None:
        self._connection = connection
        self._roots = [root for root in roots if root.base_name]
        self._rows: dict[int, list[int]] = {}
        self._unregistered: dict[str, list[str]] = {}
        connection.execute("pragma temp_store = memory")
        connection.execute("create temp table if not exists live(id integer primary key, root integer)")
        connection.execute("create temp table if not exists level_a(id integer primary key)")
        connection.execute("create temp table if not exists level_b(id integer primary key)")
        connection.execute("create temp table if not exists root_row(id integer, number integer)")
        connection.execute("delete from temp.live")
        connection.execute("delete from temp.root_row")
        for number, root in enumerate(self._roots):
            row = connection.execute(
                "select id from ValidPaths where path = ?", (store.path(root.base_name),)
            ).fetchone()
            if row is None:
                self._unregistered.setdefault(root.base_name, []).append(root.label)
                continue
            self._rows.setdefault(row[0], []).append(number)
            connection.execute("insert into temp.root_row values (?, ?)", (row[0], number))
        self._computed = False

    @property
    def unregistered(self) -> Mapping[str, list[str]]:
        """Give the base names that a root points to and no row knows, with the labels of those roots."""
        return self._unregistered

    def compute(self) -> None:
        """Find every live row: seconds on a large store, so only done when asked for."""
        if self._computed:
            return
        for row, numbers in self._rows.items():
            if self._connection.execute("select 1 from temp.live where id = ?", (row,)).fetchone():
                continue
            self._reach(row, numbers[0])
        self._computed = True

    def _reach(self, row: int, number: int) -> None:
        """Add the closure of a row to the live rows, level by level."""
        run = self._connection.execute
        here, there = "level_a", "level_b"
        run(f"delete from temp.{here}")  # noqa: S608 -- constants
        run(f"insert into temp.{here} values (?)", (row,))  # noqa: S608 -- constants
        while True:
            kept = f"insert or ignore into temp.live select id, ? from temp.{here}"  # noqa: S608 -- constants
            run(kept, (number,))
            run(f"delete from temp.{there}")  # noqa: S608 -- constants
            if run(_STEP.format(here=here, there=there)).rowcount <= 0:
                return
            here, there = there, here

    def live(self, ids: Collection[int]) -> dict[int, str]:
        """Give those of some ids that are alive, each with the label of one root that needs it."""
        self.compute()
        found: dict[int, str] = {}
        for batch in in_batches(ids):
            query = f"select id, root from temp.live where id in ({marks(batch)})"  # noqa: S608 -- only marks
            for row, number in self._connection.execute(query, batch):
                found[row] = self._roots[number].label
        return found

    def needed_by(self, row: int, most: int = 5) -> list[str]:
        """Give the labels of up to `most` roots that reach a row, most important first."""
        numbers = self._connection.execute(_UP, (row, most)).fetchall()
        return list(dict.fromkeys(self._roots[number].label for (number,) in numbers))
