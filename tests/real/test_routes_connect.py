"""Routes are proven by connecting: what the matrix calls reachable answers, what it calls unreachable does not."""

from __future__ import annotations

import tomllib

import pytest
from tests.real.conftest import require, require_root
from tests.real.world import World

from kingpost.topology.model import Topology
from kingpost.topology.places import Dialer
from kingpost.topology.platform import Platform

KEY = "main:MOjxCMhKFSIS5JGtq5dJYyhVKlCr9vkVuPXBgq6XIWs="

HOMELAB = f"""
site = {{ name = "homelab", prefer = ["lan", "tailnet"], substituters = ["attic:home/main"] }}
networks.tailnet = {{ kind = "tailnet", cidr = "100.64.0.0/10" }}
networks.lan = {{ kind = "lan", cidr = "192.168.1.0/24" }}

[hosts.node1]
memory = "8GiB"
users = ["ann"]
addresses = {{ tailnet = "100.105.10.61" }}
docker = {{ bip = "172.17.0.1/16", pools = [{{ base = "172.20.0.0/16", size = 24 }}] }}

[hosts.thinkpad]
memory = "16GiB"
addresses = {{ tailnet = "100.105.10.62", lan = "192.168.1.20" }}

[hosts.desk]
memory = "16GiB"
addresses = {{ tailnet = "100.105.10.63" }}
docker = {{ bip = "172.18.0.1/16", pools = [{{ base = "172.21.0.0/16", size = 24 }}] }}

[hosts.nas]
memory = "4GiB"
addresses = {{ lan = "192.168.1.30" }}
substituters = []

[tunnels.attic]
host = "thinkpad"
listen = "127.0.0.1:8083"
service = "attic:home"

[buckets.chunks]
provider = "garage"
listener = {{ host = "node1", port = 3900 }}

[attic.home]
host = "node1"
port = 8083
storage = {{ kind = "bucket", bucket = "chunks" }}
caches.main.public_key = "{KEY}"

[runners.bridge]
executor = "docker"
host = "node1"
image = "x"

[runners.mounted]
executor = "docker"
host = "node1"
image = "x"
nix = "host-daemon"

[runners.hostnet]
executor = "docker"
host = "node1"
network = "host"
image = "x"

[runners.per-build]
executor = "docker"
host = "node1"
network = "per-build"
image = "x"

[runners.far]
executor = "docker"
host = "desk"
image = "x"

[runners.shell]
executor = "shell"
host = "thinkpad"
"""

TOPOLOGIES = {
    "homelab": HOMELAB,
    # The operator's first mistake: atticd bound to the loopback of its host.
    "pinned-to-loopback": HOMELAB.replace("port = 8083\n", 'port = 8083\nbind = "127.0.0.1"\n'),
    # Only containers call: nothing but the bridge's gateway is bound.
    "gateway-only": f"""
site = {{ name = "gateway", substituters = [] }}
[hosts.box]
memory = "8GiB"
docker = {{}}
[hosts.other]
memory = "8GiB"
[attic.home]
host = "box"
port = 8080
caches.main.public_key = "{KEY}"
[runners.ci]
executor = "docker"
host = "box"
image = "x"
substituters = ["attic:home/main"]
""",
    # Callers on the tailnet only, undeclared peers among them; the lan stays shut.
    "tailnet-only": f"""
site = {{ name = "tailnet", prefer = ["tailnet"], substituters = [] }}
networks.tailnet = {{ kind = "tailnet", cidr = "100.64.0.0/10" }}
networks.lan = {{ kind = "lan", cidr = "192.168.1.0/24" }}
[hosts.server]
memory = "8GiB"
addresses = {{ tailnet = "100.64.1.1", lan = "192.168.1.10" }}
[hosts.laptop]
memory = "8GiB"
addresses = {{ tailnet = "100.64.1.2", lan = "192.168.1.11" }}
substituters = ["attic:home/main"]
[hosts.printer]
memory = "1GiB"
addresses = {{ lan = "192.168.1.12" }}
[attic.home]
host = "server"
port = 8080
serve = ["tailnet"]
caches.main.public_key = "{KEY}"
""",
    # A container reaches a tunnel only where the tunnel listens on the bridge's gateway, through its own host's
    # firewall.
    "tunnel-for-containers": f"""
site = {{ name = "tunnel", substituters = [] }}
[hosts.server]
memory = "8GiB"
[hosts.box]
memory = "8GiB"
docker = {{}}
[tunnels.attic]
host = "box"
listen = "172.17.0.1:9083"
service = "attic:home"
[attic.home]
host = "server"
port = 8080
caches.main.public_key = "{KEY}"
[runners.ci]
executor = "docker"
host = "box"
image = "x"
substituters = ["attic:home/main"]
""",
    # The incident's shape: Attic and its bucket in a cluster, readers inside and outside of it.
    "cluster": f"""
site = {{ name = "cluster", substituters = ["attic:cache/main"] }}
networks.tailnet = {{ kind = "tailnet", cidr = "100.64.0.0/10" }}
[hosts.honey]
memory = "64GiB"
addresses = {{ tailnet = "100.90.1.10" }}
[hosts.sting]
memory = "64GiB"
addresses = {{ tailnet = "100.90.1.12" }}
docker = {{}}
[clusters.honey]
host = "honey"
[buckets.chunks]
provider = "rustfs"
listener = {{ cluster = "honey", service = "rustfs", port = 9000, node_port = 30900 }}
[buckets.internal]
provider = "rustfs"
listener = {{ cluster = "honey", service = "internal", port = 9000 }}
[attic.cache]
cluster = "honey"
port = 8080
node_port = 30080
storage = {{ kind = "bucket", bucket = "chunks" }}
caches.main.public_key = "{KEY}"
[attic.plain]
host = "honey"
port = 8090
caches.main.public_key = "{KEY}"
[runners.pods]
executor = "kubernetes"
cluster = "honey"
image = "x"
substituters = ["attic:cache/main", "attic:plain/main"]
[runners.far]
executor = "docker"
host = "sting"
image = "x"
""",
}


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.xdist_group("network")
def test_the_matrix_is_true(name):
    require_root()
    require("docker")
    require("netns")
    platform = Platform(Topology.model_validate(tomllib.loads(TOPOLOGIES[name])))
    wrong, tried = [], {True: 0, False: 0}
    with World(platform) as world:
        for context in platform.contexts.values():
            for dialer in Dialer:
                for ref in filter(world.is_ours, platform.services):
                    route = platform.route(context.id, dialer, ref)
                    url = route.url or route.candidate
                    if url is None:
                        continue
                    answer = world.dial(context, dialer, url)
                    tried[route.reachable] += 1
                    if route.reachable != (answer.body == ref):
                        wrong.append((context.id, str(dialer), ref, route, answer))
    assert not wrong, "\n".join(map(str, wrong))
    assert tried[True], "nothing was reachable: that proves nothing"


@pytest.mark.xdist_group("network")
def test_loopback_means_something_else_in_every_namespace():
    require_root()
    require("docker")
    require("netns")
    platform = Platform(Topology.model_validate(tomllib.loads(HOMELAB)))
    with World(platform) as world:
        on_host = platform.contexts["docker:node1/hostnet"]
        bridged = platform.contexts["docker:node1/bridge"]
        per_build = platform.contexts["docker:node1/per-build"]
        assert world.dial(on_host, Dialer.CLIENT, "http://127.0.0.1:8083").body == "attic:home"
        for context in (bridged, per_build):
            assert "connect to 127.0.0.1" in world.dial(context, Dialer.CLIENT, "http://127.0.0.1:8083").error
        # docker0's gateway is not a per-build network's own gateway, which differs from job to job.
        assert world.dial(per_build, Dialer.CLIENT, "http://172.20.0.1:8083").body != "attic:home"
        # A Host header that nobody computed is refused, as atticd would.
        assert "400" in world.dial(on_host, Dialer.CLIENT, "http://127.0.0.2:8083").error
