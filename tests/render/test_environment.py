from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from kingpost.render.environment import environment


def render(text, **values):
    return environment().from_string(text).render(values)


def test_values_are_written_through_filters():
    assert render("a = {{ value | nix }};", value="${x}") == r'a = "\${x}";'


@pytest.mark.parametrize("value", ["text", 5, None, ["a"]])
def test_a_value_without_a_filter_is_an_error(value):
    with pytest.raises(TypeError, match="without a filter"):
        render("a = {{ value }};", value=value)


def test_an_unknown_name_is_an_error_that_names_it():
    with pytest.raises(UndefinedError, match="missing"):
        render("{{ missing }}")
    with pytest.raises(UndefinedError, match="missing"):
        render("{% if missing %}{% endif %}")
