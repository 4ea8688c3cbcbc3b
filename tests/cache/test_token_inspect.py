import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kingpost.base.verdict import Status
from kingpost.cache import token, token_inspect, token_keys
from kingpost.cache.token import Permission, Request

HERE = Path(__file__).parent / "token-vectors"
KEYS = json.loads((HERE / "keys.json").read_text())
VECTORS = json.loads((HERE / "vectors.json").read_text())
HS256 = token_keys.parse(KEYS["hs256"], origin="hs256.key")


def codes_of(verdicts):
    return {verdict.code.removeprefix("KP-TOKEN-") for verdict in verdicts}


def judged(text, now=VECTORS["judged"][0]["now"], key=HS256):
    return token_inspect.judge(text, "it", now, key=key)


EXPECTED = {
    "no times at all": {"NO-EXPIRY", "SIGNED"},
    "kid and +JWT are fine": {"NO-EXPIRY", "SIGNED"},
    "exp is now": {"USABLE", "SIGNED"},
    "expired a second ago": {"EXPIRED", "SIGNED"},
    "nbf is now": {"NO-EXPIRY", "SIGNED"},
    "valid in a second": {"NOT-YET", "NO-EXPIRY", "SIGNED"},
    "issued in a second": {"NOT-YET", "NO-EXPIRY", "SIGNED"},
    "issued now": {"NO-EXPIRY", "SIGNED"},
    "another key": {"NO-EXPIRY", "SIGNATURE"},
    "another algorithm": {"NO-EXPIRY", "ALGORITHM"},
    "HS512": {"NO-EXPIRY", "ALGORITHM"},
    "wrong type": {"NO-EXPIRY", "ALGORITHM"},
    "no Attic claim": {"NO-EXPIRY", "CLAIM", "SIGNED"},
    "no caches level": {"NO-EXPIRY", "CLAIM", "SIGNED"},
    "booleans instead of bits": {"NO-EXPIRY", "CLAIM", "SIGNED"},
    "a bit of 2": {"NO-EXPIRY", "CLAIM", "SIGNED"},
    "an impossible pattern": {"NO-EXPIRY", "CLAIM", "SIGNED"},
    "the exact entry shadows the wide one": {"NO-EXPIRY", "SHADOWED", "SIGNED"},
    "the first matching entry wins": {"NO-EXPIRY", "SHADOWED", "SIGNED"},
    "order decides": {"NO-EXPIRY", "SHADOWED", "SIGNED"},
    "claims are no object": {"MALFORMED"},
    "claims are no JSON": {"MALFORMED"},
}


@pytest.mark.parametrize("vector", VECTORS["judged"], ids=lambda vector: vector["name"])
def test_joses_tokens_are_judged_as_attic_would(vector):
    found = judged(vector["token"], vector["now"])
    assert codes_of(found) == EXPECTED.get(vector["name"], {"NO-EXPIRY", "SIGNED"})
    refused = codes_of(found) - {"NO-EXPIRY", "SHADOWED", "SIGNED", "USABLE"}
    assert bool(refused) == (vector["bits"] is None)
    decoded = token_inspect.decode(vector["token"])
    if decoded and decoded.entries is not None:
        claimed = {permission.bit for permission in decoded.permissions("main")}
        assert vector["bits"] is None or claimed == set(vector["bits"])


@pytest.mark.parametrize("vector", VECTORS["minted"], ids=lambda vector: vector["name"])
def test_good_tokens_are_good_and_their_claims_are_told_in_words(vector):
    name = vector.get("key") or {"HS256": "hs256", "RS256": "rs256_public"}[vector["alg"]]
    found = judged(vector["token"], vector["now"], token_keys.parse(KEYS[name], origin="k"))
    assert codes_of(found) == {"USABLE", "SIGNED"}
    says = token_inspect.summary(token_inspect.decode(vector["token"]))
    assert says["subject"] == vector["claims"]["sub"]
    assert says["expires"].endswith("UTC")
    for pattern, names in vector["request"]["grants"].items():
        assert all(permission in says["grants"][pattern] for permission in names)


def test_times_are_judged_by_the_clock_that_is_given():
    made = token.mint(Request("ci", {"main": frozenset({Permission.PULL})}, 60, 10), HS256, 1000)
    assert codes_of(token_inspect.judge(made, "it", 1060)) == {"USABLE"}
    (late,) = token_inspect.judge(made, "it", 1061, clock="the server's clock")
    assert (late.code, late.summary) == (
        "KP-TOKEN-EXPIRED",
        "expired 1s ago (1970-01-01 00:17:40 UTC), by the server's clock",
    )
    (early,) = token_inspect.judge(made, "it", 980)
    assert early.summary == "valid only in 10s (nbf 1970-01-01 00:16:30 UTC), by this host's clock"


PATTERNS = st.text("ab*", min_size=1, max_size=4)
BITS = st.frozensets(st.sampled_from(list(Permission)[:3]), min_size=1)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(PATTERNS, BITS, min_size=1, max_size=3))
def test_what_kingpost_mints_shadows_nothing(grants):
    made = token.mint(Request("ci", grants), HS256, 1000)
    assert codes_of(judged(made, 1000)) == {"USABLE", "SIGNED"}


def jwt_of(header, claims):
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()  # noqa: E731
    return f"{part(header)}.{part(claims)}.AAAA"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
CLAIMS = st.dictionaries(
    st.sampled_from(["exp", "nbf", "iat", "sub", token.CLAIM]),
    JSON | st.fixed_dictionaries({"caches": st.dictionaries(PATTERNS, JSON)}),
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["alg", "typ"]), JSON), CLAIMS)
def test_no_claims_break_it_and_no_forgery_is_usable(header, claims):
    for key in (None, HS256):
        found = judged(jwt_of(header, claims), key=key)
        assert found
        assert key is None or any(verdict.status is Status.FAILED for verdict in found)
    decoded = token_inspect.decode(jwt_of(header, claims))
    assert decoded is None or token_inspect.summary(decoded)


@settings(max_examples=200, deadline=None)
@given(st.text() | st.builds(".".join, st.lists(st.text("eyJAB_-=", max_size=8), min_size=2, max_size=4)))
def test_no_text_breaks_it(text):
    assert judged(text)


def test_no_verdict_shows_the_token():
    for vector in VECTORS["judged"] + VECTORS["minted"]:
        signature = vector["token"].rsplit(".", 1)[1]
        for verdict in judged(vector["token"]):
            assert signature not in json.dumps(verdict.as_dict())
