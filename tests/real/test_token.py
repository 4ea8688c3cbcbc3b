"""`kingpost token` as a person runs it, against the imitated Attic server and the real age."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.cache import attic_api
from tests.cache.attic_rules import Verifier
from tests.cache.test_token import KEYS, rs256_numbers
from tests.real.conftest import require

from kingpost.cache import token_file, token_keys

HS256 = token_keys.parse(KEYS["hs256"], origin="").material


@pytest.fixture
def kingpost(tmp_path):
    """Run the command in a process of its own; gives CompletedProcess."""

    def run(*argv, stdin="", code=0):
        done = subprocess.run(
            [sys.executable, "-m", "kingpost", *map(str, argv)],
            input=stdin,
            cwd=tmp_path,
            env={
                **os.environ,
                "HOME": str(tmp_path),
                "XDG_STATE_HOME": str(tmp_path / "state"),
                "NETRC": "/dev/null",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def attic():
    return attic_api.Attic(Verifier(secret=HS256), {"private": False, "public": True})


def minted(kingpost, tmp_path, *argv, stdin=KEYS["hs256"]):
    done = kingpost("token", "mint", *argv, "--secret-file", "-", "--out", tmp_path / "token", stdin=stdin)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    secret = (tmp_path / "token").read_text()
    assert secret not in done.stdout + done.stderr
    assert KEYS["hs256"] not in done.stdout + done.stderr
    return secret


def test_mint_then_check_then_rotate_the_key(kingpost, tmp_path, attic):
    secret = minted(kingpost, tmp_path, "--pull", "*", "--push", "private", "--subject", "ci")
    assert attic.verifier.permissions(secret, "private", int(time.time())) == {"r", "w"}
    assert attic.verifier.permissions(secret, "other", int(time.time())) == {"r"}
    with attic_api.serve(attic) as url:
        argv = ("token", "check", "--server", url, "--cache", "private", "--token-file", "token", "--json")
        report = json.loads(kingpost(*argv).stdout)
        assert report["summary"] == {"ok": 2, "expected": 0, "failed": 0, "skipped": 0}
        attic.verifier.secret = b"rotated"
        report = json.loads(kingpost(*argv, code=1).stdout)
        assert {verdict["code"] for verdict in report["verdicts"]} == {"KP-TOKEN-ANONYMOUS"}
        attic.verifier.secret = HS256
        kingpost(*argv, "--permission", "create-cache", code=1)
        assert attic.changes == []
    assert all(secret.rsplit(".")[-1] not in line for line in attic.requests)
    history = (tmp_path / "state" / "kingpost" / "ledger.sqlite").read_bytes()
    assert secret.rsplit(".", 1)[1].encode() not in history


def test_a_lagging_server_clock_is_seen_and_answered_by_backdating(kingpost, tmp_path, attic):
    attic.ahead = -180
    with attic_api.serve(attic) as url:
        minted(kingpost, tmp_path, "--pull", "private")
        done = kingpost("token", "inspect", "--token-file", "token", "--server", url, "--json", code=1)
        assert json.loads(done.stdout)["verdicts"][0]["code"] == "KP-TOKEN-NOT-YET"
        assert abs(json.loads(done.stdout)["token"]["server_clock_ahead_seconds"] + 180) <= 2
        check = ("token", "check", "--server", url, "--cache", "private", "--token-file", "token")
        assert "KP-TOKEN-ANONYMOUS" in kingpost(*check, code=1).stdout
        minted(kingpost, tmp_path, "--pull", "private", "--backdate", "5m")
        kingpost(*check)


def test_rs256_by_a_netrc(kingpost, tmp_path):
    attic = attic_api.Attic(Verifier(rsa=rs256_numbers()), {"private": False})
    (tmp_path / "key.pem").write_text(KEYS["rs256_pkcs1"])
    argv = ("--push", "private", "--pull", "private", "--secret-file", "key.pem")
    kingpost("token", "mint", *argv, "--netrc", "netrc", "--machine", "127.0.0.1")
    assert token_file.read_token(str(tmp_path / "netrc"), "127.0.0.1").count(".") == 2
    with attic_api.serve(attic) as url:
        asked = ("--server", url, "--cache", "private", "--token-file", "netrc", "--machine", "127.0.0.1")
        kingpost("token", "check", *asked)
    assert (
        "KP-TOKEN-SIGNED"
        in kingpost("token", "inspect", "--token-file", "netrc", "--secret-file", "key.pem").stdout
    )


def test_an_agenix_secret_is_decrypted_by_the_real_age(kingpost, tmp_path):
    age = require("age")
    made = subprocess.run(
        [age / "age-keygen", "-o", tmp_path / "id"], capture_output=True, text=True, check=True
    )
    recipient = made.stderr.split()[-1]
    clear = f"ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64={KEYS['hs256']}\n"
    subprocess.run(
        [age / "age", "-r", recipient, "-o", tmp_path / "atticd.age"], input=clear.encode(), check=True
    )
    argv = ("token", "mint", "--pull", "main", "--secret-age", "atticd.age", "--out", "token")
    kingpost(*argv, "--identity", "id")
    secret = (tmp_path / "token").read_text()
    assert Verifier(secret=HS256).permissions(secret, "main", int(time.time())) == {"r"}
    subprocess.run([age / "age-keygen", "-o", tmp_path / "other"], capture_output=True, check=True)
    assert "could not decrypt" in kingpost(*argv, "--identity", "other", code=3).stderr


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--pull", "main"), "say where the token goes"),
        (("--pull", "main", "--netrc", "n"), "a netrc entry needs a host"),
        (("--out", "t", "--secret-file", "-"), "without a permission"),
        (("--pull", "main", "--out", "t"), "say where the signing key is"),
        (
            ("--pull", "main", "--out", "t", "--secret-file", "-", "--secret-kube", "a/b"),
            "more than one place",
        ),
        (("--pull", "main", "--out", "t", "--secret-file", "-", "--validity", "soon"), "is no duration"),
        (("--pull", "main", "--out", "/dev/stdout", "--secret-file", "-"), "no regular file"),
        (("--pull", "main", "--out", "t", "--secret-file", "-"), "is not padded standard base64"),
    ],
)
def test_wrong_usage_is_explained_and_writes_nothing(kingpost, tmp_path, argv, said):
    done = kingpost("token", "mint", *argv, stdin=KEYS["hs256"] if "/dev/stdout" in argv else "x y", code=2)
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "t").exists()


def test_lint_fails_a_pipeline_and_shows_nothing(kingpost, tmp_path):
    (tmp_path / "token").write_text("glrt-verysecret\n")
    (tmp_path / "token").chmod(0o600)
    done = kingpost("token", "lint", "token", "--junit", "report.xml", "--prometheus", "lint.prom", code=1)
    assert "KP-SECRET-NEWLINE" in done.stdout
    for text in (done.stdout, (tmp_path / "report.xml").read_text(), (tmp_path / "lint.prom").read_text()):
        assert "verysecret" not in text


class Cluster(BaseHTTPRequestHandler):
    """As much of the Kubernetes API as `kubectl get secret` asks for."""

    secret = base64.b64encode(KEYS["hs256"].encode()).decode()

    def do_GET(self):
        kinds = [
            {
                "name": "secrets",
                "singularName": "secret",
                "namespaced": True,
                "kind": "Secret",
                "verbs": ["get"],
            }
        ]
        answers = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": kinds},
            "/api/v1/namespaces/nix-cache/secrets/attic-jwt-signing": {
                "kind": "Secret",
                "apiVersion": "v1",
                "metadata": {"name": "attic-jwt-signing", "namespace": "nix-cache"},
                "data": {"hs256-secret-base64": self.secret},
            },
        }
        found = answers.get(self.path.partition("?")[0])
        missing = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": "NotFound",
            "code": 404,
        }
        data = json.dumps(found or {**missing, "message": "not found"}).encode()
        self.send_response_only(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def test_the_clusters_secret_is_read_by_the_real_kubectl(kingpost, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{require('kubectl')}:{os.environ['PATH']}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        (tmp_path / "kubeconfig").write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
                    ],
                    "contexts": [{"name": "honey", "context": {"cluster": "c", "user": "u"}}],
                    "users": [{"name": "u", "user": {}}],
                }
            )
        )
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        argv = (
            "token",
            "mint",
            "--pull",
            "main",
            "--out",
            "token",
            "--kube-context",
            "honey",
            "--secret-kube",
        )
        kingpost(*argv, "nix-cache/attic-jwt-signing:hs256-secret-base64")
        secret = (tmp_path / "token").read_text()
        assert Verifier(secret=HS256).permissions(secret, "main", int(time.time())) == {"r"}
        assert "kubectl could not read it" in kingpost(*argv, "nix-cache/other", code=3).stderr
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
