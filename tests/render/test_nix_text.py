from __future__ import annotations

from ipaddress import IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.render import nix_text
from kingpost.render.nix_text import Call, Expression, nix


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        (0, "0"),
        (-5, "-5"),
        (-(2**63), "(-9223372036854775807 - 1)"),
        (1.5, "1.5"),
        (1e22, "1.0e+22"),
        ("plain", '"plain"'),
        ('a"b', r'"a\"b"'),
        ("${x}", r'"\${x}"'),
        ("$${x}", r'"$\${x}"'),
        ("$x", '"$x"'),
        ("''${x}''", r"""''\${x}''""".join('""')),
        ("a\\b", r'"a\\b"'),
        ("line\nnext\r\tend", r'"line\nnext\r\tend"'),
        (IPv4Interface("172.17.0.1/16"), '"172.17.0.1/16"'),
        ([], "[ ]"),
        ({}, "{ }"),
        ([1], "[ 1 ]"),
        ([-1], "[ (-1) ]"),
        ([Call("lib.mkDefault", -1)], "[ (lib.mkDefault (-1)) ]"),
        ([Expression("config.x", atomic=True)], "[ config.x ]"),
        ([Expression("a + b")], "[ (a + b) ]"),
        ([nix_text.path("./x.toml")], "[ ./x.toml ]"),
        (nix_text.force({}), "lib.mkForce { }"),
        (nix_text.default(["a", "b"]), 'lib.mkDefault [\n  "a"\n  "b"\n]'),
        ({"a": {"b c": 1, "in": 2}}, '{\n  a = {\n    "b c" = 1;\n    "in" = 2;\n  };\n}'),
    ],
)
def test_writes(value, expected):
    assert nix(value) == expected


def test_level_indents_all_lines_but_the_first():
    assert nix({"a": [1, 2]}, level=2) == "{\n      a = [\n        1\n        2\n      ];\n    }"


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, float("nan"), float("inf"), 5e-324, "a\0b", "\ud800"])
def test_refuses_what_nix_cannot_represent(value):
    with pytest.raises(ValueError):
        nix(value)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_refuses_types_without_a_nix_form(value):
    with pytest.raises(TypeError, match="has no Nix form"):
        nix(value)


@pytest.mark.parametrize("text", ["/etc/passwd", "x.toml", "./a b", "./a;b", "./${x}", "./", "~/x"])
def test_refuses_path_literals_that_are_not_plain(text):
    with pytest.raises(ValueError, match="path literal"):
        nix_text.path(text)


@given(st.text())
def test_a_comment_stays_on_its_line(text):
    assert len(f"# {nix_text.comment(text)}".splitlines()) == 1
