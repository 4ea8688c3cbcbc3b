"""Verdicts as words for a person: what failed first, each with what was seen and what to do.

Colours only on a terminal; never a table that wraps.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import IO, TYPE_CHECKING, Final

from kingpost.base.verdict import Status, count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kingpost.base.verdict import Verdict

#: Findings that need no attention are listed up to this many, and only counted beyond.
LISTED_WHEN_FINE: Final = 20
#: Of any other code so many are listed; a cache that is gone has one cause and ten thousand paths.
LISTED_PER_CODE: Final = 20

_ORDER: Final = (Status.OK, Status.EXPECTED, Status.SKIPPED, Status.FAILED)
_COLOUR: Final = {Status.OK: "green", Status.EXPECTED: "cyan", Status.FAILED: "red", Status.SKIPPED: "yellow"}


def show(verdicts: Sequence[Verdict], stream: IO[str], *, note: str = "") -> None:
    """Print verdicts, the failed ones last where a terminal's reader looks first, then one summary line.

    Args:
        verdicts: In the order they were found.
        stream: Where to print; colours only when it is a terminal.
        note: A sentence for the summary line, for example how much was checked.

    """
    say = _speaker(stream)
    for status in _ORDER:
        found = [verdict for verdict in verdicts if verdict.status is status]
        if status in (Status.OK, Status.EXPECTED) and len(found) > LISTED_WHEN_FINE:
            found = []
        seen: Counter[str] = Counter()
        for verdict in found:
            seen[verdict.code] += 1
            if seen[verdict.code] > LISTED_PER_CODE:
                continue
            say((f"{status!s:8}", f"bold {_COLOUR[status]}"), (printable(verdict.subject), "bold"))
            say((f"         {printable(verdict.summary)}", ""), (f"[{verdict.code}]", "dim"))
            if status is Status.FAILED and verdict.evidence:
                say((f"         seen: {_evidence(verdict)}", "dim"))
            if verdict.remedy:
                say((f"         do:   {printable(verdict.remedy)}", ""))
        for code, number in seen.items():
            if number > LISTED_PER_CODE:
                words = f"{status!s:8} and {number - LISTED_PER_CODE} more [{code}]; --json lists all"
                say((words, _COLOUR[status]))
    say((_summary(verdicts, note), ""))


def _speaker(stream: IO[str]) -> Callable[..., None]:
    """Give a function that prints one line of (text, style) parts; a pipe is spared the import of rich."""
    if not stream.isatty() and not os.environ.keys() & {"FORCE_COLOR", "TTY_COMPATIBLE"}:
        return lambda *parts: print(*(text for text, _ in parts), file=stream)
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.text import Text  # noqa: PLC0415 - likewise

    console = Console(file=stream, highlight=False, soft_wrap=True, markup=False, emoji=False)
    return lambda *parts: console.print(*(Text(text, style=style) for text, style in parts))


def printable(text: str) -> str:
    """Give text without control characters: what a server sent must not drive the reader's terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _evidence(verdict: Verdict) -> str:
    words = (
        f"{key}={value if isinstance(value, str) else json.dumps(value, default=str)}"
        for key, value in verdict.evidence.items()
        if value not in (None, "", [], {})
    )
    return printable(", ".join(words))


def _summary(verdicts: Sequence[Verdict], note: str) -> str:
    if not verdicts:
        return "nothing was checked" + (f"; {note}" if note else "")
    counts = count(verdicts)
    words = [f"{counts[str(status)]} {status}" for status in reversed(_ORDER) if counts[str(status)]]
    return ", ".join(words) + (f"; {note}" if note else "")
