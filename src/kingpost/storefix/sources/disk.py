"""Another Nix store on this machine as a source: a mounted disk, a chroot store, a copy of a store."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Dict, List, Mapping, Optional, Sequence
from urllib.parse import quote

from ..errors import ContentError, SourceError, UnreachableError
from ..interface import PathInfo
from ..nar import NotArchivableError, dump
from . import hashes
from .trust import check, check_content
from .unpack import unpack

if TYPE_CHECKING:
    from pathlib import Path

    from ..interface import Advance, Answer, StoreRoot, Wanted

_ROW = "select id, path, hash, narSize, deriver, sigs, ca from ValidPaths where path = ?"
_REFERENCES = "select path from Refs join ValidPaths on id = reference where referrer = ? order by path"


class Disk:
    """A store as a `Source`. It is only read.

    Args:
        name: What to call it.
        other: The store.
        keys: Trusted public keys by name.
        require_sigs: Whether an answer that nothing speaks for is refused.

    """

    def __init__(
        self, name: str, other: StoreRoot, keys: Mapping[str, str], *, require_sigs: bool = True
    ) -> None:
        self._name = name
        self._other = other
        self._keys = keys
        self._require_sigs = require_sigs

    def describe(self) -> str:
        """Give the place of the store."""
        return self._name

    def close(self) -> None:
        """Nothing is held between calls."""

    def query(self, wanted: Sequence[Wanted]) -> Dict[str, Answer]:
        """Look each path up in the other store's database. See `Source.query`."""
        answers: Dict[str, Answer] = {}
        try:
            connection = _connect(self._other.database)
            try:
                for one in wanted:
                    answer = self._look(connection, one)
                    if answer is not None:
                        answers[one.path] = answer
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise UnreachableError(
                "its database cannot be read", where=f"{self._name} ({self._other.database})", why=str(error)
            ) from None
        return answers

    def _look(self, connection: sqlite3.Connection, wanted: Wanted) -> Optional[Answer]:
        row = connection.execute(_ROW, (wanted.path,)).fetchone()
        if row is None or not os.path.lexists(self._other.real(wanted.path)):
            return None
        number, path, nar_hash, nar_size, deriver, sigs, ca = row
        references = [reference for (reference,) in connection.execute(_REFERENCES, (number,))]
        try:
            hashed = hashes.nar_hash(str(nar_hash))
            info = PathInfo(
                path,
                hashed,
                int(nar_size or 0),
                tuple(references),
                deriver or "",
                tuple((sigs or "").split()),
                ca or "",
            )
            check(info, wanted, self._keys, require_sigs=self._require_sigs, where=self._name)
        except ValueError as error:
            return ContentError(f"{path}: its row cannot be read: {error}", where=self._name)
        except SourceError as error:
            return error
        return info

    def fetch(self, info: PathInfo, into: Path, advance: Advance) -> None:
        """Copy a path by way of its NAR, so that it is checked and normal. See `Source.fetch`."""
        try:
            with_nar = _Nar(self._other.real(info.path))
            try:
                unpack(with_nar.read, into, nar_hash=info.nar_hash, nar_size=info.nar_size, advance=advance)
            finally:
                with_nar.close()
            check_content(info, into)
        except SourceError as error:
            error.where = self._name
            if info.path not in error.what:
                error.what = f"{info.path}: {error.what}"
            raise


def _connect(database: Path) -> sqlite3.Connection:
    """Open without writing. A write-ahead log on a medium that cannot be written needs `immutable`."""
    for option in ("mode=ro", "immutable=1"):
        connection = sqlite3.connect(f"file:{quote(str(database))}?{option}", uri=True, timeout=10)
        try:
            connection.execute("select 1 from ValidPaths limit 1").fetchone()
        except sqlite3.OperationalError:
            connection.close()
            if option == "immutable=1":
                raise
        else:
            return connection
    raise AssertionError("the last option raises")


class _Nar:
    """Turns `dump`, which pushes, into something to read from: a thread and a pipe."""

    def __init__(self, path: Path) -> None:
        self._fault: List[Exception] = []
        self._end, write_end = os.pipe()
        self._thread = threading.Thread(target=self._run, args=(path, write_end), daemon=True)
        self._thread.start()

    def _run(self, path: Path, pipe: int) -> None:
        def write(block: bytes) -> None:
            view = memoryview(block)
            while view:
                view = view[os.write(pipe, view) :]

        try:
            dump(os.fsencode(path), write)
        except BrokenPipeError:
            pass  # the reader has seen enough
        except OSError as error:
            self._fault.append(UnreachableError(f"it cannot be read: {error.strerror}"))
        except NotArchivableError as error:
            self._fault.append(ContentError(str(error)))
        finally:
            os.close(pipe)

    def read(self, size: int) -> bytes:
        block = os.read(self._end, size)
        if not block:
            self._thread.join()
            for fault in self._fault:
                raise fault
        return block

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._end)
        self._thread.join()
