"""Pods by the real kubectl: listed, chosen and entered through an API server's stand-in, executed for real."""

from __future__ import annotations

import re
import subprocess
import tomllib
from contextlib import contextmanager

import pytest
from tests.real.attic_like import token
from tests.real.conftest import require, require_root
from tests.real.kube_api import Cluster, kubectl_words, pod, serving
from tests.real.tls_servers import Authority
from tests.real.world import World

from kingpost.observe.doctor import Walk, examine
from kingpost.observe.entering import Entrance
from kingpost.observe.executors.pod import Pod
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

pytestmark = pytest.mark.xdist_group("network")

TOPOLOGY = """
site = { name = "s", substituters = ["attic:home/main"] }
[hosts.node1]
memory = "8GiB"
[clusters.k3s]
host = "node1"
[attic.home]
cluster = "k3s"
namespace = "cache"
port = 8080
caches.main.public_key = "main:MOjxCMhKFSIS5JGtq5dJYyhVKlCr9vkVuPXBgq6XIWs="
[gitlab.none]
url = "http://127.0.0.1:1"
[runners.ci]
executor = "kubernetes"
cluster = "k3s"
namespace = "jobs"
image = "img:1"
"""
SECRET = "not-a-real-secret"
SERVER = {"caches": {"main": False}, "secret": SECRET}
CONTEXT = "pod:k3s/ci"
TOKEN = "not-a-real-kubernetes-token"
JOB = {"job.runner.gitlab.com/pod": "runner-x-project-1-concurrent-0", "manager.runner.gitlab.com/name": "ci"}


@pytest.fixture
def kubectl(tmp_path):
    """Give what makes a client of a cluster."""
    program = require("kubectl") / "kubectl"
    authority = Authority(tmp_path / "authority")

    @contextmanager
    def client(cluster, held=TOKEN):
        cluster.token = TOKEN
        with serving(cluster, authority) as url:
            yield kubectl_words(program, url, authority, tmp_path, held)

    return client


def platform():
    return Platform(Topology.model_validate(tomllib.loads(TOPOLOGY)))


def examined(client, cluster_platform=None, ways=None, **walk):
    """Walk the runner's routes, where `node1` is this machine."""
    one = cluster_platform or platform()
    entrance = Entrance(one, "node1", ways or {}, kubectl=client)
    return examine(one, entrance, Walk(frozenset({CONTEXT}), frozenset({"attic:home"}), timeout=2.0, **walk))


def test_doctor_asks_from_inside_a_jobs_pod(kubectl):
    require_root()
    require("netns")
    one = platform()
    held = token(SECRET, main="rw")
    with World(one, servers={"attic:home": SERVER}) as world:
        hosts = world.directory / "hosts-k3s"

        def inside(_pod, _container, command):
            words = [
                "unshare",
                "-m",
                "sh",
                "-c",
                f'mount --bind {hosts} /etc/hosts && exec "$@"',
                "sh",
                *command,
            ]
            return [*world.enter("pod-k3s"), *words]

        labels = {"job.runner.gitlab.com/pod": "y", "manager.runner.gitlab.com/name": "other"}
        pods = [
            pod("jobs", "runner-ci-6d8", "gitlab-runner"),
            pod("jobs", "runner-y-project-2-concurrent-0", "build", labels=labels),
            pod("jobs", "runner-x-project-1-concurrent-0", "svc-0", "build", "helper", labels=JOB),
        ]
        cluster = Cluster(pods, run=inside)
        with kubectl(cluster) as client:
            anonymous = examined(client, one)
            with_token = examined(client, one, tokens={"attic:home/main": held})
    by_dialer = {v.subject.split(" -> ")[0]: v.code for v in anonymous if v.code.startswith("KP-ROUTE")}
    assert by_dialer[f"{CONTEXT} client"] == "KP-ROUTE-OK", anonymous
    assert {"KP-AUTH-NO-TOKEN"} <= {v.code for v in anonymous}
    assert "KP-AUTH-OK" in {v.code for v in with_token}
    for path, query in cluster.execs:
        assert "/namespaces/jobs/pods/runner-x-project-1-concurrent-0/exec" in path
        assert query["command"] == ["sh", "-s"]
        assert query["container"] == ["build"]
        assert held not in path
    assert held not in str(with_token)


def test_stdin_output_and_exit_codes_pass_through(kubectl):
    with kubectl(Cluster([pod("jobs", "job-1", "build", "helper")])) as client:

        def run(*command, stdin=""):
            argv = Pod("jobs", "job-1", client, "build").argv(command)
            return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=30)

        script = "x='" + "é" * 40000 + "'\necho ${#x}; echo err >&2; exit 7\n"
        done = run("sh", "-s", stdin=script)
        assert (done.returncode, done.stderr.splitlines()[0]) == (7, "err")
        assert done.stdout in {"40000\n", "80000\n"}  # by the shell's locale
        assert run("cat", stdin="z" * 300_000).stdout == "z" * 300_000
        missing = run("no-such-program")
        assert missing.returncode == 1
        assert "executable file not found" in missing.stderr


REFUSALS = {
    "a token that the server refuses": ({}, "wrong", {}, "must be logged in"),
    "a namespace that the token may not see": ({"forbidden": ["jobs"]}, TOKEN, {}, "forbidden"),
    "nothing runs": ({"objects": []}, TOKEN, {}, "no pod runs in namespace jobs"),
    "its container ended": ({"stopped": ["app"]}, TOKEN, {}, "container not found"),
    "a pod that is not there": ({}, TOKEN, {CONTEXT: "none"}, 'pods "none" not found'),
    "an image without a shell": ({"run": lambda *_: ["/no/such/sh"]}, TOKEN, {}, "executable file not found"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_entered_is_skipped_with_its_reason(kubectl, name):
    options, held, ways, reason = REFUSALS[name]
    with kubectl(Cluster(**{"objects": [pod("jobs", "job-1")], **options}), held) as client:
        verdicts = examined(client, ways={context: Pod("jobs", one, client) for context, one in ways.items()})
    client_route = next(v for v in verdicts if v.subject.startswith(f"{CONTEXT} client"))
    assert client_route.code == "KP-CONTEXT-NOT-ENTERED"
    said = f"{client_route.summary} {client_route.evidence}"
    assert re.search(reason, said), said


def test_a_pod_that_has_ended_and_one_that_is_pending_are_not_entered(kubectl):
    waiting = pod("jobs", "pending", "build", labels=JOB)
    waiting["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ContainerCreating"}}
    done = pod("jobs", "done", "build", labels=JOB, phase="Succeeded")
    with kubectl(Cluster([waiting, done])) as client:
        verdicts = examined(client)
    assert "no pod runs" in next(v for v in verdicts if v.subject.startswith(f"{CONTEXT} client")).summary
