"""Verdict codes: each is declared once, in a module whose name ends in `codes`, next to what gives it.

`docs/verdicts.md` is generated from them (`kingpost.report.reference`), so what a code means is written once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kingpost.base.verdict import Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Code:
    """One thing that an observation can mean; a code always goes with the same status.

    Attributes:
        name: `KP-AREA-NAME`, stable for ever.
        status: What the code means for the exit code.
        title: A few words.
        symptom: What is seen.
        cause: What is behind it.
        told_apart: How it differs from its neighbours.
        remedy: What to do next; empty when there is nothing to do.

    """

    name: str
    status: Status
    title: str
    symptom: str
    cause: str = ""
    told_apart: str = ""
    remedy: str = ""

    def verdict(
        self,
        subject: str,
        summary: str,
        evidence: Mapping[str, Any] | None = None,
        *,
        remedy: str | None = None,
    ) -> Verdict:
        """Give a verdict of this code, with its remedy unless a more exact one is given."""
        return Verdict(
            self.status,
            self.name,
            subject,
            summary,
            evidence if evidence is not None else {},
            self.remedy if remedy is None else remedy,
        )
