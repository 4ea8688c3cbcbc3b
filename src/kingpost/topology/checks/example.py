"""The topology that every example is laid over, so that an example shows only what it is about."""

from __future__ import annotations

import tomllib
from typing import Any, Final

BASE: Final = """\
[site]
name = "example"
substituters = ["attic:home/main", "substituter:nixos"]

[networks.tailnet]
kind = "tailnet"
cidr = "100.64.0.0/10"

[hosts.node1]
memory = "8GiB"
users = ["ann"]
docker = { bip = "172.17.0.1/16" }
addresses = { tailnet = "100.64.0.1" }

[hosts.laptop]
memory = "16GiB"
users = ["ann"]
addresses = { tailnet = "100.64.0.2" }

[buckets.store]
provider = "r2"
endpoint = "https://0123abcd.r2.cloudflarestorage.com"

[attic.home]
host = "node1"
port = 8083
secret = "attic"
storage = { kind = "bucket", bucket = "store" }

[attic.home.caches.main]
public = true
public_key = "main:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="

[runners.blog]
executor = "docker"
host = "node1"
image = "nixos/nix:2.31.2"
memory_per_job = "2GiB"
token = "runner"

[runners.host]
executor = "shell"
host = "laptop"
token = "runner"

[pipelines.blog]
runner = "blog"
build = [".#default"]
push = [{ cache = "attic:home/main", policy = "required", token = { variable = "ATTIC_TOKEN" } }]

[pipelines.host]
runner = "host"
build = [".#default"]
push = [{ cache = "attic:home/main", policy = "required", token = { variable = "ATTIC_TOKEN" } }]

[secrets.attic]
provider = "agenix"
source = "secrets/attic.age"
variables = [
  "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
]

[secrets.push]
provider = "agenix"
source = "secrets/push.age"
format = "raw"
owner = "gitlab-runner"

[secrets.runner]
provider = "agenix"
source = "secrets/runner.age"
format = "raw"
"""


def laid_over(example: str) -> dict[str, Any]:
    """Give `BASE` with an example's tables merged into it; what is no table replaces what is there."""
    return _merged(tomllib.loads(BASE), tomllib.loads(example))


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge two tables; an empty one replaces the other, as that is how an example says that nothing is there."""
    both = dict(base)
    for key, value in over.items():
        have = both.get(key)
        both[key] = (
            _merged(have, value) if isinstance(value, dict) and value and isinstance(have, dict) else value
        )
    return both
