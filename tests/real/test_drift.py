"""Drift on a machine with a real systemd, Docker, iptables, sockets and Nix: as declared, then everything wrong."""

from __future__ import annotations

import subprocess
import tomllib
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.observe.gitlab_api import TOKEN, details, gitlab, manager
from tests.real.attic_like import token
from tests.real.conftest import NIX_VERSIONS, require, require_root
from tests.real.machine import Machine
from tests.real.world import World

from kingpost.observe.drift import Scope, compare
from kingpost.observe.entering import Entrance
from kingpost.render.runner_config import runner_toml
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

pytestmark = pytest.mark.xdist_group("network")

KEY = "main:MOjxCMhKFSIS5JGtq5dJYyhVKlCr9vkVuPXBgq6XIWs="
NIXOS = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
OLD = "main:18n51cQZM3TuzsRVypE8KWcpGsDMM7LQD7sQoD27Re4="
RUNNER_TOKEN = "glrt-t1_not-a-real-token"
SECRET = "not-a-real-secret"

TOPOLOGY = """
site = { name = "s", substituters = ["attic:home/main", "substituter:nixos"] }
networks.tailnet = { kind = "tailnet", cidr = "100.64.0.0/10", domain = "t.ts.net" }
[hosts.node1]
memory = "8GiB"
nix = "NIX"
addresses = { tailnet = "100.105.10.61" }
docker = { bip = "172.17.0.1/16", pools = [{ base = "172.20.0.0/16", size = 24 }] }
[attic.home]
host = "node1"
port = 8083
secret = "atticd"
storage = { kind = "bucket", bucket = "chunks" }
[buckets.chunks]
provider = "r2"
endpoint = "https://0f.r2.cloudflarestorage.com"
credentials = "atticd"
[attic.home.caches.main]
public_key = "KEY"
retired_keys = ["OLD"]
[gitlab.lab]
url = "GITLAB"
[runners.blog]
executor = "docker"
host = "node1"
image = "dialler:kp"
volumes = ["/etc/hostname:/etc/kingpost-host:ro"]
token = "runner"
memory_per_job = "512MiB"
server = { tags = ["nix-blog"], protected = true }
[runners.host]
executor = "shell"
host = "node1"
token = "runner"
[pipelines.blog]
runner = "blog"
build = [".#x"]
[[pipelines.blog.push]]
cache = "attic:home/main"
policy = "required"
[secrets.atticd]
provider = "agenix"
variables = ["ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"]
[secrets.runner]
provider = "agenix"
format = "raw"
[limits.atticd]
host = "node1"
unit = "atticd.service"
memory_max = "1GiB"
oom_score = 100
[limits.builds]
host = "node1"
unit = "builds.slice"
memory_high = "2GiB"
"""
ATTICD_TOML = """
listen = "LISTEN"
allowed-hosts = ["127.0.0.1:8083", "172.17.0.1:8083"]
max-nar-info-size = 1048576
database = { url = "sqlite:///var/lib/atticd/server.db?mode=rwc" }
storage = { type = "s3", region = "auto", bucket = "chunks", endpoint = "https://0f.r2.cloudflarestorage.com" }
chunking = { nar-size-threshold = 65536, min-size = 16384, avg-size = 65536, max-size = 262144 }
compression = { type = "zstd", level = 8 }
garbage-collection = { interval = "12h", default-retention-period = "0s" }
"""
ATTICD = """[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/bin/env python3 -c "import time; time.sleep(1e6)" -f /etc/atticd-server.toml
EnvironmentFile=/run/agenix/atticd
Environment=AWS_REGION=auto AWS_EC2_METADATA_DISABLED=true
Environment=AWS_REQUEST_CHECKSUM_CALCULATION=when_required AWS_RESPONSE_CHECKSUM_VALIDATION=when_required
MemoryMax={memory}
OOMScoreAdjust={oom}
"""
#: A machine without /nix has no place for an overlay with profiles, and nothing may be made on the real one.
HAS_NIX = Path("/nix").is_dir()
#: A generation whose path is gone, and a newest one that does not run.
GENERATIONS = """
mkdir -p /nix/var/nix/profiles /run/a /run/b && cd /nix/var/nix/profiles
ln -s /nix/store/gone system-41-link
ln -s /run/a system-42-link
ln -sfn system-42-link system
ln -s /run/b /run/current-system
"""
PLAIN = "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/usr/bin/env sleep 100000\n"
SLICE = "[Unit]\nDefaultDependencies=no\n[Slice]\nMemoryHigh={high}\n"


def platform_of(url, nix):
    values = {"GITLAB": url, "KEY": KEY, "OLD": OLD, "NIX": nix}
    text = TOPOLOGY
    for name, value in values.items():
        text = text.replace(f'"{name}"', f'"{value}"')
    return Platform(Topology.model_validate(tomllib.loads(text)))


def config_of(platform):
    text = runner_toml(platform, ["blog", "host"])
    return text.replace("@TOKEN:blog@", RUNNER_TOKEN).replace("@TOKEN:host@", RUNNER_TOKEN)


def nix_conf(substituters, keys, nix="2.8"):
    newer = "fsync-store-paths = true\nnarinfo-cache-meta-ttl = 3600\n" if nix == "2.34" else ""
    return newer + (
        f"substituters = {' '.join(substituters)}\ntrusted-public-keys = {' '.join(keys)}\n"
        "fallback = true\nconnect-timeout = 5\nstalled-download-timeout = 90\ndownload-attempts = 3\n"
        f"access-tokens = gitlab.com=PAT:{RUNNER_TOKEN}\n"
    )


@contextmanager
def job(world, *mounts, memory=("--memory", "512m")):
    """Run a container like a job's; gives nothing."""
    docker = world.docker("node1")
    binds = [word for mount in mounts for word in ("--mount", f"type=bind,{mount}")]
    run = [
        "run",
        "-d",
        "-i",
        "--rm",
        *memory,
        "--label",
        "com.gitlab.gitlab-runner.type=build",
        "-e",
        f"T={RUNNER_TOKEN}",
    ]
    done = subprocess.run(
        [*docker, *run, *binds, "dialler:kp", "sh", "-c", "read x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        subprocess.run([*docker, "rm", "-f", done.stdout.strip()], capture_output=True, check=True)


@contextmanager
def host(world, root, files, *, nix="2.8", modes=()):
    """Start node1 in the world's network with these files, and its units."""
    start = {"/etc/systemd/system/gitlab-runner.service": PLAIN, **files}
    users = {"gitlab-runner": "/var/lib/gitlab-runner"}
    with Machine(root, world.enter("h-node1"), start, users, str(require(NIX_VERSIONS[nix]))) as machine:
        for path, mode in modes:
            machine.run("chmod", mode, path)
        machine.run("systemctl", "start", "atticd", "gitlab-runner", "builds.slice")
        yield machine


def look(platform, machine, world, **scope):
    entrance = Entrance(platform, None, {"host:node1": machine.way}, docker=world.docker("node1"))
    verdicts = compare(platform, entrance, Scope(gitlab_tokens={"lab": TOKEN}, **scope))
    assert RUNNER_TOKEN not in str(verdicts), "a token must never leave its host"
    assert SECRET not in str(verdicts)
    return verdicts


def found(verdicts, *statuses):
    return {(v.subject, v.code) for v in verdicts if str(v.status) in statuses}


def good_files(platform, nix="2.8"):
    substituters = ["http://127.0.0.1:8083/main", "https://cache.nixos.org/"]
    return {
        "/etc/systemd/system/atticd.service": ATTICD.format(memory="1G", oom=100),
        "/etc/systemd/system/builds.slice": SLICE.format(high="2G"),
        "/etc/atticd-server.toml": ATTICD_TOML.replace("LISTEN", "0.0.0.0:8083"),
        "/etc/nix/nix.conf": nix_conf(substituters, [KEY, NIXOS], nix),
        "/run/agenix/atticd": f"ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64={SECRET}\n",
        "/run/agenix/runner": RUNNER_TOKEN,
        "/var/lib/gitlab-runner/.gitlab-runner/config.toml": config_of(platform),
        "/var/lib/gitlab-runner/.gitlab-runner/.runner_system_id": "s_0123456789ab",
    }


def needs():
    require_root()
    for name in ("docker", "netns", "systemd"):
        require(name)


def test_a_host_as_declared_has_no_drift(tmp_path):
    needs()
    runners = {
        7: details(7, "blog", tag_list=["nix-blog"], access_level="ref_protected"),
        8: details(8, "other"),
        9: details(9, "host"),
    }
    managers = {7: [manager("s_0123456789ab")], 9: [manager("s_0123456789ab")]}
    with gitlab(runners, managers) as url:
        platform = platform_of(url, "2.34")
        server = {"caches": {"main": False}, "secret": SECRET,
                  "config": {"public_key": KEY, "priority": 41, "retention_period": "Global",
                             "upstream_cache_key_names": ["cache.nixos.org-1"]}}  # fmt: skip
        secrets = [("/run/agenix/atticd", "0400"), ("/run/agenix/runner", "0400")]
        with (
            World(platform, servers={"attic:home": server}, tailscaled=False) as world,
            host(world, tmp_path, good_files(platform, "2.34"), nix="2.34", modes=secrets) as machine,
            job(world, "source=/etc/hostname,target=/etc/kingpost-host,readonly"),
        ):
            held = {"attic:home/main": token(SECRET, main="r")}
            verdicts = look(platform, machine, world, cache_tokens=held)
    assert not found(verdicts, "failed", "expected")
    assert found(verdicts, "skipped") == {("node1: generations", "KP-DRIFT-NOT-ASKED")}  # this is no NixOS
    subjects = {v.subject for v in verdicts if str(v.status) == "ok"}
    assert {
        "node1: atticd.toml", "node1: config.toml runner blog", "node1: atticd.service MemoryMax",
        "node1: builds.slice MemoryHigh", "node1: atticd.service environment AWS_EC2_METADATA_DISABLED",
        "node1: atticd.service environment ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64", "node1: attic:home listens on",
        "node1: nix substituters of root", "node1: nix substituters of gitlab-runner", "node1: docker bridge gateway",
        "node1: docker address pools", "node1: firewall port 8083 open on", "node1: secret runner shape",
        "runner blog at GitLab protected", "runner host at GitLab machines", "attic:home/main public key",
    } <= subjects  # fmt: skip
    assert any(subject.startswith("node1: mounts of job ") for subject in subjects)


def test_everything_that_drifts_is_named_with_both_values(tmp_path):
    needs()
    runners = {
        7: details(7, "blog", tag_list=["nix-host"], status="stale", online=False),
    }
    managers = {7: [manager("s_fedcba987654"), manager("s_0123456789ab", status="offline")]}
    with gitlab(runners, managers) as url:
        platform = platform_of(url, "2.31")
        wrong = good_files(platform) | {
            "/etc/systemd/system/atticd.service": ATTICD.format(memory="infinity", oom=0).replace(
                "=true", "=false"
            ),
            "/etc/systemd/system/builds.slice": SLICE.format(high="3G"),
            "/etc/atticd-server.toml": ATTICD_TOML.replace("LISTEN", "127.0.0.1:8083"),
            "/etc/nix/nix.conf": nix_conf(["https://cache.nixos.org/"], [OLD, NIXOS]),
            "/var/lib/gitlab-runner/.config/nix/nix.conf": "extra-substituters = http://172.17.0.1:8083/main\n",
            "/run/agenix/atticd": f"export OTHER={SECRET}\r\n",
            "/run/agenix/runner": f"CI_SERVER_TOKEN={RUNNER_TOKEN}\n\n",
            "/var/lib/gitlab-runner/.gitlab-runner/config.toml": config_of(platform).replace(
                "privileged = false", "privileged = true\n  environment = ['A=1']"
            ),
        }
        config = {"public_key": OLD, "priority": 39, "retention_period": {"Period": 60}}
        config["upstream_cache_key_names"] = []
        world_options = {
            "servers": {"attic:home": {"caches": {"main": True}, "secret": SECRET, "config": config}},
            "binds": {"attic:home": "127.0.0.1"},
            "open_ports": {"node1": {"tailscale0": (8083,)}},
        }
        (tmp_path / "nix").mkdir()
        with (
            World(platform, tailscaled=False, **world_options) as world,
            host(world, tmp_path / "m", wrong) as machine,
            job(world, f"source={tmp_path / 'nix'},target=/nix", memory=()),
        ):
            if HAS_NIX:
                machine.run("sh", "-c", GENERATIONS)
            machine.run("sh", "-c", "printf '[Unit]\\nDescription=changed\\n' >>"
                        " /etc/systemd/system/atticd.service")  # fmt: skip
            verdicts = look(platform, machine, world)
    failed = found(verdicts, "failed")
    here = {(subject.removeprefix("node1: "), code) for subject, code in failed}
    generations = (
        {
            ("running generation", "KP-DRIFT-GENERATION-OLD"),
            ("generation system-41-link", "KP-DRIFT-GENERATION-GONE"),
        }
        if HAS_NIX
        else set()
    )
    assert {
        ("atticd.toml listen", "KP-DRIFT-FILE"),
        ("config.toml runner blog docker.privileged", "KP-DRIFT-FILE"),
        ("atticd.service MemoryMax", "KP-DRIFT-UNIT"),
        ("atticd.service OOMScoreAdjust", "KP-DRIFT-UNIT"),
        ("builds.slice MemoryHigh", "KP-DRIFT-UNIT"),
        ("atticd.service files", "KP-DRIFT-UNIT-STALE"),
        ("atticd.service environment AWS_EC2_METADATA_DISABLED", "KP-DRIFT-ENVIRONMENT"),
        ("atticd.service environment ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64", "KP-DRIFT-ENVIRONMENT"),
        ("attic:home listens on", "KP-DRIFT-BIND-NARROW"),
        ("nix version", "KP-DRIFT-NIX-VERSION"),
        ("nix substituters of root", "KP-DRIFT-NIX-SUBSTITUTERS"),
        ("nix trusted keys of root", "KP-DRIFT-NIX-RETIRED-KEY"),
        ("nix trusted keys of root", "KP-DRIFT-NIX-KEYS"),
        ("nix substituters of gitlab-runner", "KP-DRIFT-NIX-IGNORED"),
        ("firewall port 8083 open on", "KP-DRIFT-FIREWALL-SHUT"),
        ("firewall port 8083 open on", "KP-DRIFT-FIREWALL-WIDE"),
        ("secret atticd owner and mode", "KP-DRIFT-SECRET-ACCESS"),
        ("secret atticd shape", "KP-DRIFT-SECRET-SHAPE"),
        ("secret atticd ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64", "KP-DRIFT-SECRET-VARIABLE"),
        ("secret runner owner and mode", "KP-DRIFT-SECRET-ACCESS"),
        ("secret runner shape", "KP-DRIFT-SECRET-SHAPE"),
        ("runner blog at GitLab status", "KP-DRIFT-RUNNER-AWAY"),
        ("runner blog at GitLab tags", "KP-DRIFT-RUNNER-SERVER"),
        ("runner blog at GitLab protected", "KP-DRIFT-RUNNER-SERVER"),
        ("runner blog at GitLab machines", "KP-DRIFT-RUNNER-SYSTEM-IDS"),
        ("runner host at GitLab", "KP-DRIFT-RUNNER-UNKNOWN"),
        ("attic:home/main public", "KP-DRIFT-CACHE-PUBLIC"),
        ("attic:home/main public key", "KP-DRIFT-CACHE-KEY"),
        ("attic:home/main priority", "KP-DRIFT-CACHE-SETTING"),
        ("attic:home/main retention", "KP-DRIFT-CACHE-SETTING"),
        ("attic:home/main upstream keys", "KP-DRIFT-CACHE-SETTING"),
    } | generations == {pair for pair in here if " of job " not in pair[0]}
    jobs = {code for subject, code in here if " of job " in subject}
    assert jobs == {"KP-DRIFT-JOB-VOLUMES", "KP-DRIFT-JOB-NIX", "KP-DRIFT-CONTAINER"}
    for verdict in verdicts:
        if str(verdict.status) == "failed":
            assert {"declared", "operational"} <= set(verdict.evidence), verdict
