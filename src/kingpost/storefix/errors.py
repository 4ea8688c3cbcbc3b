"""The errors of store-fix: what happened, where, why it matters, what to do next.

StoreFixError            exit 1  something failed or is left to do
├── UsageError           exit 2  wrong arguments, a plan that cannot be read
├── CannotLookError      exit 3  no store there, no permission, a disk that does not answer
│   └── BusyError        exit 3  a build, a garbage collection or another repair is running
├── StoreChangedError    exit 1  the store is no longer the one that the plan was made for
└── SourceError          exit 1  a source of bytes; the run goes on with the next source
    ├── UnreachableError         it could not be asked: connection, HTTP 5xx, ssh
    ├── UntrustedError           it answered, but no trusted key has signed the answer
    └── ContentError             the bytes are not what was promised: hash, size, NAR format
"""

from __future__ import annotations

EXIT_HEALTHY = 0
EXIT_PROBLEMS = 1
EXIT_USAGE = 2
EXIT_CANNOT_LOOK = 3


class StoreFixError(Exception):
    """An error with everything that its reader needs.

    Args:
        what: What happened, in one sentence without a final full stop.
        where: A file, host, URL or store path; empty when there is none.
        why: Why it matters, or what is behind it.
        fix: What to do next, as an instruction.

    """

    exit_code = EXIT_PROBLEMS

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        """Render on up to three lines: `where: what`, then why, then fix."""
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class UsageError(StoreFixError):
    """The command line asks for something that cannot be, or a plan file cannot be read."""

    exit_code = EXIT_USAGE


class CannotLookError(StoreFixError):
    """Nothing could be checked; this says nothing about the store."""

    exit_code = EXIT_CANNOT_LOOK


class BusyError(CannotLookError):
    """Someone else works in the store: a build, a garbage collection, another repair."""


class StoreChangedError(StoreFixError):
    """The store is no longer the one that the plan was made for."""


class SourceError(StoreFixError):
    """A source of bytes failed for one path; the next source is tried."""


class UnreachableError(SourceError):
    """The source could not be asked or broke off: connection refused, HTTP 5xx, ssh ended."""


class UntrustedError(SourceError):
    """The source has the path, but none of the trusted keys has signed it."""


class ContentError(SourceError):
    """The bytes are not what was promised: wrong hash or size, truncated, no NAR."""
