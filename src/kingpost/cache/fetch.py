"""Fetching from a binary cache: what comes, by which hops, and exactly what went wrong.

One interface for `http(s)://`, `file://` and `s3://` caches (`fetch_http`, `fetch_file`, `fetch_s3`). Nothing is
retried here and nothing is buffered: who fetches decides.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit, urlunsplit

from kingpost.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType


class Trouble(StrEnum):
    """Why nothing, or not everything, came."""

    REFUSED = "refused"  # the port is closed
    UNREACHABLE = "unreachable"  # no route
    NAME = "name"  # the host name does not resolve
    TLS = "tls"
    CONNECT_TIMEOUT = "connect-timeout"
    STALLED = "stalled"  # connected, then silence
    LOST = "lost"  # the connection ended before an answer began
    CUT = "cut"  # the body ended before its announced end
    PROTOCOL = "protocol"  # no HTTP, or HTTP that makes no sense
    REDIRECT = "redirect"  # a redirect to nowhere, or too many
    STATUS = "status"  # an HTTP status other than 200, or what S3 and a file system have for it
    BUCKET = "bucket"  # S3 does not know the bucket
    CREDENTIALS = "credentials"  # S3 credentials are missing or wrong
    BAD_URL = "bad-url"


@dataclass(frozen=True, slots=True)
class Hop:
    """One request on the way to a body. `url` has no query and no password: both may be secret."""

    url: str
    status: int


class FetchError(Exception):
    """Something could not be fetched.

    Attributes:
        trouble: The kind.
        url: What was asked at last, without query and password.
        hops: The redirects that led there; empty when the cache itself failed.
        status: The HTTP status, for `STATUS`.
        server_error: The name of the error in the answer: Attic's `IncompleteNar`, S3's `NoSuchBucket`.
        server_message: Its message, shortened.
        received: Bytes of the body that came before.
        retry_after: Seconds that the server asks to wait, or None.

    """

    def __init__(
        self,
        trouble: Trouble,
        message: str,
        *,
        url: str,
        hops: tuple[Hop, ...] = (),
        status: int = 0,
        server_error: str = "",
        server_message: str = "",
        received: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.url = url
        self.hops = hops
        self.status = status
        self.server_error = server_error
        self.server_message = server_message
        self.received = received
        self.retry_after = retry_after


class Body(ABC):
    """A body as it comes; a source for `compression.decompressor`. Errors while reading are `FetchError`s.

    Attributes:
        hops: Every request made, the last of which answered with this body.
        received: Bytes so far.
        announced: What the server said will come; None when it did not.
        encoding: HTTP's Content-Encoding, empty for none.

    """

    hops: tuple[Hop, ...] = ()
    received: int = 0
    announced: int | None = None
    encoding: str = ""

    @abstractmethod
    def read(self, size: int, /) -> bytes:
        """Give up to `size` bytes; none at the end."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a buffer from its front; 0 at the end."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    @abstractmethod
    def close(self) -> None:
        """Give the connection or file back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BinaryCache(ABC):
    """A binary cache. `url` is how it is named in reports: no query, no password."""

    url: str

    @abstractmethod
    def get(self, location: str) -> Body:
        """Open what lies at a location, relative to the cache or absolute.

        Raises:
            FetchError: It cannot be had.

        """

    def hashes(self) -> Iterator[str] | None:
        """List the hash part of every narinfo; None for a kind of cache that cannot be listed."""
        return None

    def close(self) -> None:  # noqa: B027 - most kinds have nothing to close
        """Give up connections."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a cache.

    Attributes:
        token: An Attic or Cachix token, sent as Nix sends it from a netrc: as the password of HTTP Basic.
        netrc: A netrc file to take credentials from, by host.
        connect_timeout: Seconds for the handshakes.
        stall_timeout: Seconds in which at least one byte a second must come.
        connections: Most at once.
        throttle: Shared by everything that reads, or None.

    """

    token: str = field(default="", repr=False)
    netrc: Path | None = None
    connect_timeout: float = 15.0
    stall_timeout: float = 60.0
    connections: int = 25
    throttle: Throttle | None = None


class Throttle:
    """Bytes per second, shared by threads: who takes waits until its share is due."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._due = time.monotonic()
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Account for bytes that came and wait as long as they should have taken."""
        with self._lock:
            self._due = max(self._due, time.monotonic() - 0.1) + count / self._rate
            wait = self._due - time.monotonic()
        if wait > 0:
            time.sleep(wait)


SCHEMES: Final = ("http", "https", "file", "s3")


def open_cache(url: str, access: Access | None = None) -> BinaryCache:
    """Give the cache at a URL. Nothing is contacted yet.

    Args:
        url: `http://…`, `https://…`, `file:///…`, `s3://BUCKET?endpoint=…&region=…` as Nix writes them, or a path.
        access: How to reach it.

    Raises:
        UsageError: It is no such URL.

    """
    access = access or Access()
    scheme = urlsplit(url).scheme
    if scheme in ("http", "https"):
        from kingpost.cache.fetch_http import HttpCache  # noqa: PLC0415 - httpx is slow to import

        return HttpCache(url, access)
    if scheme == "file" or url.startswith(("/", "./", "../")):
        from kingpost.cache.fetch_file import FileCache  # noqa: PLC0415 - likewise its kin

        return FileCache(url, access)
    if scheme == "s3":
        from kingpost.cache.fetch_s3 import S3Cache  # noqa: PLC0415 - boto3 is slow to import

        return S3Cache(url, access)
    raise UsageError(
        f"{public_url(url)!r} is no address of a binary cache",
        fix="write http://…, https://…, file:///…, s3://BUCKET?endpoint=… or a directory",
    )


def public_url(url: str) -> str:
    """Give a URL that may be shown: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no address)"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def read_all(body: Body, most: int) -> bytes:
    """Read a small body whole.

    Raises:
        FetchError: It is larger than `most`, or broke.

    """
    pieces = bytearray()
    while data := body.read(64 * 1024):
        pieces += data
        if len(pieces) > most:
            message = f"the answer is larger than {most} bytes"
            raise FetchError(Trouble.PROTOCOL, message, url=body.hops[-1].url, received=len(pieces))
    return bytes(pieces)
