"""A binary cache over HTTP, fetched as Nix's client does, but with every redirect seen by itself.

Credentials go only to the host they are for: the presigned S3 address that Attic redirects to must not get the token.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import unquote, urljoin, urlsplit

import httpx

from kingpost.base.errors import InvalidInputError
from kingpost.base.http import client as http_client
from kingpost.cache.fetch import BinaryCache, Body, FetchError, Hop, Trouble, public_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.cache.fetch import Access

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MAX_HOPS: Final = 20
_ERROR_BYTES: Final = 16 * 1024


class HttpCache(BinaryCache):
    """A cache at an `http://` or `https://` address. May be used by several threads."""

    def __init__(self, url: str, access: Access) -> None:
        parts = urlsplit(url)
        self.url = public_url(url).rstrip("/")
        self._access = access
        self._credentials = _credentials(access)
        host = parts.hostname or ""
        if access.token:
            self._credentials[host] = ("", access.token)
        elif parts.password is not None:
            self._credentials[host] = (unquote(parts.username or ""), unquote(parts.password))
        self._client = http_client(
            connect_timeout=access.connect_timeout,
            read_timeout=access.stall_timeout,
            connections=access.connections,
        )

    @property
    def has_credentials(self) -> bool:
        """Whether requests to the cache itself carry any."""
        return (urlsplit(self.url).hostname or "") in self._credentials

    def get(self, location: str) -> Body:
        """Ask for a body and follow redirects, at most 20."""
        url = location if location.startswith(("http://", "https://")) else f"{self.url}/{location}"
        hops: tuple[Hop, ...] = ()
        while True:
            response = self._ask(url, hops)
            hop = Hop(public_url(url), response.status_code)
            if response.status_code == 200:
                return _HttpBody(response, (*hops, hop), self._access)
            with _discarded(response):
                if response.status_code not in _REDIRECTS:
                    raise _status_error(response, hop, hops)
                url = _redirect(response, url, hop, hops)
            hops = (*hops, hop)
            if len(hops) > _MAX_HOPS:
                message = f"more than {_MAX_HOPS} redirects"
                raise FetchError(Trouble.REDIRECT, message, url=hop.url, hops=hops)

    def _ask(self, url: str, hops: tuple[Hop, ...]) -> httpx.Response:
        # What curl sends for Nix; what comes encoded is decoded by the reader, in bounded memory.
        headers = {"Accept-Encoding": "zstd, br, gzip, deflate", "Accept": "*/*"}
        try:
            user = self._credentials.get(urlsplit(url).hostname or "")
            if user is not None:
                headers["Authorization"] = "Basic " + base64.b64encode(":".join(user).encode()).decode()
            return self._client.send(self._client.build_request("GET", url, headers=headers), stream=True)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            _translate(error, public_url(url), hops)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


@contextmanager
def _discarded(response: httpx.Response) -> Iterator[None]:
    """Close a response that is not needed, whatever happens; a short rest is read, to keep the connection."""
    try:
        yield
        with suppress(httpx.HTTPError, httpx.StreamError):
            for count, _ in enumerate(response.iter_raw()):
                if count:
                    break
    finally:
        response.close()


class _HttpBody(Body):
    def __init__(self, response: httpx.Response, hops: tuple[Hop, ...], access: Access) -> None:
        self.hops = hops
        self.encoding = response.headers.get("content-encoding", "").strip().lower()
        length = response.headers.get("content-length", "")
        self.announced = int(length) if length.isdecimal() else None
        self._response = response
        self._pieces: Iterator[bytes] = response.iter_raw()
        self._rest = b""
        self._throttle = access.throttle
        self._stall = access.stall_timeout
        self._window = (time.monotonic(), 0)

    def read(self, size: int, /) -> bytes:
        data = self._rest or self._next()
        if len(data) > size:
            data, self._rest = data[:size], data[size:]
        else:
            self._rest = b""
        return data

    def _next(self) -> bytes:
        try:
            data = next(self._pieces, b"")
        except (httpx.HTTPError, httpx.StreamError) as error:
            _translate(error, self.hops[-1].url, self.hops[:-1], received=self.received, begun=True)
        self.received += len(data)
        if self._throttle is not None:
            self._throttle.take(len(data))
        self._check_speed()
        return data

    def _check_speed(self) -> None:
        """Apply curl's rule: less than a byte a second over the whole time is a stall."""
        began, before = self._window
        now = time.monotonic()
        if now - began < self._stall:
            return
        if self.received - before < now - began and self._throttle is None:
            message = f"less than 1 byte/s came for {now - began:.1f} s"
            raise FetchError(
                Trouble.STALLED, message, url=self.hops[-1].url, hops=self.hops[:-1], received=self.received
            )
        self._window = (now, self.received)

    def close(self) -> None:
        with suppress(httpx.HTTPError):
            self._response.close()


def _credentials(access: Access) -> dict[str, tuple[str, str]]:
    """Read a netrc file: login and password by host."""
    if access.netrc is None:
        return {}
    import netrc  # noqa: PLC0415 - only when asked for

    try:
        hosts = netrc.netrc(str(access.netrc)).hosts
    except (OSError, netrc.NetrcParseError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.msg
        raise InvalidInputError(
            f"the netrc file cannot be read: {reason}", where=str(access.netrc)
        ) from error
    return {host: (login or "", password or "") for host, (login, _, password) in hosts.items()}


def _redirect(response: httpx.Response, url: str, hop: Hop, hops: tuple[Hop, ...]) -> str:
    location = response.headers.get("location", "")
    try:
        target = str(urljoin(url, location))
        parts = urlsplit(target)
    except ValueError:
        location = ""
    if not location or parts.scheme not in ("http", "https") or not parts.netloc:
        message = f"HTTP {hop.status} leads to no address"
        raise FetchError(Trouble.REDIRECT, message, url=hop.url, hops=hops, status=hop.status)
    return target


def _status_error(response: httpx.Response, hop: Hop, hops: tuple[Hop, ...]) -> FetchError:
    head = bytearray()
    with suppress(httpx.HTTPError, httpx.StreamError):
        for piece in response.iter_raw():
            head += piece
            if len(head) >= _ERROR_BYTES:
                break
    name, message = _server_error(bytes(head[:_ERROR_BYTES]))
    after = response.headers.get("retry-after", "")
    return FetchError(
        Trouble.BUCKET if name == "NoSuchBucket" else Trouble.STATUS,
        f"HTTP {hop.status}" + (f" {name}" if name else ""),
        url=hop.url,
        hops=hops,
        status=hop.status,
        server_error=name,
        server_message=message,
        retry_after=float(after) if after.isdecimal() else None,
    )


def _server_error(body: bytes) -> tuple[str, str]:
    """Give name and message of an error: Attic's JSON (server/src/error.rs) or S3's XML."""
    with suppress(ValueError):
        parsed: Any = json.loads(body)
        if isinstance(parsed, dict) and isinstance(parsed.get("error"), str):
            return parsed["error"][:80], str(parsed.get("message", ""))[:300]
    text = body.decode("utf-8", "replace")
    if "<Error>" in text and "<Code>" in text:
        code = text.partition("<Code>")[2].partition("</Code>")[0]
        message = text.partition("<Message>")[2].partition("</Message>")[0]
        return code[:80], message[:300]
    return "", " ".join(text.split())[:200]


def _translate(
    error: Exception, url: str, hops: tuple[Hop, ...], *, received: int = 0, begun: bool = False
) -> NoReturn:
    trouble, message = _diagnose(error, begun=begun)
    raise FetchError(trouble, message, url=url, hops=hops, received=received) from error


def _diagnose(error: Exception, *, begun: bool) -> tuple[Trouble, str]:
    """Tell what is behind an error of httpx."""
    found = _first(error, ssl.SSLError, socket.gaierror, OSError)
    text = str(found or error) or type(error).__name__
    closed = isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError, httpx.StreamError))
    rules: tuple[tuple[bool, Trouble, str], ...] = (
        (
            isinstance(error, httpx.ConnectTimeout),
            Trouble.CONNECT_TIMEOUT,
            "no connection within the time allowed",
        ),
        (isinstance(error, httpx.TimeoutException), Trouble.STALLED, "nothing came within the time allowed"),
        (
            isinstance(found, ssl.SSLError),
            Trouble.TLS,
            f"TLS: {getattr(found, 'verify_message', '') or text}",
        ),
        (isinstance(found, socket.gaierror), Trouble.NAME, f"the host name does not resolve: {text}"),
        (isinstance(found, ConnectionRefusedError), Trouble.REFUSED, "connection refused"),
        (begun and closed, Trouble.CUT, f"the transfer broke: {text}"),
        (
            isinstance(error, (httpx.ConnectError, httpx.ProxyError)),
            Trouble.UNREACHABLE,
            f"no connection: {text}",
        ),
        (
            isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)),
            Trouble.BAD_URL,
            f"no address: {text}",
        ),
        (
            isinstance(error, httpx.NetworkError),
            Trouble.LOST,
            f"the connection ended before an answer: {text}",
        ),
        ("disconnected" in text, Trouble.LOST, "the server closed the connection without an answer"),
        (isinstance(error, ValueError), Trouble.BAD_URL, f"no address: {text}"),
    )
    return next(((trouble, words) for holds, trouble, words in rules if holds), (Trouble.PROTOCOL, text))


def _first(error: BaseException | None, *kinds: type[BaseException]) -> BaseException | None:
    """Give the first cause of the most telling kind."""
    chain: list[BaseException] = []
    while error is not None and len(chain) < 20:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return next((one for kind in kinds for one in chain if isinstance(one, kind)), None)
