"""Verdicts: what an observation means.

`ok` it works. `expected` looks like a failure and is none. `failed` is a failure with a stable code.
`skipped` could not be looked at and is never counted as ok.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import EXIT_CANNOT_LOOK, EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

REPORT_SCHEMA: Final = "kingpost.report/1"


class Status(StrEnum):
    """The four things that an observation can mean."""

    OK = "ok"
    EXPECTED = "expected"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding.

    Attributes:
        status: What it means.
        code: Stable, documented, `KP-AREA-NAME` (for example `KP-CACHE-BODY-EMPTY`).
        subject: What was looked at: a store path, a route, a unit, a file.
        summary: One sentence, for a person.
        evidence: What was seen, JSON-ready: numbers with their unit in the key (`body_bytes`, `seconds`).
            Never a secret.
        remedy: What to do next; empty when there is nothing to do.

    """

    status: Status
    code: str
    subject: str
    summary: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON form, as `docs/json.md` describes it."""
        return {
            "status": str(self.status),
            "code": self.code,
            "subject": self.subject,
            "summary": self.summary,
            "evidence": dict(self.evidence),
            "remedy": self.remedy,
        }


def count(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Count verdicts by status; every status is present."""
    seen = Counter(str(v.status) for v in verdicts)
    return {str(status): seen.get(str(status), 0) for status in Status}


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """Give the exit code: 1 something failed; 3 nothing could be looked at; else 0."""
    statuses = {v.status for v in verdicts}
    if Status.FAILED in statuses:
        return EXIT_FAILED
    if statuses & {Status.OK, Status.EXPECTED}:
        return EXIT_OK
    return EXIT_CANNOT_LOOK


def report(command: str, verdicts: Sequence[Verdict], **extra: Any) -> dict[str, Any]:
    """Give the one documented JSON document that every observing command prints with `--json`."""
    return {
        "schema": REPORT_SCHEMA,
        "command": command,
        "summary": count(verdicts),
        "verdicts": [v.as_dict() for v in verdicts],
        **extra,
    }
