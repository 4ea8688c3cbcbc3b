import json
import re
import shlex
from pathlib import Path

import pytest

from kingpost.base.errors import UsageError
from kingpost.cli.main import main
from kingpost.repair.token import plan
from kingpost.topology.loader import load
from kingpost.topology.platform import Platform

EXAMPLES = Path(__file__).parents[2] / "examples"

TOPOLOGY = """
[site]
name = "lab"
[networks.lan]
kind = "lan"
[hosts.node]
memory = "8GiB"
users = ["ci"]
addresses = { lan = "192.168.1.2" }
substituters = ["attic:home/main"]
[attic.home]
host = "node"
port = 8080
secret = "atticd"
algorithm = "rs256"
[attic.home.caches.main]
[attic.home.caches.open]
public = true
[attic.home.tokens.reader]
pull = ["main"]
secret = "reader"
validity = "30d"
[attic.home.tokens.pusher]
pull = ["*"]
push = ["ma*"]
validity = "1h"
[secrets.atticd]
provider = "agenix"
source = "secrets/atticd.age"
variables = ["ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64"]
[secrets.reader]
provider = "path"
path = "/run/secrets/reader"
format = "raw"
hosts = ["node"]
[gitlab.com]
[runners.ci]
executor = "shell"
host = "node"
[pipelines.blog]
runner = "ci"
build = [".#site"]
[[pipelines.blog.push]]
cache = "attic:home/main"
policy = "required"
token = { variable = "PUSH_TOKEN" }
[[pipelines.blog.push]]
cache = "attic:home/open"
policy = "best-effort"
token = { login = "ci" }
[pipelines.off]
runner = "ci"
build = [".#site"]
[[pipelines.off.push]]
cache = "attic:home/main"
policy = "off"
token = { variable = "UNUSED" }
"""


@pytest.fixture
def platform(tmp_path):
    (tmp_path / "topology.toml").write_text(TOPOLOGY)
    return Platform(load(tmp_path / "topology.toml").topology)


def holders(rotation):
    return [(holder.what, holder.where) for holder in rotation.holders]


def test_a_signing_key_is_held_by_its_secret_and_voids_every_token(platform):
    rotation = plan(platform, "home")
    assert holders(rotation) == [
        (
            "the signing key of home (ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64)",
            "secret atticd (/run/agenix/atticd)",
        ),
        ("token reader", "secret reader (/run/secrets/reader)"),
        ("token pusher for pipeline blog", "CI variable PUSH_TOKEN of pipeline blog"),
        ("the token of pipeline blog", "~ci/.config/attic/config.toml"),
    ]
    assert rotation.holders[0].detail == "env file on node; read by atticd.service; from secrets/atticd.age"
    assert any("reading private main in host:node" in line for line in rotation.stops)
    assert not any("UNUSED" in line for line in rotation.stops)
    assert any("regenerate-keypair" in line for line in rotation.untouched)
    assert any("public open" in line for line in rotation.untouched)
    assert "openssl genrsa -traditional 4096" in rotation.steps[0]
    assert "agenix -e secrets/atticd.age" in rotation.steps[0]
    assert "restart atticd" in rotation.steps[1]
    assert plan(platform, "atticd") == rotation


def test_one_token_leaves_the_others_alone(platform):
    rotation = plan(platform, "home/reader")
    assert holders(rotation) == [("token reader", "secret reader (/run/secrets/reader)")]
    assert any("cannot be revoked; it ends 30d after" in line for line in rotation.untouched)
    assert "--pull main --subject reader --validity 30d --secret-age secrets/atticd.age" in rotation.steps[0]
    assert plan(platform, "reader") == rotation
    assert holders(plan(platform, "pusher")) == [
        ("token pusher for pipeline blog", "CI variable PUSH_TOKEN of pipeline blog")
    ]


def test_unknown_names(platform):
    with pytest.raises(UsageError, match="there is no Attic server or token"):
        plan(platform, "nowhere")


@pytest.mark.parametrize(
    ("example", "name"), [("homelab", "home"), ("flywheel", "nix-cache"), ("flywheel", "ci")]
)
def test_the_commands_of_a_plan_are_ones_that_kingpost_takes(example, name, tmp_path, capsys, monkeypatch):
    rotation = plan(Platform(load(EXAMPLES / example / "topology.toml").topology), name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=")
    minted = 0
    for step in rotation.steps:
        for command in re.findall(r"`(kingpost token mint [^`]*)`", step):
            argv = shlex.split(command)[1:]
            at = next(i for i, word in enumerate(argv) if word in ("--secret-age", "--secret-file"))
            argv[at : at + 2] = ["--secret-file", "key"]
            assert main(argv) == 0, capsys.readouterr().err
            minted += 1
    assert minted
    assert list(tmp_path.glob("*.token"))


def test_the_command_prints_and_gives_json(capsys):
    topology = str(EXAMPLES / "homelab" / "topology.toml")
    assert main(["token", "rotate", "home", "--topology", topology]) == 0
    assert "Stops until the last step:" in capsys.readouterr().out
    assert main(["token", "rotate", "home", "--topology", topology, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "kingpost.rotation/1"
    assert document["steps"]
    assert main(["token", "rotate", "nowhere", "--topology", topology]) == 2
