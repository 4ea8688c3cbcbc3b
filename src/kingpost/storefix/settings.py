"""Read `nix.conf` as Nix does, for the store pointed at, even if Nix or the file itself is lost.

Later lines win, `extra-NAME` appends, `include` and `!include` are relative to their file (source: NixOS/nix
src/libutil/configuration.cc). On a NixOS machine `/etc/nix/nix.conf` is a symlink into the store: below a
mounted root every absolute symlink is followed inside of that root, and a file that is lost is no reason to
stop, for the defaults (cache.nixos.org) may bring it back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, Iterator, List, Tuple

from .errors import CannotLookError
from .interface import Settings
from .locate import resolve_inside

if TYPE_CHECKING:
    from .interface import StoreRoot

DEFAULT_SUBSTITUTERS = "https://cache.nixos.org/"
DEFAULT_KEYS = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="

_ALIASES = {
    "binary-caches": "substituters",
    "extra-binary-caches": "extra-substituters",
    "binary-cache-public-keys": "trusted-public-keys",
    "extra-binary-cache-public-keys": "extra-trusted-public-keys",
}
_LISTS = ("substituters", "trusted-public-keys")
_DEEPEST_INCLUDE = 10

Remark = Callable[[str], None]
Pair = Tuple[str, str]


def read(store: StoreRoot, config: str = "", remark: Remark = lambda _: None) -> Settings:
    """Give what `nix.conf` says, with Nix's defaults for the rest.

    Lines that Nix would refuse are passed over: a broken setting must not stop a repair.

    Args:
        store: Its `conf_dir` holds `nix.conf`. For the running system the user's files come on top, as for
            Nix; if `nix.conf` is lost there, Nix itself is asked.
        config: Further lines that win, as NIX_CONFIG holds them.
        remark: Told of each file or line that could not be used.

    """
    lines: List[Pair] = []
    main = store.conf_dir / "nix.conf"
    if not _parse_file(store, main, lines, remark, 0):
        if store.is_live_system:
            lines += _ask_nix(remark)
        else:
            remark(f"{main} is not there; the defaults of Nix are used")
    if store.is_live_system:
        for path in reversed(_user_files()):
            _parse_file(store, path, lines, remark, 0)
    lines += _parse(store, config, store.conf_dir / "NIX_CONFIG", remark, 0)
    return _settings(store, lines)


def _settings(store: StoreRoot, lines: List[Pair]) -> Settings:
    values = {"substituters": DEFAULT_SUBSTITUTERS, "trusted-public-keys": DEFAULT_KEYS}
    for given, value in lines:
        name = _ALIASES.get(given, given)
        if name.startswith("extra-") and name[6:] in _LISTS:
            values[name[6:]] = f"{values[name[6:]]} {value}"
        else:
            values[name] = value
    keys: Dict[str, str] = {}
    for word in values["trusted-public-keys"].split():
        key, colon, text = word.partition(":")
        if colon:
            keys[key] = text
    named = values.get("netrc-file")
    netrc = store.relocate(named) if named else store.conf_dir / "netrc"
    timeout = values.get("connect-timeout", "")
    return Settings(
        substituters=tuple(dict.fromkeys(values["substituters"].split())),
        trusted_public_keys=keys,
        require_sigs=_is_true(values.get("require-sigs", "true")),
        fsync_store_paths=_is_true(values.get("fsync-store-paths", "false")),
        netrc_file=netrc if netrc.is_file() else None,
        connect_timeout=int(timeout) if timeout.isascii() and timeout.isdigit() else 15,
    )


def _is_true(value: str) -> bool:
    return value in ("true", "yes", "1")


def _parse_file(store: StoreRoot, path: Path, lines: List[Pair], remark: Remark, depth: int) -> bool:
    """Append the settings of a file; False if it is not there or cannot be read."""
    try:
        real = resolve_inside(store.root, f"/{path.relative_to(store.root)}")
        text = real.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if os.path.lexists(path):
            remark(f"{path} leads to {real}, which is lost; what it says is not known")
        return False
    except (OSError, CannotLookError) as error:
        remark(f"{path} cannot be read: {error}")
        return False
    lines += _parse(store, text, path, remark, depth)
    return True


def _parse(store: StoreRoot, text: str, path: Path, remark: Remark, depth: int) -> Iterator[Pair]:
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0] in ("include", "!include") and len(words) == 2:
            included: List[Pair] = []
            other = Path(words[1])
            other = store.relocate(other) if other.is_absolute() else path.parent / other
            if depth >= _DEEPEST_INCLUDE:
                remark(f"{path}:{number}: files include each other without end")
            elif not _parse_file(store, other, included, remark, depth + 1) and words[0] == "include":
                remark(f"{path}:{number}: {words[1]} is included but is not there")
            yield from included
        elif len(words) >= 2 and words[1] == "=":
            yield words[0], " ".join(words[2:])
        else:
            remark(f"{path}:{number}: neither `name = value` nor an include")


def _user_files() -> List[Path]:
    """Give the user's files, the most important first (source: src/libstore/globals.cc)."""
    named = os.environ.get("NIX_USER_CONF_FILES")
    if named is not None:
        return [Path(name) for name in named.split(":") if name]
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    directories = [home, *os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    return [Path(directory) / "nix" / "nix.conf" for directory in directories if directory]


def _ask_nix(remark: Remark) -> List[Pair]:
    """Ask Nix, which knows where its file is; nothing if there is no Nix that works."""
    nix = shutil.which("nix")
    if nix is None:
        return []
    for words in (["config", "show"], ["show-config"]):
        argv = [nix, "--extra-experimental-features", "nix-command", *words]
        try:
            done = subprocess.run(
                argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=20, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            remark(f"{nix} does not work ({error}); the defaults of Nix are used")
            return []
        if done.returncode == 0:
            pairs = (line.split(" = ", 1) for line in done.stdout.decode("utf-8", "replace").splitlines())
            return [
                (pair[0], pair[1]) for pair in pairs if len(pair) == 2 and not pair[0].startswith("extra-")
            ]
    remark(f"{nix} does not say its settings; the defaults of Nix are used")
    return []
