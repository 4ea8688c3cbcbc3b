"""What nix.conf says, as far as a repair needs it.

Source: src/libutil/configuration.cc, AbstractConfig::applyConfig, and src/libstore/globals.hh for defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .interface import Settings, StoreRoot

if TYPE_CHECKING:
    from pathlib import Path

_ALIASES = {
    "binary-caches": "substituters",
    "extra-binary-caches": "extra-substituters",
    "binary-cache-public-keys": "trusted-public-keys",
}
_DEFAULTS = {
    "substituters": "https://cache.nixos.org/",
    "trusted-public-keys": "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
    "netrc-file": "/etc/nix/netrc",
}
_DEEPEST_INCLUDE = 10


def read(store: StoreRoot, config: str = "") -> Settings:
    """Read `nix.conf` of the store that this run is pointed at.

    Lines that Nix would refuse are passed over: a broken setting must not stop a repair.

    Args:
        store: Whose configuration is wanted.
        config: Further lines, as NIX_CONFIG holds them.

    """
    raw = dict(_DEFAULTS)
    _apply(_text(store.conf_dir / "nix.conf"), store, store.conf_dir, raw, 0)
    _apply(config, store, store.conf_dir, raw, 0)
    keys: dict[str, str] = {}
    for word in raw["trusted-public-keys"].split():
        name, colon, key = word.partition(":")
        if colon:
            keys[name] = key
    netrc = store.relocate(raw["netrc-file"])
    timeout = raw.get("connect-timeout", "")
    return Settings(
        substituters=tuple(dict.fromkeys(raw["substituters"].split())),
        trusted_public_keys=keys,
        require_sigs=raw.get("require-sigs", "true") != "false",
        fsync_store_paths=raw.get("fsync-store-paths", "false") == "true",
        netrc_file=netrc if netrc.is_file() else None,
        connect_timeout=int(timeout) if timeout.isdecimal() else 15,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _apply(text: str, store: StoreRoot, directory: Path, raw: dict[str, str], depth: int) -> None:
    """Apply `name = value` lines and includes to `raw`; `extra-NAME` appends to NAME."""
    for line in text.splitlines():
        words: list[str] = line.split("#", 1)[0].split()
        if len(words) >= 2 and words[0] in ("include", "!include"):
            included: Path | None = store.relocate(words[1]) if words[1].startswith("/") else None
            if depth < _DEEPEST_INCLUDE:
                place = included or directory / words[1]
                _apply(_text(place), store, place.parent, raw, depth + 1)
        elif len(words) >= 2 and words[1] == "=":
            name = _ALIASES.get(words[0], words[0])
            value = " ".join(words[2:])
            if name.startswith("extra-"):
                name = name[len("extra-") :]
                value = f"{raw.get(name, '')} {value}".strip()
            raw[name] = value
