"""Which settings a host's Nix knows, and what kingpost sets.

NixOS builds `nix.conf` with `nix config show` as a check: one unknown setting fails the whole system's build.
So what a version does not know is left out.
"""

from __future__ import annotations

from typing import Any, Final

SINCE: Final[dict[str, tuple[int, int]]] = {
    "connect-timeout": (2, 0),
    "download-attempts": (2, 0),
    "fallback": (2, 0),
    "stalled-download-timeout": (2, 0),
    "netrc-file": (2, 0),
    "fsync-store-paths": (2, 25),
    "narinfo-cache-meta-ttl": (2, 34),
}
"""First version that knows a setting: the first release tag of NixOS/nix whose sources name it.

`download-attempts` is an alias of `filetransfer-retry-attempts` since 2.35 and works everywhere.
"""

RESILIENCE: Final[dict[str, Any]] = {
    # Without it a cache that fails in the middle of a download fails the build.
    "fallback": True,
    # The default was 0 (for ever) up to 2.28: a dead cache then stops every build.
    "connect-timeout": 5,
    "stalled-download-timeout": 90,
    "download-attempts": 3,
    # A power cut otherwise leaves empty files in paths that the database calls valid.
    "fsync-store-paths": True,
    # A cache's nix-cache-info is otherwise remembered for a week, priority and all.
    "narinfo-cache-meta-ttl": 3600,
}
"""What every host sets so that a cache that is slow, dead or moved costs seconds, not builds."""


def version_of(text: str) -> tuple[int, int]:
    """Give `2.31` or `2.31.2` as (2, 31)."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def known_to(version: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Give those of the settings that a version of Nix knows.

    Raises:
        KeyError: A setting that the table does not list; add it with the version that brought it.

    """
    have = version_of(version)
    return {name: value for name, value in settings.items() if SINCE[name] <= have}
