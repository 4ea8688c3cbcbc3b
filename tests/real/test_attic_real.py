"""kingpost against Attic's own server and client: what is rendered starts them, what is minted opens them.

Without the programs each test is skipped by name. The answers on which all of it rests are in test_attic_answers.py,
where the imitations that run everywhere are held to them.
"""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cache.attic_rules import BITS, choose, read_entries
from tests.cache.test_token import KEYS
from tests.observe.s3_front import Front
from tests.observe.s3_front import serve as serve_front
from tests.real import atticd
from tests.real.attic_answers import NEW_CACHE
from tests.real.attic_like import signed
from tests.real.atticd import HS256, RS256, Client
from tests.real.conftest import Nix, require
from tests.real.s3_server import KEY, rclone_s3

from kingpost.base.http import client as http_client
from kingpost.cache.token import Permission

AWS = {"AWS_ACCESS_KEY_ID": KEY.access_key, "AWS_SECRET_ACCESS_KEY": KEY.secret_key}
NOT_ON_EC2 = {"AWS_EC2_METADATA_DISABLED": "true"}


def kingpost(*argv, env, code=0, stdin=""):
    """Run the command in a process of its own; no secret of the tests may show up in what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "kingpost", *map(str, argv)],
        env={**os.environ, "NETRC": "/dev/null", **env},
        input=stdin, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout[-6000:] + done.stderr[-3000:]
    assert atticd.SECRET not in done.stdout + done.stderr
    return done


def verdicts(done):
    return json.loads(done.stdout)["verdicts"]


def codes(done):
    return {v["subject"].partition(" at ")[0]: v["code"].partition("-CACHE-")[2] for v in verdicts(done)}


@pytest.fixture
def env(tmp_path):
    return {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), **NOT_ON_EC2}


@pytest.fixture
def nix(tmp_path):
    return Nix("2.34", require("nix234"), tmp_path / "nix")


LARGE = """
let small = builtins.path { path = HERE/small; name = "small"; };
in derivation {
  name = "large"; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/bin:/usr/bin";
  args = [ "-c" "echo ${small} > $out; cat HERE/random >> $out" ];
}
"""


@pytest.fixture
def paths(nix, tmp_path):
    """Give a path below the threshold, and one of many chunks that refers to it."""
    (tmp_path / "small").write_text("small")
    expression = LARGE.replace("HERE", str(tmp_path))
    (tmp_path / "random").write_bytes(random.Random(3).randbytes(600_000))
    (tmp_path / "large.nix").write_text(expression)
    large = nix.run("nix-build", "--no-out-link", tmp_path / "large.nix").stdout.strip()
    small = nix.run("nix-store", "--query", "--references", large).stdout.strip()
    return small, large


@pytest.fixture
def server(tmp_path, nix):
    with atticd.running(tmp_path / "atticd", store=str(nix.store)) as running:
        yield running


@pytest.fixture
def storage(tmp_path):
    """S3 that can lose sight of its bucket. It asks for no key: rclone knows no presigned addresses."""
    (tmp_path / "hidden").mkdir()
    with rclone_s3(tmp_path / "data", anonymous=True) as running:
        running.bucket("chunks")
        with serve_front(Front(running.url, tmp_path / "hidden")) as front:
            yield front


@pytest.fixture
def on_s3(tmp_path, nix, storage):
    secrets = {HS256: atticd.SECRET, **AWS}
    with atticd.running(
        tmp_path / "atticd", endpoint=storage.url, store=str(nix.store), secrets=secrets
    ) as running:
        yield running


# --- tokens -----------------------------------------------------------------------------------------------------


def config_of(server, cache, token):
    with http_client() as client:
        return client.get(
            f"{server.url}/_api/v1/cache-config/{cache}", headers={"Authorization": f"Bearer {token}"}
        )


@pytest.mark.parametrize("kind", ["hs256", "rs256_pkcs1", "rs256_pkcs8"])
def test_the_server_takes_what_is_minted_by_the_command(tmp_path, env, kind):
    algorithm, name = ("hs256", HS256) if kind == "hs256" else ("rs256", RS256)
    text = KEYS[kind] if kind == "hs256" else base64.b64encode(KEYS[kind].encode()).decode()
    (tmp_path / "atticd.env").write_text(f"{name}={text}\n")
    (tmp_path / "atticd.env").chmod(0o600)
    with atticd.running(
        tmp_path / "atticd", server=f'algorithm = "{algorithm}"', secrets={name: text}
    ) as server:
        mint = ("token", "mint", "--secret-file", tmp_path / "atticd.env", "--out", tmp_path / "token")
        kingpost(*mint, "--pull", "*", "--push", "private", env=env)
        held = (tmp_path / "token").read_text()
        assert config_of(server, "private", held).status_code == 200
        assert config_of(server, "private", held + "x").status_code == 401
        check = ("token", "check", "--server", server.url, "--token-file", tmp_path / "token", "--json")
        report = kingpost(*check, "--cache", "private", env=env)
        assert {v["code"] for v in verdicts(report)} == {"KP-TOKEN-GRANTED"}
        report = kingpost(*check, "--cache", "public", "--permission", "push", env=env, code=1)
        assert {v["code"] for v in verdicts(report)} == {"KP-TOKEN-DENIED"}
        inspect = ("token", "inspect", "--token-file", tmp_path / "token", "--server", server.url, "--json")
        assert abs(json.loads(kingpost(*inspect, env=env).stdout)["token"]["server_clock_ahead_seconds"]) <= 2


def test_every_permission_is_shown_on_the_real_server_and_nothing_changed(server, tmp_path, env):
    before = server.sql("select * from cache")
    every = [word for permission in Permission for word in ("--permission", permission)]
    (tmp_path / "token").write_text(server.token(_=" ".join(Permission)))
    check = ("token", "check", "--server", server.url, "--token-file", tmp_path / "token", "--json", *every)
    found = {
        v["subject"].split()[0]: v["code"] for v in verdicts(kingpost(*check, "--cache", "private", env=env))
    }
    unprovable = dict.fromkeys(("delete", "destroy-cache"), "KP-TOKEN-UNPROVABLE")
    assert found == {**dict.fromkeys(Permission, "KP-TOKEN-GRANTED"), **unprovable}
    for permission in set(Permission) - set(unprovable):
        (tmp_path / "token").write_text(server.token(private=" ".join(set(Permission) - {permission})))
        one = ("token", "check", "--server", server.url, "--token-file", tmp_path / "token", "--json")
        done = kingpost(*one, "--cache", "private", "--permission", permission, env=env, code=1)
        assert [v["code"] for v in verdicts(done)] == ["KP-TOKEN-DENIED"]
    assert server.sql("select * from cache") == before


def questions(cache):
    """Give bit, request, and the status when it is granted: nothing is changed by it."""
    config = f"/_api/v1/cache-config/{cache}"
    yield "r", "GET", config, None, 200
    yield "w", "POST", "/_api/v1/get-missing-paths", {"cache": cache, "store_path_hashes": []}, 200
    yield "cr", "PATCH", config, {}, 400
    yield "cc", "POST", config, NEW_CACHE, 400


def test_random_tokens_open_exactly_what_the_rules_of_the_tests_say(server):
    """The oracle that property tests judge tokens by, against the server that it was written after."""
    draw = random.Random(11)
    patterns = ["*", "p*", "pr*", "*e", "private", "public", "pub*c", "x*", "absent"]
    with http_client() as client:
        for _ in range(60):
            entries = {
                pattern: {bit: draw.randint(0, 1) for bit in draw.sample(BITS, draw.randint(0, 5))}
                for pattern in draw.sample(patterns, draw.randint(1, 4))
            }
            claims = {"exp": int(time.time()) + 600, "https://jwt.attic.rs/v1": {"caches": entries}}
            headers = {"Authorization": f"bearer {signed(base64.b64decode(atticd.SECRET), claims)}"}
            for cache in ("private", "public"):
                granted = choose(read_entries(claims), cache)
                for bit, method, path, body, status in questions(cache):
                    # Whoever creates a cache is asked before anyone looks whether it is public.
                    bits = granted if bit == "cc" or cache == "private" else granted | {"r"}
                    expected = status if bit in bits else 403 if bits else 401
                    answer = client.request(method, server.url + path, json=body, headers=headers)
                    assert answer.status_code == expected, (entries, cache, bit, answer.text)


# --- reading ----------------------------------------------------------------------------------------------------


def fetched(nix, url, root, *roots, token="", check=True):
    """Substitute paths into an empty store of their own by real Nix, with the token in a netrc as it is rendered."""
    options = ["--option", "download-attempts", "1", "--option", "stalled-download-timeout", "5"]
    if token:
        (root.parent / "netrc").write_text(f"machine 127.0.0.1 password {token}\n")
        options += ["--option", "netrc-file", str(root.parent / "netrc")]
    return nix.run(
        "nix", "copy", "--no-check-sigs", "--from", url, "--to", f"local?root={root}", *roots, *options,
        check=check, env={"HOME": str(root.parent)},
    )  # fmt: skip


def chunks_of(server, path) -> int:
    found = server.sql(
        "select num_chunks from nar join object on object.nar_id = nar.id where store_path = ?", path
    )
    return found[0][0]


def audit(server, env, *argv, cache="private", token="pull", code=0):
    words = []
    if token:
        (server.root / "audit.token").write_text(server.token(private=token, public=token))
        words = ["--token-file", server.root / "audit.token"]
    return kingpost(
        "cache",
        "audit",
        f"{server.url}/{cache}",
        *argv,
        *words,
        "--attempts",
        "2",
        "--json",
        env=env,
        code=code,
    )


@pytest.mark.parametrize("where", ["server", "on_s3"])
def test_real_nix_reads_both_ways_and_the_audit_says_so(request, nix, paths, tmp_path, env, where):
    """Through the server, and where the storage is S3 the small path by its redirect."""
    server = request.getfixturevalue(where)
    small, large = paths
    server.upload("private", nix, small, large)
    server.upload("public", nix, small, large)
    assert (chunks_of(server, small), chunks_of(server, large) > 1) == (1, True)
    key = config_of(server, "private", server.token(private="pull")).json()["public_key"]
    report = audit(server, env, *paths, "--key", key)
    assert codes(report) == dict.fromkeys(paths, "BODY-OK")
    seen = {v["subject"].partition(" ")[0]: v["evidence"] for v in verdicts(report)}
    assert {one["signature"] for one in seen.values()} == {"signed"}
    assert seen[large].get("redirects") is None
    hop = f"307 {server.url}/private/nar/{Path(small).name[:32]}.nar"
    assert seen[small].get("redirects") == ([hop] if where == "on_s3" else None)
    fetched(nix, f"{server.url}/private", tmp_path / "store", large, token=server.token(private="pull"))
    fetched(nix, f"{server.url}/public", tmp_path / "other", large)
    assert fetched(nix, f"{server.url}/private", tmp_path / "none", large, check=False).returncode != 0


def test_the_incident_on_the_real_server(nix, paths, on_s3, storage, tmp_path, env):
    """The bucket is gone behind its back: narinfo 200, body empty; restored: ok."""
    small, large = paths
    on_s3.upload("public", nix, small, large)
    assert codes(audit(on_s3, env, *paths, cache="public")) == dict.fromkeys(paths, "BODY-OK")
    (tmp_path / "hidden" / "chunks").touch()
    narinfo = f"{on_s3.url}/public/{Path(large).name[:32]}.narinfo"
    with http_client() as client:
        assert client.get(f"{on_s3.url}/public/nix-cache-info").status_code == 200
        assert client.get(narinfo).status_code == 200
    found = codes(audit(on_s3, env, *paths, cache="public", code=1))
    assert found == {small: "REDIRECT-MISSING", large: "BODY-EMPTY"}
    assert "NoSuchBucket" in on_s3.log
    assert fetched(nix, f"{on_s3.url}/public", tmp_path / "s", large, check=False).returncode != 0
    (tmp_path / "hidden" / "chunks").unlink()
    assert codes(audit(on_s3, env, *paths, cache="public")) == dict.fromkeys(paths, "BODY-OK")


CHUNKS = """
select remote_file_id from chunk join chunkref on chunk_id = chunk.id
join object on object.nar_id = chunkref.nar_id where store_path = ? order by seq
"""


#: What comes of a body whose first chunk is gone: whether Attic's headers get out before it ends is chance.
SILENT = {"BODY-EMPTY", "CONNECTION-LOST"}


def test_chunks_that_are_gone_from_a_directory(nix, paths, server, env):
    small, large = paths
    server.upload("public", nix, small, large)
    kept = {path: path.read_bytes() for path in server.chunk_files()}
    for path in kept:
        path.unlink()
    # The only chunk of a small path is opened before the answer, those of a large one after it.
    found = codes(audit(server, env, *paths, cache="public", code=1))
    assert found[small] == "SERVER-ERROR"
    assert found[large] in SILENT
    for path, data in kept.items():
        path.write_bytes(data)
    assert codes(audit(server, env, *paths, cache="public")) == dict.fromkeys(paths, "BODY-OK")
    keys = [row[0].partition(":")[2] for row in server.sql(CHUNKS, large)]
    next(path for path in kept if path.name == keys[-1]).unlink()
    report = audit(server, env, large, cache="public", code=1)
    assert codes(report) == {large: "BODY-TRUNCATED"}
    assert verdicts(report)[0]["evidence"]["transfer"] == "cut"
    server.sql(
        "update chunkref set chunk_id = null where seq = 0 and nar_id in "
        "(select nar_id from object where store_path = ?)", large
    )  # fmt: skip
    assert codes(audit(server, env, large, cache="public", code=1)) == {large: "BODY-INCOMPLETE"}


def test_what_attic_means_by_401_403_404_500(nix, paths, server, tmp_path, env):
    small, large = paths
    server.upload("private", nix, small, large)
    where = f"{server.url}/private"
    assert codes(audit(server, env, small, token="", code=3)) == {where: "NEEDS-TOKEN"}
    assert codes(audit(server, env, small, token="push", code=1)) == {where: "FORBIDDEN"}
    (tmp_path / "bad").write_text(server.token(private="pull") + "x")
    bad = kingpost(
        "cache", "audit", where, small, "--token-file", tmp_path / "bad", "--json", env=env, code=1
    )
    assert codes(bad) == {where: "UNAUTHORIZED"}
    absent = f"{nix.store}/{'0' * 32}-absent"
    assert codes(audit(server, env, absent, code=1)) == {absent: "NARINFO-MISSING"}
    (tmp_path / "wide").write_text(server.token(_="pull"))
    wide = ("--token-file", tmp_path / "wide", "--json")
    no_cache = kingpost("cache", "audit", f"{server.url}/nothing", small, *wide, env=env, code=1)
    assert codes(no_cache) == {f"{server.url}/nothing": "NO-SUCH-CACHE"}
    server.sql("alter table object rename to elsewhere")
    assert codes(audit(server, env, small, code=1)) == {small: "SERVER-ERROR"}
    server.sql("alter table elsewhere rename to object")
    assert codes(audit(server, env, small)) == {small: "BODY-OK"}


# --- publishing -------------------------------------------------------------------------------------------------


@pytest.fixture
def client(server, nix, tmp_path):
    return Client(server, nix, tmp_path / "config")


def test_the_rendered_configuration_of_the_client_pushes(client, nix, paths, tmp_path, env):
    small, large = paths
    said = client.run("push", "home:private", large)
    assert f"✅ {Path(large).name}" in said.stderr
    found = codes(audit(client.server, env, small, large))
    assert found == dict.fromkeys(paths, "BODY-OK")
    assert "All done" in (done := client.run("push", "private", large)).stderr + done.stdout
    (client.server.root / "ci.token").write_text(client.server.token(private="pull") + "\n")
    (tmp_path / "more").write_text("more")
    more = nix.run("nix-store", "--add", tmp_path / "more").stdout.strip()
    refused = client.run("push", "private", more, check=False)
    assert refused.returncode == 1
    assert "AccessError" in refused.stderr


def test_a_login_and_a_cache_of_ones_own(client, server, env, tmp_path):
    (client.home / "attic" / "config.toml").unlink()
    client.run("login", "lab", server.url, server.token(_="pull push create-cache"))
    client.run("cache", "create", "new", "--priority", "30")
    assert f"{server.url}/new" in client.run("cache", "info", "new").stderr
    assert config_of(server, "new", server.token(new="pull")).json()["priority"] == 30
    again = client.run("cache", "create", "new", check=False)
    assert "CacheAlreadyExists" in again.stderr


def test_watch_store_pushes_what_is_built(client, nix, env):
    with (client.server.root / "watch.log").open("w") as log:
        watcher = subprocess.Popen(
            [client.program, "watch-store", "private"],
            env=client.env,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        deadline = time.monotonic() + 60
        count, wanted = 0, "select count(*) from object"
        number = 0
        while not count and time.monotonic() < deadline:
            number += 1
            expression = (
                f'derivation {{ name = "w{number}"; system = builtins.currentSystem; builder = "/bin/sh"; '
            )
            expression += 'args = [ "-c" "echo w > $out" ]; }'
            nix.run("nix-build", "--no-out-link", "-E", expression)
            time.sleep(3)
            count = client.server.sql(wanted)[0][0]
        assert count, (client.server.root / "watch.log").read_text()
    finally:
        watcher.terminate()
        watcher.wait(10)
    pushed = [row[0] for row in client.server.sql("select store_path from object")]
    assert codes(audit(client.server, env, *pushed)) == dict.fromkeys(pushed, "BODY-OK")


@pytest.mark.parametrize(
    ("profile", "last"),
    [("synthetic", "PASSED-SYNTHETIC"), ("small", "PASSED-GENERATED"), ("medium", "PASSED-GENERATED")],
)
def test_a_probe_by_the_real_client(client, env, profile, last):
    done = probe(client, env, profile)
    assert verdicts(done)[-1]["code"] == f"KP-PROBE-{last}"
    evidence = verdicts(done)[-1]["evidence"]
    assert evidence["client"] == "attic push"
    counts = [row[0] for row in client.server.sql("select num_chunks from nar")]
    assert len(counts) == evidence["paths"]
    assert sum(count > 1 for count in counts) == evidence["above_threshold"]


def probe(client, env, profile, code=0):
    address = f"{client.server.url}/private"
    phrase = ("--confirm", f"probe-private-{profile}", "--settle", "0s", "--json")
    token = ("--token-file", client.server.root / "ci.token")
    return kingpost(
        "cache", "probe", address, "--profile", profile, *token, *phrase, env={**client.env, **env}, code=code
    )


def test_a_probe_while_the_storage_fails(on_s3, storage, nix, tmp_path, env):
    """As on 2026-05-08: HTTP 500 of the push. And what was pushed in an incident is not healed by pushing again."""
    client = Client(on_s3, nix, tmp_path / "config")
    (tmp_path / "hidden" / "chunks").touch()
    found = [v["code"] for v in verdicts(probe(client, env, "small", code=1)) if "PROBE" in v["code"]]
    assert "KP-PROBE-PUSH" in found
    (tmp_path / "hidden" / "chunks").unlink()
    passed = verdicts(probe(client, env, "small"))[-1]
    assert passed["code"] == "KP-PROBE-PASSED-GENERATED"
    chunks = [row[0] for row in on_s3.sql("select num_chunks from nar where state = 'V'")]
    assert passed["evidence"]["redirected"] == chunks.count(1) < passed["evidence"]["paths"] == len(chunks)


REMEDY = """
delete from chunk where id in (select chunk_id from chunkref where nar_id in (select nar_id from object));
delete from nar where id in (select nar_id from object);
"""


def test_pushing_again_heals_nothing_and_the_remedy_does(client, paths, env):
    small, large = paths
    client.run("push", "private", large)
    for path in client.server.chunk_files():
        path.unlink()
    client.run("push", "private", large)
    found = codes(audit(client.server, env, small, large, code=1))
    assert found[small] == "SERVER-ERROR"
    assert found[large] in SILENT
