"""Where bytes come from: binary caches, other machines, other disks, and rebuilding."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Mapping, Sequence
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from ..errors import CannotLookError, StoreFixError, UnreachableError, UsageError
from ..locate import locate
from . import rebuild, ssh_peer
from .disk import Disk
from .http_cache import BinaryCache
from .transport import Directory, Http

if TYPE_CHECKING:
    from ..interface import Answer, PathInfo, Rebuilder, Settings, Source, StoreRoot, Wanted

_SCHEMES = "https://, http://, file://, ssh://, ssh-ng:// or a directory"


def open_sources(store: StoreRoot, settings: Settings, extra: Sequence[str] = ()) -> List[Source]:
    """Give the sources in the order in which they are asked: those that the user named, then nix.conf's.

    Nothing is asked yet. A substituter of a kind that cannot be asked from here (S3 needs signed requests) is
    in the list as one that does not answer, so that it shows.

    Args:
        store: The store to bring back, which is no source of its own.
        settings: Substituters, keys, netrc. `require_sigs=False` takes what nothing speaks for.
        extra: URLs or directories, as `--from` has them.

    Raises:
        UsageError: One of `extra` cannot be a source.

    """
    sources: List[Source] = []
    for url in extra:
        try:
            sources.append(_open(store, settings, url))
        except StoreFixError as error:
            raise UsageError(
                f"{_public(url)} cannot be a source",
                where="--from",
                why=str(error),
                fix=f"name one of {_SCHEMES}",
            ) from None
    for url in settings.substituters:
        try:
            sources.append(_open(store, settings, url))
        except StoreFixError as error:
            sources.append(_Unusable(_public(url), error))
    return sources


def open_rebuilder(store: StoreRoot, settings: Settings) -> Rebuilder | None:
    """Give a Nix that can rebuild into this store; None if there is none that starts."""
    return rebuild.find(store, settings)


def _public(url: str) -> str:
    """Give a URL without a password, and without the parameters that only Nix reads."""
    parts = urlsplit(url)
    if parts.scheme in ("ssh", "ssh-ng"):
        return urlunsplit((parts.scheme, parts.netloc, "", "", ""))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def _open(store: StoreRoot, settings: Settings, url: str) -> Source:
    parts = urlsplit(url)
    name = _public(url)
    keys = settings.trusted_public_keys
    parameters = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    checked = settings.require_sigs and parameters.get("trusted") not in ("1", "true")
    if parts.scheme in ("http", "https"):
        http = Http(url, netrc_file=settings.netrc_file, connect_timeout=settings.connect_timeout)
        return BinaryCache(name, http, store.store_dir, keys, require_sigs=checked, stores=_stores(store))
    if parts.scheme in ("ssh", "ssh-ng"):
        argv = ssh_peer.command(url, settings.connect_timeout)
        return ssh_peer.SshPeer(name, argv, keys, require_sigs=checked)
    if parts.scheme == "file" or (not parts.scheme and url.startswith(("/", "."))):
        return _open_directory(store, keys, Path(unquote(parts.path)), name, checked=checked)
    if parts.scheme == "local" and "root" in parameters:
        return _open_directory(store, keys, Path(parameters["root"]), name, checked=checked)
    raise UnreachableError(
        f"store-fix cannot read from {parts.scheme or repr(url)} stores", fix=f"known: {_SCHEMES}"
    )


def _open_directory(
    store: StoreRoot, keys: Mapping[str, str], directory: Path, name: str, *, checked: bool
) -> Source:
    """Open a binary cache if it is one, else the store below the directory."""
    if (directory / "nix-cache-info").is_file():
        cache = Directory(directory)
        return BinaryCache(name, cache, store.store_dir, keys, require_sigs=checked, stores=_stores(store))
    try:
        other = locate(os.fspath(directory), store_dir=store.store_dir)
    except CannotLookError:
        raise UnreachableError(
            f"{directory} is neither a binary cache nor the root of a machine's disk",
            why=f"there is no {directory}/nix-cache-info and no {directory}{store.store_dir}",
        ) from None
    if other.real_store.resolve() == store.real_store.resolve():
        raise UnreachableError(f"{directory} holds the store that is to be repaired")
    return Disk(name, other, keys, require_sigs=checked)


def _stores(store: StoreRoot) -> List[Path]:
    """Give the stores whose programs and libraries may run here."""
    return list(dict.fromkeys([store.real_store, Path("/nix/store")]))


class _Unusable:
    """A configured substituter that cannot be asked; says so when it is."""

    def __init__(self, name: str, error: StoreFixError) -> None:
        self._name = name
        self._error = error

    def describe(self) -> str:
        """Give its URL."""
        return self._name

    def _refusal(self) -> UnreachableError:
        return UnreachableError(self._error.what, where=self._name, why=self._error.why, fix=self._error.fix)

    def query(self, wanted: Sequence[Wanted]) -> Dict[str, Answer]:  # noqa: ARG002  # as in Source
        """Say why it cannot be asked."""
        raise self._refusal()

    def fetch(self, info: PathInfo, into: Path, advance: object) -> None:  # noqa: ARG002  # as in Source
        """Say why it cannot be asked."""
        raise self._refusal()

    def close(self) -> None:
        """Nothing is held."""
