import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cache.attic_rules import choose, glob

from kingpost.base.errors import UsageError
from kingpost.cache import token_patterns as patterns

# A small alphabet makes patterns meet often.
NAMES = st.text("ab-", min_size=1, max_size=7).filter(patterns.is_name)
PATTERNS = st.text("ab-*", min_size=1, max_size=5).filter(patterns.is_pattern)
BITS = st.frozensets(st.sampled_from(["r", "w", "cc"]), min_size=1)


def asked(requested, name):
    return frozenset().union(*(bits for pattern, bits in requested.items() if glob(pattern, name)))


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(PATTERNS, BITS, min_size=1, max_size=4), st.lists(NAMES, min_size=1, max_size=25))
def test_attic_picks_exactly_what_was_asked_for(requested, names):
    try:
        entries = patterns.expanded(requested)
    except UsageError:
        return
    for name in [*names, *(p for p in requested if patterns.is_name(p))]:
        assert choose(list(entries.items()), name) == asked(requested, name)
        picked = patterns.chosen(entries, name)
        assert (picked[1] if picked else frozenset()) == asked(requested, name)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, PATTERNS, st.lists(NAMES, min_size=1, max_size=30))
def test_an_intersection_matches_what_both_match(one, other, names):
    meets = patterns.intersection(one, other)
    for name in names:
        assert any(glob(p, name) for p in meets) == (glob(one, name) and glob(other, name))


@settings(max_examples=300, deadline=None)
@given(PATTERNS, NAMES)
def test_matching_agrees_with_attic(pattern, name):
    assert patterns.matches(pattern, name) == glob(pattern, name)


@pytest.mark.parametrize(
    ("requested", "entries"),
    [
        # The trap of facts: pull on all, push on one.
        ({"*": {"r"}, "main": {"w"}}, [("main", {"r", "w"}), ("*", {"r"})]),
        ({"main": {"w"}, "*": {"r"}}, [("main", {"r", "w"}), ("*", {"r"})]),
        ({"*": {"r", "w"}, "main": {"w"}}, [("*", {"r", "w"})]),
        ({"main": {"r"}, "other": {"w"}}, [("main", {"r"}), ("other", {"w"})]),
        (
            {"ci-*": {"r"}, "*-x": {"w"}},
            [("ci-*-x", {"r", "w"}), ("ci-x", {"r", "w"}), ("*-x", {"w"}), ("ci-*", {"r"})],
        ),
        ({"a**b": {"r"}}, [("a*b", {"r"})]),
        (
            {"*aa*": {"r"}, "a*": {"w"}},
            [("a*aa*", {"r", "w"}), ("aa*", {"r", "w"}), ("*aa*", {"r"}), ("a*", {"w"})],
        ),
    ],
)  # fmt: skip
def test_the_smallest_claim_that_means_the_request(requested, entries):
    found = patterns.expanded({p: frozenset(bits) for p, bits in requested.items()})
    assert list(found.items()) == [(p, frozenset(bits)) for p, bits in entries]


@pytest.mark.parametrize("bad", ["", "-a", "_a", "a" * 51, "a?", "a b", "a/b", "ä", "a\n", "+"])
def test_names_that_attic_refuses_are_refused(bad):
    assert not patterns.is_name(bad)
    with pytest.raises(UsageError, match="no cache name or pattern"):
        patterns.expanded({bad: frozenset("r")})


def test_an_absurd_number_of_overlaps_is_refused_not_computed():
    requested = {f"*{a}*{b}*": frozenset("r") for a, b in ("ab", "cd", "ef", "gh", "ij")}
    with pytest.raises(UsageError, match="overlap"):
        patterns.expanded(requested)
    with pytest.raises(UsageError, match="overlap in too many ways"):
        patterns.intersection("*a*b*c*d*e*f*g*h*", "*i*j*k*l*m*n*o*p*")


def test_an_overlap_too_long_for_attic_is_refused():
    with pytest.raises(UsageError, match=re.escape("too long for Attic")):
        patterns.intersection("a" * 25 + "*", "*" + "b" * 24 + "*")


def test_matching_many_stars_takes_no_time():
    assert not patterns.matches("*a" * 25, "a" * 24 + "b" * 26)
