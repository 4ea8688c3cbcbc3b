"""Nix's `internal-json` log: its events, and what its messages say of substituters.

Events and numbers: NixOS/nix src/libutil/include/nix/util/logging.hh. Messages were recorded from Nix 2.8 and
2.34 against caches with one fault each (tests/real/test_trace.py); what is unknown passes through.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFIX: Final = "@nix "
LONGEST: Final = 16 * 1024 * 1024
"""Characters of a line that are held at once. Nix's longest events carry a builder's line of output."""
SILENT_LEVEL: Final = 7
"""Beyond Nix's most verbose level: what has none is never shown."""


class Activity(IntEnum):
    """The types of `start` that tell who serves what."""

    COPY_PATH = 100
    FILE_TRANSFER = 101
    BUILD = 105
    SUBSTITUTE = 108
    QUERY_PATH_INFO = 109


class Result(IntEnum):
    """The types of `result` that carry numbers or text."""

    BUILD_LOG_LINE = 101
    PROGRESS = 105
    POST_BUILD_LOG_LINE = 107


class Reason(StrEnum):
    """Why a substituter did not give a path."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNRESOLVED = "name does not resolve"
    TLS = "TLS failed"
    UNREACHABLE = "unreachable"
    DENIED = "401 or 403"
    LIMITED = "429"
    HTTP_ERROR = "HTTP error"
    NO_CACHE = "no binary cache"
    OTHER_STORE = "for another store directory"
    NARINFO_CORRUPT = "narinfo corrupt"
    UNTRUSTED = "untrusted signature"
    NAR_INCOMPLETE = "NAR incomplete or empty"
    NAR_CUT = "NAR cut off"
    NAR_STALLED = "NAR stalled"
    NAR_CORRUPT = "NAR corrupt"
    NAR_MISMATCH = "NAR of another content"
    NAR_MISSING = "narinfo without NAR"
    DISABLED = "disabled for 60 seconds"
    SILENT = "nothing said"


@dataclass(frozen=True, slots=True)
class Complaint:
    """What one message says of a substituter.

    Attributes:
        reason: What was wrong.
        url: The URL or cache that it names; empty when it names none.
        path: The store path, or a narinfo's 32-character hash, that it names; empty when it names none.
        retries: Whether Nix says that it tries again.

    """

    reason: Reason
    url: str = ""
    path: str = ""
    retries: bool = False


_ANSI: Final = re.compile("\x1b\\[[0-9;]*m")
_DOWNLOAD: Final = re.compile(r"unable to download '(?P<url>[^']+)': (?P<what>.*)", re.DOTALL)
_OTHERS: Final = (
    (re.compile(r"NAR for '(?P<path>[^']+)' fetched from '(?P<url>[^']+)' is incomplete"), Reason.NAR_INCOMPLETE),
    (re.compile(r"hash mismatch importing path '(?P<path>[^']+)'"), Reason.NAR_MISMATCH),
    (re.compile(r"file '(?P<file>nar/[^']+)' does not exist in binary cache '(?P<url>[^']+)'"), Reason.NAR_MISSING),
    (re.compile(r"NAR info file '(?P<path>[0-9a-z]{32})\.narinfo' is corrupt"), Reason.NARINFO_CORRUPT),
    (re.compile(r"'(?P<url>[^']+)' does not appear to be a binary cache"), Reason.NO_CACHE),
    (re.compile(r"binary cache '(?P<url>[^']+)' is for Nix stores with prefix"), Reason.OTHER_STORE),
    (re.compile(r"substitute for '(?P<path>[^']+)' from '(?P<url>[^']+)'(?: is|, as it's) not signed"),
     Reason.UNTRUSTED),
    (re.compile(r"disabling binary cache '(?P<url>[^']+)' for \d+ seconds"), Reason.DISABLED),
    (re.compile(r"substituter '(?P<url>[^']+)' is disabled"), Reason.DISABLED),
    (re.compile(r"Failed to open archive \(|failed to read compressed data|decompression failed|"
                r"Restored data doesn't match checksum|bad archive|string is too long|non-zero padding|"
                r"input is not a Nix archive|error while decompressing|unexpected end of (?:nar|archive)",
                re.IGNORECASE), Reason.NAR_CORRUPT),
)  # fmt: skip
_STATUS: Final = re.compile(r"HTTP error (\d{3})")
_CURL: Final = re.compile(r"\((\d{1,2})\)")
_CURL_REASONS: Final = {
    6: Reason.UNRESOLVED, 7: Reason.REFUSED, 28: Reason.TIMEOUT, 35: Reason.TLS, 51: Reason.TLS, 58: Reason.TLS,
    60: Reason.TLS, 77: Reason.TLS, 83: Reason.TLS,
}  # fmt: skip


def lines(log: IO[str]) -> Iterator[str]:
    """Give the lines of a log, one longer than `LONGEST` in pieces: what is no log may have no end of line."""
    return iter(partial(log.readline, LONGEST), "")


def parse(line: str) -> dict[str, Any] | None:
    """Give an event with integer `type`, `id` and `level`; None for a line that is none, or that was cut off."""
    if not line.startswith(PREFIX):
        return None
    try:
        event = json.loads(line[len(PREFIX) :])
    except ValueError:
        return None
    if not isinstance(event, dict):
        return None
    for name, missing in (("type", -1), ("id", -1), ("level", SILENT_LEVEL)):
        if type(event.get(name)) is not int:
            event[name] = missing
    return event


def plain(text: str) -> str:
    """Give a message without its colours."""
    return _ANSI.sub("", text)


def complaint(message: str) -> Complaint | None:
    """Give what a message says of a substituter; None when it says nothing of one."""
    text = plain(message)
    if match := _DOWNLOAD.search(text):
        what = match["what"]
        return Complaint(_download_reason(match["url"], what), match["url"], retries="; retrying in" in what)
    for pattern, reason in _OTHERS:
        if match := pattern.search(text):
            named: Mapping[str, str] = match.groupdict()
            return Complaint(reason, named.get("url", ""), named.get("path", ""))
    return None


def _download_reason(url: str, what: str) -> Reason:
    is_nar = "/nar/" in url
    if match := _STATUS.search(what):
        status = int(match[1])
        if status == 200:
            if "Timeout" in what:
                return Reason.NAR_STALLED if is_nar else Reason.TIMEOUT
            return Reason.NAR_CUT if is_nar else Reason.HTTP_ERROR
        if status in {401, 403}:
            return Reason.DENIED
        return Reason.LIMITED if status == 429 else Reason.HTTP_ERROR
    if match := _CURL.search(what):
        reason = _CURL_REASONS.get(int(match[1]), Reason.UNREACHABLE)
        return Reason.NAR_STALLED if is_nar and reason is Reason.TIMEOUT else reason
    return Reason.UNREACHABLE
