"""What commands take from a topology instead of a URL or flags."""

import json
import time

import pytest
from tests.cache import attic_api
from tests.cache.attic_rules import Verifier
from tests.cache.test_token import KEYS

from kingpost.base.errors import UsageError
from kingpost.cache import token_keys
from kingpost.cli.declared import cache_from, token_from
from kingpost.cli.main import main

HS256 = token_keys.parse(KEYS["hs256"], origin="").material
TOPOLOGY = """
[site]
name = "lab"
[networks.lan]
kind = "lan"
[hosts.node]
memory = "8GiB"
addresses = { lan = "192.168.1.2" }
substituters = ["attic:home/main"]
[attic.home]
host = "node"
port = PORT
secret = "atticd"
[attic.home.caches.main]
public_key = "main:MOjxCMhKFSIS5JGtq5dJYyhVKlCr9vkVuPXBgq6XIWs="
[attic.home.tokens.ci]
pull = ["*"]
push = ["main"]
validity = "2h"
[secrets.atticd]
provider = "path"
path = "/run/secrets/atticd"
variables = ["ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"]
"""


@pytest.fixture
def topology(tmp_path):
    def write(port=8080):
        path = tmp_path / "topology.toml"
        path.write_text(TOPOLOGY.replace("PORT", str(port)))
        return path

    return write


def test_a_cache_is_reached_as_its_context_reaches_it(topology):
    found = cache_from(topology(), "main", "host:node")
    assert (found.server, found.url) == ("http://127.0.0.1:8080", "http://127.0.0.1:8080/main")
    assert found.key.startswith("main:")
    assert str(found.ref) == "attic:home/main"


def test_a_cache_has_no_address_without_a_context(topology):
    with pytest.raises(UsageError, match="depends on where this runs") as caught:
        cache_from(topology(), "main", "")
    assert "host:node" in caught.value.fix
    with pytest.raises(UsageError, match="no cache"):
        cache_from(topology(), "nowhere", "host:node")
    with pytest.raises(UsageError, match="no context"):
        cache_from(topology(), "main", "nowhere")


def test_a_declared_token(topology):
    assert token_from(topology(), "ci") == token_from(topology(), "home/ci")
    with pytest.raises(UsageError, match="no token"):
        token_from(topology(), "nobody")


def test_mint_and_check_by_name(topology, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text(KEYS["hs256"])
    attic = attic_api.Attic(Verifier(secret=HS256), {"main": False})
    with attic_api.serve(attic) as url:
        path = str(topology(int(url.rpartition(":")[2])))
        mint = ["token", "mint", "--token", "home/ci", "--secret-file", "key", "--out", "t"]
        assert main([*mint, "--topology", path, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["subject"] == "ci"
        assert document["grants"] == {"main": "pull, push", "*": "pull"}
        assert abs(document["expires"] - time.time() - 7200) < 5
        check = ["token", "check", "--token-file", "t", "--topology", path, "--cache", "main", "--no-ledger"]
        assert main([*check, "--context", "host:node"]) == 0
        assert main(check) == 2
        assert main(mint) == 2
    assert attic.changes == []
