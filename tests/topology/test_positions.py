from __future__ import annotations

import json

import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from kingpost.topology.positions import json_positions, toml_positions

TEXT = """\
# a comment with = and [brackets]
title = "x"   # [not.a.table]
dotted.key = 1

[hosts."b.c"]   # quoted
memory = '''
several
lines = [1]
'''
inline = { a = 1, "b c" = [ { d = 2 }, {} ] }
many = [
  "x",  # a ] in a comment
  "y]",
]

[[push]]
cache = "one"
[[push]]
cache = "two"
[push.token]
variable = "T"
"""


def places(path, *keys):
    location = toml_positions("t.toml", TEXT).locate((path, *keys) if path else keys)
    return location.line, location.column


def test_every_kind_of_key_is_found():
    assert places("title") == (2, 1)
    assert places("dotted", "key") == (3, 1)
    assert places("hosts", "b.c") == (5, 2)
    assert places("hosts", "b.c", "memory") == (6, 1)
    assert places("hosts", "b.c", "inline", "a") == (10, 12)
    assert places("hosts", "b.c", "inline", "b c", 0, "d") == (10, 31)
    assert places("hosts", "b.c", "many", 1) == (13, 3)
    assert places("push", 1, "cache") == (19, 1)
    assert places("push", 1, "token", "variable") == (21, 1)


def test_a_missing_key_is_placed_where_it_should_be():
    assert places("hosts", "b.c", "nix") == (5, 2)
    assert places("push", 0, "policy") == (16, 3)
    assert places("nothing") == (1, 1)


KEYS = st.text(min_size=1, max_size=8).filter(lambda t: "\0" not in t and t.isprintable())
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=12).filter(lambda t: "\0" not in t),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


def walk(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from walk(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield (*path, index)
            yield from walk(inner, (*path, index))


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_every_key_of_any_document_is_found_in_json(document):
    text = json.dumps(document, indent=2)
    positions = json_positions("t.json", text)
    lines = text.splitlines()
    for path in walk(document):
        where = positions.locate(path)
        if isinstance(path[-1], str):
            assert lines[where.line - 1][where.column - 1 :].startswith(json.dumps(path[-1]))


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_every_key_of_any_document_is_found_in_toml(document):
    text = tomlkit.dumps(document)
    positions = toml_positions("t.toml", text)
    lines = text.split("\n")
    for path in walk(document):
        if isinstance(path[-1], str):
            where = positions.locate(path)
            rest = lines[where.line - 1][where.column - 1 :]
            assert tomlkit.key(path[-1]).as_string() in rest


def test_a_key_may_be_written_with_any_escape():
    text = '"a\\u0062\\"c" = 1\n'
    assert toml_positions("t.toml", text).locate(('ab"c',)).column == 1
