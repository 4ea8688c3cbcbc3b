"""doctor, drift and the rendered environment against Attic's own server; skipped by name where it is not here."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager

import pytest
from tests.real import atticd
from tests.real.atticd import HS256
from tests.real.conftest import Nix, provided, require, require_root
from tests.real.s3_server import KEY, rclone_s3

from kingpost.observe import drift_caches
from kingpost.observe.doctor import Walk, examine
from kingpost.observe.entering import Entrance
from kingpost.observe.executors.local import Here

pytestmark = pytest.mark.xdist_group("network")


@pytest.fixture(autouse=True)
def _nobodys_home(monkeypatch, tmp_path):
    provided()  # looks for programs below the real home, once
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


@pytest.fixture
def server(tmp_path):
    with atticd.running(tmp_path / "atticd") as running:
        yield running


def look(server, cache="private", token="", **caches):
    """Give doctor's codes for the host and the cache that its site reads, declared with other facts."""
    platform, ref = server.declared(cache, **caches), f"attic:home/{cache}"
    entrance = Entrance(platform, None, {"host:node": Here()})
    held = {ref: token} if token else {}
    walk = Walk(frozenset({"host:node"}), frozenset({"attic:home"}), held, timeout=3)
    found = [v for v in examine(platform, entrance, walk) if f" client -> {ref}" in v.subject]
    assert not token or token not in str(found)
    return {v.code for v in found}


def test_doctor_tells_look_alikes_of_a_token_apart(server):
    assert look(server) == {"KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"}
    assert look(server, token=server.token(private="pull push")) == {"KP-ROUTE-OK", "KP-AUTH-OK"}
    assert look(server, token=server.token(private="pull")) == {"KP-ROUTE-OK", "KP-AUTH-READ-ONLY"}
    bad = server.token(private="pull push") + "x"
    assert look(server, token=bad) == {"KP-ROUTE-OK", "KP-AUTH-TOKEN-IGNORED"}
    assert look(server, "public") == {"KP-ROUTE-OK"}
    # As good as none, on a cache that everybody may read: only the push tells.
    bad = server.token(public="pull push") + "x"
    assert look(server, "public", token=bad) == {"KP-ROUTE-OK", "KP-AUTH-TOKEN-IGNORED"}
    assert look(server, private={"public": True}) == {"KP-ROUTE-OK", "KP-CACHE-NOT-PUBLIC"}


def test_a_401_that_means_a_missing_cache(server):
    assert look(server, "gone", gone={}) == {"KP-ROUTE-OK", "KP-AUTH-NO-TOKEN"}, (
        "without a token nobody can tell"
    )
    held = server.token(_="pull push")
    assert look(server, "gone", token=held, gone={}) == {"KP-ROUTE-OK", "KP-CACHE-MISSING"}


def test_a_host_that_is_not_allowed(server):
    server.stop()
    server.start(edit=lambda text: text.replace("allowed-hosts = [", 'allowed-hosts = ["attic.example:1"] #'))
    assert "attic.example:1" in (server.root / "atticd.toml").read_text()
    assert look(server) == {"KP-ROUTE-BAD-HOST"}


def test_an_endpoint_and_a_redirect_that_lead_nowhere(tmp_path):
    nix = Nix("2.34", require("nix234"), tmp_path / "nix")
    (tmp_path / "file").write_text("small")
    path = nix.run("nix-store", "--add", tmp_path / "file").stdout.strip()
    aws = {"AWS_ACCESS_KEY_ID": KEY.access_key, "AWS_SECRET_ACCESS_KEY": KEY.secret_key}
    secrets = {HS256: atticd.SECRET, **aws}
    with rclone_s3(tmp_path / "data", anonymous=True) as storage:
        storage.bucket("chunks")
        root = tmp_path / "atticd"
        elsewhere = 'api_endpoint = "http://127.0.0.1:9/"'
        with atticd.running(
            root, endpoint=storage.url, server=elsewhere, secrets=secrets, store=str(nix.store)
        ) as server:
            server.upload("private", nix, path)
            ref = "attic:home/private"
            platform = server.platform
            entrance = Entrance(platform, None, {"shell:node/ci": Here()})
            hashes = {ref: path.rpartition("/")[2][:32]}

            def found():
                held = {ref: server.token(private="pull push")}
                walk = Walk(frozenset({"shell:node/ci"}), frozenset({"attic:home"}), held, hashes, timeout=3)
                verdicts = examine(platform, entrance, walk)
                assert "X-Amz-Signature" not in str(verdicts)
                return {v.code for v in verdicts if " client " in v.subject}

            assert found() == {"KP-ROUTE-OK", "KP-AUTH-OK", "KP-API-ENDPOINT-UNREACHABLE"}
            storage.stop()
            assert found() == {
                "KP-ROUTE-OK", "KP-AUTH-OK", "KP-API-ENDPOINT-UNREACHABLE", "KP-REDIRECT-UNREACHABLE",
            }  # fmt: skip


def drift(platform, server, token):
    entrance = Entrance(platform, None, {"host:node": Here()})
    held = {f"attic:home/{name}": token for name in platform.topology.attic["home"].caches}
    found = drift_caches.judge(platform, entrance, frozenset({"node"}), held)
    return {(v.subject.partition("/")[2], v.code.removeprefix("KP-")) for v in found if str(v.status) != "ok"}


def test_drift_of_caches_at_the_real_server(server):
    token = server.token(_="pull")
    assert drift(server.platform, server, token) == set()
    assert drift(server.platform, server, "") == {("private", "DRIFT-NOT-ASKED")}
    other = "private:MOjxCMhKFSIS5JGtq5dJYyhVKlCr9vkVuPXBgq6XIWs="
    wrong = {"public": True, "public_key": other, "priority": 30, "retention": "1d", "upstream_keys": ["x-1"]}
    assert drift(server.declared(private=wrong, gone={}), server, token) == {
        ("private public", "CACHE-NOT-PUBLIC"), ("private public key", "DRIFT-CACHE-KEY"),
        ("private priority", "DRIFT-CACHE-SETTING"), ("private retention", "DRIFT-CACHE-SETTING"),
        ("private upstream keys", "DRIFT-CACHE-SETTING"), ("gone", "CACHE-MISSING"),
    }  # fmt: skip
    visible = {("public public", "DRIFT-CACHE-PUBLIC")}
    assert drift(server.declared(public={"public": False}), server, token) == visible
    server.configure("private", retention_period={"Period": 86400})
    assert drift(server.declared(private={"retention": "1d"}), server, token) == set()


# --- the metadata address ------------------------------------------------------------------------------------------

INSIDE = """
import http.client, json, sys, time
port, token, info, nar = int(sys.argv[1]), sys.argv[2], sys.argv[3], open(sys.argv[4], "rb").read()
began = time.monotonic()
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
headers = {"Authorization": "Bearer " + token, "X-Attic-Nar-Info": info}
connection.request("PUT", "/_api/v1/upload-path", nar, headers)
answer = connection.getresponse()
print(json.dumps([answer.status, time.monotonic() - began, answer.read().decode()]))
"""


@contextmanager
def black_hole():
    """Give the prefix of commands in a network whose metadata address swallows every packet."""
    require_root()
    require("netns")
    name = f"kpmeta{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        enter = ("nsenter", f"--net=/run/netns/{name}", "--")
        for line in (
            "ip link set lo up",
            "ip address add 169.254.0.1/16 dev lo",
            "iptables -A OUTPUT -d 169.254.169.254 -j DROP",
        ):
            subprocess.run([*enter, *line.split()], check=True)
        yield enter
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.parametrize("rendered", [True, False], ids=["as rendered", "without the rendered environment"])
def test_the_first_push_asks_no_metadata_service(tmp_path, rendered):
    """Without the switch and the region the real SDK waits for an address that answers nobody."""
    nix = Nix("2.34", require("nix234"), tmp_path / "nix")
    (tmp_path / "file").write_text("small")
    path = nix.run("nix-store", "--add", tmp_path / "file").stdout.strip()
    info, nar = atticd.dumped(nix, "private", path)
    (tmp_path / "nar").write_bytes(nar)
    root = tmp_path / "atticd"
    with black_hole() as prefix, rclone_s3(tmp_path / "data", anonymous=True, prefix=prefix) as storage:
        storage.bucket("chunks")
        secrets = {
            HS256: atticd.SECRET,
            "AWS_ACCESS_KEY_ID": KEY.access_key,
            "AWS_SECRET_ACCESS_KEY": KEY.secret_key,
        }
        with atticd.running(root, endpoint=storage.url, secrets=secrets, store=str(nix.store)) as server:
            server.stop()
            server.prefix = prefix
            if not rendered:
                server.without = ("AWS_EC2_METADATA_DISABLED", "AWS_REGION")
            server.start()
            port = server.url.rpartition(":")[2]
            argv = [
                "python3",
                "-c",
                INSIDE,
                port,
                server.token(private="push"),
                json.dumps(info),
                str(tmp_path / "nar"),
            ]
            done = subprocess.run([*prefix, *argv], capture_output=True, text=True, check=True, timeout=90)
            status, seconds, said = json.loads(done.stdout)
            assert status == 200, said + server.log
    assert (seconds < 1.5) is rendered, f"the first push took {seconds:.1f} s"
