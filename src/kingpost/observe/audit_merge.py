"""Reports of shards made one again, and refused when a shard is missing or something else was audited."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kingpost.base.errors import InvalidInputError
from kingpost.base.verdict import REPORT_SCHEMA, Status, Verdict
from kingpost.observe import audit_codes as codes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Merged:
    """The verdicts of all shards, and what the reports say beside them."""

    verdicts: list[Verdict]
    facts: dict[str, Any]


def merge(files: Sequence[Path]) -> Merged:
    """Merge the JSON reports of `cache audit`.

    A path that two reports speak of counts with its worst verdict. A shard that is missing is a failure.

    Raises:
        InvalidInputError: A file is no report of an audit, or the reports are of different audits.

    """
    parts = [(file, _read(file)) for file in files]
    first = parts[0][1]
    for file, part in parts[1:]:
        for key in ("cache", "inputs", "shards"):
            if part.get(key) != first.get(key):
                raise InvalidInputError(
                    f"it is of another audit: {key} is {part.get(key)!r}, in {files[0]} {first.get(key)!r}",
                    where=str(file),
                    fix="merge the reports of one run: same cache, same inputs, same number of shards",
                )
    by_subject: dict[str, list[Verdict]] = {}
    for _, part in parts:
        own: dict[str, list[Verdict]] = {}
        for verdict in part["verdicts"]:
            own.setdefault(verdict["subject"], []).append(_verdict(verdict))
        for subject, verdicts in own.items():
            by_subject[subject] = max(by_subject.get(subject, []), verdicts, key=_weight)
    found = [verdict for verdicts in by_subject.values() for verdict in verdicts]
    shards = int(first.get("shards", 1))
    seen = {int(part.get("shard", 1)) for _, part in parts}
    for missing in sorted(set(range(1, shards + 1)) - seen):
        subject = f"shard {missing}/{shards} of {first.get('cache')}"
        found.append(
            codes.SHARD_MISSING.verdict(subject, f"no report of shard {missing} of {shards} was given")
        )
    facts: dict[str, Any] = {key: first[key] for key in ("cache", "inputs") if key in first}
    sums: dict[str, Any] = {
        key: sum(part.get(key, 0) for _, part in parts) for key in ("paths", "nar_bytes", "body_bytes")
    }
    return Merged(found, {**facts, **sums, "reports": len(parts)})


def _read(file: Path) -> dict[str, Any]:
    try:
        return _checked(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise InvalidInputError(f"the report cannot be read: {error.strerror}", where=str(file)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"this is no report of an audit: {error}",
            where=str(file),
            why="a shard that was killed leaves an empty or half file",
            fix="give files written by `kingpost cache audit --json`",
        ) from error


def _checked(document: dict[str, Any]) -> dict[str, Any]:
    if document["schema"] != REPORT_SCHEMA or document["command"] != "cache audit":
        raise ValueError(f"it is a report of {document['command']!r}")
    for verdict in document["verdicts"]:
        _verdict(verdict)
    return document


def _verdict(row: dict[str, Any]) -> Verdict:
    words = {key: str(row[key]) for key in ("code", "subject", "summary", "remedy")}
    return Verdict(Status(row["status"]), evidence=dict(row["evidence"]), **words)


def _weight(verdicts: list[Verdict]) -> int:
    order = (Status.SKIPPED, Status.EXPECTED, Status.OK, Status.FAILED)
    return max((order.index(verdict.status) for verdict in verdicts), default=-1)
