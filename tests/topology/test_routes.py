"""Routes as text; that they are true is proven by connecting, in tests/real/test_routes_connect.py."""

from __future__ import annotations

import pytest

from kingpost.topology.names import UnknownNameError
from kingpost.topology.places import Dialer

KEY = "k:MOjxCMhKFSIS5JGtq5dJYyhVKlCr9vkVuPXBgq6XIWs="

BASE = f"""
site = {{ name = "s", prefer = ["lan", "tailnet"], substituters = ["attic:home/main"] }}
networks.tailnet = {{ kind = "tailnet", domain = "tail1.ts.net" }}
networks.lan = {{ kind = "lan" }}
[hosts.a]
memory = "8GiB"
users = ["ann"]
docker = {{ bip = "172.30.0.1/24" }}
addresses = {{ tailnet = "100.64.0.1", lan = "10.0.0.1" }}
[hosts.b]
memory = "8GiB"
addresses = {{ tailnet = "100.64.0.2", lan = "10.0.0.2" }}
[hosts.lonely]
memory = "8GiB"
internet = false
[attic.home]
host = "a"
port = 8083
caches.main.public_key = "{KEY}"
[runners.bridge]
executor = "docker"
host = "a"
image = "x"
[runners.mounted]
executor = "docker"
host = "a"
image = "x"
nix = "host-daemon"
[runners.build]
executor = "docker"
host = "a"
network = "per-build"
image = "x"
[runners.hostnet]
executor = "docker"
host = "a"
network = "host"
image = "x"
[runners.shell]
executor = "shell"
host = "b"
user = "ci"
"""

ROUTES = {
    ("host:a", "daemon"): ("http://127.0.0.1:8083", "loopback"),
    ("user:a/ann", "client"): ("http://127.0.0.1:8083", "loopback"),
    ("docker:a/bridge", "client"): ("http://172.30.0.1:8083", "gateway"),
    ("docker:a/bridge", "daemon"): ("http://172.30.0.1:8083", "gateway"),
    # The two dialers of one job differ: it substitutes through the host's daemon and pushes by itself.
    ("docker:a/mounted", "client"): ("http://172.30.0.1:8083", "gateway"),
    ("docker:a/mounted", "daemon"): ("http://127.0.0.1:8083", "loopback"),
    ("docker:a/build", "client"): ("http://host.docker.internal:8083", "host-gateway"),
    ("docker:a/hostnet", "client"): ("http://127.0.0.1:8083", "loopback"),
    ("host:b", "daemon"): ("http://10.0.0.1:8083", "network"),
    ("shell:b/shell", "client"): ("http://10.0.0.1:8083", "network"),
}


@pytest.mark.parametrize(("where", "expected"), ROUTES.items())
def test_who_dials_what_from_where(platform, where, expected):
    context, dialer = where
    route = platform(BASE).route(context, Dialer(dialer), "attic:home")
    assert (route.url, route.via) == expected


def test_no_shared_network_is_an_answer_with_a_fix(platform):
    route = platform(BASE).route("host:lonely", Dialer.CLIENT, "attic:home")
    assert not route.reachable
    assert "share no network" in route.reason
    assert "tunnel" in route.fix


def test_the_order_of_preference_decides(platform):
    text = BASE.replace('prefer = ["lan", "tailnet"]', 'prefer = ["tailnet"]')
    assert platform(text).route("host:b", Dialer.CLIENT, "attic:home").url == "http://100.64.0.1:8083"


def test_a_tailnet_is_kept_out_by_the_bind_and_not_by_the_firewall(platform):
    """tailscaled accepts all of its interface before NixOS's rules are asked."""
    nobody = BASE.replace('[hosts.b]\nmemory = "8GiB"', '[hosts.b]\nmemory = "8GiB"\nsubstituters = []')
    shell = nobody.index("[runners.shell]")
    nobody = nobody[:shell].replace('prefer = ["lan", "tailnet"]', 'prefer = ["tailnet"]')
    assert platform(nobody).route("host:b", Dialer.CLIENT, "attic:home").reachable
    on_a_lan = platform(nobody.replace('kind = "tailnet"', 'kind = "lan"'))
    assert "firewall is shut" in on_a_lan.route("host:b", Dialer.CLIENT, "attic:home").reason
    narrow = platform(nobody.replace("port = 8083", 'port = 8083\nbind = "127.0.0.1"'))
    assert "bound to 127.0.0.1" in narrow.route("host:b", Dialer.CLIENT, "attic:home").reason


def test_a_tunnel_comes_before_networks(platform):
    text = BASE + '[tunnels.t]\nhost = "b"\nlisten = "127.0.0.1:9999"\nservice = "attic:home"\n'
    route = platform(text).route("host:b", Dialer.CLIENT, "attic:home")
    assert (route.url, route.via) == ("http://127.0.0.1:9999", "tunnel")


def test_a_public_url_is_the_last_resort(platform):
    text = BASE.replace("port = 8083", 'port = 8083\npublic_url = "https://cache.example.org/"')
    text = text.replace("internet = false", "internet = true")
    found = platform(text)
    assert found.route("host:lonely", Dialer.CLIENT, "attic:home").url == "https://cache.example.org"
    assert found.route("host:b", Dialer.CLIENT, "attic:home").via == "network"


def test_a_pinned_bind_that_is_too_narrow_makes_a_route_unreachable(platform):
    found = platform(BASE.replace("port = 8083", 'port = 8083\nbind = "127.0.0.1"'))
    route = found.route("docker:a/bridge", Dialer.CLIENT, "attic:home")
    assert route.url is None
    assert route.candidate == "http://172.30.0.1:8083"
    assert "bound to 127.0.0.1" in route.reason
    assert "remove `bind`" in route.fix
    assert found.route("host:a", Dialer.CLIENT, "attic:home").reachable


def test_a_pinned_own_address_is_used_by_everyone_on_the_host(platform):
    found = platform(BASE.replace("port = 8083", 'port = 8083\nbind = "100.64.0.1"'))
    for context in ("host:a", "docker:a/bridge", "docker:a/build"):
        assert found.route(context, Dialer.CLIENT, "attic:home").url == "http://100.64.0.1:8083"
    assert found.route("host:b", Dialer.CLIENT, "attic:home").url == "http://100.64.0.1:8083"


FIXED = {
    "http://127.0.0.1:5000": {"host:a": True, "docker:a/bridge": False, "docker:a/hostnet": True},
    "http://localhost:5000": {"docker:a/build": False, "shell:b/shell": True},
    "http://172.30.0.1:5000": {"docker:a/bridge": True, "host:b": False},
    "http://100.64.0.2:5000": {"host:a": True, "host:lonely": False, "docker:a/bridge": True},
    # A tailnet name resolves on hosts, not in their containers.
    "http://b.tail1.ts.net:5000": {"host:a": True, "docker:a/bridge": False},
    "https://cache.example.org": {"host:a": True, "host:lonely": False},
}


@pytest.mark.parametrize("url", FIXED)
def test_a_url_written_by_hand_is_judged_from_each_context(platform, url):
    found = platform(BASE + f'[substituters.other]\nurl = "{url}"\n')
    for context, reachable in FIXED[url].items():
        route = found.route(context, Dialer.CLIENT, "substituter:other")
        assert route.reachable == reachable, (context, route)
        assert reachable or (route.reason and route.fix)


def test_attic_push_follows_the_api_endpoint(platform):
    found = platform(BASE.replace("port = 8083", 'port = 8083\napi_endpoint = "http://127.0.0.1:8083/"'))
    assert found.api_endpoint_route("host:a", "attic:home").reachable
    assert not found.api_endpoint_route("docker:a/bridge", "attic:home").reachable
    assert platform(BASE).api_endpoint_route("host:a", "attic:home") is None


def test_cache_uses_name_the_cache_as_the_daemon_dials_it(platform):
    (use,) = platform(BASE).cache_uses("docker:a/mounted")
    assert use.url == "http://127.0.0.1:8083/main"
    assert use.public_key == KEY
    assert not use.public


def test_allowed_hosts_are_what_callers_send(platform):
    assert platform(BASE).allowed_hosts("home") == (
        "10.0.0.1:8083",
        "127.0.0.1:8083",
        "172.30.0.1:8083",
        "host.docker.internal:8083",
    )


def test_names_may_be_short_where_that_is_unambiguous(platform):
    found = platform(BASE)
    assert found.find_service("attic").ref == "attic:home"
    assert found.find_service("home/main").ref == "attic:home"
    assert found.find_context("bridge").id == "docker:a/bridge"
    with pytest.raises(UnknownNameError, match="bridge"):
        found.find_context("brigde")
    with pytest.raises(UnknownNameError, match="more than one"):
        found.find_context("host")


def test_a_gateway_that_several_hosts_have_means_the_dialers_own(platform):
    made = platform("""
    site = { name = "s" }
    [hosts.a]
    memory = "8GiB"
    docker = { bip = "172.17.0.1/16" }
    [hosts.b]
    memory = "8GiB"
    docker = { bip = "172.17.0.1/16" }
    [hosts.c]
    memory = "8GiB"
    [substituters.proxy]
    url = "http://172.17.0.1:5000"
    """)
    route = made.route("host:b", Dialer.DAEMON, "substituter:proxy")
    assert (route.url, route.reason) == ("http://172.17.0.1:5000", "172.17.0.1 is b's docker gateway")
    assert made.route("host:c", Dialer.DAEMON, "substituter:proxy").url is None
