"""Progress of long work: one line that is rewritten on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

_REDRAW = 0.2  # seconds between two drawings on a terminal
_LOG = 30.0  # seconds between two lines in a log


def amount(number: float, unit: str) -> str:
    """Give a number for people: bytes in binary units, anything else with thousands separated."""
    if unit != "bytes":
        return f"{number:,.0f} {unit}"
    for prefix in ("", "K", "M", "G", "T"):
        if abs(number) < 1024 or prefix == "T":
            return f"{number:.0f} B" if not prefix else f"{number:.1f} {prefix}iB"
        number /= 1024
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Give seconds for people: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Shows what is going on.

    Args:
        stream: Where to; stderr by default, so that a result on stdout stays clean.
        quiet: Show nothing but what `say` is given.

    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty() and not quiet
        self._quiet = quiet
        self._width = 0

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._clear()
        print(line, file=self._stream, flush=True)

    @contextmanager
    def task(self, what: str, total: float, unit: str) -> Iterator[Callable[[float], None]]:
        """Show one piece of work with its rate and the time left.

        Args:
            what: Said first: `hashing`.
            total: How much there is to do; 0 is unknown.
            unit: `bytes`, `paths` or any plural.

        Yields:
            A function to call with how much was done since the last call, from any thread.

        """
        start = time.monotonic()
        done = 0.0
        shown = start
        lock = threading.Lock()

        def advance(more: float) -> None:
            nonlocal done, shown
            with lock:
                done += more
                now = time.monotonic()
                if now - shown >= (_REDRAW if self._terminal else _LOG):
                    shown = now
                    self._show(line(what, done, total, unit, now - start))

        try:
            yield advance
        finally:
            self._clear()

    def _show(self, text: str) -> None:
        if self._quiet:
            return
        if self._terminal:
            self._stream.write("\r" + text.ljust(self._width))
            self._stream.flush()
            self._width = len(text)
        else:
            print(text, file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0


def line(what: str, done: float, total: float, unit: str, seconds: float) -> str:
    """Give the text of a progress line."""
    rate = done / seconds if seconds > 0 else 0.0
    text = f"{what}: {amount(done, unit)}"
    if total:
        text += f" of {amount(total, unit)} ({min(done / total, 1):.0%})"
    text += f", {amount(rate, unit)}/s"
    if total and rate:
        text += f", {duration(max(total - done, 0) / rate)} left"
    return text
