"""Runners over HTTP, from a server with GitLab's documented answers."""

from __future__ import annotations

import tomllib

from tests.observe.gitlab_api import TOKEN, details, gitlab, manager

from kingpost.observe.drift_runners import Known, judge
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

TEXT = """
site = { name = "s" }
hosts.a = { memory = "8GiB" }
gitlab.lab = { url = "URL" }
[runners.one]
executor = "shell"
host = "a"
server = { tags = ["x", "y"], protected = true, maximum_timeout = 3600 }
"""
GOOD = {"tag_list": ["y", "x"], "access_level": "ref_protected", "maximum_timeout": 3600}


def look(runners, managers, known=None, token=TOKEN):
    with gitlab(runners, managers) as url:
        platform = Platform(Topology.model_validate(tomllib.loads(TEXT.replace("URL", url))))
        verdicts = list(judge(platform, {"lab": token} if token else {}, known or Known({}, {}, {})))
    assert TOKEN not in str(verdicts)
    return verdicts


def failed(verdicts):
    return {
        (v.subject.removeprefix("runner one at GitLab").strip(), v.code)
        for v in verdicts
        if str(v.status) == "failed"
    }


def test_a_runner_is_found_by_its_name_on_a_later_page():
    runners = {n: details(n, f"other-{n}") for n in range(1, 6)} | {9: details(9, "one", **GOOD)}
    assert not failed(look(runners, {9: [manager("s_a")]}))


def test_the_id_of_the_live_config_wins_over_a_name():
    runners = {1: details(1, "one"), 2: details(2, "renamed", **GOOD)}
    assert not failed(look(runners, {2: [manager("s_a")]}, Known({"one": 2}, {}, {})))


def test_a_deleted_runner():
    assert failed(look({1: details(1, "two")}, {}, Known({"one": 5}, {}, {}))) == {
        ("", "KP-DRIFT-RUNNER-UNKNOWN")
    }


def test_the_operators_stuck_jobs():
    """An OOM kill made gitlab-runner a new machine, and nobody protected the runner that took over."""
    runners = {1: details(1, "one", **{**GOOD, "access_level": "not_protected"})}
    managers = {1: [manager("s_old"), manager("s_new", contacted_at="2026-11-21T17:00:00Z")]}
    verdicts = look(runners, managers, Known({}, {"a": "s_new"}, {"a": "18.4.0"}))
    assert failed(verdicts) == {
        ("protected", "KP-DRIFT-RUNNER-SERVER"),
        ("machines", "KP-DRIFT-RUNNER-SYSTEM-IDS"),
    }
    [machines] = [v for v in verdicts if v.code == "KP-DRIFT-RUNNER-SYSTEM-IDS"]
    assert "s_new online (this host)" in machines.summary


def test_a_host_that_gitlab_never_saw_and_an_old_version():
    runners = {1: details(1, "one", **GOOD, paused=True)}
    found = failed(look(runners, {1: [manager("s_old")]}, Known({}, {"a": "s_mine"}, {"a": "18.4.0"})))
    assert found == {("status", "KP-DRIFT-RUNNER-AWAY"), ("machines", "KP-DRIFT-RUNNER-SYSTEM-IDS")}
    mine = [manager("s_mine", version="17.0.0")]
    found = failed(
        look({1: details(1, "one", **GOOD)}, {1: mine}, Known({}, {"a": "s_mine"}, {"a": "18.4.0"}))
    )
    assert found == {("version", "KP-DRIFT-RUNNER-VERSION")}


def test_without_a_token_or_with_a_bad_one_nothing_is_claimed():
    assert [v.code for v in look({}, {}, token="")] == ["KP-DRIFT-NOT-ASKED"]
    [verdict] = look({}, {}, token="glpat-wrong")
    assert (verdict.code, "401" in verdict.summary) == ("KP-DRIFT-NOT-ASKED", True)
