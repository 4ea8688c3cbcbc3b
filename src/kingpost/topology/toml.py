"""The TOML parser: tomli where it is installed, which is compiled; else Python's own, which is tomli and is not.

A fleet's topology takes the second three times as long.
"""

from __future__ import annotations

try:
    from tomli import TOMLDecodeError, loads
except ModuleNotFoundError:
    from tomllib import TOMLDecodeError, loads  # type: ignore[assignment]  # the same class, elsewhere

__all__ = ["TOMLDecodeError", "loads"]
