"""An interim state that a topology declares: accepted while it lasts, a failure once it is over or expired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kingpost.base.errors import UsageError
from kingpost.base.verdict import Status
from kingpost.observe import bucket_codes as codes

if TYPE_CHECKING:
    from datetime import date

    from kingpost.base.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Interim:
    """A waiver, as the topology declares it.

    Attributes:
        name: Its name.
        code: The verdict that it permits.
        on: What it is about, `buckets.NAME`.
        reason: Why.
        owner: Who answers for it.
        expires: The last day that it holds.

    """

    name: str
    code: str
    on: str
    reason: str
    owner: str
    expires: date


def judged(verdict: Verdict, interim: Interim, bucket: str, today: date) -> Verdict:
    """Give a verdict as it stands under a waiver.

    Args:
        verdict: What was seen of the bucket.
        interim: The waiver that is expected to apply.
        bucket: The bucket's name or key.
        today: The date in UTC.

    Raises:
        UsageError: The waiver is about something else.

    """
    if interim.on not in (bucket, f"buckets.{bucket}", f"bucket:{bucket}"):
        raise UsageError(
            f"waiver {interim.name} is about {interim.on}, not about bucket {bucket}",
            fix=f'declare one with on = "buckets.{bucket}"',
        )
    declared = {"waiver": interim.name, "owner": interim.owner, "expires": interim.expires.isoformat()}
    evidence = {**verdict.evidence, **declared, "code": verdict.code}
    if verdict.status is Status.OK:
        said = f"{interim.name} expects {interim.code}, and the bucket is healthy"
        return codes.INTERIM_UNNEEDED.verdict(verdict.subject, said, evidence)
    if verdict.code != interim.code:
        return verdict
    if today > interim.expires:
        said = f"{interim.name} ({interim.owner}) expired on {interim.expires}; the state is {verdict.code}"
        return codes.INTERIM_EXPIRED.verdict(verdict.subject, said, evidence)
    said = f"INTERIM ONLY, as {interim.name} declares until {interim.expires} ({interim.owner}): {interim.reason}"
    return codes.INTERIM.verdict(verdict.subject, said, evidence)
