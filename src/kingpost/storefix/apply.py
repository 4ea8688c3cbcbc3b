"""Execute exactly one plan: backup, files, one transaction, what Nix itself must do.

Files come first and rows last, so that at every moment each row that is new has its path on disk, whole and
flushed. A run that was interrupted is continued by applying the same plan again, and a new plan covers whatever
is left just as well.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import backup, effects, nar, register, salvage, tidy
from . import plan as plans
from .database import connect, execute_quietly, fingerprint
from .errors import SourceError, StoreChangedError, StoreFixError, UsageError
from .interface import Wanted
from .locks import alone
from .rebuilds import rebuild

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .backup import Run
    from .interface import Advance, PathInfo, Rebuilder, Source, StoreRoot
    from .plan import Action, Plan
    from .progress import Progress

WORKSHOP = ".store-fix"
"""Directory in the store, on its file system, where paths are unpacked and moved aside. A garbage collection
removes it, as everything in the store that is no path."""

_FETCHES = 4  # at once
_SLIPPED_IN = 600.0
"""Seconds to wait, whatever the user said, for a garbage collection that takes the lock while we change ours: the
rows are written, and only what Nix rebuilds is left."""


@dataclass
class Outcome:
    """What came of a plan.

    Attributes:
        run: Where backup and journal are.
        done: Actions that were carried out.
        failed: Actions that were not, with the reason.
        aside: Where copies are that were moved out of the way; empty if there are none.

    """

    run: Run
    done: list[Action] = field(default_factory=list)
    failed: list[tuple[Action, str]] = field(default_factory=list)
    aside: str = ""


def apply(
    store: StoreRoot,
    plan: Plan,
    sources: Sequence[Source],
    rebuilder: Rebuilder | None,
    progress: Progress,
    *,
    wait: float = 0,
) -> Outcome:
    """Execute a plan.

    Args:
        store: The store that it was made for.
        plan: The plan.
        sources: Where bytes come from; the plan's own are preferred.
        rebuilder: A Nix that works, if the plan has something to rebuild.
        progress: Shown meanwhile.
        wait: Seconds to wait for other users of the store.

    Raises:
        UsageError: The plan is for another store.
        BusyError: Nix is at work.
        StoreChangedError: The store is not as it was when the plan was made.
        StoreFixError: The backup cannot be made, or the database would not be sound afterwards.

    """
    if (plan.root, plan.store_dir, plan.state_dir) != (
        str(store.root),
        store.store_dir,
        str(store.state_dir),
    ):
        raise UsageError(
            f"this plan is for the store {plan.store_dir} below {plan.root}",
            where=f"{store.store_dir} below {store.root}",
            fix="name that store with --root, --store-dir and --state-dir, or make a new plan",
        )
    salvaging = bool(plan.of(plans.SALVAGE))
    try:
        with alone(store, wait, progress.say, strictly=salvaging) as collector:
            if salvaging:
                run = backup.begin(store, plan)
                outcome = Outcome(run)
                salvage.replace(store, run, progress)
                outcome.done += plan.actions
            else:
                outcome = _Application(store, plan, sources, progress).carried_out()
                run = outcome.run
                if plan.of(plans.REBUILD) and rebuilder:
                    rebuild(
                        store,
                        plan,
                        rebuilder,
                        collector,
                        outcome,
                        progress=progress,
                        wait=max(wait, _SLIPPED_IN),
                    )
            run.finish()
            return outcome
    except OSError as error:
        raise _failed(error) from error
    except sqlite3.Error as error:
        raise StoreFixError(
            "the database refuses",
            where=str(store.database),
            why=f"{error}; the transaction was taken back, nothing in the database was changed",
            fix="look with: store-fix scan --contents",
        ) from error


def _failed(error: OSError) -> StoreFixError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StoreFixError(
        "the disk is full" if full else "a file cannot be written",
        where=str(error.filename or ""),
        why=f"{error.strerror or error}; nothing was lost, and what was done stays done",
        fix=("free some space, then " if full else "then ") + "apply the same plan again",
    )


class _Application:
    """One plan being executed, but for what Nix itself must do."""

    def __init__(self, store: StoreRoot, plan: Plan, sources: Sequence[Source], progress: Progress) -> None:
        self._store = store
        self._plan = plan
        self._sources = sources
        self._progress = progress
        self._workshop = store.real_store / WORKSHOP
        self._incoming = self._workshop / "incoming"
        self._aside = self._workshop / f"aside-{plan.id}"
        self._failed: dict[str, str] = {}

    def carried_out(self) -> Outcome:
        """Do it."""
        earlier = backup.Run(backup.directory_of(self._store) / f"{self._plan.created:012d}-{self._plan.id}")
        # A run that has come to its end counts too: applying its plan again finds everything done.
        committed = "" if earlier.undone else earlier.committed()
        already = self._refuse_changed(committed, resumed=earlier.unfinished or bool(committed))
        self._run = backup.begin(self._store, self._plan)
        outcome = Outcome(self._run)
        for action in self._plan.of(plans.CLEAN):
            reason = tidy.clean(self._store, action)
            if reason:
                self._failed[action.subject] = reason
        self._fetch()
        if not already:
            self._write()
        for action in self._plan.of(plans.UNROOT):
            tidy.unroot(self._store, self._run, action)
        for action in self._plan.actions:
            if action.subject in self._failed and action.kind not in (plans.DROP, plans.CUT):
                outcome.failed.append((action, self._failed[action.subject]))
            elif action.kind != plans.REBUILD:
                outcome.done.append(action)
        outcome.aside = self._tidy_workshop()
        return outcome

    def _refuse_changed(self, committed: str, *, resumed: bool) -> bool:
        """Refuse a store that is not the plan's; tell whether an earlier run has already written the rows."""
        connection = connect(self._store.database)
        try:
            now = fingerprint(connection)
        finally:
            connection.close()
        if now == committed:
            return True
        where, why = str(self._store.database), "paths were registered or removed since the plan was made"
        if now == self._plan.fingerprint:
            where, why = self._changed_path(resumed=resumed)
        if why:
            raise StoreChangedError(
                "the store is not as it was when this plan was made",
                where=where,
                why=why,
                fix="make a new plan: store-fix plan -o plan.json",
            )
        return False

    def _changed_path(self, *, resumed: bool) -> tuple[str, str]:
        """Give a path that is not as the plan assumes, and in what; two empty texts if there is none."""
        for action in self._plan.actions:
            if action.kind in (plans.DROP, plans.CUT) and action.lost and self._on_disk(action.subject):
                return action.subject, "it has come back"
            if action.kind in (plans.REGISTER, plans.ADOPT) and not self._on_disk(action.subject):
                return action.subject, "it has gone"
            if action.kind == plans.FETCH and action.lost and not resumed and self._on_disk(action.subject):
                return action.subject, "it has come back"
        return "", ""

    def _on_disk(self, path: str) -> bool:
        try:
            return os.path.lexists(self._store.real(path))
        except StoreFixError:
            return False  # a row that can be no path of this store

    # --- bytes -----------------------------------------------------------------------------------------------

    def _fetch(self) -> None:
        """Fetch what the plan fetches, several at once, and put it in place, references first."""
        actions = self._plan.of(plans.FETCH)
        if not actions:
            return
        self._open_workshop()
        effects.remove_below(self._workshop, self._incoming.name)
        effects.make_directory(self._incoming)
        total = sum(action.info.nar_size for action in actions if action.info)
        stopped = threading.Event()
        with self._progress.task("fetching", total, "bytes") as advance:

            def count(size: int) -> None:
                if stopped.is_set():
                    raise SourceError("stopped, for the run has ended")
                advance(size)

            pool = ThreadPoolExecutor(_FETCHES)
            try:
                futures = [pool.submit(self._fetch_one, action, count) for action in actions]
                for action, future in zip(actions, futures):  # noqa: B905 -- strict= needs Python 3.10
                    try:
                        unpacked = future.result()
                    except SourceError as error:
                        self._failed[action.subject] = " ".join(str(error).split())
                        continue
                    if unpacked:
                        self._put_in_place(action, unpacked)
            except BaseException:
                stopped.set()  # Ctrl-C, a full disk: a download of hours must not go on
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _open_workshop(self) -> None:
        """Make the workshop. Builders without a sandbox can write to the store directory too: not to this."""
        effects.make_directory(self._workshop)
        status = self._workshop.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise StoreFixError(
                "this directory was made by somebody else",
                where=str(self._workshop),
                why="who made it could exchange what is unpacked there",
                fix="look at what is in it, remove it, then apply the same plan again",
            )

    def _fetch_one(self, action: Action, advance: Advance) -> Path | None:
        """Unpack one path in the workshop; None if an earlier run has already put it in place."""
        info = _info(action)
        place = self._store.real(action.subject)
        if os.path.lexists(place) and self._is_whole(place, info):
            advance(info.nar_size)
            return None
        into = self._incoming / place.name
        errors: list[str] = []
        for source in sorted(self._sources, key=lambda source: source.describe() != action.source):
            try:
                offer = info
                if source.describe() != action.source:
                    answer = source.query([Wanted(info.path, info.nar_hash)]).get(info.path)
                    if isinstance(answer, SourceError):
                        raise answer
                    if answer is None or answer.nar_hash != info.nar_hash:
                        continue
                    offer = answer
                source.fetch(offer, into, advance)
                effects.boundary("unpacked")
            except SourceError as error:
                errors.append(f"{source.describe()}: {error.what}{': ' if error.why else ''}{error.why}")
                effects.remove_below(self._incoming, into.name)
                continue
            return into
        raise SourceError("; ".join(errors) or "none of the sources has it any more")

    @staticmethod
    def _is_whole(place: Path, info: PathInfo) -> bool:
        try:
            return nar.digest(place).nar_hash == info.nar_hash
        except (OSError, nar.NotArchivableError):
            return False

    def _put_in_place(self, action: Action, unpacked: Path) -> None:
        """Exchange what is at a path's place, if anything, for what was unpacked.

        It may be in use, the C library of this system for instance: there is no moment without it.
        """
        place = self._store.real(action.subject)
        if not os.path.lexists(place):
            effects.move(unpacked, place)
            return
        effects.make_directory(self._aside)
        aside = self._aside / place.name
        if os.path.lexists(aside):
            if not self._is_whole(aside, _info(action)):  # the old copy: what is in its place came after it
                self._replace(unpacked, place)
                effects.remove_below(unpacked.parent, unpacked.name)
                return
            effects.remove_below(aside.parent, aside.name)  # an earlier run ended just before the exchange
        effects.move(unpacked, aside)
        self._run.note(moved=str(place), aside=str(aside))
        self._replace(aside, place)

    def _replace(self, new: Path, place: Path) -> None:
        """Let a new copy and what is in its place change places.

        An old kernel or file system takes three moves for that. In a container, a directory of the image can
        only be removed, for overlayfs does not rename it: then the damaged copy is not kept.
        """
        if effects.exchange(new, place):
            return
        spare = self._incoming / f"{place.name}.spare"
        try:
            effects.move(place, spare)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            effects.remove_below(place.parent, place.name)
            effects.move(new, place)
            return
        effects.move(new, place)
        effects.move(spare, new)

    def _tidy_workshop(self) -> str:
        """Remove the workshop but for what was moved aside; give where that is."""
        if self._workshop.is_dir() and not self._workshop.is_symlink():
            effects.remove_below(self._workshop, self._incoming.name)
            if not os.listdir(self._workshop):
                effects.remove_below(self._store.real_store, WORKSHOP)
        return str(self._aside) if self._aside.is_dir() else ""

    # --- rows ------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Change the database in one transaction that ends only if all is sound."""
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
                self._run.note(commit=fingerprint(connection))
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
            register.forget(connection, action.subject)
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
                if not self._is_whole(place, _info(action)):
                    self._failed[action.subject] = "its contents have changed since the plan was made"
                    continue
            wanted[action.subject] = action
        while True:
            broken = [
                (path, reference)
                for path, action in wanted.items()
                for reference in _info(action).references
                if reference not in wanted and not register.row_of(connection, reference)
            ]
            if not broken:
                return [_info(action) for action in wanted.values()]
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


def _info(action: Action) -> PathInfo:
    if action.info is None:
        raise UsageError(f"the plan does not say what {action.subject} is", fix="make a new plan")
    return action.info


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
