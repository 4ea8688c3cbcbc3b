from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from kingpost.render import environment as module
from kingpost.render.environment import environment
from kingpost.render.nix_text import path


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


def test_equal_values_are_rendered_once_and_different_ones_apart(monkeypatch):
    rendered = []
    template = environment().get_template("nix/host.nix.j2")
    monkeypatch.setattr(module, "_made", {})
    monkeypatch.setattr(
        template.__class__, "render", lambda _, values: rendered.append(values) or str(values)
    )
    names = [f"./{name}.nix" for name in ("once", "twice")]
    first = [module.render("nix/host.nix.j2", modules=[path(name)], state_version="99.1") for name in names]
    again = [module.render("nix/host.nix.j2", modules=[path(name)], state_version="99.1") for name in names]
    assert again == first
    assert first[0] != first[1]
    assert len(rendered) == 2
    assert module.render("nix/host.nix.j2", modules=[path(names[0])], state_version="99.2") not in first
    assert module.render("nix/host.nix.j2", modules=["./once.nix"], state_version="99.1") not in first, (
        "a text is no path"
    )
