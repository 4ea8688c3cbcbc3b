import fnmatch
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cache.attic_rules import BITS, BadTokenError, Verifier

from kingpost.base.errors import UsageError
from kingpost.cache import token, token_keys
from kingpost.cache.token import Permission, Request

HERE = Path(__file__).parent / "token-vectors"
KEYS = json.loads((HERE / "keys.json").read_text())
VECTORS = json.loads((HERE / "vectors.json").read_text())


def key_for(vector, variant=""):
    name = vector.get("key") or ("hs256" if vector["alg"] == "HS256" else variant or "rs256_pkcs1")
    return token_keys.parse(KEYS[name], origin="keys.json")


def request_of(vector):
    asked = dict(vector["request"])
    grants = {pattern: frozenset(map(Permission, names)) for pattern, names in asked.pop("grants").items()}
    return Request(grants=grants, **{**asked, "audiences": tuple(asked.get("audiences", ()))})


@pytest.mark.parametrize("variant", ["rs256_pkcs1", "rs256_pkcs8"])
@pytest.mark.parametrize("vector", VECTORS["minted"], ids=lambda vector: vector["name"])
def test_a_minted_token_is_byte_for_byte_what_jose_signs(vector, variant):
    request = request_of(vector)
    assert token.claims(request, vector["now"]) == vector["claims"]
    assert token.mint(request, key_for(vector, variant), vector["now"]) == vector["token"]


@pytest.mark.parametrize("vector", VECTORS["judged"], ids=lambda vector: vector["name"])
def test_the_rules_of_the_tests_judge_joses_tokens_as_attic_does(vector):
    verifier = Verifier(secret=token_keys.parse(KEYS["hs256"], origin="").material)
    if vector["bits"] is None:
        with pytest.raises(BadTokenError):
            verifier.permissions(vector["token"], vector["cache"], vector["now"])
    else:
        assert verifier.permissions(vector["token"], vector["cache"], vector["now"]) == set(vector["bits"])


def rs256_numbers():
    public = token_keys.parse(KEYS["rs256_public"], origin="").material.public_numbers()
    return public.n, public.e


PATTERNS = st.text("ab*", min_size=1, max_size=4)
PERMISSIONS = st.frozensets(st.sampled_from(list(Permission)), min_size=1)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(PATTERNS, PERMISSIONS, min_size=1, max_size=3),
    st.text("ab", min_size=1, max_size=5),
    st.sampled_from(["HS256", "RS256"]),
)
def test_attic_grants_what_was_asked_for_and_nothing_else(grants, cache, algorithm):
    hs = algorithm == "HS256"
    key = token_keys.parse(KEYS["hs256" if hs else "rs256_pkcs8"], origin="")
    verifier = Verifier(secret=key.material) if hs else Verifier(rsa=rs256_numbers())
    made = token.mint(Request("ci", grants, lifetime=60, backdate=10), key, 1000)
    wanted = {
        permission.bit
        for pattern, granted in grants.items()
        if fnmatch.fnmatchcase(cache, pattern)
        for permission in granted
    }
    assert verifier.permissions(made, cache, 1000) == wanted
    for accepted in (990, 1060):
        verifier.entries(made, accepted)
    for refused in (989, 1061):
        with pytest.raises(BadTokenError):
            verifier.entries(made, refused)


def test_each_permission_has_its_bit():
    assert [permission.bit for permission in Permission] == list(BITS)
    assert {p.bit: p for p in Permission} == token.BY_BIT


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("ci", {}), "without a permission"),
        (Request("ci", {"main": frozenset({Permission.PULL})}, lifetime=0), "at least one second"),
        (Request("ci", {"main": frozenset({Permission.PULL})}, lifetime=1e18), "at most ten years"),
        (Request("ci", {"main": frozenset({Permission.PULL})}, backdate=-1), "at most a day"),
        (Request("ci", {"main": frozenset({Permission.PULL})}, backdate=1e6), "at most a day"),
        (Request("ci", {"ma/in": frozenset({Permission.PULL})}), "no cache name or pattern"),
    ],
)
def test_useless_requests_are_refused(request_, message):
    with pytest.raises(UsageError, match=message):
        token.claims(request_, 0)


def test_a_public_key_cannot_sign():
    key = token_keys.parse(KEYS["rs256_public"], origin="pub.pem")
    with pytest.raises(UsageError, match="public one"):
        token.mint(Request("ci", {"main": frozenset({Permission.PULL})}), key, 0)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([(Permission.PUSH, "main")], "without pull"),
        ([(Permission.DELETE, "main")], "checks nowhere"),
        ([(Permission.PULL, "*"), (Permission.PUSH, "main")], "were repeated"),
        ([(Permission.PULL, "a*"), (Permission.PUSH, "*b")], "entries were added"),
        ([(Permission.PULL, "main")], None),
        ([(Permission.PULL, "main"), (Permission.PUSH, "main")], None),
    ],
)
def test_notes_name_the_traps(pairs, said):
    notes = token.notes(Request("ci", token.grants(pairs)), token_keys.parse(KEYS["hs256"], origin=""))
    assert (said is None and not notes) or any(said in note for note in notes), notes


def test_notes_name_weak_keys_and_long_lives():
    request = Request("ci", {"main": frozenset({Permission.PULL})}, lifetime=90 * 86400)
    notes = token.notes(request, token_keys.parse(KEYS["hs256_short"], origin=""))
    assert any("11 bytes" in note for note in notes)
    assert any("90 days" in note for note in notes)
