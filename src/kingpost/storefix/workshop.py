"""Bring the bytes of paths in: unpack them beside the store's paths, and exchange them for what is in their place."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from . import effects, nar
from . import plan as plans
from .errors import SourceError, StoreFixError
from .interface import Wanted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .backup import Run
    from .interface import Advance, PathInfo, Source, StoreRoot
    from .plan import Action, Plan
    from .progress import Progress

WORKSHOP = ".store-fix"
"""Directory in the store, on its file system, where paths are unpacked and moved aside. A garbage collection
removes it, as everything in the store that is no path."""

_FETCHES = 4  # at once


def is_whole(place: Path, info: PathInfo) -> bool:
    """Tell whether what is on disk has the hash of `info`."""
    try:
        return nar.digest(place).nar_hash == info.nar_hash
    except (OSError, nar.NotArchivableError):
        return False


class Workshop:
    """The directory in the store where the paths of one plan are unpacked.

    Args:
        store: The store.
        plan: The plan.
        sources: Where bytes come from; the plan's own are preferred.
        progress: Shown meanwhile.

    """

    def __init__(self, store: StoreRoot, plan: Plan, sources: Sequence[Source], progress: Progress) -> None:
        self._store = store
        self._plan = plan
        self._sources = sources
        self._progress = progress
        self._workshop = store.real_store / WORKSHOP
        self._incoming = self._workshop / "incoming"
        self._aside = self._workshop / f"aside-{plan.id}"

    def fetch(self, run: Run) -> dict[str, str]:
        """Fetch what the plan fetches, several at once, and put it in place, references first.

        Args:
            run: Its journal gets every move aside.

        Returns:
            The paths that could not be had, with the reason.

        Raises:
            StoreFixError: The workshop is somebody else's.
            OSError: The disk is full.

        """
        failed: dict[str, str] = {}
        actions = self._plan.of(plans.FETCH)
        if not actions:
            return failed
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
                        failed[action.subject] = " ".join(str(error).split())
                        continue
                    if unpacked:
                        self._put_in_place(run, action, unpacked)
            except BaseException:
                stopped.set()  # Ctrl-C, a full disk: a download of hours must not go on
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return failed

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
        info = action.offered
        place = self._store.real(action.subject)
        if os.path.lexists(place) and is_whole(place, info):
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

    def _put_in_place(self, run: Run, action: Action, unpacked: Path) -> None:
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
            if not is_whole(aside, action.offered):  # the old copy: what is in its place came after it
                self._replace(unpacked, place)
                effects.remove_below(unpacked.parent, unpacked.name)
                return
            effects.remove_below(aside.parent, aside.name)  # an earlier run ended just before the exchange
        effects.move(unpacked, aside)
        run.note(moved=str(place), aside=str(aside))
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

    def tidy(self) -> str:
        """Remove the workshop but for what was moved aside; give where that is."""
        if self._workshop.is_dir() and not self._workshop.is_symlink():
            effects.remove_below(self._workshop, self._incoming.name)
            if not os.listdir(self._workshop):
                effects.remove_below(self._store.real_store, WORKSHOP)
        return str(self._aside) if self._aside.is_dir() else ""
