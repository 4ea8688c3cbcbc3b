from __future__ import annotations

import shlex
import tomllib

import pytest

from kingpost.base.errors import UsageError
from kingpost.base.process import Completed
from kingpost.observe import entering
from kingpost.observe.entering import Entrance, parse_way
from kingpost.observe.executors.docker import RunningContainer, ShortLivedContainer
from kingpost.observe.executors.interface import NoWay, Over
from kingpost.observe.executors.local import Here
from kingpost.observe.executors.pod import Pod
from kingpost.observe.executors.ssh import Ssh
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

TOPOLOGY = """
site = { name = "s", substituters = [] }
networks.tailnet = { kind = "tailnet" }
[hosts.a]
memory = "8GiB"
users = ["ann"]
ssh_user = "ann"
docker = {}
addresses = { tailnet = "100.64.0.1" }
[clusters.k]
host = "a"
[runners.d]
executor = "docker"
host = "a"
image = "img:1"
[runners.b]
executor = "docker"
host = "a"
network = "per-build"
image = "img:1"
[attic.home]
cluster = "k"
namespace = "cache"
port = 8080
storage = { kind = "bucket", bucket = "b" }
caches.main.public = true
[buckets.b]
provider = "r2"
endpoint = "https://0f.r2.cloudflarestorage.com"
[audits.nightly]
cache = "attic:home/main"
cluster = "k"
namespace = "audits"
image = "img:1"
[runners.p]
executor = "kubernetes"
cluster = "k"
namespace = "jobs"
image = "img:1"
"""


@pytest.fixture
def entrance(monkeypatch):
    """Make an entrance whose commands answer as told; gives it and the list of what was run."""

    def make(here=None, **answers):
        ran = []

        def run(argv, **_):
            ran.append(list(argv))
            text = shlex.join(argv)
            return Completed(
                tuple(argv), 0, next((a for key, a in answers.items() if f" {key} " in text), ""), ""
            )

        monkeypatch.setattr(entering, "run", run)
        return Entrance(Platform(Topology.model_validate(tomllib.loads(TOPOLOGY))), here), ran

    return make


def way(entrance, context):
    found = entrance.platform.contexts[context]
    return entrance.way(found, found.client)


def test_another_host_is_reached_by_ssh_at_its_preferred_address(entrance):
    assert way(entrance()[0], "host:a") == Ssh("100.64.0.1", "ann")
    assert way(entrance(here="a")[0], "host:a") == Here()
    assert way(entrance(here="a")[0], "user:a/ann") == Here("ann")


def test_a_running_job_is_preferred_to_a_container_of_our_own(entrance):
    found, ran = entrance(here="a", ps="c0ffee\n")
    assert way(found, "docker:a/d") == RunningContainer("c0ffee")
    assert "ancestor=img:1" in ran[0]


def test_a_short_lived_container_is_like_the_runners_and_pulls_nothing(entrance):
    found, _ = entrance(here="a", images="deadbeef\n")
    inside = way(found, "docker:a/d")
    assert isinstance(inside, ShortLivedContainer)
    argv = inside.argv(["sh", "-s"])
    assert argv[:7] == ["docker", "run", "--rm", "-i", "--pull", "never", "--network"]
    assert argv[-4:] == ["--entrypoint", "sh", "img:1", "-s"]


def test_through_ssh_a_command_is_quoted_once(entrance):
    found, _ = entrance(images="deadbeef\n")
    inside = way(found, "docker:a/d")
    assert isinstance(inside, Over)
    argv = inside.argv(["sh", "-c", "echo 'a b'"])
    assert argv[0] == "ssh"
    assert shlex.split(argv[-1])[-1] == "-c" or "echo 'a b'" in shlex.split(argv[-1])


def test_what_cannot_be_entered_says_why(entrance):
    assert "not on a" in way(entrance(here="a")[0], "docker:a/d").reason
    per_build = way(entrance(here="a", images="x")[0], "docker:a/b")
    assert isinstance(per_build, NoWay)
    assert "only while one does" in per_build.reason
    assert "no pod runs" in way(entrance(here="a", get="nonsense")[0], "pod:k/p").reason
    assert "no pod runs" in way(entrance(here="a", get=row("job-1", "build=,"))[0], "pod:k/p").reason


def row(name, containers, job="", manager="", instance=""):
    """Write a pod as kubectl's jsonpath prints it."""
    return f"{name}\t{job}\t{manager}\t{instance}\t{containers}" + "\n"


SINCE = "2026-11-21T00:00:00Z"
OTHER = row("runner-7-project-1-concurrent-0", f"build={SINCE},helper={SINCE},", "x", "other")
OWN = row("runner-9-project-1-concurrent-0", f"svc-0={SINCE},build={SINCE},", "x", "p")


@pytest.mark.parametrize(
    ("context", "rows", "expected"),
    [
        # The runner's own job, in the container of its script.
        ("pod:k/p", OTHER + OWN, Pod("jobs", "runner-9-project-1-concurrent-0", container="build")),
        # Before GitLab 16.6 only the name tells a job.
        ("pod:k/p", row("app-1", f"app={SINCE},") + row("runner-1-project-2-concurrent-0", f"build={SINCE},"),
         Pod("jobs", "runner-1-project-2-concurrent-0", container="build")),
        # A neighbour has the same ways; whose it is, is said.
        ("pod:k/p", OTHER, Pod("jobs", "runner-7-project-1-concurrent-0", container="build",
                               note="a neighbour: none of its own runs")),
        ("service:k/home", row("job", f"x={SINCE},") + row("home-1", f"atticd={SINCE},", instance="home"),
         Pod("cache", "home-1", container="atticd")),
        ("pod:k/audit-nightly", row("audit-nightly-0-x7", f"audit={SINCE},"),
         Pod("audits", "audit-nightly-0-x7", container="audit")),
    ],
)  # fmt: skip
def test_a_pod_of_the_contexts_own(entrance, context, rows, expected):
    found, ran = entrance(here="a", get=rows)
    assert way(found, context) == expected
    assert ran[0][:5] == ["kubectl", "get", "pods", "-n", expected.namespace]


def test_a_way_by_hand():
    assert parse_way("ssh:ann@node1") == Ssh("node1", "ann")
    assert parse_way("docker:abc") == RunningContainer("abc")
    assert parse_way("pod:ns/p") == Pod("ns", "p")
    for bad in ("", "ssh:", "pod:x", "telnet:x", "here:x"):
        with pytest.raises(UsageError, match="no way into"):
            parse_way(bad)
