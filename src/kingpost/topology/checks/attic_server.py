"""An Attic server's own settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from kingpost.base.units import format_size
from kingpost.topology.checks.registry import Example, Finding, Path, check
from kingpost.topology.checks.scene import hint
from kingpost.topology.redaction import is_secret_name, secret_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.checks.scene import Scene

#: Top-level keys of atticd.toml (attic server/src/config.rs) that a user may set, with their types.
_FREE: Final[dict[str, type]] = {
    "require-proof-of-possession": bool,
    "soft-delete-caches": bool,
    "substituter-endpoint": str,
}
#: What fastcdc's `ronomon` module asserts (src/ronomon/mod.rs).
_CHUNK_BOUNDS: Final = {
    "min_size": (64, 64 * 1024**2),
    "avg_size": (256, 256 * 1024**2),
    "max_size": (1024, 1024**3),
}
#: Those that are rendered, with where to declare them instead.
_RENDERED: Final = {
    "listen": "`port` (and `bind`)",
    "allowed-hosts": "`allowed_hosts`",
    "api-endpoint": "`api_endpoint`",
    "max-nar-info-size": "`max_nar_info_size`",
    "database": "`database`",
    "storage": "`storage`",
    "chunking": "`chunking`",
    "compression": "`compression`",
    "garbage-collection": "`gc_interval` and `default_retention`",
    "jwt": "`algorithm` and `secret`",
}


@check(
    "KP-ATTIC-SETTING",
    title="`settings` holds keys that atticd knows and nothing else sets",
    why="atticd does not start with an unknown key; one that is rendered would contradict what is derived",
    fix=f"of atticd.toml's top-level keys, these are free: {', '.join(_FREE)}",
    example=Example(
        bad='[attic.home.settings]\nlisten = "[::]:8080"',
        good="[attic.home.settings]\nsoft-delete-caches = true",
        at=("attic", "home", "settings", "listen"),
    ),
)
def settings(scene: Scene) -> Iterator[Finding]:
    """Find settings that are rendered, unknown, or of the wrong type."""
    for server, attic in scene.topology.attic.items():
        for key, value in attic.settings.items():
            path: Path = ("attic", server, "settings", key)
            if key in _RENDERED:
                yield Finding(
                    path,
                    f"`{key}` of {server} is rendered from {_RENDERED[key]}",
                    fix=f"use {_RENDERED[key]}",
                )
            elif key not in _FREE:
                if not is_secret_name(key):  # KP-SECRET-VALUE has more to say about those
                    yield Finding(path, f"atticd knows no setting `{key}`", fix=hint(key, _FREE, "setting"))
            elif not isinstance(value, _FREE[key]):
                words = {bool: "true or false", str: "a text"}
                yield Finding(path, f"`{key}` of {server} is {words[_FREE[key]]}", fix="correct the value")


@check(
    "KP-ATTIC-SLASH",
    title="An Attic endpoint ends with a slash",
    why="Attic appends to it as it stands: without the slash clients are sent to https://hostNAME",
    fix="append `/`",
    example=Example(
        bad='[attic.home]\napi_endpoint = "https://attic.example.org"',
        good='[attic.home]\napi_endpoint = "https://attic.example.org/"',
        at=("attic", "home", "api_endpoint"),
    ),
)
def slash(scene: Scene) -> Iterator[Finding]:
    """Find endpoints without their final slash."""
    for server, attic in scene.topology.attic.items():
        if attic.api_endpoint and not attic.api_endpoint.endswith("/"):
            path: Path = ("attic", server, "api_endpoint")
            yield Finding(
                path, f"the api_endpoint of {server} has no final slash", fix=f'write "{attic.api_endpoint}/"'
            )
        other = attic.settings.get("substituter-endpoint")
        if isinstance(other, str) and not other.endswith("/"):
            path = ("attic", server, "settings", "substituter-endpoint")
            yield Finding(
                path, f"the substituter-endpoint of {server} has no final slash", fix=f'write "{other}/"'
            )


@check(
    "KP-ATTIC-CHUNKING",
    title="Chunk sizes are in order, minimum to maximum, and within the chunker's bounds",
    why="outside of its bounds the chunker panics at the first upload; with a maximum that is not above the minimum it"
    " never finds a chunk, and the upload never ends; with an average outside of the two it cuts by size, not by"
    " content, and what paths share is stored again",
    fix="for example min_size 16KiB, avg_size 64KiB, max_size 256KiB; to chunk nothing, nar_size_threshold 0",
    example=Example(
        bad='[attic.home.chunking]\nmin_size = "128KiB"\navg_size = "64KiB"',
        good='[attic.home.chunking]\nmin_size = "16KiB"\navg_size = "64KiB"',
        at=("attic", "home", "chunking"),
    ),
)
def chunking(scene: Scene) -> Iterator[Finding]:
    """Find chunk sizes that fastcdc's `ronomon` module, as Attic drives it (server/src/chunking), cannot use."""
    for server, attic in scene.topology.attic.items():
        sizes = attic.chunking
        path: Path = ("attic", server, "chunking")
        if sizes.nar_size_threshold == 0:
            continue  # nothing is chunked
        for key, (least, most) in _CHUNK_BOUNDS.items():
            if not least <= getattr(sizes, key) <= most:
                yield Finding(
                    (*path, key),
                    f"the {key} of {server} is not between {format_size(least)} and {format_size(most)}",
                )
                break
        else:
            if not sizes.min_size <= sizes.avg_size <= sizes.max_size or sizes.min_size == sizes.max_size:
                yield Finding(path, f"the chunk sizes of {server} are not in order")


@check(
    "KP-ATTIC-PORT",
    title="atticd on a host listens on a port from 1024",
    why="its unit has no capability to bind a lower one, so it fails at start",
    fix="choose a higher port, and put a reverse proxy before it for 80 or 443",
    example=Example(
        bad="[attic.home]\nport = 443",
        good='[attic.home]\nport = 8083\npublic_url = "https://attic.example.org"',
        at=("attic", "home", "port"),
    ),
)
def low_port(scene: Scene) -> Iterator[Finding]:
    """Find Attic servers on a host with a privileged port."""
    for server, attic in scene.topology.attic.items():
        if attic.host and attic.port < 1024:
            yield Finding(
                ("attic", server, "port"), f"atticd of {server} may not listen on port {attic.port}"
            )


@check(
    "KP-ATTIC-ALLOWED-HOST",
    title="`allowed_hosts` holds Host headers: a name or address, with its port",
    why="Attic compares the whole header: a URL, or a port that is missing or too much, matches nothing, and callers"
    " get 400",
    fix='write what stands between `//` and `/` in the URL, for example "attic.example.org" or "10.0.0.1:8083"',
    example=Example(
        bad='[attic.home]\nallowed_hosts = ["https://attic.example.org/"]',
        good='[attic.home]\nallowed_hosts = ["attic.example.org"]',
        at=("attic", "home", "allowed_hosts", 0),
    ),
)
def allowed_hosts(scene: Scene) -> Iterator[Finding]:
    """Find allowed hosts that are no Host header."""
    for server, attic in scene.topology.attic.items():
        for index, host in enumerate(attic.allowed_hosts):
            if not host or "/" in host or any(c.isspace() for c in host):
                netloc = urlsplit(host).netloc if "//" in host else host.strip().partition("/")[0]
                netloc = "" if "@" in netloc or secret_shape(host) else netloc
                yield Finding(
                    ("attic", server, "allowed_hosts", index),
                    f"an allowed host of {server} is no Host header",
                    fix=f'write "{netloc}"' if netloc else "",
                )
