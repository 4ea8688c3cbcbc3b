import pytest

from kingpost.storefix import bundle, remote
from kingpost.storefix.errors import UsageError
from kingpost.storefix.remote import PLAN


@pytest.mark.parametrize(
    ("argv", "words", "receives"),
    [
        (["scan", "--json"], ["scan", "--json"], ""),
        (["plan"], ["plan"], ""),
        (["plan", "-o", "p.json"], ["plan", "-o", PLAN], "p.json"),
        (
            ["plan", "--from", "x", "--output", "p.json", "-v"],
            ["plan", "--from", "x", "--output", PLAN, "-v"],
            "p.json",
        ),
        (["plan", "--output=p.json"], ["plan", "-o", PLAN], "p.json"),
        (["plan", "--out=p.json"], ["plan", "-o", PLAN], "p.json"),
        (["plan", "--outp", "p.json"], ["plan", "--outp", PLAN], "p.json"),
        (["plan", "--offline"], ["plan", "--offline"], ""),
        (["plan", "-op.json"], ["plan", "-o", PLAN], "p.json"),
        (["apply", "gone.json"], ["apply", "gone.json"], ""),
        (["scan", "-o", "x"], ["scan", "-o", "x"], ""),
        ([], [], ""),
    ],
)
def test_the_plan_that_comes_back(argv, words, receives):
    job = remote._job(argv)
    assert (list(job.argv), job.receives, job.sends) == (words, receives, "")


def test_the_plan_that_is_sent(tmp_path):
    plan = tmp_path / "p.json"
    plan.write_text("{}")
    job = remote._job(["apply", "--yes", str(plan)])
    assert (list(job.argv), job.sends) == (["apply", "--yes", PLAN], str(plan))


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("node1", ["--", "node1"]),
        ("me@node1", ["--", "me@node1"]),
        ("ssh://me@node1:2222", ["-p", "2222", "--", "me@node1"]),
        ("ssh://node1", ["--", "node1"]),
    ],
)
def test_hosts(host, words):
    assert remote._target(host) == words


@pytest.mark.parametrize(
    "host", ["", "-oProxyCommand=x", "me@-x", "https://node1", "ssh://", "ssh://h:x", "ssh://-x"]
)
def test_what_is_no_host(host):
    with pytest.raises(UsageError, match="names no machine"):
        remote._target(host)


def test_the_one_file_is_the_same_every_time():
    one = bundle.build()
    assert one == bundle.build()
    assert one.startswith(b"#!/usr/bin/env python3\nPK")
