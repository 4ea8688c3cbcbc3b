"""Real Nix evaluates every rendered module, and what comes out is what the topology says."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.real.conftest import require, require_root
from tests.real.evaluation import LIB, PER_BUILD, evaluate, example, write
from tests.real.readback import check_host, substituters
from tests.strategies import topologies

from kingpost.topology.checks.example import laid_over
from kingpost.topology.model import Topology
from kingpost.topology.paths import PER_BUILD_INTERFACE
from kingpost.topology.platform import Platform

EXAMPLES = ("homelab", "flywheel", "minimal")
RANDOM = int(os.environ.get("KINGPOST_RANDOM_TOPOLOGIES", "60"))


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


@pytest.mark.parametrize(
    "when", ["daily", "Mon..Fri *-*-* 04:00", "*:0/15", "*-*-* 04:10", "Mon 04:00", "*-*~03"]
)
def test_systemd_reads_the_times_that_a_topology_may_hold(when):
    declared = laid_over(f'[audits.night]\ncache = "main"\nhost = "node1"\nschedule = "{when}"')
    assert Topology.model_validate(declared).audits["night"].schedule == when
    require("systemd")
    subprocess.run(["systemd-analyze", "calendar", when], check=True, capture_output=True)


def test_job_networks_are_a_wildcard_in_the_syntax_of_either_firewall(nix, tmp_path):
    platform = Platform(Topology.model_validate(PER_BUILD))
    assert PER_BUILD_INTERFACE in platform.firewall("box")
    write(tmp_path / "generated", platform)
    trees = {"t": (tmp_path / "generated", platform)}
    iptables = evaluate(nix, trees)["t"]["box"]["networking"]["firewall"]["interfaces"]
    nftables = evaluate(nix, trees, extra="{ networking.nftables.enable = true; }")
    assert iptables["br-+"] == {"allowedTCPPorts": [8080]}
    assert nftables["t"]["box"]["networking"]["firewall"]["interfaces"]["br-*"] == {"allowedTCPPorts": [8080]}


def test_real_firewalls_take_those_wildcards_and_no_others():
    """Feed them what nixpkgs' firewall-iptables.nix and firewall-nftables.nix write for an interface."""
    require_root()
    tools = {"iptables": require("netns") / "iptables", "nft": require("nft") / "nft"}

    def iptables(name):
        rules = f"-N fw && {tools['iptables']} -A fw -p tcp --dport 8080 -j ACCEPT -i {name}"
        return in_network_namespace(f"{tools['iptables']} {rules} && {tools['iptables']} -S fw")

    def nft(name):
        table = f"table inet fw {{ chain input {{ iifname {name} tcp dport {{ 8080 }} accept; }}; }}"
        return in_network_namespace(f"{tools['nft']} -c '{table}'")

    assert "-i br-+ " in iptables("br-+").stdout
    assert nft("br-*").returncode == 0
    assert nft("br-+").returncode != 0


def in_network_namespace(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--net", "sh", "-c", command], capture_output=True, text=True, check=False, timeout=30
    )


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


BUCKETS = """
[hosts.node1.addresses]
tailnet = "100.64.0.1"
[buckets.own]
provider = "PROVIDER"
credentials = "keys"
listener = { host = "node1", port = 3900, managed = true }
data_dir = "/srv/chunks"
[attic.home]
storage = { kind = "bucket", bucket = "own" }
[secrets.keys]
provider = "agenix"
variables = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GARAGE_RPC_SECRET"]
[limits.s3]
host = "node1"
unit = "PROVIDER.service"
memory_max = "1GiB"
"""


@pytest.mark.parametrize("provider", ["garage", "minio"])
def test_a_hosts_own_s3_server_reads_back(nix, tmp_path, provider):
    made = Platform(Topology.model_validate(laid_over(BUCKETS.replace("PROVIDER", provider))))
    tree = tmp_path / "flake" / "generated"
    write(tree, made)
    host = evaluate(nix, {"x": (tree, made)})["x"]["node1"]
    address = f"{made.listeners['bucket:own'].bind}:3900"
    service = host["services"][provider]
    assert service["enable"] is True
    unit = host["systemd"]["services"][provider]
    assert unit["serviceConfig"]["MemoryMax"] == 1024**3
    if provider == "garage":
        assert service["settings"]["s3_api"] == {"api_bind_addr": address, "s3_region": "garage"}
        assert service["settings"]["data_dir"] == "/srv/chunks/data"
        assert unit["serviceConfig"]["EnvironmentFile"] == ["/run/agenix/keys"]
        assert unit["serviceConfig"]["DynamicUser"] is False
        assert "d /srv/chunks 0700 garage garage - -" in host["systemd"]["tmpfiles"]["rules"]
    else:
        assert (service["listenAddress"], service["dataDir"]) == (address, ["/srv/chunks"])
        assert service["rootCredentialsFile"] == "/run/kingpost-minio/keys"
        assert "minio.service" in host["systemd"]["services"]["kingpost-minio-keys"]["requiredBy"]
    assert 3900 in host["networking"]["firewall"]["interfaces"]["tailscale0"]["allowedTCPPorts"]
