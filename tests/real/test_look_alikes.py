"""Every look-alike at once, set up for real on one host, seen from its real containers by curl and by Python."""

from __future__ import annotations

import subprocess
import tomllib
from contextlib import contextmanager

import pytest
from tests.real.attic_like import token
from tests.real.conftest import require, require_root
from tests.real.world import World

from kingpost.observe.doctor import Walk, examine
from kingpost.observe.entering import Entrance
from kingpost.observe.executors.interface import Executor
from kingpost.observe.executors.local import NetworkNamespace
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

pytestmark = pytest.mark.xdist_group("network")

SECRET = "not-a-real-secret"
PRIVATE = {"caches": {"main": False}, "secret": SECRET}
PUBLIC = {"caches": {"main": True}, "secret": SECRET}
HEAD = """
site = { name = "s", substituters = [] }
[hosts.node1]
memory = "8GiB"
docker = { bip = "172.17.0.1/16", pools = [{ base = "172.20.0.0/16", size = 24 }] }
[gitlab.none]
url = "http://127.0.0.1:1"
[runners.blog]
executor = "docker"
host = "node1"
image = "dialler:kp"
substituters = ["attic:reader/main"]
[pipelines.blog]
runner = "blog"
build = [".#x"]
"""
BRIDGE, HOST = "docker:node1/blog", "host:node1"
OK = "KP-ROUTE-OK"
#: server, token that the context holds, declared public, what the Python probe says, what curl alone can say
SERVERS = {
    "private": (PRIVATE, None, False, {OK, "KP-AUTH-NO-TOKEN"}, {OK, "KP-AUTH-NO-TOKEN"}),
    "public": (PUBLIC, None, True, {OK}, {OK}),
    "static": ({"mode": "static"}, None, False, {"KP-ROUTE-OTHER-SERVICE"}, {"KP-ROUTE-OTHER-SERVICE"}),
    "other": (None, None, False, {"KP-ROUTE-OTHER-SERVICE"}, {"KP-ROUTE-OTHER-SERVICE"}),
    "busy": ({"mode": "busy"}, None, False, {"KP-ROUTE-RATE-LIMITED"}, {"KP-ROUTE-RATE-LIMITED"}),
    "broken": ({"mode": "broken"}, None, False, {"KP-ROUTE-SERVER-ERROR"}, {"KP-ROUTE-SERVER-ERROR"}),
    "badhost": ({**PRIVATE, "allowed": ["other:1"]}, None, False, {"KP-ROUTE-BAD-HOST"}, {"KP-ROUTE-BAD-HOST"}),
    "pusher": (PRIVATE, token(SECRET, main="rw"), False, {OK, "KP-AUTH-OK"}, {OK, "KP-AUTH-NO-TOKEN"}),
    "reader": (PRIVATE, token(SECRET, main="r"), False, {OK, "KP-AUTH-READ-ONLY"}, {OK, "KP-AUTH-NO-TOKEN"}),
    "foreign": (PRIVATE, token("other", main="rw"), False, {OK, "KP-AUTH-TOKEN-IGNORED"}, {OK, "KP-AUTH-NO-TOKEN"}),
    "expired": (PUBLIC, token(SECRET, exp=1, main="rw"), True, {OK, "KP-AUTH-TOKEN-IGNORED"}, {OK}),
    "missing": ({"caches": {"x": False}, "secret": SECRET}, token(SECRET, main="rw", x="rw"), False,
                {OK, "KP-CACHE-MISSING"}, {OK, "KP-AUTH-NO-TOKEN"}),
    "notpublic": (PRIVATE, None, True, {OK, "KP-CACHE-NOT-PUBLIC"}, {OK, "KP-CACHE-NOT-PUBLIC"}),
}  # fmt: skip


def topology():
    pushes, servers = "", ""
    for number, (name, (_, _, public, _, _)) in enumerate(SERVERS.items()):
        if name != "reader":  # declared to pull only
            pushes += f'[[pipelines.blog.push]]\ncache = "attic:{name}/main"\npolicy = "required"\n'
        servers += f'[attic.{name}]\nhost = "node1"\nport = {8100 + number}\nbind = "0.0.0.0"\n'
        servers += f"caches.main.public = {str(public).lower()}\n"
    return HEAD + pushes + servers


class InItsNetwork(Executor):
    """A running container's own network, with this machine's programs: an image with Python, without building one."""

    def __init__(self, pid):
        self.pid = pid

    def argv(self, command):
        return ["nsenter", f"--target={self.pid}", "--net", "--", *command]

    def describe(self):
        return f"the network of process {self.pid}"


@contextmanager
def network_of_a_container(docker):
    run = [*docker, "run", "-d", "-i", "--rm", "dialler:kp", "sh", "-c", "read x"]
    container = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    try:
        inspect = [*docker, "inspect", "--format", "{{.State.Pid}}", container]
        yield InItsNetwork(subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip())
    finally:
        subprocess.run([*docker, "rm", "-f", container], capture_output=True, check=True)


def codes(verdicts, context):
    found = {}
    for verdict in verdicts:
        where, _, service = verdict.subject.partition(" -> ")
        if where == f"{context} client":
            found.setdefault(service.removeprefix("attic:").partition("/")[0], set()).add(verdict.code)
    return found


def test_each_is_named_from_the_host_and_from_its_containers():
    require_root()
    require("docker")
    require("netns")
    platform = Platform(Topology.model_validate(tomllib.loads(topology())))
    servers = {f"attic:{name}": config for name, (config, *_) in SERVERS.items() if config is not None}
    tokens = {f"attic:{name}/main": held for name, (_, held, *_) in SERVERS.items() if held}
    ports = tuple(8100 + number for number in range(len(SERVERS)))
    with World(platform, servers=servers, open_ports={"node1": {"docker0": ports}}) as world:
        docker = world.docker("node1")
        ways = {HOST: NetworkNamespace(world.netns("h-node1"))}
        services = frozenset(f"attic:{name}" for name in SERVERS)

        def look(context, **more):
            entrance = Entrance(platform, None, {**ways, **more}, docker=docker)
            return examine(platform, entrance, Walk(frozenset({context}), services, tokens, timeout=3.0))

        by_host = look(HOST)
        by_curl = look(BRIDGE)
        with network_of_a_container(docker) as inside:
            by_python = look(BRIDGE, **{BRIDGE: inside})
    assert codes(by_host, HOST) == {name: row[3] for name, row in SERVERS.items()}
    assert codes(by_python, BRIDGE) == {name: row[3] for name, row in SERVERS.items()}
    assert codes(by_curl, BRIDGE) == {name: row[4] for name, row in SERVERS.items()}
    busy = next(v for v in by_python if v.code == "KP-ROUTE-RATE-LIMITED")
    assert "after 17 s" in busy.summary
    for held in tokens.values():
        assert held not in str(by_host) + str(by_python) + str(by_curl), "a token must never be shown"
