"""Leave a source alone for a while that has failed too often in a row: thousands of paths may be waiting."""

from __future__ import annotations

import time
from threading import Lock

from ..errors import UnreachableError

REST = 60.0
"""Seconds."""


class Breaker:
    """Counts failures in a row; any thread may call it.

    Args:
        name: What to call the source.
        most: Failures after which the source is left alone.

    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._lock = Lock()
        self._failures = 0
        self._last = 0.0

    def check(self) -> None:
        """Make sure that the source may be asked.

        Raises:
            UnreachableError: It failed too often just now.

        """
        with self._lock:
            if self._failures >= self._most and time.monotonic() - self._last < REST:
                raise UnreachableError("not asked, for it failed too often just now", where=self._name)

    def failed(self) -> None:
        """Count a failure to reach the source."""
        with self._lock:
            self._failures += 1
            self._last = time.monotonic()

    def worked(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self._failures = 0
