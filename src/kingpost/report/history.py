"""What the ledger says of a subject: is it broken, since when, what was the last good."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kingpost.base.ledger import Ledger

# One row a run in which the subject was really looked at: `skipped` says nothing about it.
_LOOKS: Final = """
    select runs.command as command, verdicts.subject as subject, max(verdicts.seen) as seen,
           sum(verdicts.status = 'failed') as failed,
           group_concat(distinct case when verdicts.status = 'failed' then verdicts.code end) as codes
    from verdicts join runs on runs.id = verdicts.run
    where verdicts.status <> 'skipped' and instr(verdicts.subject, :subject) > 0
    group by runs.command, verdicts.subject, verdicts.run
    order by runs.command, verdicts.subject, verdicts.run
"""


@dataclass(frozen=True, slots=True)
class History:
    """One subject as one command saw it over time. Times are UTC, ISO 8601.

    Attributes:
        command: Which command looked.
        subject: At what.
        looks: In how many runs.
        last_looked: When last.
        broken_since: The first failed look after the last good one; empty when the last look was good.
        last_good: The last look without a failure; empty when there was none.
        codes: What failed at the last look; empty when it was good.
        breakages: How many times it went from good (or unknown) to failed.

    """

    command: str
    subject: str
    looks: int
    last_looked: str
    broken_since: str
    last_good: str
    codes: tuple[str, ...]
    breakages: int

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON form, as `docs/json.md` describes it."""
        return {
            "command": self.command,
            "subject": self.subject,
            "looks": self.looks,
            "last_looked": self.last_looked,
            "broken_since": self.broken_since or None,
            "last_good": self.last_good or None,
            "codes": list(self.codes),
            "breakages": self.breakages,
        }


def read(ledger: Ledger, subject: str = "", code: str = "") -> list[History]:
    """Give the history of each subject that contains `subject`: broken ones first, the newest on top.

    Args:
        ledger: Open ledger.
        subject: Part of the subject; empty for all.
        code: Only subjects whose last look failed with this code.

    """
    found = list(_histories(ledger.db.query(_LOOKS, {"subject": subject})))
    if code:
        found = [history for history in found if code in history.codes]
    found.sort(key=lambda history: (history.broken_since, history.last_looked), reverse=True)
    return found


def _histories(rows: Iterable[dict[str, Any]]) -> Iterator[History]:
    for (command, subject), group in groupby(rows, key=lambda row: (row["command"], row["subject"])):
        looks, broken_since, last_good, breakages = 0, "", "", 0
        row: dict[str, Any] = {}
        for row in group:
            looks += 1
            if not row["failed"]:
                broken_since, last_good = "", row["seen"]
            elif not broken_since:
                broken_since = row["seen"]
                breakages += 1
        codes = tuple(sorted((row["codes"] or "").split(","))) if row["failed"] else ()
        yield History(command, subject, looks, row["seen"], broken_since, last_good, codes, breakages)
