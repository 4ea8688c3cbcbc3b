"""What rendered units run when they start, built by real Nix and run against real programs."""

from __future__ import annotations

import os
import subprocess
import tomllib

import pytest
from tests.real.conftest import require, require_root
from tests.real.evaluation import PER_BUILD, build, evaluate, write

from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

TOKEN = "glrt-abc_DEF-123"


def run_script(nix, tmp_path, declared, home):
    topology = Topology.model_validate({**PER_BUILD, "secrets": {"s": declared, "t": declared}})
    platform = Platform(topology)
    write(tmp_path / "generated", platform)
    found = evaluate(nix, {"t": (tmp_path / "generated", platform)})["t"]["box"]
    (command,) = found["systemd"]["services"]["gitlab-runner"]["serviceConfig"]["ExecStartPre"]
    line = "builtins.head c.systemd.services.gitlab-runner.serviceConfig.ExecStartPre"
    script = build(nix, tmp_path / "generated", "box", line).removeprefix("!")
    assert command == f"!{script}"
    return subprocess.run(
        [script],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("format_", "text"), [("raw", f"{TOKEN}\n"), ("env", f"OTHER=1\nCI_SERVER_TOKEN='{TOKEN}'\n")]
)
def test_a_runner_gets_its_token_and_keeps_its_system_id(nix_new, tmp_path, format_, text):
    secret = tmp_path / "it's a secret"
    secret.write_text(text)
    home = tmp_path / "home"
    (home / ".gitlab-runner").mkdir(parents=True)
    (home / ".gitlab-runner" / ".runner_system_id").write_text("s_keep")
    declared = {"provider": "path", "path": str(secret), "format": format_}
    done = run_script(nix_new, tmp_path, declared, home)
    assert done.returncode == 0, done.stderr
    config = home / ".gitlab-runner" / "config.toml"
    filled = (tmp_path / "generated/hosts/box/gitlab-runner.toml").read_text().replace("@TOKEN:blog@", TOKEN)
    assert config.read_text() == filled
    assert tomllib.loads(filled)["runners"][0]["token"] == TOKEN
    assert config.stat().st_mode & 0o777 == 0o600
    assert (home / ".gitlab-runner" / ".runner_system_id").read_text() == "s_keep"
    assert TOKEN not in done.stdout + done.stderr


def test_a_runner_with_a_bad_token_does_not_start_and_keeps_the_old_file(nix_new, tmp_path):
    secret = tmp_path / "token"
    secret.write_text(f"{TOKEN}\r\n")
    home = tmp_path / "home"
    config = home / ".gitlab-runner" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("old")
    done = run_script(nix_new, tmp_path, {"provider": "path", "path": str(secret), "format": "raw"}, home)
    assert done.returncode == 1
    assert "carriage returns" in done.stderr
    assert str(secret) in done.stderr
    assert TOKEN not in done.stderr
    assert config.read_text() == "old"


def in_private_run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script with a network and a /run of its own."""
    setup = "set -e; mount -t tmpfs none /run; ip link set lo up\n"
    return subprocess.run(
        ["unshare", "--net", "--mount", "bash", "-c", setup + script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


PRIVATE = {
    "site": {"name": "x", "substituters": ["attic:home/main"]},
    "networks": {"tailnet": {"kind": "tailnet"}},
    "hosts": {
        "box": {"memory": "8GiB", "addresses": {"tailnet": "100.64.0.1"}, "ssh_user": "root"},
        "laptop": {"memory": "8GiB", "addresses": {"tailnet": "100.64.0.2"}},
    },
    "tunnels": {"home": {"host": "laptop", "listen": "127.0.0.1:9000", "service": "attic:home"}},
    "attic": {
        "home": {
            "host": "box",
            "port": 8080,
            "secret": "server",
            "caches": {"main": {"public": False}},
            "tokens": {
                "all": {"pull": ["*"], "push": ["*"], "secret": "other"},
                "readers": {"pull": ["main"], "secret": "pull"},
            },
        },
    },
    "secrets": {
        "server": {"provider": "path", "path": "/etc/kingpost/server.env"},
        "other": {"provider": "path", "path": "/etc/kingpost/other", "format": "raw"},
    },
}


def script_of(nix, tmp_path, topology, host, unit) -> str:
    """Give a unit's start script, with everything that it calls built."""
    platform = Platform(Topology.model_validate(topology))
    write(tmp_path / "generated", platform)
    return build(nix, tmp_path / "generated", host, f"c.systemd.services.{unit}.script")


def test_a_private_cache_gets_the_weakest_token_that_may_pull(nix_new, tmp_path):
    require_root()
    require("netns")
    secret = tmp_path / "pull token"
    secret.write_text("eyJ0.eyJ1.c2ln")
    secrets = {**PRIVATE["secrets"], "pull": {"provider": "path", "path": str(secret), "format": "raw"}}
    script = script_of(nix_new, tmp_path, {**PRIVATE, "secrets": secrets}, "box", "kingpost-netrc")
    done = in_private_run(
        f"mkdir /run/kingpost\n({script})\nstat -c %a /run/kingpost/netrc; cat /run/kingpost/netrc"
    )
    assert done.stdout == "400\nmachine 127.0.0.1 password eyJ0.eyJ1.c2ln\n", done.stderr


def test_a_tunnel_carries_a_connection_to_the_services_own_host(nix_new, tmp_path):
    require_root()
    require("netns")
    sshd = require("sshd") / "sshd"
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key], check=True)
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (tmp_path / "user").rename(credentials / "identity")
    (tmp_path / "sshd_config").write_text(
        f"ListenAddress 100.64.0.1\nHostKey {tmp_path}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"PermitRootLogin yes\nAuthorizedKeysFile {tmp_path}/user.pub\n"
    )
    (tmp_path / "index.html").write_text("through the tunnel")
    tunnels = {"home": {**PRIVATE["tunnels"]["home"], "identity": "/etc/keys/tunnel"}}
    secrets = {**PRIVATE["secrets"], "pull": {"provider": "path", "path": "/etc/x", "format": "raw"}}
    topology = {**PRIVATE, "tunnels": tunnels, "secrets": secrets}
    script = script_of(nix_new, tmp_path, topology, "laptop", "kingpost-tunnel-home")
    done = in_private_run(
        f"""
        ip address add 100.64.0.1/32 dev lo; mkdir /run/sshd
        {sshd} -D -e -f {tmp_path}/sshd_config & python3 -m http.server --bind 127.0.0.1 -d {tmp_path} 8080 &
        export STATE_DIRECTORY={tmp_path} CREDENTIALS_DIRECTORY={credentials}
        until (exec 3<>/dev/tcp/100.64.0.1/22) 2>/dev/null; do sleep 0.1; done
        ({script}) &
        for try in $(seq 100); do
          python3 -c 'from urllib.request import urlopen; print(urlopen("http://127.0.0.1:9000/").read().decode())' \
            2>/dev/null && break
          sleep 0.1
        done
        kill $(jobs -p); wait
        """
    )
    assert "through the tunnel" in done.stdout, done.stderr
    assert " ssh-ed25519 " in (tmp_path / "known_hosts").read_text()
