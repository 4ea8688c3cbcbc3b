from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from tests.strategies import topologies

from kingpost.base.errors import InvalidInputError
from kingpost.render.nix_files import render_nix
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

ROOT = Path(__file__).parents[2]
ONE = {
    "site": {"name": "x", "substituters": ["attic:home/main", "substituter:nixos"]},
    "hosts": {"box": {"memory": "8GiB", "docker": {}}, "idle": {"memory": "1GiB"}},
    "attic": {"home": {"host": "box", "port": 8080, "secret": "s", "caches": {"main": {"public": True}}}},
    "secrets": {"s": {"provider": "path", "path": "/etc/s"}},
}


def rendered(changes=None, **tables):
    return render_nix(Platform(Topology.model_validate({**ONE, **tables, **(changes or {})})))


def test_a_host_imports_just_what_it_has():
    files = rendered()
    assert sorted(files) == [
        "default.nix",
        "flake-module.nix",
        "hosts/box/atticd.nix",
        "hosts/box/default.nix",
        "hosts/box/docker.nix",
        "hosts/box/nix.nix",
        "hosts/idle/default.nix",
        "hosts/idle/nix.nix",
        "modules/atticd-secret.sh",
        "modules/atticd.nix",
    ]
    imports = re.findall(r"\./([\w-]+\.nix)", files["hosts/box/default.nix"])
    assert imports == ["atticd.nix", "docker.nix", "nix.nix"]


@given(topologies())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_same_topology_renders_the_same_bytes(topology):
    first = render_nix(Platform(topology))
    again = render_nix(Platform(topology.model_copy(deep=True)))
    assert first == again
    assert list(first) == list(again)
    for path, text in first.items():
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path
        assert not re.search(r"[ \t]$", strip_strings(text), re.MULTILINE), path


def strip_strings(text: str) -> str:
    return re.sub(r'"(?:\\.|[^"\\])*"', '""', text)


def test_two_attic_servers_on_one_host_are_refused():
    second = {"home": ONE["attic"]["home"], "two": {**ONE["attic"]["home"], "port": 8081}}
    with pytest.raises(InvalidInputError, match="two Attic servers on box: home and two") as caught:
        rendered(attic=second)
    assert caught.value.fix


def test_shell_runners_of_two_users_on_one_host_are_refused():
    runners = {
        name: {"executor": "shell", "host": "box", "user": name, "token": "s"} for name in ("ann", "bob")
    }
    with pytest.raises(InvalidInputError, match="different users: ann, bob"):
        rendered(runners=runners)


DOCKER = {"executor": "docker", "host": "box", "image": "a", "substituters": ["attic:home/main"]}


def test_a_server_that_binds_to_the_bridge_starts_after_docker():
    site = {"name": "x", "substituters": []}
    text = rendered(site=site, runners={"r": DOCKER})["hosts/box/atticd.nix"]
    assert 'address = "172.17.0.1";' in text
    assert "port = 8080;" in text
    assert 'after = [ "docker.service" ];' in text


def test_a_server_that_binds_to_the_tailnet_starts_after_it():
    text = rendered(
        site={"name": "x", "substituters": []},
        networks={"tailnet": {"kind": "tailnet"}},
        hosts={
            "box": {"memory": "8GiB", "addresses": {"tailnet": "100.64.0.1"}},
            "far": {
                "memory": "8GiB",
                "addresses": {"tailnet": "100.64.0.2"},
                "substituters": ["attic:home/main"],
            },
        },
    )["hosts/box/atticd.nix"]
    assert 'address = "100.64.0.1";' in text
    assert 'after = [ "tailscaled.service" ];' in text


def test_containers_may_dial_a_tunnel_on_their_host():
    tunnels = {"t": {"host": "far", "listen": "172.17.0.1:9000", "service": "attic:home"}}
    network = {"tailnet": {"kind": "tailnet"}}
    hosts = {
        "box": {"memory": "8GiB", "addresses": {"tailnet": "100.64.0.1"}},
        "far": {"memory": "8GiB", "addresses": {"tailnet": "100.64.0.2"}, "docker": {}},
    }
    files = rendered(networks=network, hosts=hosts, tunnels=tunnels, runners={"r": {**DOCKER, "host": "far"}})
    assert "docker0.allowedTCPPorts = [ 9000 ];" in files["hosts/far/firewall.nix"]
    assert (
        'after = [\n        "docker.service"\n        "tailscaled.service"' in files["hosts/far/tunnels.nix"]
    )
    assert "hosts/box/firewall.nix" not in files


def test_a_private_cache_without_a_token_gets_no_netrc():
    attic = {**ONE["attic"]["home"], "caches": {"main": {"public": False}}}
    assert "netrc" not in "".join(rendered(attic={"home": attic}).values())


def test_an_unreachable_cache_is_left_out_with_its_reason():
    hosts = {**ONE["hosts"], "far": {"memory": "1GiB"}}
    text = rendered(hosts=hosts)["hosts/far/nix.nix"]
    assert "# attic:home/main is left out: far and box share no network" in text
    assert "8080" not in text


def test_the_nixos_cache_goes_where_the_topology_leaves_it_out():
    site = {"name": "x", "substituters": ["attic:home/main"]}
    assert "substituters = lib.mkForce [" in rendered(site=site)["hosts/box/nix.nix"]
    assert "mkForce" not in rendered()["hosts/box/nix.nix"]


def test_an_old_nixos_orders_after_the_service_of_postgresql():
    attic = {**ONE["attic"]["home"], "database": {"kind": "postgres"}}
    for release, unit in (("24.11", "service"), ("26.05", "target"), ("unstable", "target")):
        text = rendered(site={**ONE["site"], "nixos": release}, attic={"home": attic})["hosts/box/atticd.nix"]
        assert 'database = "atticd";' in text
        assert ('postgresqlUnit = "postgresql.service";' in text) is (unit == "service")


def test_a_database_elsewhere_replaces_the_stock_url():
    attic = {**ONE["attic"]["home"], "database": {"kind": "postgres", "url_in_secret": True}}
    text = rendered(attic={"home": attic})["hosts/box/atticd.nix"]
    assert "databaseInSecret = true;" in text
    assert "postgresql" not in text


def test_k3s_keeps_pods_and_server_within_the_clusters_memory():
    cluster = {"host": "box", "memory_max": "2GiB", "etcd": {"quota": "512MiB"}}
    text = rendered(clusters={"k": cluster})["hosts/box/k3s.nix"]
    assert '"--kubelet-arg=system-reserved=memory=6291456Ki"' in text
    assert '"--etcd-arg=quota-backend-bytes=536870912"' in text
    assert "serviceConfig.MemoryMax = lib.mkDefault 2147483648;" in text


def test_a_tree_carries_just_the_modules_that_its_hosts_import_byte_for_byte():
    limits = {"m": {"host": "box", "unit": "data.mount", "memory_max": "1GiB"}}
    files = rendered(limits=limits, runners={"r": {**DOCKER, "token": "s"}})
    own = {path: text for path, text in files.items() if path.startswith("modules/")}
    assert set(own) >= {"modules/fill-secrets.sh", "modules/gitlab-runner.nix", "modules/limits.nix"}
    assert "modules/tunnels.nix" not in own
    for path, text in own.items():
        assert text == (ROOT / path).read_text(), path
    imported = re.compile(r"(?:\.\./\.\./modules|(?<=[\s{(])\.)/[\w-]+\.(?:nix|sh|py)")
    for path, text in files.items():
        code = re.sub(r"(?m)^\s*#.*$", "", text) if path.startswith(("modules/", "hosts/")) else ""
        for name in imported.findall(code):
            assert posixpath.normpath(PurePosixPath(path).parent / name) in files, (path, name)


def test_a_fleet_takes_time_in_proportion_to_its_size():
    """Count derivations instead of seconds: twice the hosts, at most a little more than twice the work."""
    import cProfile
    import pstats

    def calls(count):
        # Names of their own: what was rendered with the same values before is not rendered again.
        names = [f"{count}x{n}" for n in range(count)]
        hosts = {f"h{name}": {"memory": "8GiB", "docker": {}} for name in names}
        attic = {f"a{name}": {**ONE["attic"]["home"], "host": f"h{name}"} for name in names}
        site = {"name": "x", "substituters": [f"attic:a{names[0]}/main"]}
        topology = Topology.model_validate({**ONE, "site": site, "hosts": hosts, "attic": attic})
        profile = cProfile.Profile()
        profile.runcall(lambda: render_nix(Platform(topology)))
        return pstats.Stats(profile).total_calls

    calls(1)  # Templates are compiled once.
    assert calls(200) < 2.2 * calls(100)
