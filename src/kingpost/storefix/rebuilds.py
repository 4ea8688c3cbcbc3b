"""Have Nix rebuild what no source has, while only sharing the lock that a build needs too."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

from . import nar
from . import plan as plans
from .database import connect
from .errors import SourceError

if TYPE_CHECKING:
    from .apply import Outcome
    from .interface import Rebuilder, StoreRoot
    from .locks import Hold
    from .plan import Plan
    from .progress import Progress


def rebuild(
    store: StoreRoot,
    plan: Plan,
    rebuilder: Rebuilder,
    collector: Hold,
    outcome: Outcome,
    *,
    progress: Progress,
    wait: float,
) -> None:
    """Rebuild what the plan says and check what came of it; failures go to `outcome.failed`.

    Args:
        store: The store.
        plan: Its `rebuild` actions are executed.
        rebuilder: A Nix that works.
        collector: Our lock on gc.lock, exclusive; builds need to share it.
        outcome: Gets what was done and what was not.
        progress: Shown meanwhile.
        wait: Seconds to wait for a garbage collection that was waiting for us and slips in.

    """
    actions = plan.of(plans.REBUILD)
    collector.change(fcntl.LOCK_SH, wait, progress.say)
    with progress.task("rebuilding", len(actions), "paths") as advance:
        for action in actions:
            deriver = action.info.deriver if action.info else ""
            try:
                if not _is_sound(store, action.subject):  # one build may bring several outputs
                    rebuilder.rebuild(action.subject, deriver)
            except SourceError as error:
                outcome.failed.append((action, " ".join(str(error).split())))
            else:
                if _is_sound(store, action.subject):
                    outcome.done.append(action)
                else:
                    outcome.failed.append((action, "what was built is not what is registered"))
            advance(1)


def _is_sound(store: StoreRoot, path: str) -> bool:
    """Tell whether a path is on disk with the hash of its row."""
    connection = connect(store.database)
    try:
        row = connection.execute("select hash from ValidPaths where path = ?", (path,)).fetchone()
    finally:
        connection.close()
    try:
        return row is not None and nar.digest(store.real(path)).nar_hash == row[0]
    except (OSError, nar.NotArchivableError):
        return False
