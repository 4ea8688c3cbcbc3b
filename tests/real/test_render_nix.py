"""Real Nix evaluates every rendered module, and what comes out is what the topology says."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from kingpost.render import layout
from kingpost.render.nix_files import render_nix
from kingpost.render.nix_settings import RESILIENCE, known_to
from kingpost.topology.loader import load
from kingpost.topology.model import Topology
from kingpost.topology.paths import PER_BUILD_INTERFACE
from kingpost.topology.platform import Platform
from tests.strategies import topologies

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STAND_IN = HERE / "nixos-stand-in"
LIB = Path(os.environ.get("NIXPKGS_LIB", STAND_IN / "lib.nix"))
EXAMPLES = ("homelab", "flywheel", "minimal")
RANDOM = int(os.environ.get("KINGPOST_RANDOM_TOPOLOGIES", "60"))
USERS = '{ users.users = { ann.home = "/home/ann"; bob = { }; root = { }; _svc = { }; x-1 = { }; }; }'


def write(tree: Path, platform: Platform) -> None:
    """Write the rendered tree, with a file of its own where another renderer's is read."""
    for path, text in render_nix(platform).items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="")
    for host in platform.topology.hosts:
        lines = [
            f'token = "{layout.token_placeholder(name)}"\n'
            for name, runner in platform.topology.runners.items()
            if runner.host == host
        ]
        (tree / layout.runner_config(host)).write_text("".join(lines))


def evaluate(nix, trees: dict[str, tuple[Path, Platform]], extra=USERS, check=True):
    """Evaluate every host of every tree in one Nix process: {tree: {host: configuration}}."""
    lines = []
    for name, (tree, _) in trees.items():
        site = f"(import {tree}/default.nix).nixosModules"
        lines.append(
            f'"{name}" = builtins.mapAttrs (_: module: import {STAND_IN}/evaluate.nix'
            f" {{ inherit module; lib = {LIB}; extra = {extra}; }}) {site};"
        )
    file = nix.root / "all.nix"
    file.write_text("{\n" + "\n".join(lines) + "\n}\n")
    done = nix.run("nix-instantiate", "--eval", "--strict", "--json", file, check=check)
    return json.loads(done.stdout) if check else done


def example(name: str) -> Platform:
    return Platform(load(ROOT / "examples" / name / "topology.toml").topology)


@pytest.fixture
def evaluated(nix, tmp_path):
    """Give (platform, {host: configuration}) of every example."""
    trees = {}
    for name in EXAMPLES:
        tree = tmp_path / "flake" / name / "generated"
        trees[name] = (tree, example(name))
        write(*trees[name])
    found = evaluate(nix, trees)
    return {name: (trees[name][1], found[name]) for name in EXAMPLES}


def test_homelab_reads_back(evaluated):
    _, hosts = evaluated["homelab"]
    assert sorted(hosts) == ["node1", "thinkpad"]
    node1, thinkpad = hosts["node1"], hosts["thinkpad"]
    atticd = node1["services"]["atticd"]
    assert atticd["enable"] is True
    assert atticd["environmentFile"] == "/run/agenix/atticd"
    assert atticd["settings"]["listen"] == "0.0.0.0:8083"
    assert atticd["settings"]["allowed-hosts"] == ["127.0.0.1:8083", "172.17.0.1:8083"]
    assert atticd["settings"]["chunking"]["nar-size-threshold"] == 65536
    assert atticd["settings"]["storage"] == {
        "type": "s3",
        "region": "auto",
        "bucket": "attic-cache",
        "endpoint": "https://5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c.r2.cloudflarestorage.com",
    }
    assert "api-endpoint" not in atticd["settings"]
    unit = node1["systemd"]["services"]["atticd"]
    assert unit["environment"] == {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": "auto",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    assert unit["serviceConfig"]["MemoryMax"] == 1024**3
    assert unit["serviceConfig"]["MemoryHigh"] == 768 * 1024**2
    daemon = node1["systemd"]["services"]["nix-daemon"]["serviceConfig"]
    assert daemon == {
        "MemoryHigh": 1024**3,
        "MemoryMax": 1536 * 1024**2,
        "OOMScoreAdjust": 250,
        "CPUWeight": 50,
    }
    assert node1["systemd"]["services"]["sshd"]["serviceConfig"] == {"OOMScoreAdjust": -900}
    assert node1["networking"]["firewall"]["interfaces"] == {"docker0": {"allowedTCPPorts": [8083]}}
    assert node1["virtualisation"]["docker"]["daemon"]["settings"] == {
        "bip": "172.17.0.1/16",
        "default-address-pools": [{"base": "172.20.0.0/14", "size": 24}],
    }
    assert substituters(node1) == [
        "https://homelab.cachix.org",
        "http://127.0.0.1:8083/blog-cache",
        "https://cache.nixos.org/",
    ]
    assert substituters(thinkpad)[1] == "http://127.0.0.1:8083/dev-cache"
    assert thinkpad["nix"]["settings"]["trusted-users"] == ["root", "xameer"]
    assert thinkpad["networking"]["firewall"]["interfaces"] == {}
    tunnel = thinkpad["systemd"]["services"]["kingpost-tunnel-attic"]
    assert "127.0.0.1:8083:127.0.0.1:8083" in tunnel["script"]
    assert "xameer@100.105.10.61" in tunnel["script"]
    assert "ServerAliveInterval=15" in tunnel["script"]
    assert "ExitOnForwardFailure=yes" in tunnel["script"]
    assert tunnel["serviceConfig"]["Restart"] == "always"
    runner = thinkpad["systemd"]["services"]["gitlab-runner"]
    assert runner["serviceConfig"]["MemoryMax"] == 8 * 1024**3
    assert runner["after"] == ["network.target", "network-online.target"]
    assert [line[0] for line in runner["serviceConfig"]["ExecStartPre"]] == ["!"]


def test_flywheel_hosts_only_use_what_their_cluster_serves(evaluated):
    _, hosts = evaluated["flywheel"]
    for host in ("honey", "sting"):
        assert substituters(hosts[host]) == ["http://100.90.1.10:30080/main", "https://cache.nixos.org/"]
        assert hosts[host]["services"]["atticd"]["enable"] is False
        assert hosts[host]["networking"]["firewall"]["interfaces"] == {}


def test_only_missing_encrypted_files_are_complained_about(evaluated):
    _, hosts = evaluated["homelab"]
    for host in hosts.values():
        failing = [one["message"] for one in host["assertions"] if not one["assertion"]]
        assert len(failing) == len(host["age"]["secrets"]) > 0
        for secret in host["age"]["secrets"].values():
            assert any(f"has no encrypted file {secret['file']}:" in message for message in failing)


def substituters(configuration) -> list[str]:
    """Give the list as Nix uses it: each once."""
    return list(dict.fromkeys(configuration["nix"]["settings"]["substituters"]))


def with_slash(url: str) -> str:
    return f"{url}/" if url == "https://cache.nixos.org" else url


def sections(host) -> dict:
    systemd = host["systemd"]
    return {
        "service": {name: unit["serviceConfig"] for name, unit in systemd["services"].items()},
        "slice": {name: unit["sliceConfig"] for name, unit in systemd["slices"].items()},
        "socket": {name: unit["socketConfig"] for name, unit in systemd["sockets"].items()},
    }


def check_host(platform: Platform, name: str, found) -> None:
    """Compare one host's evaluated configuration with the topology, apart from the code that rendered it."""
    topology = platform.topology
    host = topology.hosts[name]
    check_caches(platform, name, found)
    openings = platform.firewall(name)
    assert {
        interface: tuple(opened["allowedTCPPorts"])
        for interface, opened in found["networking"]["firewall"]["interfaces"].items()
    } == openings
    docker = found["virtualisation"]["docker"]
    assert docker["enable"] is (host.docker is not None)
    if host.docker:
        pools = [{"base": str(pool.base), "size": pool.size} for pool in host.docker.pools]
        assert docker["daemon"]["settings"]["default-address-pools"] == pools
        if host.docker.bridge == "docker0":
            assert docker["daemon"]["settings"]["bip"] == str(host.docker.bip)
        else:
            assert docker["daemon"]["settings"]["bridge"] == host.docker.bridge
            assert host.docker.bridge in found["networking"]["bridges"]
    servers = {key: attic for key, attic in topology.attic.items() if attic.host == name}
    assert found["services"]["atticd"]["enable"] is bool(servers)
    for key, attic in servers.items():
        check_attic(platform, key, attic, found)
    for limit in topology.limits.values():
        if limit.host == name and limit.unit:
            check_limit(limit, found)
    for tunnel in topology.tunnels.values():
        if tunnel.host == name:
            port = tunnel.listen[1]
            scripts = [unit["script"] for unit in found["systemd"]["services"].values()]
            assert any(f"{tunnel.listen[0]}:{port}:" in script for script in scripts)
    runners = [runner for runner in topology.runners.values() if runner.host == name]
    assert found["services"]["gitlab-runner"]["enable"] is bool(runners)
    shell = {runner.user for runner in runners if runner.executor == "shell"} - {"gitlab-runner"}
    for user in shell:
        unit = found["systemd"]["services"]["gitlab-runner"]
        assert unit["serviceConfig"]["User"] == user
        assert unit["serviceConfig"]["DynamicUser"] is False
        assert unit["environment"]["HOME"] == f"/home/{user}"


def check_caches(platform: Platform, name: str, found) -> None:
    uses = platform.cache_uses(f"host:{name}")
    expected = [with_slash(use.url) for use in uses if use.url]
    conf = found["nix"]["settings"]
    if "https://cache.nixos.org/" in expected:
        assert substituters(found) == expected
    else:
        assert conf["substituters"] == expected
    keys = {use.public_key for use in uses if use.url and use.public_key}
    assert keys <= set(conf["trusted-public-keys"])
    asked = {
        with_slash(use.url)
        for context in platform.contexts_on(name)
        if context.runner and not context.own_store
        for use in platform.cache_uses(context.id)
        if use.url
    }
    assert asked <= {*conf["substituters"], *conf["trusted-substituters"]}
    assert set(conf["trusted-users"]) == {"root", *platform.topology.hosts[name].trusted_users}
    private = [use for use in uses if use.url and use.ref.kind == "attic" and not use.public]
    if private:
        assert conf["netrc-file"] == "/run/kingpost/netrc"
        assert "kingpost-netrc" in found["systemd"]["services"]
    for setting, value in known_to(platform.topology.hosts[name].nix, RESILIENCE).items():
        assert conf[setting] == value


def check_attic(platform: Platform, name: str, attic, found) -> None:
    settings_ = found["services"]["atticd"]["settings"]
    listener = platform.listeners[f"attic:{name}"]
    assert settings_["listen"] == f"{listener.bind}:{attic.port}"
    assert settings_["allowed-hosts"] == list(platform.allowed_hosts(name))
    assert settings_["chunking"]["max-size"] == attic.chunking.max_size
    assert settings_["storage"].keys() <= {"type", "path", "region", "bucket", "endpoint"}
    secret = platform.topology.secrets[attic.secret]
    if secret.path:
        assert found["services"]["atticd"]["environmentFile"] == secret.path
    unit = found["systemd"]["services"]["atticd"]
    if attic.storage.kind == "local":
        assert settings_["storage"] == {"type": "local", "path": attic.storage.path}
        assert unit["environment"] == {}
    else:
        bucket = platform.topology.buckets[attic.storage.bucket]
        assert settings_["storage"]["region"] == bucket.signing_region
        ec2 = platform.topology.hosts[attic.host].ec2
        assert ("AWS_EC2_METADATA_DISABLED" in unit["environment"]) is not ec2
        checksums = "AWS_REQUEST_CHECKSUM_CALCULATION" in unit["environment"]
        assert checksums is (bucket.provider != "aws")
    if attic.database.kind == "sqlite":
        assert settings_["database"]["url"].startswith("sqlite:///")
    elif attic.database.url_in_secret:
        assert settings_["database"] == {}
    else:
        assert settings_["database"]["url"] == f"postgresql:///{attic.database.name}?host=/run/postgresql"
        assert found["services"]["postgresql"]["ensureDatabases"] == [attic.database.name]
        assert found["services"]["atticd"]["user"] == attic.database.name
        assert "postgresql.target" in unit["after"]
        assert "postgresql.target" in unit["requires"]


def check_limit(limit, found) -> None:
    base, _, kind = limit.unit.rpartition(".")
    if kind not in {"service", "slice", "socket"}:
        assert found["systemd"]["packages"]
        return
    unit = sections(found)[kind][base]
    expected = {
        "MemoryMax": limit.memory_max,
        "MemoryHigh": limit.memory_high,
        "MemorySwapMax": limit.swap_max,
        "CPUWeight": limit.cpu_weight,
        "OOMScoreAdjust": limit.oom_score,
        "ManagedOOMMemoryPressure": limit.oomd,
    }
    for key, value in expected.items():
        if value is not None:
            assert unit[key] == value, (limit.unit, key)


def gather(count: int) -> list[Topology]:
    """Give many topologies, so that one Nix process evaluates all of them."""
    found: list[Topology] = []

    @settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(topologies())
    def collect(topology):
        found.append(topology)

    collect()
    return found


def test_whatever_check_accepts_evaluates_to_what_it_says(nix, tmp_path):
    trees = {}
    for index, topology in enumerate(gather(RANDOM)):
        trees[f"t{index}"] = (tmp_path / "flake" / f"t{index}" / "generated", Platform(topology))
        write(*trees[f"t{index}"])
    found = evaluate(nix, trees)
    for name, (_, platform) in trees.items():
        assert set(found[name]) == set(platform.topology.hosts)
        for host, configuration in found[name].items():
            check_host(platform, host, configuration)


def test_examples_read_back(evaluated):
    for platform, hosts in evaluated.values():
        for host, configuration in hosts.items():
            check_host(platform, host, configuration)


PER_BUILD = {
    "site": {"name": "x", "substituters": ["attic:home/main"]},
    "hosts": {"box": {"memory": "8GiB", "docker": {}}},
    "attic": {
        "home": {"host": "box", "port": 8080, "secret": "s", "caches": {"main": {"public": True}}},
    },
    "runners": {
        "blog": {
            "executor": "docker",
            "host": "box",
            "image": "a",
            "network": "per-build",
            "token": "t",
        },
    },
    "secrets": {
        "s": {"provider": "sops-nix", "source": "secrets/all.yaml"},
        "t": {"provider": "sops-nix", "source": "secrets/runner.env", "variables": ["CI_SERVER_TOKEN"]},
    },
}


def test_job_networks_are_a_wildcard_in_the_syntax_of_either_firewall(nix, tmp_path):
    platform = Platform(Topology.model_validate(PER_BUILD))
    assert PER_BUILD_INTERFACE in platform.firewall("box")
    write(tmp_path / "generated", platform)
    trees = {"t": (tmp_path / "generated", platform)}
    iptables = evaluate(nix, trees)["t"]["box"]["networking"]["firewall"]["interfaces"]
    nftables = evaluate(nix, trees, extra="{ networking.nftables.enable = true; }")
    assert iptables["br-+"] == {"allowedTCPPorts": [8080]}
    assert nftables["t"]["box"]["networking"]["firewall"]["interfaces"]["br-*"] == {"allowedTCPPorts": [8080]}


def test_sops_secrets_restart_their_units(nix, tmp_path):
    platform = Platform(Topology.model_validate(PER_BUILD))
    write(tmp_path / "generated", platform)
    found = evaluate(nix, {"t": (tmp_path / "generated", platform)})["t"]["box"]["sops"]["secrets"]
    assert found["s"]["restartUnits"] == ["atticd.service"]
    assert found["s"]["format"] == "yaml"
    assert found["s"]["sopsFile"] == str(tmp_path / "secrets/all.yaml")
    assert found["t"]["reloadUnits"] == ["gitlab-runner.service"]
    assert found["t"]["format"] == "dotenv"


def test_an_age_secret_restarts_its_unit_when_its_content_changes_and_not_else(nix, tmp_path):
    platform = example("homelab")
    tree = tmp_path / "flake" / "generated"
    write(tree, platform)
    encrypted = tmp_path / "flake" / "secrets" / "atticd.env.age"
    encrypted.parent.mkdir()

    def triggers():
        found = evaluate(nix, {"t": (tree, platform)})["t"]["node1"]
        return found["systemd"]["services"]["atticd"]["restartTriggers"]

    assert triggers() == []
    encrypted.write_text("one")
    first = triggers()
    assert len(first) == 1
    encrypted.write_text("two")
    assert triggers() != first
    encrypted.write_text("one")
    assert triggers() == first


def test_what_a_host_must_not_do_is_said(nix, tmp_path):
    platform = example("minimal")
    write(tmp_path / "generated", platform)
    extra = "{ networking.firewall.enable = false; services.gitlab-runner.services.old = { }; }"
    found = evaluate(nix, {"t": (tmp_path / "generated", platform)}, extra=extra)
    failing = [a["message"] for a in found["t"]["box"]["assertions"] if not a["assertion"]]
    assert len(failing) == 2
    assert any("networking.firewall.enable" in message for message in failing)
    assert any("services.gitlab-runner.services" in message for message in failing)


def test_a_host_may_differ_where_it_may(nix, tmp_path):
    platform = example("homelab")
    write(tmp_path / "generated", platform)
    extra = (
        '{ nix.settings.connect-timeout = 20; kingpost.root = "/elsewhere"; system.stateVersion = "24.05";'
        " systemd.services.atticd.serviceConfig.MemoryMax = 5; }"
    )
    extra = extra.replace("MemoryMax = 5", f"MemoryMax = (import {LIB}).mkForce 5")
    found = evaluate(nix, {"t": (tmp_path / "generated", platform)}, extra=extra)["t"]["node1"]
    assert found["nix"]["settings"]["connect-timeout"] == 20
    assert found["system"]["stateVersion"] == "24.05"
    assert found["age"]["secrets"]["atticd"]["file"] == "/elsewhere/secrets/atticd.env.age"
    assert found["systemd"]["services"]["atticd"]["serviceConfig"]["MemoryMax"] == 5


def test_the_stand_in_refuses_what_nixos_would(nix, tmp_path):
    platform = example("minimal")
    write(tmp_path / "generated", platform)
    trees = {"t": (tmp_path / "generated", platform)}
    for extra, message in (
        ("{ services.attic.enable = true; }", "does not exist"),
        ("{ services.atticd.enable = false; }", "conflicting definition"),
        ('{ services.atticd.enable = "yes"; }', "not of type"),
    ):
        done = evaluate(nix, trees, extra=extra, check=False)
        assert done.returncode != 0
        assert message in done.stderr


def test_the_site_offers_every_host_to_either_kind_of_flake(nix, tmp_path):
    write(tmp_path / "generated", example("homelab"))
    for expression in (
        "(import {}/default.nix).nixosModules",
        "(import {}/flake-module.nix).flake.nixosModules",
    ):
        names = nix.eval_json(f"builtins.attrNames ({expression.format(tmp_path / 'generated')})")
        assert names == ["node1", "thinkpad"]


def test_nix_knows_every_setting_that_its_version_gets(nix):
    conf = known_to(nix.version, RESILIENCE)
    assert shown(nix, conf) == {key: str(value).lower() for key, value in conf.items()}
    unknown = RESILIENCE.keys() - conf.keys()
    if nix.version == "2.8":
        assert unknown == {"fsync-store-paths", "narinfo-cache-meta-ttl"}
        for setting in unknown:
            with pytest.raises(AssertionError, match="unknown setting"):
                shown(nix, {setting: 1})
    else:
        assert not unknown


def shown(nix, conf: dict) -> dict[str, str]:
    lines = "".join(f"{key} = {str(value).lower()}\n" for key, value in conf.items())
    command = ["nix", "config", "show"] if nix.version != "2.8" else ["nix", "show-config"]
    done = nix.run(*command, env={"NIX_CONFIG": lines + "experimental-features = nix-command\n"})
    assert "unknown setting" not in done.stderr, done.stderr
    pairs = dict(line.split(" = ", 1) for line in done.stdout.splitlines() if " = " in line)
    return {key: pairs[key] for key in conf}


@pytest.mark.parametrize("format_", ["raw", "env"])
def test_the_unit_fills_the_token_in_as_it_starts(nix_new, tmp_path, format_):
    secret = tmp_path / "it's a secret"
    secret.write_text(
        "glrt-abc_DEF-123\n" if format_ == "raw" else "OTHER=1\nCI_SERVER_TOKEN='glrt-abc_DEF-123'\n"
    )
    declared = {"provider": "path", "path": str(secret), "format": format_}
    topology = Topology.model_validate({**PER_BUILD, "secrets": {"s": declared, "t": declared}})
    platform = Platform(topology)
    write(tmp_path / "generated", platform)
    found = evaluate(nix_new, {"t": (tmp_path / "generated", platform)})["t"]["box"]
    (command,) = found["systemd"]["services"]["gitlab-runner"]["serviceConfig"]["ExecStartPre"]
    script = build(nix_new, tmp_path / "generated", "gitlab-runner", "serviceConfig.ExecStartPre")
    assert command == f"!{script}"
    home = tmp_path / "home"
    (home / ".gitlab-runner").mkdir(parents=True)
    (home / ".gitlab-runner" / ".runner_system_id").write_text("s_keep")
    done = subprocess.run(
        [script], env={"HOME": str(home), "PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    config = home / ".gitlab-runner" / "config.toml"
    assert config.read_text() == 'token = "glrt-abc_DEF-123"\n'
    assert config.stat().st_mode & 0o777 == 0o600
    assert (home / ".gitlab-runner" / ".runner_system_id").read_text() == "s_keep"
    assert "glrt" not in done.stdout + done.stderr


def build(nix, tree: Path, unit: str, attribute: str) -> str:
    """Build the script that a unit's directive names, and give its path."""
    expression = (
        f"let c = (import {STAND_IN}/evaluate.nix {{ module = {tree}/hosts/box; lib = {LIB}; }});"
        f" line = builtins.head c.systemd.services.{unit}.{attribute};"
        ' in derivation { name = "all"; system = builtins.currentSystem; builder = "/bin/sh"; inherit line;'
        ' PATH = "/usr/bin:/bin"; args = [ "-c" "echo ${line} >$out" ]; }'
    )
    out = nix.run("nix-build", "--no-out-link", "-E", expression).stdout.strip()
    return Path(out).read_text().strip().removeprefix("!")
