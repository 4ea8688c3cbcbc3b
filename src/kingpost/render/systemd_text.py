"""Values as systemd reads them in unit files: systemd.syntax(7), systemd.unit(5) on specifiers."""

from __future__ import annotations

from typing import Final

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "%": "%%"})


def plain(text: str) -> str:
    """Give text for a directive that takes the rest of its line, with `%` doubled against specifiers."""
    return text.replace("%", "%%")


def word(text: str) -> str:
    """Give text as one word of a directive that takes a list of them."""
    return f'"{text.translate(_ESCAPES)}"'
