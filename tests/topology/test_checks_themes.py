"""What the examples of docs/checks.md do not show: the borders between wrong and right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.topology.checks.example import laid_over
from kingpost.topology.checks.scene import Scene
from kingpost.topology.checks.tokens import names_meet
from kingpost.topology.model import Topology
from kingpost.topology.names import UnknownNameError, resolve_cache
from kingpost.topology.platform import Platform

from .checking import TODAY, codes, found

SERVERS = ["home", "second", "main", "attic", "cachix"]
SHORT = [
    *SERVERS,
    "attic:home",
    "attic:main",
    "home/main",
    "main/main",
    "cachix:main",
    "attic:",
    ":main",
    "",
    "nixos",
]


def one(text):
    (problem,) = found(text)
    return problem


# --- references -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "hint"),
    [
        ('[attic.home]\nhost = "nod1"', ("attic", "home", "host"), "node1"),
        ('[site]\nsubstituters = ["attic:home/mian"]', ("site", "substituters", 0), "attic:home/main"),
        ('[site]\nprimary = "mian"', ("site", "primary"), "attic:home/main"),
        ('[site]\nprefer = ["talnet"]', ("site", "prefer", 0), "tailnet"),
        ('[runners.blog]\ntoken = "runer"', ("runners", "blog", "token"), "runner"),
        ('[hosts.laptop.deploy]\nfrom = "node"', ("hosts", "laptop", "deploy", "from"), "node1"),
        ('[hosts.laptop.addresses]\nlan = "10.0.0.1"', ("hosts", "laptop", "addresses", "lan"), "tailnet"),
        ('[attic.home.storage]\nbucket = "stor"', ("attic", "home", "storage", "bucket"), "store"),
        ('[secrets.attic]\nhosts = ["node2"]', ("secrets", "attic", "hosts", 0), "node1"),
        ('[audits.a]\ncache = "main"\nrunner = "hosts"', ("audits", "a", "runner"), "host"),
        (
            '[pipelines.blog]\ndeploys = ["labtop"]\ninterruptible = false',
            ("pipelines", "blog", "deploys", 0),
            "laptop",
        ),
        (
            '[tunnels.t]\nhost = "laptop"\nlisten = "127.0.0.1:1"\nservice = "attic:hom"',
            ("tunnels", "t", "service"),
            "attic:home",
        ),
    ],
)
def test_unknown_names(text, path, hint):
    problem = one(text)
    assert (problem.code, problem.path) == ("KP-REF-UNKNOWN", path)
    assert hint in problem.fix


def test_short_names_are_names():
    assert codes('[site]\nsubstituters = ["main", "nixos"]\nprimary = "home/main"') == []


@given(st.sampled_from(SERVERS), st.sampled_from(SERVERS), st.sampled_from(SHORT))
def test_short_names_mean_what_they_mean_to_everybody(server, cachix, text):
    """The checks look names up in an index; the rest of kingpost by `match_name`."""
    data = laid_over(
        f'[attic.{server}]\nhost = "laptop"\nport = 8090\n[attic.{server}.caches.main]\n[cachix.{cachix}]'
    )
    topology = Topology.model_validate(data)
    try:
        meant = resolve_cache(topology, text)
    except UnknownNameError:
        meant = None
    assert Scene(topology, Platform(topology), TODAY).cache(text) == meant


def test_ambiguous_short_names_are_none():
    second = '[attic.second]\nhost = "laptop"\nport = 8090\nsecret = "attic"\n[attic.second.caches.main]\n\n'
    problem = one(second + '[site]\nprimary = "main"')
    assert problem.code == "KP-REF-UNKNOWN"
    assert "attic:home/main" in problem.message
    assert "attic:second/main" in problem.message


def test_a_wrong_name_does_not_hide_what_the_text_alone_shows():
    assert codes('[runners.blog]\nhost = "nod1"\n\n[pipelines.blog]\nforks = "push"') == [
        "KP-PUSH-FORKS",
        "KP-REF-UNKNOWN",
    ]


def test_problems_come_in_the_order_of_the_topology():
    text = '[site]\nprimary = "x"\n\n[pipelines.blog]\nrunner = "x"\n\n[secrets.attic]\nhosts = ["x"]\nmode = "0444"'
    assert [problem.path[0] for problem in found(text)] == ["site", "pipelines", "secrets", "secrets"]


# --- networks ---------------------------------------------------------------------------------------------


def test_networks_of_different_hosts_may_overlap():
    text = (
        '[networks.lan]\nkind = "lan"\ncidr = "172.17.0.0/24"\n\n[hosts.laptop.addresses]\nlan = "172.17.0.9"'
    )
    assert codes(text) == []
    both = text.replace("hosts.laptop", "hosts.node1")
    problem = one(both)
    assert problem.code == "KP-NET-OVERLAP"
    assert "172.17.0.0/24" in problem.message
    assert "172.17.0.0/16" in problem.message


def test_overlapping_pools():
    text = '[hosts.node1.docker]\npools = [{ base = "10.9.0.0/16" }, { base = "10.9.128.0/17" }]'
    assert one(text).path == ("hosts", "node1", "docker", "pools", 1)
    assert one(text).code == "KP-NET-POOL-OVERLAP"


def test_a_pool_over_a_pod_network():
    cluster = "[clusters.k3s]\nhost = 'node1'\nmemory_max = '1GiB'\n\n"
    text = cluster + "[hosts.node1.docker]\npools = [{ base = '10.42.1.0/24' }]"
    assert codes(text) == ["KP-NET-OVERLAP"]


def test_pod_networks_overlap_with_what_their_host_is_on():
    text = '[clusters.k3s]\nhost = "node1"\nmemory_max = "1GiB"\npod_network = "100.64.0.0/16"'
    assert one(text).path == ("clusters", "k3s", "pod_network")
    assert codes(text.replace("100.64", "10.42")) == []


def test_all_the_internet_overlaps_with_nothing():
    text = (
        '[networks.net]\nkind = "public"\ncidr = "0.0.0.0/0"\n\n[hosts.node1.addresses]\nnet = "203.0.113.1"'
    )
    assert codes(text) == []


@pytest.mark.parametrize(
    ("bip", "ok"), [("10.0.0.1/24", True), ("10.0.0.255/24", False), ("10.0.0.1/31", False)]
)
def test_bridge_addresses(bip, ok):
    assert codes(f'[hosts.node1.docker]\nbip = "{bip}"') == ([] if ok else ["KP-NET-BIP"])


def test_a_deploy_over_a_public_address_needs_only_internet():
    text = (
        '[networks.net]\nkind = "public"\n\n[hosts.node1]\n\n[hosts.node1.addresses]\nnet = "203.0.113.1"\n\n'
    )
    text += '[hosts.node1.deploy]\nfrom = "laptop"\nnetwork = "net"'
    assert codes(text) == []


def test_a_tunnel_to_ones_own_host():
    text = '[tunnels.t]\nhost = "node1"\nlisten = "127.0.0.1:9000"\nservice = "attic:home"'
    assert one(text).path == ("tunnels", "t", "host")


# --- mounts -----------------------------------------------------------------------------------------------


def mount(volume, nix="own"):
    return codes(f'[runners.blog]\nnix = "{nix}"\nvolumes = ["{volume}"]')


@pytest.mark.parametrize(
    ("volume", "code"),
    [
        ("/nix:/nix", "KP-MOUNT-NIX-WHOLE"),
        ("/nix:/nix:ro", "KP-MOUNT-NIX-WHOLE"),
        ("/nix/:/nix/", "KP-MOUNT-NIX-WHOLE"),
        ("nix-volume:/nix", "KP-MOUNT-NIX-WHOLE"),
        ("/nix/store:/nix/store", "KP-MOUNT-NIX-WRITABLE"),
        ("/nix/store:/nix/store:rw,z", "KP-MOUNT-NIX-WRITABLE"),
        ("/nix/var:/nix/var", "KP-MOUNT-NIX-WRITABLE"),
        ("/nix/var/nix/db:/host-db", "KP-MOUNT-NIX-WRITABLE"),
        ("/nix/var/nix/daemon-socket/socket:/nix/var/nix/daemon-socket/socket:ro", "KP-MOUNT-SOCKET-RO"),
        ("/nix/var/nix/daemon-socket:/nix/var/nix/daemon-socket", "KP-MOUNT-OWN-STORE"),
        ("relative:also-relative", "KP-MOUNT-SYNTAX"),
        ("/a:/b:ro:more", "KP-MOUNT-SYNTAX"),
        ("/data", None),
        ("named:/data", None),
        ("/nix-cache:/nix-cache", None),
        ("/srv/nix:/data:ro", None),
        ("/nix/var/log:/logs:ro", None),
    ],
)
def test_volumes(volume, code):
    assert mount(volume) == ([code] if code else [])


@pytest.mark.parametrize("place", ["/nix/store", "/nix/var/nix/db", "/nix/var/nix/daemon-socket"])
def test_what_the_hosts_daemon_needs_is_mounted_already(place):
    mode = "" if place.endswith("socket") else ":ro"
    assert mount(f"{place}:{place}{mode}", "host-daemon") == ["KP-MOUNT-TWICE"]


# --- memory -----------------------------------------------------------------------------------------------


def test_the_last_byte_fits():
    limit = '[limits.x]\nhost = "node1"\nunit = "x.service"\nmemory_max = "{}"'
    assert codes(limit.format("5632MiB")) == []  # 8 GiB, less 512 MiB reserve and 2 GiB of jobs
    assert codes(limit.format("5633MiB")) == ["KP-MEM-RUNNER"]
    assert codes(limit.format("7680MiB")) == ["KP-MEM-RUNNER"]
    assert codes(limit.format("7681MiB")) == ["KP-MEM-HOST"]


def limits(**units):
    tables = (
        f'[limits.{key}]\nhost = "node1"\nunit = "{unit}"\nmemory_max = "{size}"'
        for key, (unit, size) in units.items()
    )
    return "\n\n".join(tables)


@pytest.mark.parametrize(
    ("outer", "inner", "inside"),
    [
        ("system.slice", "atticd.service", True),
        ("system.slice", "system-getty.slice", True),
        ("system.slice", "user.slice", False),
        ("system.slice", "user@1000.service", False),
        ("user.slice", "user@1000.service", True),
        ("user.slice", "session-1.scope", True),
        ("user.slice", "atticd.service", False),
        ("nix.slice", "nix-builds.slice", True),
        ("nix.slice", "nixos.slice", False),
        ("-.slice", "atticd.service", True),
    ],
)
def test_what_a_slice_holds_is_counted_once(outer, inner, inside):
    # 8 GiB, less 512 MiB reserve: 7 GiB fit, and 8 GiB do not. The examples' docker runner is moved away.
    away = '[hosts.laptop]\ndocker = {}\n\n[runners.blog]\nhost = "laptop"\n\n'
    assert codes(away + limits(outer=(outer, "7GiB"), inner=(inner, "1GiB"))) == (
        [] if inside else ["KP-MEM-HOST"]
    )


def test_jobs_within_their_runners_limit():
    text = '[limits.r]\nhost = "laptop"\nunit = "gitlab-runner.service"\nmemory_max = "10GiB"\n\n'
    text += '[runners.host]\nmemory_per_job = "9GiB"'
    assert codes(text) == []
    assert codes(text.replace("gitlab-runner", "docker")) == ["KP-MEM-RUNNER"]


def test_containers_are_in_the_system_slice():
    box = '\n\n[limits.box]\nhost = "node1"\ncontainer = "box"\nmemory_max = "2GiB"'
    assert codes(limits(system=("system.slice", "7GiB")) + box) == []
    assert codes(limits(system=("user.slice", "7GiB")) + box) == ["KP-MEM-HOST"]


def test_the_calculation_is_shown():
    text = '[limits.x]\nhost = "node1"\nunit = "x.service"\nmemory_max = "9GiB"'
    message = one(text).message
    for part in ("8GiB", "x.service 9GiB", "runner blog: 1 jobs at once 2GiB", "reserve 512MiB"):
        assert part in message


def test_of_several_runners_the_one_that_wants_most():
    text = '[runners.small]\nexecutor = "docker"\nhost = "node1"\nimage = "i:1"\ntoken = "runner"\n'
    text += 'memory_per_job = "1GiB"\n\n[runners.blog]\nconcurrency = 4'
    assert one(text).path == ("runners", "blog", "concurrency")


def test_jobs_without_limit_where_nothing_else_lives():
    text = '[hosts.laptop]\ndocker = {}\n\n[runners.other]\nexecutor = "docker"\nhost = "laptop"\nimage = "i:1"\n'
    text += 'token = "runner"'
    assert codes(text) == []
    assert codes(text + '\n\n[clusters.k3s]\nhost = "laptop"\nmemory_max = "1GiB"') == ["KP-MEM-JOBS"]


def test_etcd_within_its_cluster():
    text = '[clusters.k3s]\nhost = "laptop"\nmemory_max = "2GiB"\netcd = { quota = "%s" }'
    assert codes(text % "1GiB") == []
    assert codes(text % "2GiB") == ["KP-MEM-ETCD"]


@pytest.mark.parametrize(
    "limit",
    [
        'host = "node1"\nunit = "a.service"\ncontainer = "a"',
        'cluster = "k3s"\nunit = "a.service"',
        'host = "node1"\npod = "default/a"',
        'unit = "a.service"',
        'host = "node1"\ncluster = "k3s"\npod = "default/a"',
    ],
)
def test_limits_of_nothing_or_two_things(limit):
    cluster = '[clusters.k3s]\nhost = "laptop"\nmemory_max = "2GiB"\n\n'
    assert codes(f'{cluster}[limits.a]\nmemory_max = "64MiB"\n{limit}') == ["KP-LIMIT-TARGET"]


# --- pushes -----------------------------------------------------------------------------------------------


def push(pipeline, rest):
    return f'[pipelines.{pipeline}]\npush = [{{ cache = "attic:home/main", {rest} }}]\n'


def test_a_login_is_no_use_in_a_container():
    problem = one(push("blog", 'policy = "required", token = { login = "ann" }'))
    assert problem.code == "KP-PUSH-OTHER-USER"
    assert "container" in problem.message


def test_root_may_push_with_its_own_login():
    text = push("host", 'policy = "required", token = { login = "root" }')
    assert codes(text) == ["KP-PUSH-OTHER-USER"]
    assert codes(text + '\n[runners.host]\nuser = "root"') == []


@pytest.mark.parametrize("because", ["", "  "])
def test_an_unusual_policy_needs_a_reason(because):
    primary = '[site]\nprimary = "main"\n\n'
    rest = 'policy = "best-effort", token = { variable = "T" }, because = "%s"'
    assert codes(primary + push("blog", rest % because)) == ["KP-PUSH-BEST-EFFORT"]
    assert codes(primary + push("blog", rest % "the cache is rebuilt nightly")) == []


def test_without_a_primary_cache_every_policy_is_usual():
    assert codes(push("blog", 'policy = "best-effort", token = { variable = "T" }')) == []


def test_a_pipelines_primary_goes_before_the_sites():
    text = '[cachix.readers]\n\n[site]\nprimary = "cachix:readers"\n\n'
    rest = push("blog", 'policy = "required", token = { variable = "T" }')
    # The pipeline `host` of the examples pushes to the same cache as required.
    own = '[pipelines.host]\nprimary = "attic:home/main"\n'
    assert codes(text + rest + own) == ["KP-PUSH-REQUIRED"]
    assert codes(text + rest + 'primary = "attic:home/main"\n' + own) == []


def test_forks_without_pushes():
    assert codes('[pipelines.blog]\nforks = "push"\npush = []') == []


# --- tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("*", "main", True), ("ma*", "main", True), ("*n", "ma*", True), ("ci-*", "dev-*", False),
        ("a", "b", False), ("a*b", "ab", True), ("*", "*", True), ("a*", "*b", True), ("main", "main", True),
        ("main*", "main", True), ("x*y", "xz", False),
    ],
)  # fmt: skip
def test_patterns_that_meet(one, other, meet):
    assert names_meet(one, other) is meet
    assert names_meet(other, one) is meet


def token(**patterns):
    return "[attic.home.tokens.ci]\n" + "\n".join(f"{key} = {list(value)}" for key, value in patterns.items())


def test_an_exact_name_that_holds_everything_is_picked_first():
    assert codes(token(pull=["*", "main"], push=["main"])) == []


def test_patterns_apart():
    assert codes(token(pull=["ci-*", "dev-*"], push=["ci-*"])) == []


def test_two_wildcards_that_meet():
    problem = one(token(pull=["*"], push=["ci-*"]))
    assert problem.code == "KP-TOKEN-MERGE"
    assert "push" in problem.message


def test_equal_permissions_need_no_merging():
    assert codes(token(pull=["*", "ci-*"])) == []


# --- caches -----------------------------------------------------------------------------------------------


def test_a_cache_that_nobody_reads_needs_no_key():
    assert codes("[cachix.spare]") == []
    assert codes('[cachix.spare]\n\n[runners.host]\nsubstituters = ["cachix:spare"]') == ["KP-KEY-MISSING"]


def test_a_key_that_another_cache_retired():
    text = """
[cachix.old]
public_key = "old-1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="

[attic.home.caches.main]
public_key = "main:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
retired_keys = ["main:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="]
"""
    assert one(text).path == ("cachix", "old", "public_key")


def test_a_mirror_has_the_same_key():
    text = """
[substituters.mirror]
url = "https://mirror.example.org"
public_key = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="

[site]
substituters = ["substituter:mirror", "substituter:nixos"]
"""
    assert codes(text) == []
    changed = text.replace("6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=", "A" * 43 + "=")
    assert codes(changed) == ["KP-KEY-NAME"]
    assert codes(changed.replace(', "substituter:nixos"', "")) == ["KP-KEY-NAME"]  # NixOS adds it anyway


def test_a_token_on_another_host_reads_nothing_here():
    text = '[attic.home.caches.main]\npublic = false\n\n[attic.home.tokens.r]\npull = ["m*"]\nsecret = "push"\n\n'
    assert codes(text) == []
    problem = one(text + '[secrets.push]\nhosts = ["laptop"]')
    assert problem.code == "KP-CACHE-PRIVATE"
    assert "node1 reads" in problem.message


# --- Attic, buckets, deploys ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "ok"),
    [
        ("soft-delete-caches = true", True),
        ("require-proof-of-possession = false", True),
        ('substituter-endpoint = "https://cache.example.org/"', True),
        ('soft-delete-caches = "yes"', False),
        ("soft-delete-cache = true", False),
        ('database = "x"', False),
    ],
)
def test_settings(setting, ok):
    assert codes(f"[attic.home.settings]\n{setting}") == ([] if ok else ["KP-ATTIC-SETTING"])


@pytest.mark.parametrize(
    ("sizes", "ok"),
    [
        ('min_size = "64B"\navg_size = "256B"\nmax_size = "1KiB"', True),
        ('min_size = "63B"\navg_size = "256B"\nmax_size = "1KiB"', False),
        ('min_size = "64B"\navg_size = "256B"\nmax_size = "1023B"', False),
        ('min_size = "64KiB"\navg_size = "64KiB"\nmax_size = "64KiB"', False),
        ('min_size = "64KiB"\navg_size = "64KiB"\nmax_size = "65KiB"', True),
        ('avg_size = "2MiB"', False),
        ('avg_size = "2MiB"\nnar_size_threshold = 0', True),
    ],
)
def test_chunk_sizes(sizes, ok):
    assert codes(f"[attic.home.chunking]\n{sizes}") == ([] if ok else ["KP-ATTIC-CHUNKING"])


def test_a_secret_setting():
    assert codes('[attic.home.settings]\ntoken-hs256-secret-base64 = "c2VjcmV0"') == ["KP-SECRET-VALUE"]


def test_a_substituter_endpoint_without_slash():
    assert codes('[attic.home.settings]\nsubstituter-endpoint = "https://c.example.org"') == [
        "KP-ATTIC-SLASH"
    ]


def test_state_and_cache_in_two_buckets_of_one_store():
    text = """
[buckets.cache]
provider = "rustfs"
listener = { host = "node1", port = 9000 }

[buckets.state]
provider = "rustfs"
holds = ["iac-state"]
listener = { host = "%s", port = 9000 }
"""
    assert one(text % "node1").path == ("buckets", "state", "holds")
    assert codes(text % "laptop") == []


def test_state_beside_what_an_attic_server_stores_undeclared():
    assert codes('[buckets.store]\nholds = ["iac-state"]') == ["KP-BUCKET-SHARED"]


def test_a_pipeline_in_a_cluster_that_deploys_its_host():
    text = """
[clusters.k3s]
host = "laptop"
memory_max = "4GiB"

[runners.pods]
executor = "kubernetes"
cluster = "k3s"
image = "i:1"
token = "runner"

[pipelines.deploy]
runner = "pods"
build = [".#x"]
deploys = ["node1", "laptop"]
interruptible = false
"""
    problem = one(text)
    assert (problem.code, problem.path) == ("KP-DEPLOY-SELF", ("pipelines", "deploy", "deploys", 1))
    assert "k3s" in problem.message
