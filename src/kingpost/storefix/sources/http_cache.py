"""A binary cache, over HTTP or in a directory: narinfos asked for side by side, NARs unpacked as they come."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Dict, Mapping, Optional, Sequence, Tuple

from .. import effects
from ..errors import ContentError, SourceError, UnreachableError
from . import narinfo
from .breaker import Breaker
from .decompress import Decompressor
from .transport import ATTEMPTS, TransientError, Transport, get, pause
from .trust import check, check_content
from .unpack import unpack

if TYPE_CHECKING:
    from pathlib import Path

    from ..interface import Advance, Answer, PathInfo, Wanted
    from .narinfo import NarInfo

AT_ONCE = 16
_ENOUGH_FAILURES = 8
"""Requests in a row that failed, after which the cache is left alone for a while."""


class BinaryCache:
    """A binary cache as a `Source`.

    Args:
        name: What to call it: its URL without secrets.
        transport: How its files are had.
        store_dir: The logical store directory that it must be for.
        keys: Trusted public keys by name.
        require_sigs: Whether an answer that nothing speaks for is refused.
        stores: Nix stores to look for decompressors in.

    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        store_dir: str,
        keys: Mapping[str, str],
        *,
        require_sigs: bool = True,
        stores: Sequence[Path] = (),
    ) -> None:
        self._name = name
        self._transport = transport
        self._store_dir = store_dir
        self._keys = keys
        self._require_sigs = require_sigs
        self._stores = stores
        self._found: Dict[str, NarInfo] = {}
        self._greeted = False
        self._breaker = Breaker(name, _ENOUGH_FAILURES)

    def describe(self) -> str:
        """Give the cache's URL."""
        return self._name

    def close(self) -> None:
        """Nothing is held between calls."""

    def query(self, wanted: Sequence[Wanted]) -> Dict[str, Answer]:
        """Ask for the narinfo of each path. See `Source.query`."""
        self._greet()
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="narinfo")
        try:
            answers = list(pool.map(self._ask, wanted))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return {path: answer for path, answer in answers if answer is not None}

    def _greet(self) -> None:
        """Make sure, once, that there is a binary cache and that it is for this store directory."""
        if self._greeted:
            return
        self._breaker.check()
        try:
            data = get(self._transport, "nix-cache-info", 1 << 16)
        except SourceError as error:
            for _ in range(_ENOUGH_FAILURES):  # nothing else will work either
                self._breaker.failed()
            raise self._blame(error) from None
        if data is None:
            raise UnreachableError(
                "this does not appear to be a binary cache", where=self._name, why="it has no nix-cache-info"
            )
        for line in data.decode("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name == "StoreDir" and value.strip() != self._store_dir:
                raise UnreachableError(
                    f"this cache is for stores in {value.strip()}, not {self._store_dir}", where=self._name
                )
        self._greeted = True

    def _ask(self, wanted: Wanted) -> Tuple[str, Optional[Answer]]:
        try:
            self._breaker.check()
            found = self._narinfo(wanted.path)
            if found is None:
                return wanted.path, None
            check(found.info, wanted, self._keys, require_sigs=self._require_sigs, where=self._name)
        except SourceError as error:
            return wanted.path, self._blame(error)
        return wanted.path, found.info

    def _narinfo(self, path: str) -> Optional[NarInfo]:
        name = f"{path.rpartition('/')[2][:32]}.narinfo"
        try:
            data = get(self._transport, name, narinfo.LARGEST)
            self._breaker.worked()
            if data is None:
                return None
            found = narinfo.parse(data.decode("utf-8", "replace"), self._store_dir)
            if found.info.path != path:
                raise ContentError(f"it is of {found.info.path}, not of {path}")
        except SourceError as error:
            if isinstance(error, UnreachableError):
                self._breaker.failed()
            raise self._blame(error, name) from None
        self._found[path] = found
        return found

    def fetch(self, info: PathInfo, into: Path, advance: Advance) -> None:
        """Download, unpack and check a path. See `Source.fetch`.

        What is wanted is `info`, from a plan that may be a day old: its hash decides, not what the cache says
        now.
        """
        found = self._found.get(info.path) or self._narinfo(info.path)
        if found is None or found.info.nar_hash != info.nar_hash:
            has = "has other bytes by now" if found else "does not have it any more"
            raise ContentError(f"{info.path}: the cache {has}", where=self._name, fix="make a new plan")
        attempt = 0
        come = 0

        def count(size: int) -> None:
            nonlocal come
            come += size
            advance(size)

        while attempt < ATTEMPTS:
            try:
                self._breaker.check()
                self._fetch_once(found, info, into, count)
                return self._breaker.worked()
            except TransientError as error:
                attempt += error.cost
                if attempt >= ATTEMPTS:
                    self._breaker.failed()
                    raise self._blame(error, info.path) from None
                effects.remove_below(into.parent, into.name)
                advance(-come)
                come = 0
                pause(attempt, error)
            except SourceError as error:
                raise self._blame(error, info.path) from None
        raise AssertionError("the last attempt raises")

    def _fetch_once(self, found: NarInfo, info: PathInfo, into: Path, advance: Advance) -> None:
        body = self._transport.open(found.url)
        if body is None:
            raise ContentError(
                f"the cache has the narinfo but not its NAR, {found.url}",
                fix="push the path to the cache again, or delete the narinfo",
            )
        try:
            with (
                Decompressor(body.encoding, body.read, self._stores) as coded,
                Decompressor(found.compression, coded.read, self._stores) as plain,
            ):
                unpack(plain.read, into, nar_hash=info.nar_hash, nar_size=info.nar_size, advance=advance)
        finally:
            body.close()
        check_content(info, into)

    def _blame(self, error: SourceError, what: str = "") -> SourceError:
        if what and what not in error.what:
            error.what = f"{what}: {error.what}"
        error.where = self._name
        return error
