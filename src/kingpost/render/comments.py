"""Comments that begin with `#` and end with their line, whatever text is put into them."""

from __future__ import annotations


def comment(text: str) -> str:
    """Give a text as a comment of one line: what is not printable, line ends among it, becomes a blank."""
    plain = text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)
    return f"# {' '.join(plain.split())}".rstrip()
