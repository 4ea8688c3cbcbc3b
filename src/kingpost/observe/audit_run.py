"""Many paths of one cache: what refers to what, when to stop, and one outcome for each path."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from kingpost.observe import audit_codes as codes
from kingpost.observe.audit import Outcome, Target, subject
from kingpost.observe.audit_crew import Crew, Job, Task
from kingpost.observe.audit_judge import NO_WAY_TO_THE_CACHE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from kingpost.observe.audit import Known

#: After so many paths in a row that say nothing but that the cache is gone, the rest is not tried.
GIVE_UP_AFTER: Final = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What to look at and how.

    Attributes:
        job: The cache.
        targets: Paths, each once.
        follow: Also audit what the paths refer to, as far as the cache's own narinfos lead.
        references: Check that each reference is in the cache or in an upstream.
        known: Hash parts that are known to be there.
        bodies: Bodies that were read whole and found right before, by hash part.
        threads: Paths at once.
        processes: Processes over which the threads are spread.

    """

    job: Job
    targets: Sequence[Target]
    follow: bool = False
    references: bool = True
    known: Collection[str] = ()
    bodies: Mapping[str, Known] = field(default_factory=dict)
    threads: int = 1
    processes: int = 1


@dataclass(slots=True)
class _Pending:
    """An outcome that waits to hear of its references."""

    outcome: Outcome
    waits_for: set[str]
    missing: list[str] = field(default_factory=list)


class _Run:
    def __init__(self, plan: Plan, crew: Crew) -> None:
        self.plan = plan
        self.crew = crew
        self.presence: dict[str, bool | None] = dict.fromkeys(plan.known, True)
        self.asked: set[str] = set()
        self.waiting: dict[str, list[_Pending]] = defaultdict(list)
        self.lost = 0

    def go(self) -> Iterator[Outcome]:
        targets = {target.hash_part: target for target in self.plan.targets}
        self.asked.update(targets)
        self.crew.submit(map(self._task, targets.values()))
        while self.crew.outstanding:
            task, outcome = self.crew.next()
            yield from self._take(task, outcome)
            if self.lost >= GIVE_UP_AFTER:
                for dropped in self.crew.drop():
                    yield from self._take(dropped, self._not_looked(dropped.target))

    def _task(self, target: Target) -> Task:
        return Task(target, known=self.plan.bodies.get(target.hash_part))

    def _take(self, task: Task, outcome: Outcome) -> Iterator[Outcome]:
        self._count(outcome)
        if task.only_presence:
            if outcome.verdicts:
                yield outcome
        elif self.plan.references and outcome.references:
            pending = _Pending(outcome, set())
            for reference in outcome.references:
                self._look_for(reference, pending)
            if not pending.waits_for:
                yield _finished(pending)
        else:
            yield outcome
        yield from self._settle(task.target.hash_part, outcome.present)

    def _look_for(self, reference: Target, pending: _Pending) -> None:
        key = reference.hash_part
        if key in self.presence:
            if self.presence[key] is False:
                pending.missing.append(reference.path)
            return
        pending.waits_for.add(key)
        self.waiting[key].append(pending)
        if key not in self.asked:
            self.asked.add(key)
            task = self._task(reference) if self.plan.follow else Task(reference, only_presence=True)
            self.crew.submit([task])

    def _settle(self, key: str, present: bool | None) -> Iterator[Outcome]:
        self.presence[key] = present
        for pending in self.waiting.pop(key, ()):
            pending.waits_for.discard(key)
            if present is False:
                path = next(r.path for r in pending.outcome.references if r.hash_part == key)
                pending.missing.append(path)
            if not pending.waits_for:
                yield _finished(pending)

    def _count(self, outcome: Outcome) -> None:
        gone = outcome.verdicts and all(v.code in NO_WAY_TO_THE_CACHE for v in outcome.verdicts)
        self.lost = self.lost + 1 if gone else 0

    def _not_looked(self, target: Target) -> Outcome:
        named = subject(target.path or target.hash_part, self.plan.job.url)
        verdict = codes.NOT_LOOKED.verdict(
            named, f"the cache failed {GIVE_UP_AFTER} times in a row; not tried"
        )
        return Outcome(target, named, (verdict,), present=None)


def _finished(pending: _Pending) -> Outcome:
    outcome = pending.outcome
    if not pending.missing:
        return outcome
    missing = sorted(pending.missing)
    words = f"{missing[0]} is in no cache" + (
        f", nor are {len(missing) - 1} more references" if missing[1:] else ""
    )
    evidence = {"missing": missing[:20], "missing_count": len(missing)}
    verdict = codes.REFERENCE_MISSING.verdict(outcome.subject, words, evidence)
    failed = tuple(v for v in outcome.verdicts if v.code != codes.BODY_OK.name)
    return replace(outcome, verdicts=(*failed, verdict))


def run(plan: Plan) -> Iterator[Outcome]:
    """Look at every path; outcomes come as they are known, in no particular order."""
    with Crew(plan.job, threads=plan.threads, processes=plan.processes) as crew:
        yield from _Run(plan, crew).go()
