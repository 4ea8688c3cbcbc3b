"""Restart a storage server whose bucket index diverged: evidence first, recovery proven after.

A restart is recovery and no fix, and it destroys the state that would explain the failure. So it is done only for
the one state that it is known to recover, after the evidence is on the disk, and it is counted by image.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import CannotLookError, KingpostError
from kingpost.base.process import run
from kingpost.observe import bucket, bucket_codes, bucket_disk
from kingpost.observe.bucket import State
from kingpost.observe.bucket_place import Workload
from kingpost.observe.executors.ssh import Ssh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kingpost.base.ledger import Ledger
    from kingpost.base.verdict import Verdict
    from kingpost.cache.s3 import S3
    from kingpost.observe.bucket_disk import Directory
    from kingpost.observe.bucket_evidence import Server

#: The states that a restart is known to recover from.
RECOVERABLE: Final = frozenset({State.INDEX_DIVERGENCE})
#: Seconds between two looks while the server comes up.
POLL: Final = 1.0


@dataclass(frozen=True, slots=True)
class Restart:
    """What a restart would do.

    Attributes:
        server: What is restarted.
        bucket: The bucket that is missing.
        timeout: Seconds to wait for the server, and then for the bucket.

    """

    server: Server
    bucket: str
    timeout: float = 300.0

    @property
    def phrase(self) -> str:
        """Give what `--confirm` must say: it names the target, so that a copied command cannot hit another."""
        place, unit = self.server.place, self.server.unit
        if isinstance(place, Workload):
            return f"restart-{place.namespace}-{place.workload.replace('/', '-')}"
        return f"restart-{unit}-on-{place.host}" if isinstance(place, Ssh) else f"restart-{unit}"

    @property
    def commands(self) -> list[list[str]]:
        """Give the commands, in order."""
        place = self.server.place
        if isinstance(place, Workload):
            return [
                place.kubectl("rollout", "restart", place.workload),
                place.kubectl("rollout", "status", place.workload, f"--timeout={int(self.timeout)}s"),
            ]
        return [place.argv(["systemctl", "restart", self.server.unit])]

    def in_words(self) -> list[str]:
        """Give the plan, one line each step."""
        return [
            f"1. keep evidence of {self.server} and both views of bucket {self.bucket}",
            *(f"2. {' '.join(command)}" for command in self.commands),
            f"3. wait up to {int(self.timeout)} s until S3 and the disk agree on {self.bucket} again",
            "4. record it, and count earlier restarts with the same image",
            "Not undone: a restart destroys the state under study. It recovers, it fixes nothing.",
        ]


def refusal(state: State | None, accepted: Sequence[State]) -> KingpostError | None:
    """Give why a server in this state is not restarted; None when it may be.

    Args:
        state: What both views say; None when the disk was not looked at.
        accepted: Further states that the user takes responsibility for.

    """
    if state in RECOVERABLE or state in accepted:
        return None
    if state is None:
        return KingpostError(
            "without the disk's view nobody knows whether a restart helps or harms",
            fix="give --disk; or take responsibility with --accept-state absent (or another one)",
        )
    if state is State.COHERENT:
        return KingpostError("both views agree: there is nothing to recover", fix="leave the server alone")
    return KingpostError(
        f"the state is {state}, which a restart does not recover",
        why=f"only {', '.join(sorted(RECOVERABLE))} is known to come back by it",
        fix=f"follow the remedy above; to restart all the same, pass --accept-state {state}",
    )


def apply(
    plan: Restart,
    s3: S3,
    directories: Sequence[Directory],
    image: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Verdict]:
    """Restart and prove recovery. Evidence must have been kept before.

    Args:
        plan: What to do.
        s3: The server's API.
        directories: Its data directories; empty when they could not be looked at.
        image: What identifies the build that runs, for the count of recurrences.
        sleep: Waits; tests give another one.

    Raises:
        CommandError: A command failed; the server may be down.

    """
    started = time.monotonic()
    for command in plan.commands:
        run(command, timeout=plan.timeout + 30)
    subject = f"bucket {plan.bucket} at {s3.endpoint.url}"
    evidence: dict[str, Any] = {"server": str(plan.server), "image": image}
    last = "the server did not answer"
    while True:
        spent = time.monotonic() - started
        try:
            api = bucket.look(s3, plan.bucket)
            disk = bucket_disk.look(directories, plan.bucket) if directories else None
            now = bucket.judge(plan.bucket, s3.endpoint.url, api, disk)
            last = now.summary
            if now.code in (bucket_codes.COHERENT.name, bucket_codes.READABLE.name):
                evidence |= {"seconds": round(spent, 1), **now.evidence}
                said = f"recovered {spent:.0f} s after the restart began; the cause is not fixed"
                return [bucket_codes.RECOVERED.verdict(subject, said, evidence)]
        except CannotLookError as error:
            last = error.what
        if spent > plan.timeout:
            evidence["seconds"] = round(spent, 1)
            said = f"not back after {spent:.0f} s: {last}"
            return [bucket_codes.NOT_RECOVERED.verdict(subject, said, evidence)]
        sleep(POLL)


def recurrences(ledger: Ledger, subject: str, image: str) -> list[str]:
    """Give when earlier restarts of this subject with this image were recorded (UTC, oldest first)."""
    rows = ledger.table("verdicts").rows_where(
        "subject = ? and code = ?",
        [subject, bucket_codes.RESTART.name],
        order_by="id",
    )
    return [row["seen"] for row in rows if json.loads(row["evidence"]).get("image") == image]


def begun(plan: Restart, subject: str, image: str) -> Verdict:
    """Give the verdict to record before anything is restarted."""
    evidence = {"server": str(plan.server), "image": image}
    return bucket_codes.RESTART.verdict(subject, f"{plan.server} is being restarted", evidence)


def recurrence(subject: str, image: str, earlier: Sequence[str]) -> list[Verdict]:
    """Give the verdict on earlier restarts; none when this is the first."""
    if not earlier:
        return []
    said = f"restart {len(earlier) + 1} with image {image or 'unknown'}; the first was at {earlier[0]}"
    evidence = {"image": image, "earlier": list(earlier)[-20:], "count": len(earlier) + 1}
    return [bucket_codes.RECURRENCE.verdict(subject, said, evidence)]
