"""A fleet to measure with: any number of hosts that share a few caches, each with a runner, secrets and limits."""

from __future__ import annotations

import base64
import hashlib
from ipaddress import IPv4Address

SERVERS = 4
"""Attic servers, whatever the number of hosts: a fleet grows in hosts, not in caches."""


def fleet(hosts: int) -> str:
    """Give the topology.toml of a fleet; it passes every check."""
    parts = [_site(), *(_server(number) for number in range(SERVERS))]
    parts += [_host(number) for number in range(hosts)]
    parts += [_pipeline(number) for number in range(0, hosts, 10)]
    return "\n".join(parts)


def _key(name: str) -> str:
    return f"{name}:{base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()}"


def _site() -> str:
    substituters = [f"attic:cache{number}/main" for number in range(SERVERS)]
    names = ", ".join(f'"{name}"' for name in [*substituters, "cachix:fleet", "substituter:nixos"])
    return f"""
[site]
name = "fleet"
prefer = ["lan", "tailnet"]
substituters = [{names}]
primary = "cachix:fleet"

[networks.lan]
kind = "lan"
cidr = "10.0.0.0/10"

[networks.tailnet]
kind = "tailnet"
cidr = "100.64.0.0/10"
domain = "fleet.ts.net"

[buckets.chunks]
provider = "r2"
endpoint = "https://5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c.r2.cloudflarestorage.com"
credentials = "atticd"

[cachix.fleet]
public_key = "{_key("fleet.cachix.org-1")}"
priority = 40

[secrets.atticd]
provider = "agenix"
source = "secrets/atticd.env.age"
variables = ["ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]

[secrets.runner]
provider = "agenix"
source = "secrets/runner.age"
format = "raw"
"""


def _server(number: int) -> str:
    return f"""
[attic.cache{number}]
host = "host{number}"
port = 8080
secret = "atticd"
storage = {{ kind = "bucket", bucket = "chunks" }}

[attic.cache{number}.caches.main]
public = true
public_key = "{_key(f"main{number}")}"

[limits.atticd{number}]
host = "host{number}"
unit = "atticd.service"
memory_max = "2GiB"
"""


def _host(number: int) -> str:
    return f"""
[hosts.host{number}]
memory = "32GiB"
reserve = "2GiB"
users = ["ops"]
addresses = {{ lan = "{IPv4Address("10.0.1.0") + number}", tailnet = "{IPv4Address("100.64.1.0") + number}" }}
docker = {{ bip = "172.17.0.1/16", pools = [{{ base = "172.20.0.0/14", size = 24 }}] }}

[runners.builds{number}]
executor = "docker"
host = "host{number}"
network = "{("bridge", "per-build", "host")[number % 3]}"
image = "registry.example.org/ci:1"
nix = "{("own", "host-daemon")[number % 2]}"
concurrency = 4
memory_per_job = "4GiB"
token = "runner"

[limits.nix-daemon{number}]
host = "host{number}"
unit = "nix-daemon.service"
memory_high = "6GiB"
memory_max = "8GiB"
oom_score = 250

[limits.sshd{number}]
host = "host{number}"
unit = "sshd.service"
oom_score = -900
"""


def _pipeline(number: int) -> str:
    return f"""
[pipelines.site{number}]
runner = "builds{number}"
build = [".#checks.x86_64-linux.all"]

[[pipelines.site{number}.push]]
cache = "cachix:fleet"
policy = "required"
token = {{ variable = "CACHIX_AUTH_TOKEN" }}

[[pipelines.site{number}.push]]
cache = "attic:cache{number % SERVERS}/main"
policy = "best-effort"
token = {{ variable = "ATTIC_TOKEN" }}
"""
