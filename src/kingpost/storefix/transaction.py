"""Change the rows of the database as a plan says, in one transaction that ends only if all is sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import effects, register
from . import plan as plans
from .database import connect, execute_quietly, fingerprint
from .errors import StoreChangedError, StoreFixError
from .workshop import is_whole

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from .backup import Run
    from .interface import PathInfo, StoreRoot
    from .plan import Action, Plan


class Transaction:
    """The rows of one plan.

    Args:
        store: The store.
        plan: The plan.
        failed: Paths that could not be had, with the reason; gets those that cannot be registered.

    """

    def __init__(self, store: StoreRoot, plan: Plan, failed: dict[str, str]) -> None:
        self._store = store
        self._plan = plan
        self._failed = failed

    def write(self, run: Run) -> None:
        """Do it.

        Args:
            run: Its journal gets the state of the database that is committed.

        Raises:
            StoreChangedError: Paths were registered since the plan was made.
            StoreFixError: The database would not be sound.
            sqlite3.Error, OSError: The transaction was taken back.

        """
        connection = connect(self._store.database, write=True)
        try:
            connection.execute("begin immediate")
            try:
                # Checked again under the write lock: a Nix that was let in before ours could have registered.
                self._refuse_registered(connection)
                before = _violations(connection)
                self._change_rows(connection)
                effects.boundary("rows written")
                self._check(connection, before)
                run.note(commit=fingerprint(connection))
                connection.execute("commit")
                effects.boundary("committed")
            except BaseException:
                execute_quietly(connection, "rollback")
                raise
            execute_quietly(connection, "pragma wal_checkpoint(passive)")
        finally:
            connection.close()
        effects.boundary("checkpointed")

    def _refuse_registered(self, connection: sqlite3.Connection) -> None:
        if fingerprint(connection) != self._plan.fingerprint:
            raise StoreChangedError(
                "paths were registered while this ran",
                where=str(self._store.database),
                fix="make a new plan: store-fix plan -o plan.json",
            )

    def _change_rows(self, connection: sqlite3.Connection) -> None:
        for action in self._plan.of(plans.FORGET):
            register.forget(connection, action.subject, [int(row.split()[-1]) for row in action.others])
            effects.boundary("forgotten")
        register.register(connection, self._store, self._registrable(connection))
        effects.boundary("registered")
        register.drop(connection, [action.row for action in self._plan.of(plans.DROP)])
        effects.boundary("dropped")
        for action in self._plan.of(plans.CUT):
            register.cut(connection, action.row, action.others)
            if register.row_of(connection, action.subject) == action.row:
                register.drop(connection, [action.row])
            effects.boundary("cut")

    def _registrable(self, connection: sqlite3.Connection) -> list[PathInfo]:
        """Give what can be registered: without what could not be fetched, and without what refers to that."""
        wanted: dict[str, Action] = {}
        for action in self._plan.of(plans.FETCH, plans.REGISTER, plans.ADOPT, plans.RESTATE):
            if action.subject in self._failed or (action.kind == plans.FETCH and not action.registers):
                continue
            if action.kind in (plans.REGISTER, plans.ADOPT):
                place = self._store.real(action.subject)
                effects.settle(place)
                if not is_whole(place, action.offered):
                    self._failed[action.subject] = "its contents have changed since the plan was made"
                    continue
            wanted[action.subject] = action
        while True:
            broken = [
                (path, reference)
                for path, action in wanted.items()
                for reference in action.offered.references
                if reference not in wanted and not register.row_of(connection, reference)
            ]
            if not broken:
                return [action.offered for action in wanted.values()]
            for path, reference in broken:
                wanted.pop(path, None)
                self._failed[path] = f"it refers to {reference}, which could not be had"

    def _check(self, connection: sqlite3.Connection, before: set[tuple[object, ...]]) -> None:
        """Refuse to commit unless every reference is to a row, but for those that the plan leaves."""
        left = _violations(connection) - before
        complaint = "; ".join(str(row[0]) for row in connection.execute("pragma integrity_check(3)"))
        if left or complaint != "ok":
            raise StoreFixError(
                "the database would not be sound after this plan",
                where=str(self._store.database),
                why=complaint if complaint != "ok" else f"{len(left)} references would dangle",
                fix="nothing was changed; please report this with the plan",
            )


def _violations(connection: sqlite3.Connection) -> set[tuple[object, ...]]:
    """Give what `foreign_key_check` finds, without row numbers, which change."""
    found: set[tuple[object, ...]] = set()
    rows: Mapping[str, str] = {"Refs": "referrer, reference", "DerivationOutputs": "drv, id"}
    for table, row, parent, key in connection.execute("pragma foreign_key_check").fetchall():
        columns = rows.get(table, "rowid")
        query = f'select {columns} from "{table}" where rowid = ?'  # noqa: S608 -- names from SQLite itself
        values = connection.execute(query, (row,)).fetchone() if row is not None else ()
        found.add((table, parent, key, *values))
    return found
