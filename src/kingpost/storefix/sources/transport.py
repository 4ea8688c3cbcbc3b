"""Get files from a binary cache: over HTTP with retries, redirects and netrc, or from a directory.

Bounded in time: connecting, each read, and the rate of a body as a whole. Retried is only what may succeed
later; a body that broke off is the caller's to begin again (`TransientError`).
"""

from __future__ import annotations

import base64
import netrc
import os
import random
import socket
import ssl
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse, HTTPSConnection
from typing import IO, TYPE_CHECKING, Any, Dict, Optional, Protocol, Tuple
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from ..errors import ContentError, UnreachableError

if TYPE_CHECKING:
    from pathlib import Path

ATTEMPTS = 4
STALLED = 30.0
"""Seconds that a server may be silent in the middle of an answer."""
SLOWEST = 4096
"""Bytes per second that a body must come at, over the whole and after the first `STALLED` seconds."""
_MOST_REDIRECTS = 10
_LONGEST_WAIT = 15.0
_LATER = (408, 425, 429, 500, 502, 503, 504)
_MOVED = (301, 302, 303, 307, 308)
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/certs/ca-bundle.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
)


class TransientError(UnreachableError):
    """It failed in a way that another attempt may not.

    Attributes:
        after: Seconds that the server asked us to wait.
        cost: How many of the `ATTEMPTS` this one counts as; a timeout has cost enough time already.

    """

    after = 0.0
    cost = 1


class Body(Protocol):
    """An open file of a cache."""

    encoding: str

    def read(self, size: int) -> bytes:
        """Give at least one byte, or none at the end.

        Raises:
            TransientError: It broke off or stalled.

        """

    def close(self) -> None:
        """Let go of it."""


class Transport(Protocol):
    """A place with files."""

    def open(self, name: str) -> Optional[Body]:
        """Open a file of the cache, by its name or URL; None if it is not there.

        Raises:
            TransientError: Another attempt may succeed.
            UnreachableError: It will not.

        """


def pause(attempt: int, error: TransientError) -> None:
    """Wait before attempt number `attempt` + 1: a quarter of a second, doubling, as curl and Nix do."""
    backoff = 0.125 * 2**attempt * (1 + random.random() / 4)  # noqa: S311  # spreads clients, no secret
    time.sleep(min(_LONGEST_WAIT, max(backoff, error.after)))


def get(transport: Transport, name: str, most: int) -> Optional[bytes]:
    """Give a small file as a whole, after as many attempts as it takes; None if it is not there.

    Raises:
        UnreachableError: It could not be had.
        ContentError: It has more than `most` bytes.

    """
    attempt = 0
    while True:
        try:
            return _get_once(transport, name, most)
        except TransientError as error:
            attempt += error.cost
            if attempt >= ATTEMPTS:
                raise
            pause(attempt, error)


def _get_once(transport: Transport, name: str, most: int) -> Optional[bytes]:
    from .decompress import Decompressor

    body = transport.open(name)
    if body is None:
        return None
    try:
        with Decompressor(body.encoding, body.read) as plain:
            data = b""
            while len(data) <= most:
                block = plain.read()
                if not block:
                    return data
                data += block
    finally:
        body.close()
    raise ContentError(f"{name} has more than {most} bytes", why="so it is not what it should be")


class Directory:
    """A binary cache in a directory (`file://`)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, name: str) -> Optional[Body]:
        """Open a file of the directory; a name that leads out of it is refused."""
        name = unquote(name.partition("?")[0])
        if name.startswith("/") or ".." in name.split("/") or "://" in name:
            raise ContentError(f"the cache names the file {name!r}, which is outside of it")
        try:
            return _File((self._directory / name).open("rb"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnreachableError(f"{name} cannot be read: {error.strerror}") from None


class _File:
    encoding = ""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()


class Http:
    """A binary cache behind http:// or https://.

    Args:
        url: Its address, without query and with a user and password perhaps.
        netrc_file: Passwords by host name.
        connect_timeout: Seconds; 0 takes a minute, for no limit is none at 3 a.m.

    """

    def __init__(self, url: str, *, netrc_file: Optional[Path] = None, connect_timeout: int = 15) -> None:
        parts = urlsplit(url)
        self._base = urlunsplit(
            (parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/") + "/", "", "")
        )
        self._logins, self._netrc_fault = _logins(netrc_file)
        if parts.username is not None and parts.hostname:
            self._logins[parts.hostname] = (unquote(parts.username), unquote(parts.password or ""))
        self._timeout = float(connect_timeout or 60)
        self._opener = build_opener(_Http(), _Https(context=_context()), _Redirect())

    def open(self, name: str) -> Optional[Body]:
        """Open a URL, relative to the cache unless absolute."""
        url = urljoin(self._base, name)
        for _ in range(_MOST_REDIRECTS):
            answer, where = self._ask(url)
            if where is None:
                return answer
            url = where
        raise UnreachableError(f"{name} is redirected more than {_MOST_REDIRECTS} times")

    def _ask(self, url: str) -> Tuple[Optional[Body], Optional[str]]:
        """Give the body, or the address that the server sends us to."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UnreachableError("the cache sends us to another kind of address", why=f"{parts.scheme}:")
        headers = {"User-Agent": "kingpost-store-fix", "Accept-Encoding": "identity"}
        request = Request(url, headers=headers)  # noqa: S310  # the scheme was checked above
        login = self._logins.get(parts.hostname) or self._logins.get("")
        if login and (parts.scheme == "https" or self._base.startswith("http:")):
            token = base64.b64encode(f"{login[0]}:{login[1]}".encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")
        try:
            answer: HTTPResponse = self._opener.open(request, timeout=self._timeout)
        except HTTPError as error:
            with error:
                return self._refused(error)
        except (URLError, OSError, HTTPException, ValueError) as error:
            raise _unreachable(error, parts.netloc) from None
        return _Answer(answer), None

    def _refused(self, error: HTTPError) -> Tuple[None, Optional[str]]:
        if error.code in _MOVED:
            return None, urljoin(error.url, error.headers.get("Location", ""))
        # A bucket that may not be listed says 403 for what it lacks, and Nix takes that as missing.
        if error.code in (403, 404, 410):
            return None, None
        host = urlsplit(error.url).netloc
        what = f"{host} answers HTTP {error.code} {error.reason}"
        if error.code in _LATER:
            retry = TransientError(what)
            with suppress(ValueError):
                retry.after = float(error.headers.get("Retry-After", "0"))
            raise retry
        if error.code in (401, 407):
            fix = f"give a login for {host.rpartition(':')[0] or host} in netrc-file"
            raise UnreachableError(what, why=self._netrc_fault, fix=fix)
        raise UnreachableError(what)


class _Redirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Leave it to us: urllib would send the login along, and knows no 308 before Python 3.11."""


class _Unhurried(HTTPConnection):
    def connect(self) -> None:
        """Connect within the timeout; then the server may take longer for each read."""
        super().connect()
        self.sock.settimeout(max(STALLED, self.timeout or 0))


class _UnhurriedTls(HTTPSConnection):
    def connect(self) -> None:
        """Connect within the timeout; then the server may take longer for each read."""
        super().connect()
        self.sock.settimeout(max(STALLED, self.timeout or 0))


class _Http(HTTPHandler):
    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_Unhurried, req)


class _Https(HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._tls = context

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_UnhurriedTls, req, context=self._tls)


class _Answer:
    def __init__(self, answer: HTTPResponse) -> None:
        self._answer = answer
        self._begun = time.monotonic()
        self._got = 0
        headers: HTTPMessage = answer.headers
        self.encoding = headers.get("Content-Encoding", "").strip().lower()
        if self.encoding in ("identity", "aws-chunked"):
            self.encoding = ""
        length = headers.get("Content-Length", "")
        self._length = int(length) if length.isdigit() and not answer.chunked else None

    def read(self, size: int) -> bytes:
        try:
            block = self._answer.read1(size)
        except (OSError, HTTPException, ValueError) as error:
            raise _transient(f"the answer broke off after {self._got} bytes", error) from None
        self._got += len(block)
        if not block and self._length is not None and self._got != self._length:
            raise TransientError(f"the answer broke off after {self._got} of {self._length} bytes")
        seconds = time.monotonic() - self._begun - STALLED
        if seconds > 0 and self._got < seconds * SLOWEST:
            raise TransientError(
                f"the answer comes too slowly: {self._got} bytes in {seconds + STALLED:.0f} s"
            )
        return block

    def close(self) -> None:
        self._answer.close()


def _reason(error: BaseException) -> str:
    if isinstance(error, URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, socket.timeout):
        return "it did not answer in time"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _transient(what: str, cause: BaseException) -> TransientError:
    error = TransientError(what, why=_reason(cause))
    if isinstance(cause, socket.timeout):  # TimeoutError itself since Python 3.10
        error.cost = ATTEMPTS // 2
    return error


def _unreachable(error: BaseException, host: str) -> UnreachableError:
    cause = error.reason if isinstance(error, URLError) else error
    what = f"{host} cannot be reached"
    if isinstance(cause, ssl.SSLCertVerificationError):
        fix = "correct this machine's clock, or name the certificates with NIX_SSL_CERT_FILE"
        return UnreachableError(what, why=cause.verify_message, fix=fix)
    if isinstance(cause, (OSError, HTTPException)):
        return _transient(what, cause)
    return UnreachableError(what, why=_reason(error))


def _context() -> ssl.SSLContext:
    """Trust what Nix trusts (source: src/libstore/globals.cc, getDefaultSSLCertFile)."""
    named = os.environ.get("NIX_SSL_CERT_FILE") or os.environ.get("SSL_CERT_FILE")
    for bundle in [named] if named else _BUNDLES:
        if os.path.isfile(bundle):
            with suppress(OSError):  # damaged like the rest of the store: Python's own default is next
                return ssl.create_default_context(cafile=bundle)
    return ssl.create_default_context()


def _logins(netrc_file: Optional[Path]) -> Tuple[Dict[str, Tuple[str, str]], str]:
    """Give user and password by host, the empty host being the default entry, and why there are none.

    A file that cannot be read must not keep public caches from being asked.
    """
    if netrc_file is None:
        return {}, ""
    try:
        entries = netrc.netrc(str(netrc_file)).hosts
    except (OSError, UnicodeDecodeError) as error:
        return {}, f"{netrc_file} cannot be read: {error}"
    except netrc.NetrcParseError as error:  # whose message may quote a password
        return {}, f"{netrc_file}:{error.lineno} is no line of a netrc file"
    logins = {
        "" if host == "default" else host: (user or "", password or "")
        for host, (user, _, password) in entries.items()
    }
    return logins, ""
