"""Execute exactly one plan: backup, files, one transaction, what Nix itself must do.

Files come first and rows last, so that at every moment each row that is new has its path on disk, whole and
flushed. A run that was interrupted is continued by applying the same plan again, and a new plan covers whatever
is left just as well.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import backup, salvage, tidy
from . import plan as plans
from .database import connect, fingerprint
from .errors import StoreChangedError, StoreFixError, UsageError
from .locks import alone
from .rebuilds import rebuild
from .transaction import Transaction
from .workshop import Workshop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .backup import Run
    from .interface import Rebuilder, Source, StoreRoot
    from .plan import Action, Plan
    from .progress import Progress

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
        self._workshop = Workshop(store, plan, sources, progress)

    def carried_out(self) -> Outcome:
        """Do it."""
        earlier = backup.Run(backup.directory_of(self._store) / f"{self._plan.created:012d}-{self._plan.id}")
        # A run that has come to its end counts too: applying its plan again finds everything done.
        committed = "" if earlier.undone else earlier.committed()
        already = self._refuse_changed(committed, resumed=earlier.unfinished or bool(committed))
        run = backup.begin(self._store, self._plan)
        outcome = Outcome(run)
        failed: dict[str, str] = {}
        for action in self._plan.of(plans.CLEAN):
            reason = tidy.clean(self._store, action)
            if reason:
                failed[action.subject] = reason
        failed.update(self._workshop.fetch(run))
        if not already:
            Transaction(self._store, self._plan, failed).write(run)
        for action in self._plan.of(plans.UNROOT):
            tidy.unroot(self._store, run, action)
        for action in self._plan.actions:
            if action.subject in failed and action.kind not in (plans.DROP, plans.CUT):
                outcome.failed.append((action, failed[action.subject]))
            elif action.kind != plans.REBUILD:
                outcome.done.append(action)
        outcome.aside = self._workshop.tidy()
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
