from __future__ import annotations

from ipaddress import IPv4Address

KEY = "k:MOjxCMhKFSIS5JGtq5dJYyhVKlCr9vkVuPXBgq6XIWs="

BASE = f"""
site = {{ name = "s", substituters = [] }}
networks.tailnet = {{ kind = "tailnet" }}
networks.lan = {{ kind = "lan", interface = "enp3s0" }}
[hosts.a]
memory = "8GiB"
docker = {{}}
addresses = {{ tailnet = "100.64.0.1", lan = "10.0.0.1" }}
SUBSTITUTERS_A
[hosts.b]
memory = "8GiB"
addresses = {{ tailnet = "100.64.0.2", lan = {{ ip = "10.0.0.2", interface = "wlan0" }} }}
SUBSTITUTERS_B
[attic.home]
host = "a"
port = 8083
caches.main.public_key = "{KEY}"
"""
RUNNER = """
[runners.ci]
executor = "docker"
host = "a"
image = "x"
substituters = ["attic:home/main"]
network = "NETWORK"
"""
USES = 'substituters = ["attic:home/main"]'


def listener(platform, *, a=False, b=False, network=""):
    text = BASE.replace("SUBSTITUTERS_A", USES if a else "").replace("SUBSTITUTERS_B", USES if b else "")
    text += RUNNER.replace("NETWORK", network) if network else ""
    found = platform(text)
    home = found.listeners["attic:home"]
    return str(home.bind), found.firewall("a")


def test_without_callers_it_is_bound_to_loopback(platform):
    assert listener(platform) == ("127.0.0.1", {})


def test_callers_on_the_host_need_no_more_than_loopback(platform):
    assert listener(platform, a=True) == ("127.0.0.1", {})


def test_containers_alone_need_the_gateway(platform):
    assert listener(platform, network="bridge") == ("172.17.0.1", {"docker0": (8083,)})


def test_per_build_networks_come_in_by_bridges_of_their_own(platform):
    assert listener(platform, network="per-build") == ("172.17.0.1", {"br-+": (8083,)})


def test_host_network_containers_are_the_host(platform):
    assert listener(platform, network="host") == ("127.0.0.1", {})


def test_callers_elsewhere_need_the_address_of_the_preferred_network(platform):
    assert listener(platform, b=True) == ("10.0.0.1", {"enp3s0": (8083,)})


def test_several_kinds_of_callers_need_all_addresses_and_few_interfaces(platform):
    bind, firewall = listener(platform, a=True, b=True, network="bridge")
    assert bind == "0.0.0.0"
    assert firewall == {"docker0": (8083,), "enp3s0": (8083,)}


def test_a_pinned_bind_is_kept_and_the_narrowest_said(platform):
    text = BASE.replace("SUBSTITUTERS_A", USES).replace("SUBSTITUTERS_B", "")
    home = platform(text.replace("port = 8083", 'port = 8083\nbind = "0.0.0.0"')).listeners["attic:home"]
    assert home.pinned
    assert (home.bind, home.narrowest) == (IPv4Address("0.0.0.0"), IPv4Address("127.0.0.1"))


def test_a_network_that_is_served_is_open_for_its_undeclared_peers(platform):
    text = BASE.replace("SUBSTITUTERS_A", "").replace("SUBSTITUTERS_B", "")
    found = platform(text.replace("port = 8083", 'port = 8083\nserve = ["tailnet"]'))
    assert str(found.listeners["attic:home"].bind) == "100.64.0.1"
    assert found.firewall("a") == {"tailscale0": (8083,)}


def test_a_bucket_has_one_endpoint_that_its_server_and_every_reader_reach(platform):
    text = BASE.replace("SUBSTITUTERS_A", USES).replace("SUBSTITUTERS_B", USES)
    text = text.replace("port = 8083", 'port = 8083\nstorage = { kind = "bucket", bucket = "chunks" }')
    text += RUNNER.replace("NETWORK", "bridge")
    text += '[buckets.chunks]\nprovider = "garage"\nlistener = { host = "a", port = 3900 }\n'
    found = platform(text)
    # Not 127.0.0.1, which is what atticd itself would dial: it signs this URL into every reader's redirect.
    assert found.bucket_endpoint("chunks") == "http://10.0.0.1:3900"
    assert str(found.listeners["bucket:chunks"].bind) == "10.0.0.1"
    assert found.firewall("a") == {"docker0": (3900, 8083), "enp3s0": (3900, 8083)}
    readers = [need for need in found.needs if need.service == "bucket:chunks"]
    assert len(readers) == 4
    for need in readers:
        assert found.route(need.context, need.dialer, need.service).url == "http://10.0.0.1:3900"


def test_a_bucket_that_only_its_server_reads_stays_on_loopback(platform):
    text = BASE.replace("SUBSTITUTERS_A", "").replace("SUBSTITUTERS_B", "")
    text = text.replace("port = 8083", 'port = 8083\nstorage = { kind = "bucket", bucket = "chunks" }')
    text += '[buckets.chunks]\nprovider = "garage"\nlistener = { host = "a", port = 3900 }\n'
    assert platform(text).bucket_endpoint("chunks") == "http://127.0.0.1:3900"
