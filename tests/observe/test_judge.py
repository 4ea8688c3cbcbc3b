"""What answers mean; that real contexts give such answers is shown in tests/real/test_doctor.py."""

from __future__ import annotations

import pytest

from kingpost.observe.judge import Expectation, judge
from kingpost.topology.places import Dialer
from kingpost.topology.routes import Route

URL = "http://172.17.0.1:8083"
INFO = {"status": 200, "body": "StoreDir: /nix/store\n"}


def route(url=URL):
    return Route("docker:n/r", Dialer.CLIENT, "attic:home", url, "gateway", "why", "fix", URL)


def expectation(kind="attic", *, url=URL, public=False, pushes=False):
    return Expectation(route(url), URL, kind, "main" if kind == "attic" else "", public, pushes)


def seen(**requests):
    return {"resolve": {"addresses": ["172.17.0.1"]}, "connect": {"address": "172.17.0.1", "seconds": 0.001},
            "requests": requests}  # fmt: skip


def refusal(status, error):
    return {"status": status, "body": f'{{"error":"{error}"}}'}


PRIVATE = refusal(401, "Unauthorized")
CASES = {
    "name": ({"resolve": {"error": "no such name"}}, {}, ["KP-ROUTE-NAME"]),
    "refused": ({"connect": {"error": "refused", "text": "x"}}, {}, ["KP-ROUTE-REFUSED"]),
    "timeout": ({"connect": {"error": "timeout", "text": "x"}}, {}, ["KP-ROUTE-TIMEOUT"]),
    "unreachable": ({"connect": {"error": "unreachable", "text": "x"}}, {}, ["KP-ROUTE-UNREACHABLE"]),
    "tls": ({"connect": {}, "tls": {"error": "bad certificate"}}, {}, ["KP-ROUTE-TLS"]),
    "no-http": (seen(anonymous={"error": "other", "text": "BadStatusLine"}), {}, ["KP-ROUTE-OTHER-SERVICE"]),
    "page": (seen(anonymous={"status": 200, "body": "<html>"}), {}, ["KP-ROUTE-OTHER-SERVICE"]),
    "foreign-404": (seen(anonymous={"status": 404, "body": "nginx"}), {}, ["KP-ROUTE-OTHER-SERVICE"]),
    "bad-host": (seen(anonymous={"status": 400, "body": '{"error":"RequestError","message":"Bad Host"}'}), {},
                 ["KP-ROUTE-BAD-HOST"]),
    "500": (seen(anonymous=refusal(500, "InternalServerError")), {}, ["KP-ROUTE-SERVER-ERROR"]),
    "429": (seen(anonymous={"status": 429, "retry-after": "9"}), {}, ["KP-ROUTE-RATE-LIMITED"]),
    "public": (seen(anonymous=INFO), {"public": True}, ["KP-ROUTE-OK"]),
    "private": (seen(anonymous=PRIVATE), {}, ["KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"]),
    "not-public": (seen(anonymous=PRIVATE), {"public": True}, ["KP-ROUTE-OK", "KP-CACHE-NOT-PUBLIC"]),
    "missing": (seen(anonymous=PRIVATE, authenticated=refusal(404, "NoSuchCache")), {},
                ["KP-ROUTE-OK", "KP-CACHE-MISSING"]),
    "ignored": (seen(anonymous=PRIVATE, authenticated=PRIVATE), {}, ["KP-ROUTE-OK", "KP-AUTH-TOKEN-IGNORED"]),
    "good": (seen(anonymous=PRIVATE, authenticated=INFO, push={"status": 200, "body": "{}"}), {"pushes": True},
             ["KP-ROUTE-OK", "KP-AUTH-OK"]),
    "read-only": ({**seen(anonymous=PRIVATE, authenticated=INFO, push=refusal(403, "AccessError")),
                   "claims": {"pull": True, "push": False, "expired": False}}, {},
                  ["KP-ROUTE-OK", "KP-AUTH-READ-ONLY"]),
    "read-only-but-pushes": ({**seen(anonymous=PRIVATE, authenticated=INFO, push=refusal(403, "AccessError")),
                              "claims": {"pull": True, "push": False, "expired": False}}, {"pushes": True},
                             ["KP-ROUTE-OK", "KP-AUTH-TOKEN-IGNORED"]),
    "ignored-on-public": ({**seen(anonymous=INFO, authenticated=INFO, push=refusal(403, "AccessError")),
                           "claims": {"pull": True, "push": True, "expired": True}}, {"public": True},
                          ["KP-ROUTE-OK", "KP-AUTH-TOKEN-IGNORED"]),
    "endpoint": ({**seen(anonymous=PRIVATE), "api_endpoint": {"url": "http://x/", "connect": {"error": "refused"}}},
                 {"pushes": True}, ["KP-ROUTE-OK", "KP-AUTH-NO-TOKEN", "KP-API-ENDPOINT-UNREACHABLE"]),
    "redirect": ({**seen(anonymous=PRIVATE), "redirect": {"host": "s3:9000", "resolve": {"error": "no"}}}, {},
                 ["KP-ROUTE-OK", "KP-AUTH-NO-TOKEN", "KP-REDIRECT-UNREACHABLE"]),
    "shell-saw-no-body": (seen(anonymous={"status": 401, "body": None}), {}, ["KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"]),
    "no-tools": ({"skipped": "neither curl nor wget"}, {}, ["KP-CONTEXT-NOT-ENTERED"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_an_answer_means(name):
    answers, options, expected = CASES[name]
    verdicts = judge(expectation(**options), answers)
    assert [verdict.code for verdict in verdicts] == expected
    assert all(verdict.summary for verdict in verdicts)


CLOSED = {
    "refused": ({"connect": {"error": "refused"}}, "KP-ROUTE-CLOSED"),
    "something-else": (seen(anonymous={"status": 200, "body": "<html>"}), "KP-ROUTE-CLOSED"),
    "itself": (seen(anonymous=PRIVATE), "KP-ROUTE-OPEN"),
}


@pytest.mark.parametrize("name", CLOSED)
def test_a_route_that_is_declared_closed(name):
    answers, expected = CLOSED[name]
    (verdict,) = judge(expectation(url=None), answers)
    assert verdict.code == expected


def test_a_bucket_answers_as_s3():
    ok = judge(expectation("bucket"), seen(anonymous={"status": 403, "body": "<Error><Code>AccessDenied"}))
    other = judge(expectation("bucket"), seen(anonymous={"status": 200, "body": "hello"}))
    assert [ok[0].code, other[0].code] == ["KP-ROUTE-OK", "KP-ROUTE-OTHER-SERVICE"]
