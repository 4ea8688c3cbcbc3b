"""Weigh what can be had of everything that a scan found: offered, rebuilt, proven by disk, or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from . import adopt, contents, nar
from .interface import Wanted
from .lookup import Lookup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .graph import Damaged, Graph
    from .interface import PathInfo, Rebuilder, Source
    from .progress import Progress
    from .scan import Scan


@dataclass(frozen=True)
class Choices:
    """What the user decided beforehand.

    Attributes:
        allow_cut: Paths that may be given up although something alive needs them.
        adopt: Register what is alive and on disk although no source vouches for it.
        drop_dead: Do not fetch or rebuild what nothing alive needs: drop it.
        no_rebuild: Do not ask Nix to build anything.

    """

    allow_cut: frozenset[str] = field(default_factory=frozenset)
    adopt: bool = False
    drop_dead: bool = False
    no_rebuild: bool = False


class Weighing:
    """What can be had, and what falls because of what cannot.

    Attributes:
        offers: What the sources said.
        labels: Path to the labels of the roots that point to it.
        orphans: Paths on disk without a row.
        ghost_referrers: Rows that refer to rows which are not there.
        verified: Orphans whose content a source vouches for.
        adopted: Orphans that the user has us take as they are.
        rehashed: Rows without a usable hash that the user has us take as they are on disk.
        usable: Offers and adopted orphans whose references will all be registered.
        restated: Referrers of ghosts with their true references.
        rebuilt: Rows that Nix is asked to rebuild.
        dropped: Rows that fall, each with a row that it refers to and that falls too.

    """

    def __init__(
        self,
        scan: Scan,
        graph: Graph,
        sources: Sequence[Source],
        rebuilder: Rebuilder | None,
        choices: Choices,
    ) -> None:
        self._scan = scan
        self._store = scan.store
        self._graph = graph
        self._lookup = Lookup(sources)
        self._rebuilder = rebuilder
        self._choices = choices
        self.offers = self._lookup.offers
        self.labels: dict[str, tuple[str, ...]] = {}
        for root in scan.roots:
            if root.base_name:
                path = self._store.path(root.base_name)
                self.labels[path] = (*self.labels.get(path, ()), root.label)
        self.orphans = {self._store.path(name) for name in scan.orphans}
        self.ghost_referrers: dict[int, PathInfo] = {}
        self.verified: dict[str, PathInfo] = {}
        self.adopted: dict[str, PathInfo] = {}
        self.rehashed: dict[int, PathInfo] = {}
        self.usable: dict[str, PathInfo] = {}
        self.restated: dict[int, PathInfo] = {}
        self.rebuilt: set[int] = set()
        self.over_unhashed: set[int] = set()
        self.dropped: dict[int, int] = {}

    def weigh(self, progress: Progress) -> None:
        """Ask, hash and settle; the attributes hold the result."""
        self._ask()
        self._hash_orphans(progress)
        if self._choices.adopt:
            self.adopted = self._adoptable(progress)
            self.rehashed = self._rehash()
        self._settle()

    def _closed(self, path: str) -> bool:
        return bool(self._graph.row(path))

    def _worth(self, damaged: Damaged) -> bool:
        return damaged.live or not self._choices.drop_dead

    def _ask(self) -> None:
        """Ask the sources for everything that is damaged, missing under a root, or unregistered."""
        wanted: dict[str, Wanted] = {}
        ghosts = list(self._scan.keys.ghosts)
        referrers = {row for rows in self._graph.referrers(ghosts).values() for row in rows}
        self.ghost_referrers = self._graph.infos(referrers)
        for info in self.ghost_referrers.values():
            wanted[info.path] = Wanted(info.path, info.nar_hash)
        for damaged in self._graph.damaged.values():
            if damaged.fetchable and self._worth(damaged):
                known = damaged.info.nar_hash if damaged.info and damaged.hash_known else ""
                wanted[damaged.path] = Wanted(damaged.path, known)
        for path in sorted(self.labels):
            if not self._graph.row(path):
                wanted.setdefault(path, Wanted(path))
        if not self._choices.drop_dead:
            for path in sorted(self.orphans):
                wanted.setdefault(path, Wanted(path))
        self._lookup.ask(wanted.values(), self._closed)
        self._lookup.ask_references([info.path for info in self.ghost_referrers.values()], self._closed)

    def _hash_orphans(self, progress: Progress) -> None:
        """Hash the orphans that a source knows: those that fit are complete, and proven so."""
        known = self.offers.known
        offered = [path for path in sorted(self.orphans) if path in known]
        tasks = [
            contents.Task(
                number,
                os.fsencode(self._store.real(path)),
                known[path][1].nar_hash,
                known[path][1].nar_size,
            )
            for number, path in enumerate(offered)
        ]
        if not tasks:
            return
        with progress.task("hashing orphans", sum(task.nar_size for task in tasks), "bytes") as advance:
            wrong = {item.key for item in contents.check(tasks, lambda _paths, size: advance(size))}
        self.verified = {path: known[path][1] for number, path in enumerate(offered) if number not in wrong}

    def _adoptable(self, progress: Progress) -> dict[str, PathInfo]:
        """Give what the bytes on disk tell of needed orphans, and of what live referrers of ghosts refer to."""
        base = self._store.base_name
        live = self._graph.liveness.live(self.ghost_referrers)
        start = [base(path) for path in self.labels if path in self.orphans]
        start += [base(info.path) for row, info in self.ghost_referrers.items()
                  if row in live and row not in self._graph.damaged]  # fmt: skip
        return adopt.infos(
            self._store,
            self._graph.connection,
            self._scan.orphans,
            start,
            proven=self.verified,
            progress=progress,
        )

    def _rehash(self) -> dict[int, PathInfo]:
        """Give rows without a usable hash with that of what is on disk."""
        found = {}
        for damaged in self._graph.damaged.values():
            if damaged.on_disk and damaged.info and not damaged.hash_known:
                try:
                    digest = nar.digest(self._store.real(damaged.path))
                except (OSError, nar.NotArchivableError):
                    continue
                found[damaged.row] = replace(damaged.info, nar_hash=digest.nar_hash, nar_size=digest.nar_size)
        return found

    def _settle(self) -> None:
        """Find which offers can be used: each reference must be registered in the end.

        What is dropped takes away references of offers, and an offer that falls away may mean that more is
        dropped; both only ever grow, so this comes to an end.
        """
        lost: dict[int, None] = {}
        while True:
            before = (len(self.dropped), len(self.usable), len(self.restated))
            self.usable = self._closed_offers()
            self.restated = self._true_references()
            damaged = self._graph.damaged.values()
            unhashed = {one.row for one in damaged if self._stays_unhashed(one)}
            self.over_unhashed = set(self._graph.closure_up(unhashed))
            self.rebuilt = {one.row for one in damaged if self._rebuildable(one)}
            # Never taken back: a ghost is settled once its referrers fall, and they fall because of it.
            lost.update((one.row, None) for one in damaged if not one.live and not self.mendable(one))
            self.dropped = self._graph.closure_up(lost)
            if before == (len(self.dropped), len(self.usable), len(self.restated)):
                return

    def _closed_offers(self) -> dict[str, PathInfo]:
        """Give offers, verified and adopted orphans without those whose references cannot be registered."""
        usable = {path: info for path, (_, info) in self.offers.known.items()}
        for row, damaged in self._graph.damaged.items():
            offer, info = usable.get(damaged.path), damaged.info
            # Of an offer with the registered hash only the bytes are taken: the row says what they refer to.
            if (
                offer
                and info
                and damaged.hash_known
                and offer.nar_hash == info.nar_hash
                and row not in self.ghost_referrers
            ):
                usable[damaged.path] = replace(offer, references=info.references)
        usable.update({path: info for path, info in self.adopted.items() if path not in usable})
        while True:
            broken = [
                path
                for path, info in usable.items()
                if not all(
                    reference == path or reference in usable or self._stays(reference)
                    for reference in info.references
                )
            ]
            if not broken:
                return usable
            for path in broken:
                del usable[path]

    def _stays(self, path: str) -> bool:
        row = self._graph.row(path)
        return bool(row) and row not in self.dropped

    def _true_references(self) -> dict[int, PathInfo]:
        """Give the referrers of ghosts whose true references a source or the bytes on disk tell."""
        found = {}
        for row, info in self.ghost_referrers.items():
            offer = self.usable.get(info.path)
            ghosts = sum(row in rows for rows in self._graph.referrers(self._scan.keys.ghosts).values())
            # The hash of our database proves the bytes of an offer, not the references that it names: it may
            # tell what the lost rows were, and must not take away what is known, nor name too few.
            if (
                offer
                and offer.nar_hash == info.nar_hash
                and set(info.references) <= set(offer.references)
                and len(offer.references) == len(info.references) + ghosts
                and (row in self._graph.damaged or self._occur(info.path, offer.references))
            ):
                found[row] = replace(info, references=offer.references)
                continue
            damaged = self._graph.damaged.get(row)
            if damaged:
                # Other bytes than were registered: its row is written anew, references too.
                if offer and not (damaged.hash_known and offer.nar_hash == info.nar_hash):
                    found[row] = offer
                if not self.only_size_is_wrong(damaged):
                    continue
            hidden = self._hidden_references(info)
            if len(hidden) == ghosts:
                found[row] = replace(info, references=tuple(sorted({*info.references, *hidden})))
        return found

    def _occur(self, path: str, references: tuple[str, ...]) -> bool:
        """Tell whether each reference occurs in a path's contents, as every true one does."""
        parts = {reference[len(self._store.store_dir) + 1 :][:32].encode() for reference in references}
        try:
            return nar.hash_parts(self._store.real(path), parts) == parts
        except (OSError, nar.NotArchivableError):
            return False

    def _hidden_references(self, info: PathInfo) -> list[str]:
        """Give orphans that will be registered and whose hash part occurs in a path's contents."""
        ready = {path: path[len(self._store.store_dir) + 1 :][:32].encode() for path in self.orphans
                 if path in self.usable}  # fmt: skip
        if not ready:
            return []
        try:
            seen = nar.hash_parts(self._store.real(info.path), set(ready.values()))
        except (OSError, nar.NotArchivableError):
            return []
        return [path for path, part in ready.items() if part in seen]

    def _stays_unhashed(self, damaged: Damaged) -> bool:
        """Tell whether a row's unusable hash is still there when Nix rebuilds, which is done last."""
        mended = damaged.path in self.usable or damaged.row in self.rehashed
        given_up = damaged.path in self._choices.allow_cut
        return bool(damaged.info) and not damaged.hash_known and not mended and not given_up

    def _rebuildable(self, damaged: Damaged) -> bool:
        return not self.obstacle(damaged) and self._worth(damaged)

    def obstacle(self, damaged: Damaged) -> str:
        """Say why a path cannot be rebuilt; empty if it may work."""
        if self._rebuilder is None or self._choices.no_rebuild:
            return (
                "there is no Nix here that could rebuild it" if self._rebuilder is None else "not asked for"
            )
        if not damaged.fetchable or damaged.info is None or not damaged.info.deriver:
            return "its derivation is unknown"
        if not damaged.hash_known:
            return "its row has no usable hash, at which Nix stops"
        if damaged.row in self.over_unhashed:
            return "it needs a path whose row has no usable hash, at which Nix stops"
        if not self._stays(damaged.info.deriver):
            return "its derivation is not registered any more"
        return self._rebuilder.obstacle(damaged.path, damaged.info.deriver)

    def mendable(self, damaged: Damaged) -> bool:
        """Tell whether a damaged row can be had again, by any means but dropping it."""
        if damaged.path in self.usable and self._worth(damaged):
            return True
        if damaged.row in self.rebuilt or damaged.row in self.rehashed or self.only_size_is_wrong(damaged):
            return True
        if damaged.row in self._scan.keys.ghosts:
            referrers = self._graph.referrers([damaged.row]).get(damaged.row, set())
            return all(row in self.restated or row in self.dropped for row in referrers)
        return False

    def only_size_is_wrong(self, damaged: Damaged) -> bool:
        """Tell whether a path's contents are right and only the size in its row is not."""
        wrong = self._scan.wrong.get(damaged.row)
        return bool(wrong and damaged.info and not wrong.error and wrong.nar_hash == damaged.info.nar_hash)
