"""The one way to speak HTTP: bounded in time, without surprises, with errors that say what happened.

httpx is imported on first use, so that commands which need no network do not pay for it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from kingpost import __version__
from kingpost.base.errors import InvalidInputError, UsageError

if TYPE_CHECKING:
    import ssl

    import httpx

USER_AGENT: Final = f"kingpost/{__version__}"
_SYSTEM_AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"


def _no_auth(request: httpx.Request) -> httpx.Request:
    """Leave a request as it is; httpx reads `~/.netrc` when a client has no auth at all."""
    return request


def require_url(text: str, what: str) -> str:
    """Give an http(s) URL without its final slashes, or say what is wrong with it.

    Args:
        text: What the user wrote.
        what: What it is, for the error: `--server`.

    Raises:
        UsageError: It has another scheme, no host, blanks or an impossible port.

    """
    try:
        parts = urlsplit(text)
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        whole = False
    if not whole or any(character.isspace() or not character.isprintable() for character in text):
        raise UsageError(f"{what} {text!r} is no URL", fix="write for example http://127.0.0.1:8080")
    return text.rstrip("/")


def _authorities() -> ssl.SSLContext | bool:
    """Trust whom Nix trusts (src/libstore/globals.cc): what is set, else the system's, else certifi's list.

    A cache behind an authority of one's own must not look broken to a probe while Nix is content with it.
    """
    import ssl  # noqa: PLC0415 - slow to import; see the module docstring

    named = [os.environ.get(name, "") for name in ("NIX_SSL_CERT_FILE", "SSL_CERT_FILE")]
    file = next((name for name in [*named, _SYSTEM_AUTHORITIES] if name and Path(name).exists()), None)
    if file is None:
        return True
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        raise InvalidInputError(
            f"the certificate authorities cannot be read: {error.strerror or error}",
            where=file,
            fix="set NIX_SSL_CERT_FILE to a file of PEM certificates",
        ) from error


def client(
    *,
    connect_timeout: float = 10.0,
    read_timeout: float = 60.0,
    connections: int = 25,
    follow_redirects: bool = False,
) -> httpx.Client:
    """Give an HTTP client.

    The environment's proxies apply, as they do for Nix's curl; `~/.netrc` does not, so that a probe
    without a token really has none. Redirects are followed only on request: a probe wants to see each hop.

    Args:
        connect_timeout: Seconds for the TCP and TLS handshakes.
        read_timeout: Seconds without a byte before a body counts as stalled.
        connections: Most connections at once.
        follow_redirects: Follow them (at most 20).

    """
    import httpx  # noqa: PLC0415 - slow to import; see the module docstring

    return httpx.Client(
        headers={"User-Agent": USER_AGENT},
        timeout=httpx.Timeout(read_timeout, connect=connect_timeout),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        follow_redirects=follow_redirects,
        trust_env=True,
        verify=_authorities(),
        auth=_no_auth,
    )
