"""`kingpost store-fix`: the store repair, which is a program of its own and parses its own arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run store-fix with these arguments and give its exit code."""
    from kingpost.storefix.cli import main as store_fix

    return store_fix(argv)
