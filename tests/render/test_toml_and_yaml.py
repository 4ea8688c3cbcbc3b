"""What is written is what a parser reads back, whatever the values are."""

import tomllib

import pytest
import yaml as pyyaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies import free_text

from kingpost.render.toml_text import toml
from kingpost.render.yaml_text import scalar, yaml

TEXT = st.one_of(st.text(st.characters(codec="utf-8"), max_size=30), free_text())
NUMBERS = st.one_of(
    st.integers(-(2**62), 2**62), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)
LEAVES = st.one_of(TEXT, NUMBERS)
KEYS = st.one_of(st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True), TEXT.filter(bool))
VALUES = st.recursive(
    st.one_of(TEXT, st.integers(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
TABLES = st.recursive(
    st.one_of(LEAVES, st.lists(LEAVES, max_size=3)),
    lambda inner: st.one_of(
        st.dictionaries(KEYS, inner, max_size=4),
        st.lists(st.dictionaries(KEYS, LEAVES, min_size=1, max_size=3), min_size=1, max_size=3),
    ),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, TABLES, max_size=6), TEXT)
@settings(deadline=None)
def test_toml_reads_back(values, comment):
    assert tomllib.loads(toml([comment], values)) == values


def test_toml_keys_are_not_swallowed_by_the_table_before_them():
    text = toml(["x"], {"table": {"inner": {"a": 1}, "b": 2}, "list": [{"c": 3}], "plain": 4})
    assert text.index("plain") < text.index("[table]")
    assert tomllib.loads(text) == {"table": {"inner": {"a": 1}, "b": 2}, "list": [{"c": 3}], "plain": 4}


@given(st.dictionaries(KEYS, VALUES, max_size=6), TEXT)
@settings(deadline=None)
def test_yaml_reads_back(values, comment):
    assert pyyaml.safe_load(yaml([comment], values)) == (values or None)


@given(st.lists(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3), min_size=1, max_size=3))
@settings(deadline=None)
def test_yaml_documents_stay_apart(documents):
    assert list(pyyaml.safe_load_all(yaml(["x"], *documents))) == documents


@pytest.mark.parametrize(
    "text",
    ["no", "Yes", "on", "~", "null", "1", "1e3", "0x1f", "08", "12:30", "1_000", "-", "", " a", "a ", "a: b", "a #b",
     "*a", "&a", "!x", "%x", "@x", "`x`", "{", "[", "? x", "2026-11-21", "=", "<<", "\ttab", "a\nb", "a\n", "\n", "é",
     ".inf", ".NaN", "nan", "y", "N", "\x85", "\u2028", "\ufeff", "🦀", "\x00", "\x7f", "---", "..."],
)  # fmt: skip
def test_yaml_keeps_texts_that_look_like_something_else(text):
    assert pyyaml.safe_load(scalar(text)) == text
    assert pyyaml.safe_load(yaml([], {"k": text, "l": [text], text or "e": 1}))["k"] == text


def test_a_script_is_a_block_that_a_person_can_read():
    assert yaml([], {"script": ["if true; then\n  echo\nfi\n"]}) == (
        "script:\n  - |\n    if true; then\n      echo\n    fi\n"
    )
