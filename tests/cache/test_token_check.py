import json
import time

import pytest
from tests.cache import attic_api
from tests.cache.attic_rules import Verifier

from kingpost.base import http
from kingpost.base.errors import CannotLookError
from kingpost.cache import token, token_check, token_keys
from kingpost.cache.token import Permission, Request

KEY = token_keys.SigningKey(token_keys.Algorithm.HS256, bytes(range(64)), "test")
OTHER = token_keys.SigningKey(token_keys.Algorithm.HS256, bytes(64), "test")
CACHES = {"private": False, "public": True, "ci-1": False}
ALL = frozenset(Permission)


@pytest.fixture
def attic():
    return attic_api.Attic(Verifier(secret=KEY.material), CACHES)


def check(attic, cache, grants, wanted, *, key=KEY, ago=0):
    made = token.mint(Request("ci", grants, lifetime=60), key, int(time.time()) - ago)
    with attic_api.serve(attic) as url, http.client() as client:
        found = token_check.Check(client, url, cache, made).run(wanted)
    assert attic.caches == CACHES
    assert attic.changes == []
    assert made.rsplit(".", 1)[1] not in json.dumps([verdict.as_dict() for verdict in found])
    return {verdict.subject.split()[0]: verdict.code.removeprefix("KP-TOKEN-") for verdict in found}


def only(*permissions):
    return frozenset(permissions)


def test_every_permission_is_shown_without_changing_anything(attic):
    shown = check(attic, "private", {"private": ALL}, ALL)
    unprovable = {"delete": "UNPROVABLE", "destroy-cache": "UNPROVABLE"}
    granted = dict.fromkeys(
        ["pull", "push", "configure-cache", "configure-cache-retention", "create-cache"], "GRANTED"
    )
    assert shown == {**granted, **unprovable}


CHECKABLE = [Permission.PULL, Permission.PUSH, Permission.CONFIGURE_CACHE, Permission.CREATE_CACHE]


@pytest.mark.parametrize("missing", CHECKABLE)
def test_a_missing_permission_is_told(attic, missing):
    shown = check(attic, "private", {"private": ALL - {missing}}, [missing])
    assert shown == {missing: "DENIED"}


def test_retention_needs_its_own_bit(attic):
    grants = {"private": ALL - {Permission.CONFIGURE_CACHE_RETENTION}}
    wanted = [Permission.CONFIGURE_CACHE_RETENTION, Permission.CONFIGURE_CACHE]
    assert check(attic, "private", grants, wanted) == {
        "configure-cache": "GRANTED", "configure-cache-retention": "DENIED",
    }  # fmt: skip


@pytest.mark.parametrize("cache", ["private", "public"])
@pytest.mark.parametrize("reason", ["another key", "expired", "not yet valid"])
def test_a_token_that_the_server_ignores_is_told_apart_from_one_without_the_bit(attic, cache, reason):
    key = OTHER if reason == "another key" else KEY
    ago = {"expired": 3600, "not yet valid": -3600}.get(reason, 0)
    assert check(attic, cache, {cache: only(Permission.PUSH)}, [Permission.PUSH], key=key, ago=ago) == {
        "push": "ANONYMOUS"
    }
    assert check(attic, cache, {cache: only(Permission.PULL)}, [Permission.PUSH]) == {"push": "DENIED"}


def test_a_public_cache_proves_no_pull(attic):
    pull = [Permission.PULL]
    for key in (KEY, OTHER):
        assert check(attic, "public", {"public": only(*pull)}, pull, key=key) == {"pull": "UNPROVABLE"}


def test_but_another_permission_or_a_pattern_does(attic):
    pull = [Permission.PULL]
    both = only(Permission.PULL, Permission.PUSH)
    assert check(attic, "public", {"public": both}, both) == {"push": "GRANTED", "pull": "GRANTED"}
    assert check(attic, "public", {"*": only(*pull)}, pull) == {"pull": "GRANTED"}
    assert check(attic, "public", {"pub*": only(*pull)}, pull, key=OTHER) == {"pull": "UNPROVABLE"}


def test_a_missing_cache(attic):
    wanted = [Permission.PUSH, Permission.PULL, Permission.CREATE_CACHE]
    assert check(attic, "absent", {"absent": ALL}, wanted) == {
        "push": "NO-CACHE", "pull": "NO-CACHE", "create-cache": "UNPROVABLE",
    }  # fmt: skip


class Page(attic_api.Attic):
    def answer(self, method, path, body, authorization):
        return 200, "<html>please log in</html>"


class Broken(attic_api.Attic):
    def answer(self, method, path, body, authorization):
        return attic_api.error(500, "InternalServerError", "The server encountered an internal error")


@pytest.mark.parametrize("kind", [Page, Broken])
def test_what_is_no_answer_of_attic_is_never_granted(kind):
    attic = kind(Verifier(secret=KEY.material), CACHES)
    shown = check(attic, "private", {"private": ALL}, CHECKABLE)
    assert set(shown.values()) <= {"STRANGE", "UNPROVABLE"}
    assert shown["push"] == "STRANGE"


def test_no_server_is_no_verdict():
    url = "http://127.0.0.1:9"
    with http.client() as client, pytest.raises(CannotLookError, match="does not answer"):
        token_check.Check(client, url, "c", "t").run([Permission.PULL])
    with http.client() as client, pytest.raises(CannotLookError):
        token_check.clock_difference(client, url, 0)


@pytest.mark.parametrize("ahead", [-120, 0, 3600])
def test_the_servers_clock(attic, ahead):
    attic.ahead = ahead
    with attic_api.serve(attic) as url, http.client() as client:
        assert abs(token_check.clock_difference(client, url, time.time()) - ahead) <= 2
