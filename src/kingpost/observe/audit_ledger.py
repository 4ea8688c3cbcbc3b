"""What earlier runs know: which paths were verified when, and by which bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from kingpost.cache.storepath import is_hash_part
from kingpost.observe import audit_codes as codes
from kingpost.observe.audit import Known, subject

if TYPE_CHECKING:
    from kingpost.base.ledger import Ledger

_VERIFIED: Final = """
    select good.subject as subject, max(good.seen) as seen from verdicts good
    where good.code = :ok and good.seen >= :since and substr(good.subject, -length(:at)) = :at
      and not exists (
        select 1 from verdicts bad where bad.subject = good.subject and bad.status = 'failed' and bad.id > good.id)
    group by good.subject
"""
# SQLite gives the other columns from the row that has the maximum.
_BODIES: Final = """
    select subject, seen, evidence, max(id) from verdicts
    where code = :ok and substr(subject, -length(:at)) = :at group by subject
"""


def verified_since(ledger: Ledger, cache_url: str, seconds: float) -> dict[str, tuple[str, str]]:
    """Give the paths of a cache that were verified and did not fail since: by hash part, their subject and when."""
    since = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")
    at = subject("", cache_url)
    rows = ledger.db.query(_VERIFIED, {"ok": codes.BODY_OK.name, "since": since, "at": at})
    found = {_hash_part(row["subject"], at): (row["subject"], row["seen"]) for row in rows}
    found.pop("", None)
    return found


def known_bodies(ledger: Ledger, cache_url: str) -> dict[str, Known]:
    """Give the bodies of a cache that were once read whole and found right, by hash part."""
    at = subject("", cache_url)
    found = {}
    for row in ledger.db.query(_BODIES, {"ok": codes.BODY_OK.name, "at": at}):
        evidence = json.loads(row["evidence"])
        hash_part = _hash_part(row["subject"], at)
        if hash_part and evidence.get("body_hash") and evidence.get("nar_hash"):
            found[hash_part] = Known(
                nar_hash=evidence["nar_hash"],
                compression=evidence["compression"],
                body_hash=evidence["body_hash"],
                body_bytes=evidence["body_bytes"],
                seen=row["seen"],
            )
    return found


def _hash_part(named: str, at: str) -> str:
    """Give the hash part in a subject; empty when it is that of no path."""
    hash_part = named.removesuffix(at).rpartition("/")[2][:32]
    return hash_part if is_hash_part(hash_part) else ""
