"""Real Nix evaluates what was written back to the value that went in."""

from __future__ import annotations

import json
import math

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kingpost.render import nix_text

# Nix gives some attribute names a meaning of their own when it prints JSON.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda name: name not in {"__toString", "outPath"}
)
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
    st.lists(
        st.sampled_from(
            ['"', "\\", "$", "{", "}", "''", "${", "$${", "\n", "\r", "\r\n", "\t", "\\n", "#", "ü"]
        ),
        max_size=8,
    ).map("".join),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(
        allow_nan=False, allow_infinity=False, allow_subnormal=False, min_value=-1e300, max_value=1e300
    ),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def same(left, right):
    """Compare as JSON does, with the six digits that Nix 2.8 prints of a float."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return math.isclose(left, right, rel_tol=1e-5, abs_tol=1e-300)
    return type(left) is type(right) and left == right


def collect(strategy, count):
    """Give many examples, so that one Nix process can evaluate all of them."""
    found = []

    @settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(strategy)
    def gather(value):
        found.append(value)

    gather()
    return found


def test_values_come_back(nix):
    cases = collect(VALUES, 600)
    file = nix.root / "cases.nix"
    file.write_text(nix_text.nix(cases), encoding="utf-8", newline="")
    done = nix.run("nix-instantiate", "--eval", "--strict", "--json", file)
    back = json.loads(done.stdout)
    assert len(back) == len(cases)
    for case, value in zip(cases, back, strict=True):
        assert same(case, value), (case, value)


def test_every_single_character_comes_back(nix):
    characters = [chr(code) for code in [*range(1, 0x250), 0x2028, 0xFEFF, 0xFFFD, 0x1F600]]
    texts = [*characters, *(f"${char}{{" for char in characters), *(f"\\{char}" for char in characters)]
    file = nix.root / "texts.nix"
    lines = [f"({{ {nix_text.attribute(text)} = {nix_text.string(text)}; }})" for text in texts]
    file.write_text("[\n" + "\n".join(lines) + "\n]", encoding="utf-8", newline="")
    done = nix.run("nix-instantiate", "--eval", "--strict", "--json", file)
    assert json.loads(done.stdout) == [{text: text} for text in texts]
