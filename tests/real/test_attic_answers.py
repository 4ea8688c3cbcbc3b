"""The real atticd and the imitations of it that other tests use give the same answers: the table decides."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cache import attic_api
from tests.cache.attic_rules import Verifier
from tests.real import attic_answers, attic_cache, attic_like, atticd
from tests.real.attic_answers import Side
from tests.real.conftest import Nix, require

from kingpost.cache import token, token_keys
from kingpost.cache.token import Permission, Request

PRESENT = "1" * 32
GRANTS = {
    "pull": {"private": "pull"},
    "push": {"private": "push"},
    "both": {"private": "pull push"},
    "wide": {"*": "pull"},
    "all": {"*": "pull push create-cache configure-cache configure-cache-retention destroy-cache delete"},
}


def minted(secret: str, grants, *, ago: int = 0) -> str:
    asked = {name: frozenset(map(Permission, words.split())) for name, words in grants.items()}
    key = token_keys.parse(secret, origin="a test")
    return token.mint(Request(grants=asked, subject="test"), key, int(time.time()) - ago)


def tokens(secret: str) -> dict[str, str]:
    """Give a token of each kind that the rows name."""
    both = {"*": "pull push"}
    return {
        **{name: minted(secret, grants) for name, grants in GRANTS.items()},
        "garbage": "not-a-token",
        "expired": minted(secret, both, ago=7200),
        "foreign": minted("b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA==", both),
    }


@contextmanager
def real(tmp_path):
    nix = Nix("2.34", require("nix234"), tmp_path / "nix")
    (tmp_path / "file").write_text("small")
    path = nix.run("nix-store", "--add", tmp_path / "file").stdout.strip()
    with atticd.running(tmp_path / "atticd") as server:
        for cache in ("private", "public"):
            server.upload(cache, nix, path)
        yield Side("real", server.url, tokens(atticd.SECRET), Path(path).name[:32])


@contextmanager
def api(tmp_path):
    """The imitation that `kingpost token check` is tested against."""
    key = token_keys.parse(atticd.SECRET, origin="a test").material
    server = attic_api.Attic(Verifier(secret=key), {"private": False, "public": True}, paths=(PRESENT,))
    with attic_api.serve(server) as url:
        server.allowed = (url.removeprefix("http://"),)
        yield Side("api", url, tokens(atticd.SECRET), PRESENT)


@contextmanager
def doctor(tmp_path):
    """The imitation that doctor and drift look at."""
    port = atticd.free_port()
    caches = {"private": False, "public": True}
    key = base64.b64decode(atticd.SECRET).decode()
    config = {
        "bind": "127.0.0.1",
        "port": port,
        "caches": caches,
        "secret": key,
        "allowed": [f"127.0.0.1:{port}"],
    }
    process = subprocess.Popen([sys.executable, attic_like.__file__, json.dumps(config)])
    try:
        atticd.wait_for(port, process)
        yield Side("doctor", f"http://127.0.0.1:{port}", tokens(atticd.SECRET), PRESENT)
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def cache(tmp_path):
    """The imitation that the audit reads bodies from: one cache, tokens by name."""
    server = attic_cache.Attic("http://127.0.0.1:9")
    server.rows[PRESENT] = attic_cache.Nar(f"StorePath: /nix/store/{PRESENT}-x\n", ["key"])
    server.caches = {"private": False}
    server.permissions = Verifier(secret=base64.b64decode(atticd.SECRET)).permissions
    with attic_cache.serve(server) as running:
        yield Side("cache", running.url.removesuffix("/main"), tokens(atticd.SECRET), PRESENT)


SIDES = {"real": real, "api": api, "cache": cache, "doctor": doctor}


@pytest.fixture(scope="module")
def side(request, tmp_path_factory):
    with SIDES[request.param](tmp_path_factory.mktemp(request.param)) as found:
        yield found


CASES = [
    (side, row) for side in SIDES for row in attic_answers.rows() if side in ("real", *row.sides.split())
]


@pytest.mark.parametrize(("side", "row"), CASES, indirect=["side"], ids=str)
def test_an_answer_is_what_the_table_says(side, row):
    assert side.answer(row) == row.answer
