"""TOML by construction, through tomlkit: no value can break out of its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomlkit

from kingpost.render.comments import comment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def toml(comments: Sequence[str], values: Mapping[str, Any]) -> str:
    """Give a document: comment lines, a blank line, then the values.

    Within each table plain keys come before tables, so that none is swallowed by the table before it; a list of
    mappings becomes an array of tables.
    """
    document = tomlkit.document()
    for line in comments:
        document.add(tomlkit.comment(comment(line)[2:]))
    document.add(tomlkit.nl())
    for key, value in _plain_first(values).items():
        document.add(key, tomlkit.item(_ordered(value)))
    return tomlkit.dumps(document)


def _plain_first(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(values.items(), key=lambda item: _is_table(item[1])))


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value))


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(inner) for key, inner in _plain_first(value).items()}
    if isinstance(value, list):
        return [_ordered(inner) for inner in value]
    return value
