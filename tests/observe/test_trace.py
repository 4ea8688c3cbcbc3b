from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kingpost.observe.nixlog import Reason
from kingpost.observe.trace import Trace
from kingpost.observe.trace_report import Gates, judge, stories
from kingpost.observe.trace_run import human, with_log_options

LOGS = Path(__file__).parent / "logs"
GOOD, BAD = "http://good.example", "http://bad.example"
NO_GATES = Gates({})


def traced(name):
    trace = Trace()
    with (LOGS / name).open() as file:
        trace.feed_all(file)
    return trace


@pytest.mark.parametrize("version", ["2.8", "2.34"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("narinfo-403", Reason.SILENT),
        ("nar-empty", Reason.NAR_INCOMPLETE),
        ("refused", Reason.REFUSED),
    ],
)
def test_who_served_and_why_not_the_other(version, fault, reason):
    trace = traced(f"{version}-{fault}.log")
    assert len(trace.paths) == 3
    for story in trace.paths.values():
        assert story.served_by == GOOD
        assert trace.passed_over(story) == {BAD: reason}
    assert not trace.fallbacks
    assert not trace.torn


@pytest.mark.parametrize("version", ["2.8", "2.34"])
def test_a_healthy_log(version):
    trace = traced(f"{version}-healthy.log")
    assert {story.served_by for story in trace.paths.values()} == {BAD}, "here the first cache was sound"
    assert {v.code for v in judge(trace, NO_GATES, 0)} == {"KP-TRACE-SERVED"}
    assert all(entry["download_bytes"] > 100 for entry in stories(trace))


def test_gates():
    trace = traced("2.34-nar-empty.log")
    gates = Gates({"good": frozenset({GOOD}), "bad": frozenset({BAD})}, 0, 0)
    codes = {v.subject: v.code for v in judge(trace, gates, 0)}
    assert codes["--require good"] == "KP-GATE-HELD"
    assert codes["--require bad"] == "KP-GATE-REQUIRE"
    assert codes["--max-fallbacks 0"] == "KP-GATE-HELD"
    assert codes["--max-local-builds 0"] == "KP-GATE-HELD"
    assert codes[BAD] == "KP-TRACE-TROUBLED"


def test_builds_here_and_elsewhere():
    trace = Trace()
    for number, machine in enumerate(["", "ssh://builder"]):
        fields = [f"/nix/store/{number}-x.drv", machine, 1, 1]
        trace.feed("@nix " + json.dumps({"action": "start", "id": number, "type": 105, "fields": fields}))
    assert [build.derivation for build in trace.local_builds] == ["/nix/store/0-x.drv"]
    assert [entry["origin"] for entry in stories(trace)] == ["local build", "remote build"]


def test_a_log_without_events_is_skipped_not_ok():
    trace = Trace()
    trace.feed_all(["building '/nix/store/x.drv'...\n"])
    (verdict,) = judge(trace, NO_GATES, None)
    assert (verdict.code, str(verdict.status)) == ("KP-TRACE-NO-EVENTS", "skipped")


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_cut_log_gives_a_part_and_says_so(cut):
    text = (LOGS / "2.34-healthy.log").read_text()
    end = text.index("@nix", int(len(text) * cut)) + 40
    trace = Trace()
    trace.feed_all(text[:end].splitlines(keepends=True))
    assert "KP-TRACE-TORN" in {v.code for v in judge(trace, NO_GATES, None)}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["start", "stop", "result", "msg", "other"]),
        "type": st.sampled_from([100, 101, 105, 108, 109, 0]) | VALUES,
        "id": st.integers(0, 4) | VALUES,
        "fields": st.lists(st.sampled_from(["/nix/store/x-y", BAD, GOOD, "local", 3]) | VALUES, max_size=5)
        | VALUES,
        "msg": st.text() | st.just(f"NAR for '/nix/store/x-y' fetched from '{BAD}' is incomplete") | VALUES,
        "level": st.integers(0, 7) | VALUES,
        "text": VALUES,
        "parent": VALUES,
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # of making events, on a machine that is busy
@given(st.lists(EVENTS, max_size=30))
def test_no_event_whatever_raises(events):
    trace = Trace(live=True)
    for event in events:
        line = "@nix " + json.dumps(event)
        human(line, trace.feed(line))
    judge(trace, NO_GATES, 0)
    json.dumps(stories(trace))


def test_options_go_before_the_programs_own_arguments():
    assert with_log_options(["nix", "run", ".#x", "--", "-v"]) == [
        "nix", "run", ".#x", "--log-format", "internal-json", "-v", "--", "-v",
    ]  # fmt: skip
