"""Which store this run is pointed at, and how its own paths look from here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CannotLookError, UsageError
from .interface import StoreRoot

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_LINKS = 40  # what the kernel allows before it says ELOOP


def resolve_inside(root: Path, logical: str, *, last: bool = True) -> Path:
    """Give the place here of an absolute path of the system below `root`, following its symlinks.

    Absolute links and `..` stay below the root, as they would after a chroot: the disk of another machine
    must never lead to files of this one.

    Args:
        root: Where the other system's `/` is.
        logical: A path as that system sees it.
        last: Whether a symlink at the very end is followed too.

    Raises:
        CannotLookError: The links form a loop.

    """
    todo = [part for part in logical.split("/") if part not in ("", ".")][::-1]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == ".":
            continue
        if part == "..":
            del done[-1:]
            continue
        here = root.joinpath(*done, part)
        if (todo or last) and here.is_symlink():
            links += 1
            if links > _MOST_LINKS:
                raise CannotLookError("too many symbolic links", where=f"{root}{logical}")
            target = str(here.readlink())
            if target.startswith("/"):
                done = []
            todo.extend(step for step in reversed(target.split("/")) if step)
            continue
        done.append(part)
    return root.joinpath(*done)


def locate(
    root: str | None = None,
    store_dir: str | None = None,
    state_dir: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> StoreRoot:
    """Find the store that the options and the environment point at.

    Without `root` this is the running system's store, where Nix's own variables (NIX_STORE_DIR,
    NIX_STATE_DIR, NIX_LOG_DIR, NIX_CONF_DIR) count. With a root they do not: they are this machine's.

    Args:
        root: Directory that holds `nix/store` and `nix/var` of a mounted disk or a chroot store.
        store_dir: Logical store directory if it is not /nix/store.
        state_dir: Logical state directory if it is not /nix/var/nix.
        environment: Usually os.environ.

    Raises:
        UsageError: A directory is not absolute.
        CannotLookError: There is no store.

    """
    base = Path(root).resolve() if root else Path("/")
    variables: Mapping[str, str] = {} if base != Path("/") else (environment or {})
    store_dir = store_dir or variables.get("NIX_STORE_DIR") or "/nix/store"
    state_dir = state_dir or variables.get("NIX_STATE_DIR") or "/nix/var/nix"
    log_dir = variables.get("NIX_LOG_DIR") or "/nix/var/log/nix"
    conf_dir = variables.get("NIX_CONF_DIR") or "/etc/nix"
    for name, directory in (("store", store_dir), ("state", state_dir), ("log", log_dir), ("conf", conf_dir)):
        if not directory.startswith("/"):
            raise UsageError(f"the {name} directory must be absolute", where=repr(directory))
    store_dir = "/" + "/".join(part for part in store_dir.split("/") if part)
    store = StoreRoot(
        root=base,
        store_dir=store_dir,
        real_store=resolve_inside(base, store_dir),
        state_dir=resolve_inside(base, state_dir),
        log_dir=resolve_inside(base, log_dir),
        conf_dir=resolve_inside(base, conf_dir),
    )
    for what, place in (("store", store.real_store), ("state directory", store.state_dir)):
        if not place.is_dir():
            raise CannotLookError(
                f"there is no Nix {what} here",
                where=str(place),
                fix="name the disk's mount point with --root, or --store-dir and --state-dir",
            )
    return store
