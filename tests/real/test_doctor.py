"""Doctor inside real containers and namespaces: what is expected stays calm, each look-alike gets its name."""

from __future__ import annotations

import tomllib
from contextlib import contextmanager

import pytest
from tests.real.attic_like import token
from tests.real.conftest import require, require_root
from tests.real.world import World, sh

from kingpost.observe.doctor import Walk, examine
from kingpost.observe.entering import Entrance
from kingpost.observe.executors.local import NetworkNamespace
from kingpost.render.attic_config import atticd_toml
from kingpost.topology.model import Topology
from kingpost.topology.places import Dialer
from kingpost.topology.platform import Platform

pytestmark = pytest.mark.xdist_group("network")

KEY = "main:MOjxCMhKFSIS5JGtq5dJYyhVKlCr9vkVuPXBgq6XIWs="

TOPOLOGY = f"""
site = {{ name = "s", substituters = ["attic:home/main"] }}
networks.tailnet = {{ kind = "tailnet", cidr = "100.64.0.0/10", domain = "t.ts.net" }}
[hosts.node1]
memory = "8GiB"
addresses = {{ tailnet = "100.105.10.61" }}
docker = {{ bip = "172.17.0.1/16", pools = [{{ base = "172.20.0.0/16", size = 24 }}] }}
[hosts.thinkpad]
memory = "16GiB"
addresses = {{ tailnet = "100.105.10.62" }}
[hosts.stranger]
memory = "16GiB"
substituters = []
addresses = {{ tailnet = "100.105.10.63" }}
[attic.home]
host = "node1"
port = 8083
caches.main.public_key = "{KEY}"
EXTRA
[gitlab.none]
url = "http://127.0.0.1:1"
[runners.blog]
executor = "docker"
host = "node1"
image = "dialler:kp"
[pipelines.blog]
runner = "blog"
build = [".#x"]
[[pipelines.blog.push]]
cache = "attic:home/main"
policy = "required"
"""

NO_DOCKER = "\n".join(
    line for line in TOPOLOGY.partition("[gitlab.none]")[0].splitlines() if not line.startswith("docker")
)

SECRET = "not-a-real-secret"
PRIVATE = {"caches": {"main": False}, "secret": SECRET}
PUBLIC = {"caches": {"main": True}, "secret": SECRET}
BRIDGE, HOST, FAR, STRANGER = "docker:node1/blog", "host:node1", "host:thinkpad", "host:stranger"


def platform_of(extra="", text=TOPOLOGY):
    return Platform(Topology.model_validate(tomllib.loads(text.replace("EXTRA", extra))))


@contextmanager
def clinic(platform, server=PRIVATE, **options):
    """Build the world and give a function that examines it."""
    require_root()
    require("docker")
    require("netns")
    servers = {"attic:home": server, **options.pop("servers", {})}
    with World(platform, servers=servers, **options) as world:
        ways = {
            f"host:{name}": NetworkNamespace(world.netns(f"h-{name}")) for name in platform.topology.hosts
        }
        docker = world.docker("node1") if platform.topology.hosts["node1"].docker else ()
        entrance = Entrance(platform, None, ways, docker=docker)

        def examine_with(*contexts, **walk):
            walk.setdefault("services", frozenset({"attic:home"}))
            found = examine(platform, entrance, Walk(frozenset(contexts), timeout=1.5, **walk))
            return {(v.subject.split(" -> ")[0], v.code) for v in found}, found

        examine_with.world = world
        yield examine_with


def codes(found, context, dialer="client"):
    return {code for subject, code in found if subject == f"{context} {dialer}"}


def test_a_healthy_platform_has_no_failure():
    with clinic(platform_of()) as look:
        found, verdicts = look()
        assert codes(found, HOST) == {"KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"}
        assert codes(found, BRIDGE) == {"KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"}
        assert codes(found, FAR) == {"KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"}
        # It shares the tailnet, whose interface tailscaled opens for all: true, and therefore said.
        assert codes(found, STRANGER) == {"KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"}
        assert {str(v.status) for v in verdicts} == {"ok", "expected"}


def push_from_container(world, url):
    """Make the request that `attic push` makes for what is missing; gives curl's exit code and the body."""
    held = token(SECRET, main="rw")
    done = sh(*world.docker("node1"), "run", "--rm", "dialler:kp", "curl", "-sS", "-f", "-m", "3", "-X", "POST",
              "-H", f"Authorization: Bearer {held}", "-d", '{"cache": "main", "store_path_hashes": []}',
              f"{url}/_api/v1/get-missing-paths", check=False)  # fmt: skip
    return done.returncode, done.stdout


def test_the_operators_story_from_loopback_to_the_rendered_bind():
    platform = platform_of()
    url = platform.route(BRIDGE, Dialer.CLIENT, "attic:home").url
    with clinic(platform, binds={"attic:home": "127.0.0.1"}) as look:
        assert push_from_container(look.world, url)[0] == 7, "curl: could not connect"
        found, verdicts = look(HOST, BRIDGE)
        assert codes(found, HOST) == {"KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"}
        assert codes(found, BRIDGE) == {"KP-ROUTE-BIND-NARROW"}
        fix = next(v.remedy for v in verdicts if v.code == "KP-ROUTE-BIND-NARROW")
    rendered = tomllib.loads(atticd_toml(platform, "home"))
    assert rendered["listen"] in fix, "the fix that doctor names is the one that generate renders"
    bind = rendered["listen"].rpartition(":")[0]
    server = {**PRIVATE, "allowed": rendered["allowed-hosts"]}
    with clinic(platform, server, binds={"attic:home": bind}) as look:
        assert push_from_container(look.world, url) == (0, '{"missing_paths": []}')
        found, _ = look(HOST, BRIDGE)
        assert codes(found, BRIDGE) == {"KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"}


def test_a_shut_firewall_is_no_refusal():
    on_a_lan = TOPOLOGY.replace('kind = "tailnet"', 'kind = "lan"')
    with clinic(platform_of(text=on_a_lan), open_ports={"node1": {"docker0": (8083,)}}) as look:
        found, _ = look(FAR, BRIDGE)
        assert codes(found, FAR) == {"KP-ROUTE-TIMEOUT"}
        assert "KP-ROUTE-OK" in codes(found, BRIDGE)


def test_closed_as_declared_and_open_against_the_declaration():
    platform = platform_of('bind = "127.0.0.1"')
    with clinic(platform) as look:
        assert codes(look(BRIDGE)[0], BRIDGE) == {"KP-ROUTE-CLOSED"}
    with clinic(
        platform, binds={"attic:home": "0.0.0.0"}, open_ports={"node1": {"docker0": (8083,)}}
    ) as look:
        assert codes(look(BRIDGE)[0], BRIDGE) == {"KP-ROUTE-OPEN"}


SERVERS = {
    "static": ({"mode": "static"}, {"KP-ROUTE-OTHER-SERVICE"}),
    "busy": ({"mode": "busy"}, {"KP-ROUTE-RATE-LIMITED"}),
    "broken": ({"mode": "broken"}, {"KP-ROUTE-SERVER-ERROR"}),
    "bad-host": ({**PRIVATE, "allowed": ["other:1"]}, {"KP-ROUTE-BAD-HOST"}),
    "private": (PRIVATE, {"KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"}),
}


@pytest.mark.parametrize("name", SERVERS)
def test_look_alikes_of_the_server(name):
    server, expected = SERVERS[name]
    with clinic(platform_of(text=NO_DOCKER), server) as look:
        assert codes(look(HOST)[0], HOST) == expected


NOW = 10**10
TOKENS = {
    # name: (server, token, declared to be public, verdicts)
    "good": (PRIVATE, token(SECRET, main="rw"), False, {"KP-ROUTE-OK", "KP-AUTH-OK"}),
    "read-only": (PRIVATE, token(SECRET, main="r"), False, {"KP-ROUTE-OK", "KP-AUTH-READ-ONLY"}),
    "of-another-secret": (PRIVATE, token("other", main="rw"), False, {"KP-ROUTE-OK", "KP-AUTH-TOKEN-IGNORED"}),
    "expired-on-a-public-cache": (PUBLIC, token(SECRET, exp=1, main="rw"), True,
                                  {"KP-ROUTE-OK", "KP-AUTH-TOKEN-IGNORED"}),
    "cache-is-missing": ({"caches": {"x": False}, "secret": SECRET}, token(SECRET, main="rw", x="rw"), False,
                         {"KP-ROUTE-OK", "KP-CACHE-MISSING"}),
    "declared-public-and-is-not": (PRIVATE, None, True, {"KP-ROUTE-OK", "KP-CACHE-NOT-PUBLIC"}),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENS)
def test_look_alikes_of_the_token(name):
    server, held, public, expected = TOKENS[name]
    platform = platform_of("caches.main.public = true" if public else "", NO_DOCKER)
    with clinic(platform, server) as look:
        found, verdicts = look(HOST, tokens={"attic:home/main": held} if held else {})
        assert codes(found, HOST) == expected
        assert held is None or held not in str(verdicts), "a token must never be shown"


def test_attic_push_and_redirects_lead_to_places_that_must_be_reached_too():
    server = {
        **PRIVATE,
        "api_endpoint": "http://127.0.0.1:9/",
        "redirect": "http://10.99.0.1:9000/chunk?X-Sig=abc",
    }
    platform = platform_of(text=TOPOLOGY.replace('executor = "docker"\nhost = "node1"\nimage = "dialler:kp"',
                                                 'executor = "shell"\nhost = "thinkpad"\nuser = "root"'))  # fmt: skip
    with clinic(platform, server) as look:
        shell = "shell:thinkpad/blog"
        found, verdicts = look(
            shell,
            tokens={"attic:home/main": token(SECRET, main="rw")},
            hashes={"attic:home/main": "8iv5j0f2difw6wg9vwj9r2raacb08fkv"},
        )
        assert {"KP-API-ENDPOINT-UNREACHABLE", "KP-REDIRECT-UNREACHABLE"} <= codes(found, shell)
        assert "X-Sig" not in str(verdicts), "a presigned URL is a credential"


def test_a_context_that_cannot_be_entered_is_skipped_by_name():
    platform = platform_of(text=TOPOLOGY.replace("dialler:kp", "not/pulled:1"))
    with clinic(platform) as look:
        found, verdicts = look(BRIDGE)
        assert codes(found, BRIDGE) == {"KP-CONTEXT-NOT-ENTERED"}
        assert "not/pulled:1 is not on node1" in verdicts[0].summary
