"""What the two halves of store-fix share: the store pointed at, what a path is, where bytes come from.

The core (scan, plan, apply) knows sources only through `Source` and `Rebuilder`; `sources/__init__.py` makes
them:

    open_sources(store, settings, extra) -> list[Source]     in the order in which they are asked
    open_rebuilder(store, settings) -> Rebuilder | None      None: no Nix here, or not for this root

`remote.run(host, argv) -> int` runs the one-file program on another machine (`--host`).
Fetched paths are entered into the database by `register.register(connection, infos)` of the core, in one
transaction; sources never write to the database.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, Mapping, Optional, Protocol, Sequence, Tuple, Union

from .errors import SourceError, StoreFixError

# Nix's base 32 leaves out e, o, u and t (source: src/libutil/hash.cc). A name has at most 211 characters and
# is not `.` or `..`, nor one of these followed by a dash (source: src/libstore/path.cc, checkName).
HASH_PART = re.compile(r"[0-9abcdfghijklmnpqrsvwxyz]{32}")
BASE_NAME = re.compile(r"[0-9abcdfghijklmnpqrsvwxyz]{32}-(?!\.\.?(-|\Z))[0-9a-zA-Z+\-._?=]{1,211}")

Advance = Callable[[int], None]
"""Called with the number of NAR bytes read since the last call; may be called from any thread."""


@dataclass(frozen=True)
class StoreRoot:
    """The one store that this run was pointed at. Nothing outside of it is ever written.

    Attributes:
        root: The directory that logical paths are below: `/`, or the mount point of another machine's disk.
        store_dir: The logical store directory, `/nix/store`; prefix of every path in the database.
        real_store: Where it is on this machine.
        state_dir: Where `db/`, `gcroots/`, `profiles/`, `gc.lock` are on this machine.
        log_dir: Where build logs are on this machine.
        conf_dir: Where `nix.conf` is on this machine.

    """

    root: Path
    store_dir: str
    real_store: Path
    state_dir: Path
    log_dir: Path
    conf_dir: Path

    @property
    def database(self) -> Path:
        """Give the place of the database."""
        return self.state_dir / "db" / "db.sqlite"

    @property
    def is_live_system(self) -> bool:
        """Tell whether this is the store of the running machine, not one of a mounted disk or a chroot."""
        return self.root == Path("/")

    def real(self, store_path: str) -> Path:
        """Give the place on this machine of a store path such as `/nix/store/<hash>-name`.

        Raises:
            StoreFixError: It is no direct child of this store with a valid name, so it is never touched.

        """
        return self.real_store / self.base_name(store_path)

    def base_name(self, store_path: str) -> str:
        """Give `<hash>-name` of a store path of this store.

        Raises:
            StoreFixError: It is no valid path of this store.

        """
        head, _, name = store_path.rpartition("/")
        if head != self.store_dir or not BASE_NAME.fullmatch(name):
            raise StoreFixError(
                "this is no path of the store",
                where=repr(store_path),
                why=f"paths of this store are {self.store_dir}/<32 characters>-<name>",
            )
        return name

    def path(self, base_name: str) -> str:
        """Give the logical store path of a base name."""
        return f"{self.store_dir}/{base_name}"

    def relocate(self, logical: Union[str, os.PathLike[str]]) -> Path:
        """Give the place on this machine of an absolute path as the store's own machine would see it."""
        return (
            Path(f"{self.root}/{os.fspath(logical).lstrip('/')}")
            if not self.is_live_system
            else Path(logical)
        )


@dataclass(frozen=True)
class Settings:
    """What `nix.conf` of the store says, as far as a repair needs it (read by `settings.read`).

    Attributes:
        substituters: Store URLs in the order in which Nix asks them.
        trusted_public_keys: Key name to the base64 text of its ed25519 public key.
        require_sigs: Whether an unsigned path is refused.
        fsync_store_paths: Whether Nix flushes paths before registering them (off by default).
        netrc_file: Passwords for caches; None if not there.
        connect_timeout: Seconds; 0 is no limit.

    """

    substituters: Tuple[str, ...] = ()
    trusted_public_keys: Mapping[str, str] = field(default_factory=dict)
    require_sigs: bool = True
    fsync_store_paths: bool = False
    netrc_file: Optional[Path] = None
    connect_timeout: int = 15


@dataclass(frozen=True)
class PathInfo:
    """What is known of one valid path: a row of ValidPaths with its references, or a narinfo.

    Attributes:
        path: The full store path.
        nar_hash: `sha256:` and 64 hexadecimal digits, as the database has it.
        nar_size: Bytes of the NAR; 0 is unknown.
        references: Full store paths, sorted, itself included if it refers to itself.
        deriver: Full store path of the .drv; empty if unknown.
        sigs: `name:base64` each.
        ca: The content address, empty for an input-addressed path.
        ultimate: It was built on this machine.
        registered: Seconds since the epoch; 0 is now.

    """

    path: str
    nar_hash: str
    nar_size: int
    references: Tuple[str, ...] = ()
    deriver: str = ""
    sigs: Tuple[str, ...] = ()
    ca: str = ""
    ultimate: bool = False
    registered: int = 0


@dataclass(frozen=True)
class Wanted:
    """A path to ask a source for.

    Attributes:
        path: The full store path.
        nar_hash: Its hash if our own database still knows it, else empty. An answer with this hash needs no
            signature, for the bytes prove themselves; with any other, one by a trusted key.

    """

    path: str
    nar_hash: str = ""


Answer = Union[PathInfo, SourceError]
"""What a source says of a path that it knows: usable, or why not. Paths that it lacks are left out."""


class Source(Protocol):
    """Where bytes come from: a binary cache, a directory, another machine.

    `fetch` may be called by up to four threads at once; a source that cannot do that serializes by itself.
    """

    def describe(self) -> str:
        """Give a short name for plans and messages, without secrets: `https://cache.example.org`."""

    def query(self, wanted: Sequence[Wanted]) -> Dict[str, Answer]:
        """Ask for many paths at once, concurrently or in one session as it suits the source.

        Only answers that may be registered come as PathInfo: signed by a trusted key, content-addressed
        (and checked when fetched), of the hash wanted, or from a source that the user trusts by naming it
        (a peer). Otherwise UntrustedError.

        Raises:
            UnreachableError: The source as a whole does not answer.

        """

    def fetch(self, info: PathInfo, into: Path, advance: Advance) -> None:
        """Unpack the NAR of a path at `into`, which does not exist yet, in a directory that does.

        NAR hash and size are checked; modes are 0444/0555, times 1, owner the caller; never follows a
        symlink nor writes outside `into`; every file and directory is flushed to the disk before it
        returns. What is at `into` after an error is for the caller to remove.

        Raises:
            SourceError: With the source's name in `where`.

        """

    def close(self) -> None:
        """End connections and child processes. May be called twice."""


class Rebuilder(Protocol):
    """Real Nix, asked to rebuild registered paths in place (`nix-store --repair-path`).

    Called while this program holds no lock that keeps Nix from working.
    """

    def describe(self) -> str:
        """Give a short name: `nix-store 2.34.8 in /run/current-system/sw/bin`."""

    def obstacle(self, path: str, deriver: str) -> str:
        """Say why this path cannot be rebuilt (no .drv, other system, no sandbox); empty if it may work."""

    def rebuild(self, path: str, deriver: str) -> None:
        """Rebuild one path in place.

        Raises:
            SourceError: With the last lines that Nix wrote in `why`.

        """
