import pytest

from .checking import codes, found

SELF_HOSTED = """
[buckets.own]
provider = "garage"
credentials = "attic"
listener = { host = "node1", port = 3900%s }

[attic.home.storage]
bucket = "own"
"""


def one(text):
    (problem,) = found(text)
    return problem


def substituter(url, where='[site]\nsubstituters = ["substituter:mine"]'):
    key = "mine:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
    return f'[substituters.mine]\nurl = "{url}"\npublic_key = "{key}"\n\n{where}'


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.53", "0.0.0.0", "cache.localhost"])
def test_loopback_on_several_hosts(host):
    problem = one(substituter(f"http://{host}:8501"))
    assert (problem.code, problem.path) == ("KP-ROUTE-LOOPBACK", ("substituters", "mine", "url"))
    assert "host:node1" in problem.message
    assert "host:laptop" in problem.message


def test_loopback_on_its_own_host_is_a_proxy_there():
    where = '[hosts.laptop]\nsubstituters = ["substituter:mine"]\n\n[runners.host]\nsubstituters = ["substituter:mine"]'
    assert codes(substituter("http://127.0.0.1:8501", where)) == []


@pytest.mark.parametrize(
    ("runner", "code"),
    [
        ('network = "bridge"', "KP-ROUTE-LOOPBACK"),
        ('network = "per-build"', "KP-ROUTE-LOOPBACK"),
        ('network = "host"', None),
        ('nix = "host-daemon"', None),
    ],
)
def test_loopback_in_a_container(runner, code):
    """A container on the host's network, or one that lets the host's daemon substitute, has the host's loopback."""
    where = f'[runners.blog]\n{runner}\nsubstituters = ["substituter:mine"]'
    assert codes(substituter("http://127.0.0.1:8501", where)) == ([code] if code else [])


def test_loopback_buckets_gitlabs_and_cachixes():
    assert one('[buckets.store]\nendpoint = "http://localhost:9000"').path == ("buckets", "store", "endpoint")
    assert one('[gitlab.main]\nurl = "http://127.0.0.1"').path == ("gitlab", "main", "url")
    key = 'public_key = "mine:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="'
    text = f'[cachix.mine]\nurl = "http://127.0.0.1:1"\n{key}\n\n[site]\nsubstituters = ["cachix:mine"]'
    assert one(text).path == ("cachix", "mine", "url")


def test_loopback_as_public_url():
    assert one('[attic.home]\npublic_url = "http://127.0.0.1:8083"').path == ("attic", "home", "public_url")


def test_loopback_in_a_command():
    command = "nix build --substituters http://127.0.0.1:8083/main .#x"
    assert one(f'[pipelines.blog]\nbuild = ["{command}"]').path == ("pipelines", "blog", "build", 0)
    assert codes(f'[pipelines.host]\nbuild = ["{command}"]') == []


def test_anothers_docker_gateway():
    text = substituter("http://172.17.0.1:8501", '[hosts.laptop]\nsubstituters = ["substituter:mine"]')
    problem = one(text)
    assert (problem.code, problem.path) == ("KP-ROUTE-UNREACHABLE", ("hosts", "laptop", "substituters", 0))
    assert "docker gateway" in problem.message


def test_the_same_cause_is_told_once_for_all_callers():
    problem = one('[attic.home]\nbind = "127.0.0.1"')
    assert problem.path == ("attic", "home", "bind")
    assert "docker:node1/blog" in problem.message
    assert "host:laptop" in problem.message


def test_a_bind_that_all_callers_reach():
    assert codes('[attic.home]\nbind = "0.0.0.0"') == []
    assert codes('[attic.home]\nbind = "100.64.0.1"') == []


def test_a_bind_for_one_host():
    text = (
        '[site]\nsubstituters = ["substituter:nixos"]\n\n[pipelines.host]\npush = []\n\n[attic.home]\nbind = '
    )
    assert codes(text + '"172.17.0.1"') == []
    assert codes(text + '"127.0.0.1"') == ["KP-BIND-NARROW"]
    wide = one(text + '"0.0.0.0"')
    assert wide.code == "KP-BIND-WIDE"
    assert "172.17.0.1" in wide.message


@pytest.mark.parametrize("address", ["100.64.0.9", "172.17.0.9"])
def test_a_bind_that_the_host_has_not(address):
    assert "KP-BIND-FOREIGN" in codes(f'[attic.home]\nbind = "{address}"')


def test_a_bucket_of_ones_own_is_reached_by_every_reader():
    assert codes(SELF_HOSTED % "") == []


@pytest.mark.parametrize("bind", ["127.0.0.1", "172.17.0.1"])
def test_a_bucket_bound_too_narrowly_for_readers(bind):
    problem = one(SELF_HOSTED % f', bind = "{bind}"')
    assert (problem.code, problem.path) == ("KP-BIND-NARROW", ("buckets", "own", "listener", "bind"))
    assert "redirects readers" in problem.message


def test_peers_that_pull_reach_the_bucket_too():
    served = '[attic.home]\nserve = ["tailnet"]\n'
    assert codes(served) == []


def test_a_network_that_a_server_is_not_on():
    problem = one('[networks.lan]\nkind = "lan"\n\n[attic.home]\nserve = ["lan"]')
    assert (problem.code, problem.path) == ("KP-ROUTE-UNREACHABLE", ("attic", "home", "serve", 0))


def test_no_internet():
    text = "[hosts.laptop]\ninternet = false"
    problems = found(text)
    assert {problem.code for problem in problems} == {"KP-ROUTE-UNREACHABLE", "KP-ROUTE-REDIRECT"}
    paths = {problem.path for problem in problems}
    assert ("site", "substituters", 1) in paths  # cache.nixos.org
    assert ("attic", "home", "storage", "bucket") in paths  # R2, after the redirect
    assert ("runners", "host") in paths  # gitlab.com
    assert all("laptop" in problem.message for problem in problems)


@pytest.mark.parametrize(
    ("endpoint", "reachable"),
    [
        ("https://attic.example.org/", True),
        ("http://100.64.0.1:8083/", True),
        ("http://172.17.0.1:8083/", False),
        ("http://localhost:8083/", False),
        ("http://0.0.0.0:8083/", False),
        ("http://attic.default.svc.cluster.local/", False),
    ],
)
def test_api_endpoints(endpoint, reachable):
    cluster = '[clusters.k3s]\nhost = "node1"\nmemory_max = "1GiB"\n\n'
    text = f'{cluster}[attic.home]\napi_endpoint = "{endpoint}"'
    assert codes(text) == ([] if reachable else ["KP-ROUTE-API-ENDPOINT"])


def test_an_api_endpoint_that_nobody_pushes_to_through_it():
    text = '[pipelines.blog]\npush = []\n\n[pipelines.host]\npush = []\n\n[attic.home]\napi_endpoint = "http://localhost/"'
    assert codes(text) == []


def test_a_pusher_on_the_servers_own_host_uses_loopback():
    text = """
[pipelines.blog]
push = []

[runners.host]
host = "node1"

[attic.home]
api_endpoint = "http://127.0.0.1:8083/"
"""
    assert codes(text) == []


def test_tunnel_and_server_on_one_port():
    text = """
[tunnels.attic]
host = "laptop"
listen = "127.0.0.1:8090"
service = "attic:home"

[attic.second]
host = "laptop"
secret = "attic"
port = %d
"""
    assert codes(text % 8091) == []
    problem = one(text % 8090)
    assert (problem.code, problem.path) == ("KP-LISTEN-CLASH", ("tunnels", "attic", "listen"))


def test_two_buckets_of_one_store():
    text = """
[buckets.one]
provider = "garage"
listener = { host = "node1", port = 3900 }

[buckets.two]
provider = "%s"
listener = { host = "node1", port = 3900 }
"""
    assert codes(text % "garage") == []
    assert codes(text % "minio") == ["KP-LISTEN-CLASH"]


CLUSTER = """
[clusters.k3s]
host = "node1"
memory_max = "2GiB"

[attic.pods]
cluster = "k3s"
port = 8080
secret = "attic"
%s

[attic.pods.caches.apps]
public = true
public_key = "apps:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
"""


def test_a_cluster_for_its_own_pods():
    pods = '\n[runners.pods]\nexecutor = "kubernetes"\ncluster = "k3s"\nimage = "i:1"\ntoken = "runner"\n'
    pods += 'memory_per_job = "512MiB"\nsubstituters = ["attic:pods/apps"]\n'
    assert codes(CLUSTER % "" + pods) == []
    outside = CLUSTER % "" + pods + 'nix = "host-daemon"\n'
    problem = one(outside)
    assert (problem.code, problem.path) == ("KP-ROUTE-NODE-PORT", ("attic", "pods"))
    assert codes(CLUSTER % "node_port = 30080" + pods + 'nix = "host-daemon"\n') == []


def test_a_node_port_that_the_host_listens_on():
    text = CLUSTER % "node_port = 30080" + "\n[attic.home]\nport = 30080\n"
    assert codes(text) == ["KP-LISTEN-CLASH"]
