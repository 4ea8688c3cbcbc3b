"""Can one publish? Evidence before, a push by the real client, everything read back, evidence after.

All parts must pass. A storage that fails *because* of a write is seen only by comparing before and after; a push
that was acknowledged and not stored only by reading back; a fault of real closures only with one.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from kingpost.base.verdict import Status
from kingpost.observe import audit_codes, audit_run
from kingpost.observe import probe_codes as codes
from kingpost.observe.audit_targets import parse_target
from kingpost.observe.bucket_evidence import redacted
from kingpost.observe.probe_payload import (
    CHUNKING_THRESHOLD,
    MADE_UP,
    SMALL,
    BuildError,
    Payload,
    Profile,
    built,
    generated,
    joined,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kingpost.base.verdict import Verdict
    from kingpost.observe.audit_crew import Job
    from kingpost.observe.probe_push import Client

_THREADS: Final = 8
#: Lines of attic's and Nix's output that name what went wrong.
_TELLING: Final = re.compile(r"(?i)❌|error|fail|denied|unauthori[sz]ed|warning|NoSuchBucket")


@dataclass(frozen=True, slots=True)
class Request:
    """What to probe.

    Attributes:
        profile: How large a closure; its name goes into the report.
        client: Who pushes, and where to.
        job: Where and how to read back, as the audit does.
        references: What to build and push; empty for a made-up closure.
        threshold: The server's nar-size-threshold, in bytes.
        settle: Seconds between reading back and the evidence after: faults that a write triggers may take time.
        storage: Looks at the storage behind the cache, for the evidence before and after.
        secrets: What must not show up in the client's output.

    """

    profile: Profile
    client: Client
    job: Job
    references: Sequence[str] = ()
    threshold: int = CHUNKING_THRESHOLD
    settle: float = 5.0
    storage: Callable[[], list[Verdict]] | None = None
    secrets: Sequence[str] = field(default=(), repr=False)

    @property
    def phrase(self) -> str:
        """Give what `--confirm` must say: it names cache and profile, so that a copied command cannot escalate."""
        return f"probe-{named(self.client.read_url)}-{self.profile.name}"


def named(url: str) -> str:
    """Give a cache's name for a phrase: the last part of its path, else its host or bucket."""
    parts = urlsplit(url)
    name = parts.path.rstrip("/").rpartition("/")[2] or parts.hostname or parts.netloc
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name) or "cache"


class Probe:
    """One run. `verdicts` grows as parts end, so that an interrupted run has said what it knew."""

    def __init__(self, request: Request, record: Callable[[Iterable[Verdict]], None]) -> None:
        self.request = request
        self.verdicts: list[Verdict] = []
        self._record = record
        self._pushed = False
        self._redirected = 0
        self._subject = f"publication to {request.job.auditor().cache.url}"

    def run(self, sleep: Callable[[float], None] = time.sleep) -> list[Verdict]:
        """Go through all parts; gives every verdict, the one on the whole last.

        After a failed push nothing is read back, but the evidence after it is taken: that is what it is for.
        """
        if not self._before():
            return self._not_tried("payload", "push", "reading back", "evidence after")
        payload = self._payload()
        if payload is None:
            return self._not_tried("push", "reading back", "evidence after")
        fresh = self._absent(payload)
        if not self._push(payload):
            self._after(payload, read=False)
            return self._not_tried("reading back")
        if not self._read_back(payload, fresh):
            self._after(payload, read=False)
            return self.verdicts
        sleep(self.request.settle)
        if self._after(payload, read=True):
            self._passed(payload, len(fresh))
        return self.verdicts

    def _say(self, verdicts: Iterable[Verdict]) -> list[Verdict]:
        new = list(verdicts)
        # A made-up path is never looked at again: in the ledger it would stay broken, or fine, for ever.
        self._record([verdict for verdict in new if MADE_UP not in verdict.subject])
        self.verdicts += new
        return new

    def _part(self, name: str, said: str, evidence: dict[str, Any]) -> bool:
        self._say([codes.PART_OK.verdict(f"{self._subject}: {name}", said, evidence)])
        return True

    def _failed(self, verdict: Verdict) -> bool:
        self._say([verdict])
        return False

    def _not_tried(self, *parts: str) -> list[Verdict]:
        said = "not tried, because a part before it failed"
        self._say(codes.NOT_TRIED.verdict(f"{self._subject}: {part}", said) for part in parts)
        return self.verdicts

    def _before(self) -> bool:
        found = self._say([*self._cache(), *self._storage()])
        broken = [verdict for verdict in found if verdict.status is Status.FAILED]
        if broken:
            evidence = {"codes": [verdict.code for verdict in broken]}
            return self._failed(codes.PRE.verdict(self._subject, f"before: {broken[0].summary}", evidence))
        said = "the cache answers" + (", its storage is sound" if self.request.storage else "")
        return self._part("evidence before", said, {})

    def _cache(self) -> list[Verdict]:
        auditor = self.request.job.auditor()
        try:
            answer = auditor.check_cache()
            if isinstance(answer, str):
                return []
            # A directory or bucket becomes a cache by the first push to it.
            fresh = answer.code == audit_codes.NO_SUCH_CACHE.name
            makes_itself = fresh and not self._pushed and auditor.cache.hashes() is not None
        finally:
            auditor.cache.close()
        return [] if makes_itself else [answer]

    def _storage(self) -> list[Verdict]:
        return self.request.storage() if self.request.storage else []

    def _payload(self) -> Payload | None:
        request = self.request
        try:
            if request.references:
                payload = built(request.references)
                own = payload
                # What is in the cache already is not written again: something new comes along in any case.
                payload = joined(payload, generated(SMALL, request.threshold))
            else:
                own = payload = generated(request.profile, request.threshold)
        except BuildError as error:
            evidence = {"command": error.command, "said": redacted(error.why, request.secrets)}
            self._say([codes.BUILD.verdict(self._subject, error.what, evidence)])
            return None
        counts = own.counts(request.threshold)
        if lacks := own.shortfall(request.profile, request.threshold):
            said = f"{own.origin} is not of the shape of {request.profile.name}: it has {lacks}"
            self._say([codes.SHAPE.verdict(self._subject, said, counts)])
            return None
        self._part("payload", f"{own.origin}: {counts['paths']} paths", {**counts, "roots": list(own.roots)})
        return payload

    def _absent(self, payload: Payload) -> set[str]:
        auditor = self.request.job.auditor()
        try:
            return {
                path for path in payload.sizes if auditor.is_present(parse_target(path)).present is not True
            }
        finally:
            auditor.cache.close()

    def _push(self, payload: Payload) -> bool:
        began = time.monotonic()
        done = self.request.client.push(payload.roots)
        output = redacted(f"{done.stdout}\n{done.stderr}", self.request.secrets)
        telling = [line.strip()[:300] for line in output.splitlines() if _TELLING.search(line)]
        evidence = {
            "client": self.request.client.name,
            "exit_code": done.returncode,
            "seconds": round(time.monotonic() - began, 3),
            "said": telling[-10:] or [line for line in output.splitlines() if line.strip()][-3:],
        }
        if done.returncode:
            said = f"{self.request.client.name} ended with exit code {done.returncode}"
            return self._failed(codes.PUSH.verdict(self._subject, said, evidence))
        self._pushed = True
        return self._part("push", f"{self.request.client.name} pushed {len(payload.roots)} roots", evidence)

    def _read_back(self, payload: Payload, fresh: set[str]) -> bool:
        found = self._say(self._audited(payload.sizes))
        broken = [verdict for verdict in found if verdict.status in (Status.FAILED, Status.SKIPPED)]
        upstream = sum(verdict.status is Status.EXPECTED for verdict in found)
        total = len(payload.sizes)
        if broken:
            subjects = {verdict.subject for verdict in broken}
            evidence = {
                "paths": total,
                "unreadable": len(subjects),
                "new": len(fresh),
                "codes": sorted({verdict.code for verdict in broken}),
            }
            said = f"{len(subjects)} of {total} paths cannot be read back after a push that said it succeeded"
            return self._failed(codes.READ_BACK.verdict(self._subject, said, evidence))
        if not fresh:
            said = f"all {total} paths were in the cache before the push"
            return self._failed(codes.NOTHING_NEW.verdict(self._subject, said))
        # What was really cut into chunks: a NAR above the threshold may be one chunk, and so a redirect to the storage.
        self._redirected = sum(bool(verdict.evidence.get("redirects")) for verdict in found)
        said = f"{total - upstream} paths read back whole, {len(fresh)} of them new"
        if self._redirected:
            said += f"; {self._redirected} by a redirect to the storage, {total - upstream - self._redirected} without"
        if upstream:
            said += f"; {upstream} are left to {', '.join(self.request.job.upstreams)}"
        evidence = {"paths": total, "new": len(fresh), "redirected": self._redirected}
        return self._part("reading back", said, evidence)

    def _audited(self, paths: Iterable[str]) -> Iterable[Verdict]:
        targets = [parse_target(path) for path in paths]
        plan = audit_run.Plan(self.request.job, targets, threads=_THREADS)
        for outcome in audit_run.run(plan):
            yield from outcome.verdicts

    def _after(self, payload: Payload, *, read: bool) -> bool:
        found = self._say([*self._cache(), *self._storage()])
        if read:
            # The smallest and the largest path: one of a single chunk, one of many.
            ordered = sorted(payload.sizes, key=lambda path: payload.sizes[path])
            found += self._say(self._audited(dict.fromkeys((ordered[0], ordered[-1]))))
        broken = [verdict for verdict in found if verdict.status in (Status.FAILED, Status.SKIPPED)]
        if broken:
            evidence = {"codes": [verdict.code for verdict in broken]}
            return self._failed(codes.POST.verdict(self._subject, f"after: {broken[0].summary}", evidence))
        said = "the cache answers and still reads what was pushed" if read else "the cache answers"
        return self._part("evidence after", said, {})

    def _passed(self, payload: Payload, fresh: int) -> None:
        profile = self.request.profile
        counts = payload.counts(self.request.threshold)
        evidence = {
            "profile": profile.name,
            "payload": payload.origin,
            "representative": profile.representative,
            "client": self.request.client.name,
            "storage_looked_at": self.request.storage is not None,
            "new": fresh,
            "redirected": self._redirected,
            **counts,
        }
        if not profile.representative:
            code, said = (
                codes.PASSED_SYNTHETIC,
                "synthetic only: one tiny path. No evidence for real closures",
            )
        elif payload.generated:
            code = codes.PASSED_GENERATED
            said = f"profile {profile.name} with {payload.origin} of {counts['paths']} paths"
        else:
            code = codes.PASSED
            said = (
                f"profile {profile.name} with {payload.origin}: {counts['paths']} paths, {fresh} of them new"
            )
        self._say([code.verdict(self._subject, said, evidence)])
