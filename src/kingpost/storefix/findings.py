"""What a scan can find: stable codes, and whether each is a problem or only worth knowing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBLEM = "problem"
NOTE = "note"

LOST_PATH = "lost-path"
INVALID_ROW = "invalid-row"
GHOST_REFERENCE = "ghost-reference"
ORPHAN_REFERENCES = "orphan-references"
ORPHAN_OUTPUTS = "orphan-outputs"
ORPHAN_ROWS = "orphan-rows"
DAMAGED_CONTENT = "damaged-content"
UNREADABLE_CONTENT = "unreadable-content"
DAMAGED_LINK = "damaged-link"
LIVE_ORPHAN = "live-orphan"
ORPHAN = "orphan"
UNKNOWN_NAME = "unknown-name"
DATABASE_MISSING = "database-missing"
DATABASE_MALFORMED = "database-malformed"
TORN_WAL = "torn-wal"
SCHEMA_VERSION = "schema-version"
DANGLING_ROOT = "dangling-root"
STALE_ROOT = "stale-root"
LEFTOVER = "leftover"
SERVE_PROCESS = "serve-process"
NARINFO_CACHE = "narinfo-cache"
DISK_FULL = "disk-full"
FSYNC_OFF = "fsync-off"
INTERRUPTED = "interrupted-repair"

EXPLAINED: Mapping[str, str] = {
    LOST_PATH: "registered, but not on disk",
    INVALID_ROW: "rows whose path can be no path of this store",
    GHOST_REFERENCE: "references to rows that are not there",
    ORPHAN_REFERENCES: "references of rows that are not there: they stop garbage collections",
    ORPHAN_OUTPUTS: "outputs of derivations that are not registered",
    ORPHAN_ROWS: "rows of other tables that point nowhere",
    DAMAGED_CONTENT: "on disk, but not with the content that was registered",
    UNREADABLE_CONTENT: "on disk, but cannot be read",
    DAMAGED_LINK: "files in .links that are not what their name says",
    LIVE_ORPHAN: "needed and on disk, but not registered: the next garbage collection deletes it",
    ORPHAN: "on disk, but not registered; nothing needs it",
    UNKNOWN_NAME: "in the store directory, but no store path",
    DATABASE_MISSING: "the database is missing",
    DATABASE_MALFORMED: "the database is malformed",
    TORN_WAL: "the database's write-ahead log is torn",
    SCHEMA_VERSION: "the schema version is wrong",
    DANGLING_ROOT: "gcroots and profile generations whose path is gone",
    STALE_ROOT: "gcroots that point to a link that is gone",
    LEFTOVER: "leftovers of builds and copies that ended early",
    SERVE_PROCESS: "`nix-store --serve` processes of dead sessions",
    NARINFO_CACHE: "caches of what substituters have that are damaged",
    DISK_FULL: "the disk is full",
    FSYNC_OFF: "Nix does not flush paths before it registers them",
    INTERRUPTED: "an earlier repair was interrupted",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        code: One of the constants of this module.
        severity: PROBLEM or NOTE.
        subject: A store path, file or process.
        summary: One sentence, for a person.
        needed_by: Labels of roots that need the subject; empty if none does or it was not looked at.
        evidence: What was seen, JSON-ready, numbers with their unit in the key.

    """

    code: str
    severity: str
    subject: str
    summary: str
    needed_by: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON form, as docs/store-fix.md describes it."""
        return {
            "code": self.code,
            "severity": self.severity,
            "subject": self.subject,
            "summary": self.summary,
            "needed_by": list(self.needed_by),
            "evidence": dict(self.evidence),
        }
