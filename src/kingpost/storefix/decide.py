"""Decide what to do about everything that a scan found: the plan."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from . import adopt, findings, integrity
from . import plan as plans
from .database import connect, fingerprint
from .graph import Damaged, Graph
from .plan import Action, Left, Plan
from .weigh import Choices, Weighing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .interface import PathInfo, Rebuilder, Source
    from .progress import Progress
    from .scan import Scan


def decide(
    scan: Scan,
    sources: Sequence[Source],
    rebuilder: Rebuilder | None,
    choices: Choices,
    progress: Progress,
    *,
    now: int | None = None,
) -> Plan:
    """Make a plan.

    Args:
        scan: What is wrong.
        sources: Where bytes may come from, in order of preference.
        rebuilder: A Nix that works; None if there is none.
        choices: What the user decided.
        progress: Shown while orphans are hashed.
        now: Seconds since the epoch, for what is registered.

    Raises:
        CannotLookError, MalformedError: The database cannot be read.

    """
    store = scan.store
    created = int(time.time()) if now is None else now
    base = Plan(str(store.root), store.store_dir, str(store.state_dir), created, "")
    if integrity.is_newer_schema(store):
        left = Left(
            str(store.state_dir / "db" / "schema"),
            integrity.schema_complaint(store),
            "use the store-fix of a newer kingpost; this one does not write to a database it does not know",
        )
        return replace(base, left=(left,))
    if scan.database:
        reason = f"the database cannot be used: {scan.database}"
        return replace(base, actions=(Action(plans.SALVAGE, str(store.database), reason),))
    connection = connect(store.database)
    try:
        scan = replace(scan, roots=[*scan.roots, *adopt.reached(scan, connection)])
        graph = Graph(connection, scan)
        weighed = Weighing(scan, graph, sources, rebuilder, choices)
        weighed.weigh(progress)
        decision = _Decision(base, scan, graph, weighed, rebuilder=rebuilder, choices=choices)
        return decision.made(fingerprint(connection))
    finally:
        connection.close()


class _Decision:
    """One plan in the making."""

    def __init__(
        self,
        base: Plan,
        scan: Scan,
        graph: Graph,
        weighed: Weighing,
        *,
        rebuilder: Rebuilder | None,
        choices: Choices,
    ) -> None:
        self._base = base
        self._scan = scan
        self._store = scan.store
        self._graph = graph
        self._weighed = weighed
        self._rebuilder = rebuilder
        self._choices = choices
        self._actions: list[Action] = []
        self._left: list[Left] = []
        self._needed: set[str] | None = None
        self._ghosts_left: set[int] = set()

    def made(self, mark: str) -> Plan:
        """Give the plan."""
        for damaged in self._graph.damaged.values():
            self._mend(damaged)
        self._new_paths()
        self._restate()
        self._drop()
        self._forget()
        self._clean()
        self._roots()
        return replace(
            self._base,
            fingerprint=mark,
            actions=plans.in_order(self._fetches_in_order()),
            left=tuple(sorted(self._left, key=lambda left: left.subject)),
            unreached=dict(sorted(self._weighed.offers.unreached.items())),
        )

    def _mend(self, damaged: Damaged) -> None:
        """Add the action for one damaged row, or say why it is left."""
        if damaged.row in self._weighed.dropped or (
            damaged.row in self._scan.keys.ghosts and self._weighed.mendable(damaged)
        ):
            return
        offer = self._weighed.usable.get(damaged.path)
        if self._weighed.only_size_is_wrong(damaged) and damaged.info:
            info = replace(damaged.info, nar_size=self._scan.wrong[damaged.row].nar_size)
            self._set_right(damaged, info, "its size in the database is wrong, its hash is right")
        elif offer and damaged.path in self._weighed.offers.known:
            self._fetch(damaged, offer)
        elif damaged.row in self._weighed.rehashed:
            self._set_right(damaged, self._weighed.rehashed[damaged.row],
                            f"it {damaged.state}; what is on disk is taken as it is, as --adopt says",
                            loses="the proof that its contents are what they were")  # fmt: skip
        elif damaged.row in self._weighed.rebuilt and damaged.info:
            reason = f"it {damaged.state}; no source has it, its derivation {damaged.info.deriver} is here"
            self._add(plans.REBUILD, damaged.path, reason, damaged.needed_by, row=damaged.row,
                      source=self._rebuilder.describe() if self._rebuilder else "", info=damaged.info)  # fmt: skip
        elif damaged.path in self._choices.allow_cut:
            self._cut(damaged)
        else:
            self._leave(damaged)

    def _set_right(self, damaged: Damaged, info: PathInfo, reason: str, *, loses: str = "") -> None:
        """Write a row anew with what it refers to; left to its lost reference as long as that is not known."""
        if damaged.row in self._weighed.restated:
            info = replace(info, references=self._weighed.restated[damaged.row].references)
        elif damaged.row in self._weighed.ghost_referrers:
            return
        self._add(plans.RESTATE, damaged.path, reason, damaged.needed_by, info=info, row=damaged.row,
                  loses=loses)  # fmt: skip

    def _fetch(self, damaged: Damaged, offer: PathInfo) -> None:
        """Fetch a damaged path; its row is kept if the bytes are the registered ones."""
        info = damaged.info
        source = self._weighed.offers.known[damaged.path][0]
        if info and damaged.hash_known and info.nar_hash == offer.nar_hash:
            restated = damaged.row in self._weighed.restated
            # A row that refers to a lost one is not written without that reference: it would be forgotten.
            known = restated or damaged.row not in self._weighed.ghost_referrers
            # The hash is the same, so the size of our row may be damaged, and the source's is that of these bytes.
            size = offer.nar_size or info.nar_size
            kept = replace(info, nar_size=size,
                           references=offer.references if restated else info.references)  # fmt: skip
            self._add(plans.FETCH, damaged.path, f"it {damaged.state}; {source} has the registered bytes",
                      damaged.needed_by, source=source, info=kept, row=damaged.row,
                      registers=restated or (known and size != info.nar_size))  # fmt: skip
            return
        reason = f"it {damaged.state}; {source} has it, with another hash than was registered"
        self._add(plans.FETCH, damaged.path, reason, damaged.needed_by, source=source,
                  info=replace(offer, registered=self._base.created), row=damaged.row, registers=True,
                  loses=f"the registered bytes ({info.nar_hash})" if info and damaged.hash_known else "")  # fmt: skip

    def _cut(self, damaged: Damaged) -> None:
        """Give a needed path up, as the user allowed; what needs it and is dead goes with it."""
        up = self._graph.referrers([damaged.row]).get(damaged.row, set())
        live = self._graph.liveness.live(up)
        names = self._graph.paths(up)
        for row, below in self._graph.closure_up([row for row in up if row not in live]).items():
            self._weighed.dropped.setdefault(row, damaged.row if row == below else below)
        incomplete = tuple(
            sorted(names[row] for row in up if row in live and row not in self._weighed.dropped)
        )
        loses = "itself" + (f"; incomplete afterwards: {', '.join(incomplete)}" if incomplete else "")
        self._add(plans.CUT, damaged.path, f"it {damaged.state}, nothing has it, and --allow-cut names it",
                  damaged.needed_by, row=damaged.row, others=incomplete, loses=loses)  # fmt: skip

    def _leave(self, damaged: Damaged) -> None:
        """Say why a needed path is not mended and what the user can do."""
        why = [f"it {damaged.state}"]
        refused = self._weighed.offers.refused.get(damaged.path)
        if refused:
            why.append(refused)
        elif damaged.path in self._weighed.offers.known:
            why.append("a source has it, but not all that it refers to")
        else:
            why.append("no source that answered has it")
        if damaged.fetchable:
            why.append(self._weighed.obstacle(damaged))
        fix = f"name a machine that has it (--from ssh://HOST), or give it up: --allow-cut {damaged.path}"
        if damaged.row in self._scan.keys.ghosts:
            self._leave_ghost(damaged, "; ".join(filter(None, why)))
            return
        self._left.append(Left(damaged.path, "; ".join(filter(None, why)), fix, damaged.needed_by))

    def _leave_ghost(self, damaged: Damaged, why: str) -> None:
        """A row that is not there has no name: it is given up by the names of what refers to it."""
        for row in sorted(self._graph.referrers([damaged.row]).get(damaged.row, set())):
            if row in self._weighed.restated or row in self._weighed.dropped:
                continue
            info = self._weighed.ghost_referrers[row]
            if info.path in self._choices.allow_cut:
                self._add(plans.CUT, info.path, f"it refers to {damaged.path}, whose name is lost, and --allow-cut "
                          "names it", damaged.needed_by, row=damaged.row, others=(info.path,),
                          loses=f"one reference of {info.path}")  # fmt: skip
            else:
                fix = f"name a machine that has it (--from ssh://HOST), or give up: --allow-cut {info.path}"
                self._ghosts_left.add(damaged.row)
                self._left.append(Left(info.path, f"refers to {damaged.path}: {why}", fix, damaged.needed_by))

    def _new_paths(self) -> None:
        """Register orphans that are proven; fetch what a root or a new path needs and no row knows."""
        damaged = {item.path for item in self._graph.damaged.values()}
        for path, info in sorted(self._weighed.usable.items()):
            if path in damaged or self._graph.row(path):
                continue
            needed = self._weighed.labels.get(path, ())
            known = self._weighed.offers.known.get(path)
            new = replace(info, registered=self._base.created)
            if path in self._weighed.verified and known:
                reason = f"it is on disk, complete, without a row; {known[0]} vouches for its contents"
                self._add(plans.REGISTER, path, reason, needed, source=known[0], info=new)
            elif path in self._weighed.adopted:
                self._add(plans.ADOPT, path, "it is needed and on disk without a row, and --adopt was given",
                          needed, info=new, loses="the proof that its contents are what they were")  # fmt: skip
            elif known and self._is_needed(path):
                state = (
                    "its copy on disk is not complete" if path in self._weighed.orphans else "it is missing"
                )
                self._add(plans.FETCH, path, f"{state}, and {known[0]} has it", needed, source=known[0],
                          info=new, registers=True)  # fmt: skip

    def _is_needed(self, path: str) -> bool:
        """Tell whether a path without a row is wanted by a root, or by something that is registered anew."""
        if self._needed is None:
            needed: set[str] = set()
            todo = [path for path in self._weighed.labels if not self._graph.row(path)]
            todo += [path for path in self._weighed.verified if path in self._weighed.usable]
            todo += [ref for info in self._weighed.restated.values() for ref in info.references]
            todo += [
                damaged.path
                for damaged in self._graph.damaged.values()
                if damaged.path in self._weighed.usable
            ]
            while todo:
                here = todo.pop()
                if here in needed or here not in self._weighed.usable:
                    continue
                needed.add(here)
                todo += self._weighed.usable[here].references
            self._needed = needed
        return path in self._needed

    def _restate(self) -> None:
        """Set the references of rows right that refer to rows which are not there."""
        for row, info in sorted(self._weighed.restated.items()):
            if row not in self._graph.damaged and row not in self._weighed.dropped:
                self._add(plans.RESTATE, info.path, "it refers to a row that is not there; what it refers to is "
                          "known again", self._weighed.labels.get(info.path, ()), info=info, row=row)  # fmt: skip

    def _drop(self) -> None:
        """Drop what is lost and dead, and what refers to it, referrers first."""
        paths = self._graph.paths({*self._weighed.dropped, *self._weighed.dropped.values()})
        # Whoever was reached later refers to one reached earlier: reversed, nothing is dropped under a referrer.
        for row, below in reversed(list(self._weighed.dropped.items())):
            if row in self._scan.keys.ghosts:
                continue
            damaged = self._graph.damaged.get(row)
            if damaged:
                reason = f"it {damaged.state}, nothing has it, and nothing alive needs it"
            else:
                reason = f"it refers to {paths[below]}, which cannot be had again, and nothing alive needs it"
            self._add(plans.DROP, paths[row], reason, row=row, loses="" if damaged and not damaged.on_disk else
                      "its registration; a garbage collection would have removed it too")  # fmt: skip

    def _forget(self) -> None:
        """Delete rows that belong to nothing.

        A row that is not there, is needed, and is left may come back: nothing else says what it refers to, and
        without that it would look dead. So may a row that is not there either and that it refers to.
        """
        keys = self._scan.keys
        needed = self._graph.lost_below(self._ghosts_left)
        kept = self._graph.references_of(needed)
        if kept:
            self._left.append(Left("table Refs", f"{kept} rows say what paths refer to that are needed and whose own "
                                   "row is lost", "mend or give up the paths that refer to them"))  # fmt: skip
        if keys.orphan_references > kept:
            self._add(plans.FORGET, "Refs", f"{keys.orphan_references - kept} rows belong to no registered path",
                      others=tuple(f"row {row}" for row in sorted(needed)) if kept else ())  # fmt: skip
        tables = (("DerivationOutputs", keys.orphan_outputs), *keys.others)
        for table, count in tables:
            if count:
                self._add(plans.FORGET, table, f"{count} rows belong to no registered path")

    def _clean(self) -> None:
        """Remove leftovers, damaged links and caches; write the schema file anew."""
        for finding in self._scan.findings:
            if finding.code in (findings.LEFTOVER, findings.DAMAGED_LINK, findings.NARINFO_CACHE):
                self._add(plans.CLEAN, finding.subject, finding.summary)
            elif finding.code == findings.SCHEMA_VERSION:
                self._add(
                    plans.CLEAN, finding.subject, f"{finding.summary}; its tables are those of version 10"
                )

    def _roots(self) -> None:
        """Say what becomes of links to paths that no row knows and nothing has, and of orphans that are needed."""
        for finding in self._scan.findings:
            path = str(finding.evidence.get("path", ""))
            if finding.code == findings.DANGLING_ROOT and path and not self._graph.row(path):
                if path in self._weighed.usable:
                    continue
                if path in self._choices.allow_cut and not finding.evidence["current"]:
                    self._add(plans.UNROOT, finding.subject, f"{path} is gone, nothing has it, and --allow-cut "
                              "names it", finding.needed_by, loses=f"the link to {path}")  # fmt: skip
                    continue
                fix = "name a machine that has it (--from ssh://HOST)"
                fix += "" if finding.evidence["current"] else f", or give the link up: --allow-cut {path}"
                why = self._weighed.offers.refused.get(
                    path, "no source that answered has it with all it refers to"
                )
                self._left.append(Left(finding.subject, f"{path} is gone; {why}", fix, finding.needed_by))
            elif finding.code == findings.LIVE_ORPHAN and finding.subject not in self._weighed.usable:
                refused = self._weighed.offers.refused.get(finding.subject, "no source that answered has it")
                fix = "name a machine that has it (--from ssh://HOST), or trust what is on disk: --adopt"
                self._left.append(
                    Left(finding.subject, f"it is on disk without a row; {refused}", fix, finding.needed_by)
                )
            elif finding.code == findings.DANGLING_ROOT and not path:
                self._left.append(
                    Left(finding.subject, finding.summary, "set the link again: it names no store path")
                )
            elif finding.code == findings.SERVE_PROCESS:
                self._left.append(Left(finding.subject, finding.summary, f"kill {finding.evidence['pid']}"))
            elif finding.code == findings.DISK_FULL:
                self._left.append(Left(finding.subject, finding.summary, "free some space first"))

    def _add(
        self,
        kind: str,
        subject: str,
        reason: str,
        needed_by: Iterable[str] = (),
        *,
        loses: str = "",
        source: str = "",
        info: PathInfo | None = None,
        registers: bool = False,
        row: int = 0,
        others: tuple[str, ...] = (),
    ) -> None:
        damaged = self._graph.damaged.get(row)
        lost = bool(damaged and damaged.path == subject and not damaged.on_disk)
        self._actions.append(
            Action(kind, subject, reason, tuple(needed_by), loses, source, info, registers, row, others, lost)
        )

    def _fetches_in_order(self) -> list[Action]:
        """Give the actions with what is fetched sorted so that references come before their referrers."""
        fetches = {action.subject: action for action in self._actions if action.kind == plans.FETCH}
        order: dict[str, Action] = {}
        seen: set[str] = set()
        for path in sorted(fetches):
            stack = [(path, False)]
            while stack:
                here, done = stack.pop()
                if done:
                    order.setdefault(here, fetches[here])
                elif here not in seen:
                    seen.add(here)
                    stack.append((here, True))
                    info = fetches[here].info
                    below = {name for name in (info.references if info else ()) if name in fetches} - seen
                    stack += [(name, False) for name in sorted(below, reverse=True)]
        return [*order.values(), *(action for action in self._actions if action.kind != plans.FETCH)]
