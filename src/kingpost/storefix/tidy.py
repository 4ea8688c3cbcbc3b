"""Remove leftovers and move dead links out of the way, each checked again for being what the plan says."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from . import effects, leftovers, nar
from .database import SCHEMA_VERSION
from .errors import StoreFixError
from .locks import is_held
from .sources import hashes

if TYPE_CHECKING:
    from .backup import Run
    from .interface import StoreRoot
    from .plan import Action

_CACHE = re.compile(r"binary-cache-v\d+\.sqlite")


def clean(store: StoreRoot, action: Action) -> str:
    """Remove one leftover; give why not, empty if it is gone.

    Raises:
        OSError: The disk does not let it.

    """
    subject = action.subject
    schema = store.state_dir / "db" / "schema"
    if subject == str(schema):
        effects.write_file(schema, SCHEMA_VERSION.encode())
        return ""
    if subject.startswith(store.store_dir + "/"):
        return _clean_store(store, subject[len(store.store_dir) + 1 :])
    path = Path(subject)
    if path.parent == store.state_dir / "builds":
        effects.remove_below(path.parent, path.name)
        return ""
    if _CACHE.fullmatch(path.name):
        for suffix in ("", "-wal", "-shm", "-journal"):
            effects.remove_below(path.parent, path.name + suffix)
        return ""
    return "it is nothing that this program removes"


def _clean_store(store: StoreRoot, name: str) -> str:
    if not os.path.lexists(store.real_store / name):
        return ""  # an earlier run has removed it
    directory = store.real_store
    if name.startswith(".links/"):
        directory, name = directory / ".links", name[len(".links/") :]
        if directory.is_symlink() or "/" in name:
            return "it is no file of .links"
        if not name.startswith(".tmp-link-") and _link_is_sound(directory / name, name):
            return "it is what its name says"
    elif "/" in name or not leftovers.trash(store, name):
        return "it is nothing that this program removes"
    elif name.endswith(".lock") and is_held(directory / name):
        return "it is in use"
    effects.remove_below(directory, name)
    return ""


def _link_is_sound(place: Path, name: str) -> bool:
    try:
        return nar.digest(place).nar_hash == "sha256:" + hashes.from_nix32(name, 32).hex()
    except (OSError, ValueError, nar.NotArchivableError):
        return False


def unroot(store: StoreRoot, run: Run, action: Action) -> None:
    """Move a link below gcroots or profiles into the directory of the run, from where undo brings it back.

    Raises:
        StoreFixError: It is not below the state directory.

    """
    link = Path(action.subject)
    inside = any(
        parent in link.parents for parent in (store.state_dir / "gcroots", store.state_dir / "profiles")
    )
    if not inside or ".." in link.parts:
        raise StoreFixError("this is no link below gcroots or profiles", where=action.subject)
    if not link.is_symlink():
        return
    effects.make_directory(run.directory / "links")
    aside = run.directory / "links" / str(len(os.listdir(run.directory / "links")))
    run.note(moved=str(link), aside=str(aside))
    effects.move(link, aside)
