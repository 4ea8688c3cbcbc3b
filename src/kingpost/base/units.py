"""Sizes and durations as people write them. Pure text to number and back."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Final

_BINARY: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}
_DECIMAL: Final = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4, "P": 1000**5}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?)B?", re.IGNORECASE | re.ASCII)

_SECONDS: Final = {
    "ms": 0.001, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 604800,
    "day": 86400, "days": 86400, "week": 604800, "weeks": 604800, "hours": 3600, "hour": 3600,
    "minutes": 60, "minute": 60, "seconds": 1, "second": 1,
}  # fmt: skip
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.ASCII)


@lru_cache(4096)  # a fleet writes the same few sizes thousands of times
def parse_size(text: str) -> int:
    """Give the bytes that a text such as `8GiB`, `512M` or `1.5 GB` means.

    `KiB MiB GiB` and the bare `K M G` of systemd are powers of 1024; `KB MB GB` are powers of 1000.

    Raises:
        ValueError: It is no size; the message says what one looks like.

    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size: write for example 512MiB or 8GiB")
    number, prefix, binary = match.groups()
    ends_in_b = text.strip()[-1:] in "bB"
    table = _BINARY if binary or not ends_in_b else _DECIMAL
    return int(Fraction(number) * table[prefix.upper()])  # a float would lose the last bytes of a large size


def format_size(size: int) -> str:
    """Give the shortest exact form in binary units: `8589934592` is `8GiB`, `1000` is `1000B`."""
    for prefix in ("P", "T", "G", "M", "K"):
        factor = _BINARY[prefix]
        if size >= factor and size % factor == 0:
            return f"{size // factor}{prefix}iB"
    return f"{size}B"


def approximate_size(size: float) -> str:
    """Give a size for reading, with three figures: `3.18 MiB`, `1023 MiB`."""
    amount, prefix = float(size), ""
    for prefix in ("", "K", "M", "G", "T", "P"):
        if abs(amount) < 1024 or prefix == "P":
            break
        amount /= 1024
    if not prefix:
        return f"{amount:.0f} B"
    decimals = 0 if abs(amount) >= 99.95 else 1 if abs(amount) >= 9.995 else 2
    return f"{amount:.{decimals}f} {prefix}iB"


def parse_duration(text: str) -> float:
    """Give the seconds that a text such as `90d`, `1h30m` or `250ms` means.

    Raises:
        ValueError: It is no duration; the message says what one looks like.

    """
    rest = text.strip().lower()
    parts = list(_DURATION_PART.finditer(rest))
    if not parts or _gaps(rest, parts):
        raise ValueError(f"{text!r} is no duration: write for example 30s, 15m, 1h30m or 90d")
    total = 0.0
    for part in parts:
        unit = part.group(2)
        if unit not in _SECONDS:
            raise ValueError(f"{text!r} is no duration: the unit {unit!r} is not one of ms, s, m, h, d, w")
        total += float(part.group(1)) * _SECONDS[unit]
    return total


def _gaps(text: str, parts: list[re.Match[str]]) -> bool:
    """Tell whether anything but blanks stands between the parts."""
    position = 0
    for part in parts:
        if text[position : part.start()].strip():
            return True
        position = part.end()
    return bool(text[position:].strip())


def format_duration(seconds: float) -> str:
    """Give the largest units that are exact: `7776000` is `90d`, `5400` is `1h30m`, `0.25` is `250ms`."""
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    left, words = int(seconds), []
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, left = divmod(left, factor)
        if amount:
            words.append(f"{amount}{unit}")
    return "".join(words) or "0s"
