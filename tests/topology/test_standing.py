"""What is derived once for all that are alike is what each would get alone."""

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.strategies import descriptions, public_key

from kingpost.topology.model import Topology
from kingpost.topology.places import Dialer, Namespace
from kingpost.topology.platform import Platform
from kingpost.topology.standing import Standing, alike

URLS = [
    "http://127.0.0.1:8083/main", "http://localhost:80", "http://[::1]:80", "http://100.64.0.1:8080/x",
    "http://192.168.1.10:8080", "http://172.17.0.1:9000", "http://172.30.0.1:80", "http://node1:8080",
    "http://a.tail1234.ts.net", "https://cache.example.org",
]  # fmt: skip


@st.composite
def platforms(draw):
    """Give topologies with more ways to differ: no internet, URLs of declared hosts, servers in clusters, tunnels."""
    made = draw(descriptions())
    hosts = list(made["hosts"])
    for host in made["hosts"].values():
        host["internet"] = draw(st.booleans())
        if draw(st.integers(0, 4)) == 0:
            host["addresses"] = {}
    made["substituters"] |= {
        f"by-hand{number}": {"url": url, "public_key": public_key(f"by-hand{number}", number)}
        for number, url in enumerate(draw(st.lists(st.sampled_from(URLS), max_size=3, unique=True)))
    }
    for name in draw(st.sampled_from([[], ["one"], ["one", "two"]])):
        made["clusters"][name] = {"host": draw(st.sampled_from(hosts)), "memory_max": "1GiB"}
        attic = {
            "cluster": name,
            "port": 8080,
            "secret": "server",
            "caches": {f"of-{name}": {"public": True}},
        }
        if draw(st.booleans()):
            attic["node_port"] = 30080
        if draw(st.booleans()):
            attic["public_url"] = "https://attic.example.org"
        made["attic"][f"in-{name}"] = attic
        made["runners"][f"pods-of-{name}"] = {
            "executor": "kubernetes", "cluster": name, "image": "x", "nix": "own", "concurrency": 1,
            "memory_per_job": "64MiB", "token": "runner",
        }  # fmt: skip
    for number, server in enumerate(made["attic"]):
        if draw(st.integers(0, 3)) == 0:
            made["attic"][server]["bind"] = draw(st.sampled_from(["0.0.0.0", "127.0.0.1", "100.64.0.1"]))
        if draw(st.integers(0, 3)) == 0:
            made["tunnels"][f"more{number}"] = {
                "host": draw(st.sampled_from(hosts)),
                "listen": f"{draw(st.sampled_from(['0.0.0.0', '127.0.0.1', '172.30.0.1']))}:{7000 + number}",
                "service": f"attic:{server}",
            }
    made["site"]["substituters"] = [
        *(f"attic:{server}/{cache}" for server, attic in made["attic"].items() for cache in attic["caches"]),
        *(f"substituter:{name}" for name in made["substituters"]),
    ]
    return made


@settings(max_examples=150, deadline=None)
@given(platforms())
def test_sharing_changes_nothing(made):
    try:
        topology = Topology.model_validate(made)
    except ValidationError:
        return
    shared, alone = Platform(topology), Platform(topology)
    alone.__dict__["_alike"] = lambda namespace, ref: (namespace, object())  # nothing is like anything
    assert shared.listeners == alone.listeners
    for context in shared.contexts:
        for service in shared.services:
            for dialer in Dialer:
                assert shared.route(context, dialer, service) == alone.route(context, dialer, service)
        assert shared.cache_uses(context) == alone.cache_uses(context)


def test_a_fleet_has_few_standings():
    hosts = {
        f"h{n}": {"memory": "8GiB", "docker": {}, "addresses": {"lan": f"10.0.0.{n}"}} for n in range(1, 9)
    }
    attic = {"home": {"host": "h1", "port": 8080, "secret": "s", "caches": {"main": {"public": True}}}}
    topology = Topology.model_validate(
        {
            "site": {"name": "fleet"}, "networks": {"lan": {"kind": "lan"}}, "hosts": hosts, "attic": attic,
            "secrets": {"s": {"provider": "path", "path": "/s", "variables": []}},
            "tunnels": {"t": {"host": "h8", "listen": "127.0.0.1:99", "service": "attic:home"}},
        }
    )  # fmt: skip
    decides = alike(topology, Platform(topology).services)
    seen = {name: decides(Namespace("host", name), "attic:home") for name in hosts}
    common = Standing("host", frozenset({"lan"}), internet=True)
    own = {name for name, found in seen.items() if found == Namespace("host", name)}
    assert own == {"h1", "h8"}, "the server's own host, and the one with a tunnel"
    assert {found for name, found in seen.items() if name not in own} == {common}
