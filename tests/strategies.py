"""Hypothesis strategies that several tests share: whole topologies that `check` accepts, and hostile text.

`topologies()` gives platforms as people build them, of every size up to a handful of hosts, with quotes,
`${`, `''`, newlines and unicode in every place where a topology takes free text.
"""

from __future__ import annotations

import base64
from datetime import date
from typing import Any

from hypothesis import event, reject
from hypothesis import strategies as st

from kingpost.topology.checks import run_checks
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

GIB = 1024**3
TODAY = date(2026, 11, 21)

BREAKOUTS = st.sampled_from(
    [
        '"', "'", "''", "''${x}", "${builtins.abort}", "$${x}", "$(id)", "`id`", "\\", "\\n", '"; rm -rf /; #',
        "{{ 7 * 7 }}", "{% raw %}", "%n", "#", "---", ": ", "- ", "&a", "*a", "!!python/object", "@TOKEN:x@",
        "[section]", "= 1", "é", "日本", "🦀", "\u2028", "\u202e", "%s",
    ]
)  # fmt: skip
"""Pieces that end a string, begin an expression or a comment in some syntax that kingpost writes."""

_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"])


def free_text(min_size: int = 0, max_pieces: int = 4) -> st.SearchStrategy[str]:
    """Give text for a person or a program, newlines and control characters among it."""
    pieces = st.one_of(
        BREAKOUTS, st.sampled_from(["\n", "\r\n", "\t", " "]), st.text(_CHARACTERS, max_size=5)
    )
    return (
        st.lists(pieces, min_size=min_size, max_size=max_pieces)
        .map("".join)
        .filter(lambda text: len(text) >= min_size)
    )


def one_line(min_size: int = 0) -> st.SearchStrategy[str]:
    """Give hostile text without control characters."""
    return free_text(min_size).map(
        lambda text: "".join(char for char in text if char >= " " and char not in "\x7f\u2028") or "x"
    )


def paths(folder: str) -> st.SearchStrategy[str]:
    """Give absolute paths below a folder, blanks and quotes among them."""
    return st.one_of(
        st.sampled_from(["secret", "a b", "it's", 'say "no"', "${HOME}", "''x''", "50%", "ä", "a$b", "x;y"]),
        one_line().map(lambda text: text.replace("/", "_") or "x"),
    ).map(lambda name: f"{folder}/{name}")


NAMES = st.sampled_from(
    [
        "a",
        "node1",
        "in",
        "or",
        "rec",
        "1st",
        "a.b",
        "with-dash",
        "under_score",
        "X9",
        "let",
        "blog-cache",
        "main",
    ]
)
"""Names as a topology allows them, words of the Nix language among them."""


def names(count: int, *, minimum: int = 0) -> st.SearchStrategy[list[str]]:
    """Give different names."""
    return st.lists(NAMES, min_size=minimum, max_size=count, unique=True)


USERS = st.sampled_from(["ann", "bob", "gitlab-runner", "root", "_svc", "x-1"])
SIZES = st.sampled_from(["64MiB", "100MB", "256MiB", "1073741823"])
VERSIONS = st.sampled_from(["2.8", "2.18", "2.24.1", "2.25", "2.31", "2.33", "2.34", "2.35.2"])


def public_key(name: str, seed: int) -> str:
    """Give a public key as Nix writes them: a name and 32 bytes."""
    return f"{name}:{base64.b64encode(bytes([seed % 256]) * 32).decode()}"


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Give a topology that `run_checks` finds no problem in."""
    topology = Topology.model_validate(draw(descriptions()))
    problems = run_checks(topology, Platform(topology), today=TODAY)
    if problems:
        event(f"refused: {problems[0].code}")
        reject()
    return topology


@st.composite
def descriptions(draw: st.DrawFn) -> dict[str, Any]:
    """Give a topology as its file says it; nearly all of them are accepted."""
    made: dict[str, Any] = {"site": {"name": draw(NAMES)}, "secrets": {}, "limits": {}}
    _networks(draw, made)
    _hosts(draw, made)
    _secrets(draw, made)
    _caches(draw, made)
    _clusters(draw, made)
    _substituters(draw, made)
    _runners(draw, made)
    _pipelines(draw, made)
    _tunnels(draw, made)
    _limits(draw, made)
    _timed_checks(draw, made)
    return made


def _networks(draw: st.DrawFn, made: dict[str, Any]) -> None:
    made["networks"] = {
        "tailnet": {"kind": "tailnet", "cidr": "100.64.0.0/10"},
        "lan": {"kind": "lan", "cidr": "192.168.1.0/24"},
    }
    if draw(st.booleans()):
        made["networks"]["tailnet"]["domain"] = "tail1234.ts.net"
    if draw(st.booleans()):
        made["networks"]["lan"]["interface"] = draw(st.sampled_from(["eth1", "enp3s0", "wlan0.7"]))
    made["site"]["prefer"] = draw(st.sampled_from([[], ["lan"], ["tailnet", "lan"]]))


def _hosts(draw: st.DrawFn, made: dict[str, Any]) -> None:
    made["hosts"] = {}
    for index, name in enumerate(draw(names(4, minimum=1))):
        host: dict[str, Any] = {
            "memory": "32GiB",
            "addresses": {"tailnet": f"100.64.0.{index + 1}"},
            "nix": draw(VERSIONS),
            "users": sorted(draw(st.sets(USERS, max_size=2))),
            "trusted_users": sorted(draw(st.sets(USERS, max_size=1))),
            "ec2": draw(st.booleans()),
        }
        if draw(st.booleans()):
            host["addresses"]["lan"] = f"192.168.1.{index + 10}"
        docker = draw(st.sampled_from(["no", "plain", "pinned", "own bridge"]))
        if docker != "no":
            host["docker"] = {} if docker == "plain" else {"bip": "172.30.0.1/24"}
        if docker == "own bridge":
            host["docker"]["bridge"] = "containers0"
        if draw(st.booleans()):
            host["ssh_user"] = draw(USERS)
        if draw(st.booleans()):
            host["store_fix"] = draw(st.sampled_from([{}, {"repair": "safe"}]))
        if draw(st.booleans()):
            host["metrics"] = "/var/lib/node-exporter"
        made["hosts"][name] = host


JWT = "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"
S3 = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


def _secret(draw: st.DrawFn, made: dict[str, Any], name: str, **declared: Any) -> str:
    """Declare a secret of any provider."""
    provider = draw(st.sampled_from(["agenix", "sops-nix", "path"]))
    secret: dict[str, Any] = {"provider": provider, **declared}
    if provider == "path":
        secret["path"] = draw(paths("/etc/kingpost"))
    else:
        secret["source"] = draw(st.one_of(st.just(""), st.just("secrets/x.age"), one_line()))
        if draw(st.booleans()):
            secret["path"] = draw(paths("/run/kept"))
    if draw(st.booleans()):
        secret["owner"] = draw(st.sampled_from(["root", "atticd", "gitlab-runner", "ann"]))
    if draw(st.booleans()):
        secret["mode"] = draw(st.sampled_from(["0400", "440", "0600"]))
    made["secrets"][name] = secret
    return name


def _secrets(draw: st.DrawFn, made: dict[str, Any]) -> None:
    _secret(draw, made, "server", variables=[JWT, "ATTIC_SERVER_DATABASE_URL", *S3])
    _secret(draw, made, "bucket", variables=S3)
    _secret(draw, made, "runner", format="raw")
    _secret(draw, made, "runner-env", variables=["CI_SERVER_URL", "CI_SERVER_TOKEN"])
    _secret(draw, made, "pull", format="raw")


def _caches(draw: st.DrawFn, made: dict[str, Any]) -> None:
    made["buckets"], made["attic"], made["cachix"], made["substituters"] = {}, {}, {}, {}
    hosts = list(made["hosts"])
    seed = 1
    for index, host in enumerate(hosts):
        if index > 1 or not draw(st.booleans()):
            continue
        name = f"attic{index}"
        caches = {}
        for cache in draw(names(2, minimum=1)):
            cache_name = f"{cache.replace('.', '_')}{index}"
            caches[cache_name] = {
                "public": draw(st.booleans()),
                "priority": draw(st.integers(1, 60)),
                "public_key": public_key(cache_name, seed),
            }
            seed += 1
        attic: dict[str, Any] = {
            "host": host,
            "port": draw(st.integers(8000, 8100)),
            "secret": "server",
            "caches": caches,
            "tokens": {"readers": {"pull": ["*"], "secret": "pull"}},
            "database": draw(
                st.sampled_from(
                    [
                        {"kind": "sqlite"},
                        {"kind": "sqlite", "path": "/data/my attic/${db} 100%.db"},
                        {"kind": "postgres"},
                        {"kind": "postgres", "name": "attic2"},
                        {"kind": "postgres", "url_in_secret": True},
                        {"kind": "postgres", "local": False, "url_in_secret": True},
                    ]
                )
            ),
            "settings": draw(st.sampled_from([{}, {"soft-delete-caches": True}])),
            "serve": draw(st.sampled_from([[], ["tailnet"]])),
            "gc_interval": draw(st.sampled_from(["12h", "90m", "0s"])),
            "default_retention": draw(st.sampled_from(["0s", "90d"])),
        }
        attic["storage"] = _storage(draw, made, index, host)
        if draw(st.booleans()):
            attic["allowed_hosts"] = ["cache.example.org", f"100.64.0.{index + 1}:9999"]
        made["attic"][name] = attic
    if draw(st.booleans()):
        made["cachix"]["homelab"] = {"public_key": public_key("homelab.cachix.org-1", 200)}
    if draw(st.booleans()):
        made["substituters"]["extra"] = {
            "url": "https://cache.example.org/sub",
            "public_key": public_key("cache.example.org-1", 201),
        }


def _storage(draw: st.DrawFn, made: dict[str, Any], index: int, host: str) -> dict[str, Any]:
    kind = draw(st.sampled_from(["local", "elsewhere", "r2", "aws", "garage"]))
    if kind == "local":
        return {"kind": "local"}
    if kind == "elsewhere":
        return {"kind": "local", "path": draw(paths("/data"))}
    name = f"bucket{index}"
    made["buckets"][name] = {
        "r2": {"provider": "r2", "endpoint": "https://0123abcd.r2.cloudflarestorage.com"},
        "aws": {"provider": "aws", "region": "eu-central-1", "bucket": "my-cache"},
        "garage": {"provider": "garage", "listener": {"host": host, "port": 3900 + index}},
    }[kind]
    if draw(st.booleans()):
        made["buckets"][name]["credentials"] = draw(st.sampled_from(["server", "bucket"]))
    return {"kind": "bucket", "bucket": name}


def _clusters(draw: st.DrawFn, made: dict[str, Any]) -> None:
    made["clusters"] = {}
    if draw(st.integers(0, 3)) == 0:
        host = draw(st.sampled_from(list(made["hosts"])))
        made["clusters"]["k3s"] = {"host": host, "memory_max": "4GiB"}
        if draw(st.booleans()):
            made["clusters"]["k3s"]["etcd"] = {"quota": "512MiB", "memory_max": "1GiB"}


def _substituters(draw: st.DrawFn, made: dict[str, Any]) -> None:
    known = [
        f"attic:{server}/{cache}" for server, attic in made["attic"].items() for cache in attic["caches"]
    ]
    known += [f"cachix:{name}" for name in made["cachix"]]
    known += [f"substituter:{name}" for name in made["substituters"]]
    made["known"] = known
    made["site"]["substituters"] = _some(draw, [*known, "substituter:nixos"])
    for host in made["hosts"].values():
        if draw(st.booleans()):
            host["substituters"] = _some(draw, [*known, "substituter:nixos"])


def _some(draw: st.DrawFn, known: list[str]) -> list[str]:
    return draw(st.lists(st.sampled_from(known), max_size=4, unique=True))


def _runners(draw: st.DrawFn, made: dict[str, Any]) -> None:
    made["runners"] = {}
    if draw(st.booleans()):
        made["gitlab"] = {"main": {"url": "https://gitlab.example.org:8443"}}
    users = {host: draw(st.sampled_from(["gitlab-runner", "ann"])) for host in made["hosts"]}
    for name in draw(names(3)):
        host = draw(st.sampled_from(list(made["hosts"])))
        executors = ["shell", "docker"] if "docker" in made["hosts"][host] else ["shell"]
        runner: dict[str, Any] = {
            "executor": draw(st.sampled_from(executors)),
            "host": host,
            "concurrency": draw(st.integers(1, 4)),
            "memory_per_job": "512MiB",
            "token": draw(st.sampled_from(["runner", "runner-env"])),
            "server": draw(st.sampled_from([{"run_untagged": True}, {"tags": ["nix", "x86.64"]}])),
        }
        if runner["executor"] == "shell":
            runner["user"] = users[host]
        else:
            runner["image"] = draw(
                st.sampled_from(["nixos/nix:2.31.2", "registry.example.org:5000/a/b@sha256:0"])
            )
            runner["network"] = draw(st.sampled_from(["bridge", "per-build", "host"]))
            runner["nix"] = draw(st.sampled_from(["own", "host-daemon"]))
            runner["volumes"] = draw(st.sampled_from([[], ["/cache"], ["/srv/a b:/data:ro"]]))
        if draw(st.booleans()):
            runner["substituters"] = _some(draw, [*made["known"], "substituter:nixos"])
        made["runners"][name] = runner


def _pipelines(draw: st.DrawFn, made: dict[str, Any]) -> None:
    made["pipelines"] = {}
    targets = [name for name in made["known"] if not name.startswith("substituter:")]
    for index, runner in enumerate(made["runners"]):
        if not draw(st.booleans()):
            continue
        pushes = [
            {
                "cache": cache,
                "policy": draw(st.sampled_from(["off", "required", "best-effort"])),
                "token": {"variable": draw(st.sampled_from(["ATTIC_TOKEN", "_T1"]))},
                "jobs": draw(st.integers(1, 8)),
                "because": draw(free_text(1).filter(str.strip)),
            }
            for cache in (
                draw(st.lists(st.sampled_from(targets), max_size=2, unique=True)) if targets else []
            )
        ]
        made["pipelines"][f"p{index}"] = {
            "runner": runner,
            "build": draw(st.lists(st.one_of(st.just(".#default"), one_line(1)), min_size=1, max_size=2)),
            "push": pushes,
            "interruptible": draw(st.booleans()),
            "fallback": draw(st.booleans()),
        }


def _tunnels(draw: st.DrawFn, made: dict[str, Any]) -> None:
    made["tunnels"] = {}
    del made["known"]
    for name, attic in made["attic"].items():
        others = [host for host in made["hosts"] if host != attic["host"]]
        if others and draw(st.booleans()):
            tunnel = {
                "host": others[0],
                "listen": f"127.0.0.1:{9000 + len(made['tunnels'])}",
                "service": f"attic:{name}",
            }
            if draw(st.booleans()):
                tunnel["identity"] = draw(paths("/etc/keys"))
            made["tunnels"][f"to-{name}"] = tunnel


UNITS = st.sampled_from(
    ["atticd.service", "nix-daemon.service", "user.slice", "docker.socket", "getty@tty1.service",
     r"dev-disk-by\x2dlabel-a.mount", "session-1.scope", "a.b-c_d:e.service"]
)  # fmt: skip


def _timed_checks(draw: st.DrawFn, made: dict[str, Any]) -> None:
    made["audits"] = {}
    times = st.sampled_from(["daily", "Mon *-*-* 04:00", "*:0/15"])
    for bucket in made["buckets"].values():
        if draw(st.booleans()):
            listener = bucket.get("listener")
            host = listener["host"] if listener else draw(st.sampled_from(list(made["hosts"])))
            bucket["check"] = {"host": host, "schedule": draw(times)}
            if listener:
                bucket["data_dir"] = draw(paths("/srv"))
    for server, attic in made["attic"].items():
        for cache, declared in attic["caches"].items():
            if declared.get("public") and draw(st.booleans()):
                audit = {
                    "cache": f"attic:{server}/{cache}",
                    "host": draw(st.sampled_from(list(made["hosts"]))),
                }
                if draw(st.booleans()):
                    audit["closures"] = [draw(paths("/nix/var/nix/profiles"))]
                made["audits"][f"{server}-{cache}".replace("+", ".")] = audit | {"schedule": draw(times)}


def _limits(draw: st.DrawFn, made: dict[str, Any]) -> None:
    for host in made["hosts"]:
        for index, unit in enumerate(draw(st.lists(UNITS, max_size=3, unique=True))):
            limit: dict[str, Any] = {"host": host, "unit": unit, "memory_max": draw(SIZES)}
            if draw(st.booleans()):
                limit |= {"memory_high": "32MiB", "swap_max": 0}
            if draw(st.booleans()) and unit.endswith(".service"):
                limit |= {
                    "oom_score": draw(st.integers(-1000, 1000)),
                    "cpu_weight": draw(st.integers(1, 10000)),
                }
            if draw(st.booleans()):
                limit["oomd"] = draw(st.sampled_from(["auto", "kill"]))
            made["limits"][f"{host}-{index}"] = limit
        if draw(st.integers(0, 4)) == 0:
            made["limits"][f"{host}-box"] = {"host": host, "container": "web.1", "memory_max": "64MiB"}
