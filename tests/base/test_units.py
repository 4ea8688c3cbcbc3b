from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.base.units import (
    approximate_size,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@given(st.integers(0, 2**60))
def test_a_formatted_size_parses_back(size):
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 10**9) | st.integers(1, 10**6).map(lambda ms: ms / 1000))
def test_a_formatted_duration_parses_back(seconds):
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "1 parsec", "1h, 3m", "-1h", "h"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@given(st.integers(0, 2**60))
def test_a_size_for_reading_is_short(size):
    assert len(approximate_size(size)) <= 9
