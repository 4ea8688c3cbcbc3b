"""The Jinja2 environment of every template: undefined names and unescaped values are errors, not output.

A template may write a value only through a filter that knows the syntax around it (`nix`, `toml`, …): those
return `Written`, and anything else that reaches the output raises. So a value cannot break out of its place
because somebody forgot a filter.
"""

from __future__ import annotations

import pickle
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined

from kingpost.render import nix_text
from kingpost.render.sources import templates

if TYPE_CHECKING:
    from collections.abc import Callable


class Written(str):
    """Text that is already in the syntax of its file."""

    __slots__ = ()


def _nix(value: Any, level: int = 0) -> Written:
    return Written(nix_text.nix(value, level))


def _nix_attribute(name: str) -> Written:
    return Written(nix_text.attribute(name))


def _nix_option(names: tuple[str, ...]) -> Written:
    return Written(nix_text.option(*names))


def _comment(text: str) -> Written:
    return Written(nix_text.comment(text))


FILTERS: Final[dict[str, Callable[..., Written]]] = {
    "nix": _nix,
    "nix_attribute": _nix_attribute,
    "nix_option": _nix_option,
    "comment": _comment,
}
"""Every filter that may end a template's expression."""


def _finalize(value: Any) -> str:
    if isinstance(value, Written):
        return value
    if isinstance(value, Undefined):
        return str(value)  # StrictUndefined raises and names the variable.
    raise TypeError(f"a template writes {value!r} without a filter for the syntax around it")


@cache
def environment() -> Environment:
    """Give the shared environment; templates are compiled once in a process."""
    made = Environment(
        loader=FileSystemLoader(templates()),
        undefined=StrictUndefined,
        finalize=_finalize,
        autoescape=False,  # noqa: S701  nothing here is HTML; `_finalize` refuses what is not escaped
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
        cache_size=-1,
    )
    made.filters.update(FILTERS)
    return made


_made: Final[dict[tuple[str, bytes], str]] = {}


def render(template: str, **values: Any) -> str:
    """Give a template's text, filled with values.

    The same values give the same text, and the hosts of a fleet differ in little: what was made once is kept.
    Values that are equal and not known to be so are only rendered once more.
    """
    key = (template, pickle.dumps(values, pickle.HIGHEST_PROTOCOL))
    text = _made.get(key)
    if text is None:
        text = _made[key] = environment().get_template(template).render(values)
    return text
