"""Any topology that `check` accepts renders to plain files that parse, and that say what it says."""

import re
import shlex
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml as pyyaml
from hypothesis import HealthCheck, given, settings
from tests.strategies import topologies

from kingpost.render import layout
from kingpost.render.nix_conf import runs_nix
from kingpost.render.nix_conf import settings as nix_settings
from kingpost.render.site import render_site, scope_of
from kingpost.topology.loader import load
from kingpost.topology.model import Topology
from kingpost.topology.places import Dialer
from kingpost.topology.platform import Platform

EXAMPLES = Path(__file__).parents[2] / "examples"
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def example(name: str) -> Platform:
    return Platform(load(EXAMPLES / name / "topology.toml").topology)


def platform(**tables) -> Platform:
    """Give a platform of one host `box`, with tables over it."""
    return Platform(
        Topology.model_validate(
            {
                "site": {"name": "s"},
                "hosts": {"box": {"memory": "8GiB", "docker": {}}},
                "secrets": {
                    "jwt": {
                        "provider": "path",
                        "path": "/s/jwt",
                        "variables": ["ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"],
                    },
                    "raw": {"provider": "path", "path": "/s/raw", "format": "raw"},
                },
                **tables,
            }
        )
    )


def read_nix_conf(text: str) -> dict[str, list[str]]:
    """Read nix.conf as Nix does: # begins a comment, blanks separate (NixOS/nix src/libutil/config.cc)."""
    found = {}
    for line in text.split("\n"):
        words = line.partition("#")[0].split()
        if words:
            assert words[1] == "=", line
            found[words[0]] = words[2:]
    return found


@given(topologies())
@SLOW
def test_everything_parses_and_says_what_the_topology_says(topology):
    made = Platform(topology)
    files = render_site(made)
    folders = [layout.context_directory(context) for context in made.contexts.values()]
    assert len(set(folders)) == len(folders)
    for path, text in files.items():
        assert text.endswith("\n"), path
        if path.endswith(".toml"):
            tomllib.loads(text)
        elif path.endswith((".yml", ".yaml")):
            assert all(isinstance(one, dict) for one in pyyaml.safe_load_all(text))
    for context in made.contexts.values():
        if runs_nix(context):
            check_context(made, context, files)
    for name, pipeline in topology.pipelines.items():
        check_pipeline(pipeline, pyyaml.safe_load(files[layout.pipeline_file(name)]))
    for host in topology.hosts:
        check_runners(made, host, files)
    for name, attic in topology.attic.items():
        if attic.host:
            check_atticd(attic, tomllib.loads(files[layout.atticd_config(attic.host, name)]))


def check_context(made, context, files):
    folder = layout.context_directory(context)
    conf = read_nix_conf(files[f"{folder}/nix.conf"])
    wanted = nix_settings(made, context)
    assert conf.keys() == wanted.keys()
    if "substituters" in wanted:
        assert conf["substituters"] == [use.url for use in made.cache_uses(context.id) if use.url]
    env = dict(line.split("=", 1) for line in files[f"{folder}/env"].splitlines() if not line.startswith("#"))
    assert env["KINGPOST_CONTEXT"] == context.id
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", name) for name in env)
    assert all(shlex.split(value) == [value] for value in env.values())
    if f"{folder}/attic.toml" in files:
        servers = tomllib.loads(files[f"{folder}/attic.toml"])["servers"]
        for server, found in servers.items():
            assert found["endpoint"] == made.route(context.id, Dialer.CLIENT, f"attic:{server}").url + "/"
            assert "token" not in found


def check_pipeline(pipeline, found):
    (job,) = (value for key, value in found.items() if key != "workflow")
    script = [shlex.split(line) for line in job["script"]]
    assert [words[1:] for words in script if words[0] == "kingpost_build"] == [
        [one] for one in pipeline.build
    ]
    assert [words[1] for words in script if words[0] == "kingpost_push"] == [
        push.policy for push in pipeline.push if push.policy != "off"
    ]
    assert all(words[0].startswith("kingpost_") for words in script)
    assert not any("\n" in line for line in job["script"][:-1]) or any("\n" in one for one in pipeline.build)
    assert job["interruptible"] is pipeline.interruptible


def check_runners(made, host, files):
    names = [n for n, r in made.topology.runners.items() if r.host == host and r.executor != "kubernetes"]
    path = layout.runner_config(host)
    assert (path in files) == bool(names)
    if not names:
        return
    found = tomllib.loads(files[path])
    assert found["concurrent"] == sum(made.topology.runners[name].concurrency for name in names)
    assert [runner["name"] for runner in found["runners"]] == names
    for runner in found["runners"]:
        assert runner["token"] == layout.token_placeholder(runner["name"])
        assert not {"tags", "tag_list", "protected", "run_untagged", "locked"} & runner.keys()


def check_atticd(attic, found):
    assert found["chunking"].keys() == {"nar-size-threshold", "min-size", "avg-size", "max-size"}
    assert found["storage"]["type"] in {"local", "s3"}
    assert "credentials" not in found["storage"]
    assert "jwt" not in found
    assert isinstance(found["database"], dict)
    if attic.database.kind == "postgres" and attic.database.url_in_secret:
        assert found["database"] == {}


@pytest.mark.parametrize("name", ["homelab", "flywheel", "minimal"])
def test_rendering_is_deterministic(name):
    assert list(render_site(example(name)).items()) == list(render_site(example(name)).items())


@pytest.mark.parametrize("name", ["homelab", "flywheel", "minimal"])
def test_every_host_has_a_scope_of_its_own(name):
    made = example(name)
    files = render_site(made)
    scopes = {host: {path for path in files if scope_of(made, (host,))(path)} for host in made.topology.hosts}
    shared = {path for path in files if not path.startswith(("hosts/", "clusters/"))}
    assert {"default.nix", "flake-module.nix", "matrix.md"} <= shared
    for host, paths in scopes.items():
        assert f"hosts/{host}/default.nix" in paths
        for other, others in scopes.items():
            assert other == host or paths & others == shared
    assert set().union(*scopes.values()) == set(files)


# --- runners ------------------------------------------------------------------------------------------------


def docker_runner(**runner):
    made = platform(
        runners={"r": {"executor": "docker", "host": "box", "image": "img", "token": "raw", **runner}}
    )
    return tomllib.loads(render_site(made)["hosts/box/gitlab-runner.toml"])["runners"][0]


def test_a_daemon_runner_mounts_each_part_alone_and_only_the_socket_writable():
    found = docker_runner(nix="host-daemon", volumes=["/srv:/srv"])
    assert found["docker"]["volumes"] == [
        "/nix/store:/nix/store:ro",
        "/nix/var/nix/db:/nix/var/nix/db:ro",
        "/nix/var/nix/daemon-socket:/nix/var/nix/daemon-socket",
        "/srv:/srv",
        "/cache",
    ]
    assert found["environment"] == ["NIX_REMOTE=daemon"]


def test_an_own_store_mounts_nothing_of_the_host():
    found = docker_runner()
    assert found["docker"]["volumes"] == ["/cache"]
    assert "environment" not in found


def test_a_network_per_build_needs_the_flag_the_name_and_no_network_mode():
    found = docker_runner(network="per-build")
    assert found["feature_flags"] == {"FF_NETWORK_PER_BUILD": True}
    assert found["docker"]["extra_hosts"] == ["host.docker.internal:host-gateway"]
    assert "network_mode" not in found["docker"]


@pytest.mark.parametrize("network", ["bridge", "host"])
def test_other_networks_are_named(network):
    found = docker_runner(network=network)
    assert found["docker"]["network_mode"] == network
    assert "extra_hosts" not in found["docker"]
    assert "feature_flags" not in found


@pytest.mark.parametrize(
    ("size", "written"),
    [
        ("1GiB", "1g"),
        ("1536MiB", "1536m"),
        ("100MB", "100000000b"),
        ("1TiB", "1099511627776b"),
        ("5KiB", "5k"),
    ],
)
def test_memory_is_written_as_docker_reads_it_and_swap_is_off(size, written):
    found = docker_runner(memory_per_job=size, cpus=1.5)["docker"]
    assert (found["memory"], found["memory_swap"], found["cpus"]) == (written, written, "1.5")
    assert found["oom_kill_disable"] is False
    assert found["oom_score_adjust"] > 250


def test_a_secret_that_a_push_reads_is_mounted_read_only():
    made = platform(
        attic={"home": {"host": "box", "port": 80, "caches": {"main": {}}}},
        runners={"r": {"executor": "docker", "host": "box", "image": "img"}},
        pipelines={
            "p": {
                "runner": "r",
                "build": ["."],
                "push": [{"cache": "attic:home/main", "policy": "required", "token": {"secret": "raw"}}],
            }
        },
    )
    files = render_site(made)
    runner = tomllib.loads(files["hosts/box/gitlab-runner.toml"])["runners"][0]
    assert "/s/raw:/s/raw:ro" in runner["docker"]["volumes"]
    client = tomllib.loads(files["hosts/box/contexts/docker/r/attic.toml"])
    assert client["servers"]["home"]["token-file"] == "/s/raw"
    assert client["default-server"] == "home"


# --- Nix ----------------------------------------------------------------------------------------------------


def test_only_settings_that_the_hosts_nix_knows():
    files = render_site(
        platform(hosts={"old": {"memory": "1GiB", "nix": "2.8"}, "new": {"memory": "1GiB", "nix": "2.34"}})
    )
    old = read_nix_conf(files["hosts/old/contexts/host/nix.conf"])
    new = read_nix_conf(files["hosts/new/contexts/host/nix.conf"])
    assert new.keys() - old.keys() == {"fsync-store-paths", "narinfo-cache-meta-ttl"}


def test_a_job_on_the_hosts_daemon_is_told_nothing_that_the_daemon_would_ignore():
    files = render_site(example("homelab"))
    shell = read_nix_conf(files["hosts/thinkpad/contexts/shell/host-ci/nix.conf"])
    assert shell.keys() == {"experimental-features", "fallback"}
    assert "NIX_REMOTE=daemon\n" in files["hosts/node1/contexts/docker/blog/env"]


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        ("/srv/cache:/cache", ["/s/raw:/s/raw:ro", "/srv/cache:/cache"]),
        ("/srv/cache:/cache/", ["/s/raw:/s/raw:ro", "/srv/cache:/cache/"]),
        ("/cache", ["/s/raw:/s/raw:ro", "/cache"]),
        ("/s/raw:/s/raw", ["/s/raw:/s/raw", "/cache"]),
        ("/data", ["/s/raw:/s/raw:ro", "/data", "/cache"]),
    ],
)
def test_no_place_in_a_container_is_mounted_twice(volume, expected):
    """gitlab-runner refuses a job two of whose volumes have one target."""
    made = platform(
        attic={"home": {"host": "box", "port": 80, "caches": {"main": {}}}},
        runners={"r": {"executor": "docker", "host": "box", "image": "i", "volumes": [volume]}},
        pipelines={
            "p": {
                "runner": "r",
                "build": ["."],
                "push": [{"cache": "attic:home/main", "policy": "required", "token": {"secret": "raw"}}],
            }
        },
    )
    found = tomllib.loads(render_site(made)["hosts/box/gitlab-runner.toml"])["runners"][0]
    assert found["docker"]["volumes"] == expected


def test_a_job_chooses_among_the_daemons_caches_by_the_addresses_that_the_daemon_dials():
    found = read_nix_conf(render_site(example("homelab"))["hosts/node1/contexts/docker/blog/nix.conf"])
    assert found.keys() == {"experimental-features", "fallback", "substituters"}
    assert "http://127.0.0.1:8083/blog-cache" in found["substituters"]


def test_a_host_is_told_which_passwords_its_daemon_needs():
    made = platform(
        site={"name": "s", "substituters": ["attic:home/main"]},
        attic={
            "home": {
                "host": "box", "port": 80, "caches": {"main": {}}, "tokens": {"t": {"pull": ["main"], "secret": "raw"}}
            }
        },
    )  # fmt: skip
    text = render_site(made)["hosts/box/contexts/host/nix.conf"]
    assert "# In /etc/nix/netrc: machine 127.0.0.1 password, and what /s/raw holds\n" in text


def test_a_waiver_changes_no_file():
    topology = load(EXAMPLES / "flywheel" / "topology.toml").topology
    waiver = next(iter(topology.waivers.values())).model_copy(update={"expires": date(2030, 1, 1)})
    later = topology.model_copy(update={"waivers": {"shared-authority": waiver}})
    assert render_site(Platform(topology)) == render_site(Platform(later))
