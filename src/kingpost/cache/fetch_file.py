"""A binary cache in a directory, as `nix copy --to file://…` writes it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kingpost.base.errors import CannotLookError
from kingpost.cache.fetch import BinaryCache, Body, FetchError, Hop, Trouble
from kingpost.cache.storepath import is_hash_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.cache.fetch import Access, Throttle


class FileCache(BinaryCache):
    """A directory with `*.narinfo` and `nar/` in it."""

    def __init__(self, url: str, access: Access) -> None:
        path = unquote(urlsplit(url).path) if url.startswith("file:") else url
        self.root = Path(path).absolute()
        self.url = f"file://{self.root}"
        self._prefix = f"{self.root}{os.sep}"
        self._throttle = access.throttle

    def get(self, location: str) -> Body:
        """Open a file below the directory."""
        path = os.path.normpath(self._prefix + location)
        url = f"file://{path}"
        if not path.startswith(self._prefix):
            raise FetchError(Trouble.BAD_URL, f"{location[:200]!r} lies outside the cache", url=url)
        try:
            return _FileBody(path, url, self._throttle)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FetchError(Trouble.STATUS, "there is no such file", url=url, status=404) from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            status = 403 if isinstance(error, PermissionError) else 500
            raise FetchError(
                Trouble.STATUS, f"it cannot be read: {reason}", url=url, status=status
            ) from error

    def hashes(self) -> Iterator[str]:
        """List the directory."""
        try:
            entries = os.scandir(self.root)
        except OSError as error:
            raise CannotLookError(
                f"the cache cannot be listed: {error.strerror}",
                where=self.url,
                fix="name the cache's directory",
            ) from error
        with entries:
            for entry in entries:
                hash_part, dot, ending = entry.name.partition(".")
                if dot and ending == "narinfo" and is_hash_part(hash_part):
                    yield hash_part


class _FileBody(Body):
    def __init__(self, path: str, url: str, throttle: Throttle | None) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._throttle = throttle
        self._url = url
        with suppress(OSError):
            self.announced = os.fstat(self._file).st_size
        self.hops = (Hop(url, 200),)

    def read(self, size: int, /) -> bytes:
        try:
            data = os.read(self._file, size)
        except OSError as error:
            raise self._broken(error) from error
        self._count(len(data))
        return data

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            count = os.readv(self._file, [buffer])
        except OSError as error:
            raise self._broken(error) from error
        self._count(count)
        return count

    def _count(self, count: int) -> None:
        self.received += count
        if self._throttle is not None:
            self._throttle.take(count)

    def _broken(self, error: OSError) -> FetchError:
        message = f"reading stopped: {error.strerror}"
        return FetchError(Trouble.STATUS, message, url=self._url, status=500, received=self.received)

    def close(self) -> None:
        os.close(self._file)
