from __future__ import annotations

from kingpost.topology.budget import cluster_budget, host_budget

GIB = 1024**3

TEXT = """
site = { name = "s" }
[hosts.a]
memory = "16GiB"
reserve = "1GiB"
[hosts.b]
memory = "16GiB"
[clusters.k]
host = "a"
memory_max = "4GiB"
etcd = { memory_max = "1GiB" }
[runners.docker]
executor = "docker"
host = "a"
image = "x"
concurrency = 2
memory_per_job = "2GiB"
[runners.pods]
executor = "kubernetes"
cluster = "k"
image = "x"
memory_per_job = "2GiB"
[limits.attic]
host = "a"
unit = "atticd.service"
memory_max = "1GiB"
[limits.pod]
cluster = "k"
pod = "x/y"
memory_max = "512MiB"
[limits.elsewhere]
host = "b"
unit = "atticd.service"
memory_max = "1GiB"
"""


def test_a_host_promises_its_units_its_cluster_and_all_its_jobs_at_once(platform):
    budget = host_budget(platform(TEXT).topology, "a")
    assert {item.what: item.size // GIB for item in budget.items} == {
        "atticd.service": 1,
        "cluster k": 4,
        "runner docker: 2 jobs at once": 4,
    }
    assert budget.total == 9 * GIB
    assert budget.left == 6 * GIB


def test_what_timers_run_is_promised_too(platform):
    checks = """
[attic.home]
host = "b"
port = 8080
secret = "s"
caches = { main = { public = true } }
[buckets.own]
provider = "garage"
listener = { host = "b", port = 3900 }
data_dir = "/var/lib/garage"
check = { host = "b" }
[audits.night]
cache = "main"
host = "b"
[secrets.s]
provider = "path"
path = "/s"
variables = ["ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"]
"""
    budget = host_budget(platform(TEXT + checks).topology, "b")
    assert [(item.what, item.size) for item in budget.items] == [
        ("atticd.service", GIB), ("audit night", GIB // 4), ("check of bucket own", GIB // 4),
    ]  # fmt: skip
    limited = checks + '[limits.all]\nhost = "b"\nunit = "system.slice"\nmemory_max = "8GiB"\n'
    budget = host_budget(platform(TEXT + limited).topology, "b")
    assert [item.what for item in budget.items] == ["system.slice"]


def test_a_cluster_promises_its_pods_within_its_own_limit(platform):
    budget = cluster_budget(platform(TEXT).topology, "k")
    assert budget.memory == 4 * GIB
    assert budget.total == int(3.5 * GIB)


def test_a_cluster_without_a_limit_has_no_budget(platform):
    assert cluster_budget(platform(TEXT.replace('memory_max = "4GiB"\n', "")).topology, "k") is None
