"""Pushing by the real clients, each with its secret in a file or the environment, never in argv."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from kingpost.base.errors import UsageError
from kingpost.base.files import write_atomically
from kingpost.base.process import find_program, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kingpost.base.process import Completed

_TIMEOUT: Final = 3600.0
#: Where paths are that attic and cachix leave out, because cache.nixos.org signed them.
NIXOS: Final = "https://cache.nixos.org"


class Client(ABC):
    """A client that publishes closures to one cache."""

    name: str
    #: Caches whose paths the client does not push.
    left_out: tuple[str, ...] = ()

    @abstractmethod
    def push(self, roots: Sequence[str]) -> Completed:
        """Push the closure of paths; gives what the client said, whatever its exit code.

        Raises:
            CannotLookError: The client is not installed, or did not end.

        """

    @property
    @abstractmethod
    def read_url(self) -> str:
        """Where the closure is to be read back."""


@dataclass(frozen=True, slots=True)
class NixCopy(Client):
    """`nix copy --to STORE`, to any store that Nix can write: file://, s3://, ssh://, http://."""

    store: str
    netrc: Path | None = None
    name = "nix copy"

    def push(self, roots: Sequence[str]) -> Completed:
        """Copy; credentials come from the netrc or, for S3, from AWS_* variables."""
        find_program("nix", fix="run this where Nix is installed")
        netrc = ["--option", "netrc-file", str(self.netrc)] if self.netrc else []
        argv = [
            "nix",
            "--extra-experimental-features",
            "nix-command",
            "copy",
            *netrc,
            "--to",
            self.store,
            *roots,
        ]
        return run(argv, timeout=_TIMEOUT, check=False)

    @property
    def read_url(self) -> str:
        """Give the store's own address; a file:// cache without the options for writing."""
        return self.store.partition("?")[0] if self.store.startswith("file:") else self.store


@dataclass(frozen=True, slots=True)
class AtticPush(Client):
    """`attic push`, with a configuration of its own: the user's logins are neither used nor changed."""

    url: str
    token_file: Path | None = None
    name = "attic push"
    left_out = (NIXOS,)

    def push(self, roots: Sequence[str]) -> Completed:
        """Push; the token stays in its file, which the configuration names."""
        find_program("attic", fix="install attic-client; it has to be the one that your jobs use")
        server, _, cache = self.url.rstrip("/").rpartition("/")
        if not urlsplit(server).netloc or not cache:
            raise UsageError(
                f"{self.url} names no cache of an Attic server", fix="write http://HOST:PORT/CACHE"
            )
        config = f'default-server = "probe"\n\n[servers.probe]\nendpoint = {_toml(server + "/")}\n'
        if self.token_file:
            config += f"token-file = {_toml(str(self.token_file.resolve()))}\n"
        with tempfile.TemporaryDirectory(prefix="kingpost-probe-") as home:
            directory = Path(home) / "attic"
            directory.mkdir(mode=0o700)
            write_atomically(directory / "config.toml", config, mode=0o600)
            argv = ["attic", "push", f"probe:{cache}", *roots]
            return run(argv, env={"XDG_CONFIG_HOME": home}, timeout=_TIMEOUT, check=False)

    @property
    def read_url(self) -> str:
        """Give the cache's own address."""
        return self.url


@dataclass(frozen=True, slots=True)
class CachixPush(Client):
    """`cachix push NAME`; the token goes through the environment, as Cachix takes it."""

    url: str
    cache: str
    token: str = field(default="", repr=False)
    name = "cachix push"
    left_out = (NIXOS,)

    def push(self, roots: Sequence[str]) -> Completed:
        """Push paths given on standard input."""
        find_program("cachix", fix="install cachix; it has to be the one that your jobs use")
        env = {"CACHIX_AUTH_TOKEN": self.token} if self.token else {}
        stdin = "".join(f"{root}\n" for root in roots)
        return run(["cachix", "push", self.cache], stdin=stdin, env=env, timeout=_TIMEOUT, check=False)

    @property
    def read_url(self) -> str:
        """Give the cache's own address."""
        return self.url


def _toml(text: str) -> str:
    import tomlkit  # noqa: PLC0415 - needed only here

    return tomlkit.string(text).as_string()
