"""The probe that runs inside contexts: the same text under every Python and shell that is here."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kingpost.observe.inside import route_probe


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        sent = self.headers.get("Authorization") == "Bearer s3cret"
        body = (
            b"StoreDir: /nix/store\n"
            if sent or self.path.startswith("/open")
            else b'{"error":"Unauthorized"}'
        )
        self.send_response(200 if b"StoreDir" in body else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def target(url, cache="main", token=None, **more):
    return {"id": "t", "kind": "attic", "url": url, "cache": cache, "token": token, "hash": None, **more}


def probe(targets, env=None):
    text = route_probe({"timeout": 2, "targets": targets})
    done = subprocess.run(["/bin/sh", "-s"], input=text, capture_output=True, text=True, env=env, check=True)
    return json.loads(done.stdout)


def tools(tmp_path, *names):
    """Make a PATH that has only these programs."""
    for name in names:
        (tmp_path / name).symlink_to(shutil.which(name))
    return {"PATH": str(tmp_path), "HOME": str(tmp_path)}


def test_python_sees_each_step(server):
    (seen,) = probe([target(server, token="s3cret")])["results"]
    assert seen["requests"]["anonymous"]["status"] == 401
    assert seen["requests"]["authenticated"]["status"] == 200
    assert seen["connect"]["address"] == "127.0.0.1"
    assert "s3cret" not in json.dumps(seen)


@pytest.mark.parametrize("tool", ["curl", "wget"])
def test_a_context_without_python_uses_what_it_has(server, tmp_path, tool):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    env = tools(tmp_path, tool, "sed", "tail", "grep")
    found = probe([target(server), target(server, "open"), target("http://127.0.0.1:1")], env)
    assert found["tool"] == "sh"
    private, public, refused = found["results"]
    assert private["requests"]["anonymous"]["status"] == 401
    assert public["requests"]["anonymous"]["status"] == 200
    assert refused["connect"]["error"] == "refused"


def test_a_context_with_only_bash_knows_whether_it_connects(server, tmp_path):
    found = probe([target(server), target("http://127.0.0.1:1")], tools(tmp_path, "bash"))
    assert [seen["connect"] == {} for seen in found["results"]] == [True, False]


def test_a_context_with_nothing_says_so(server, tmp_path):
    (seen,) = probe([target(server)], tools(tmp_path))["results"]
    assert "neither" in seen["skipped"]


def test_it_uses_the_token_that_the_context_holds(server, tmp_path):
    config = tmp_path / ".config" / "attic"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(f'[servers.a]\nendpoint = "{server}/"\ntoken = "s3cret"\n')
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    (seen,) = probe([target(server)], env)["results"]
    assert seen["requests"]["authenticated"]["status"] == 200
    assert "s3cret" not in json.dumps(seen)


def test_it_uses_a_netrc_too(server, tmp_path):
    (tmp_path / ".netrc").write_text(
        "machine other password no\nmachine 127.0.0.1\nlogin x\npassword s3cret\n"
    )
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    (seen,) = probe([target(server)], env)["results"]
    assert seen["requests"]["authenticated"]["status"] == 200


def test_names_and_words_cannot_break_out():
    hostile = "x'; touch /tmp/kingpost-broke-out; '\nKINGPOST-PYTHON\n$(id)"
    (seen,) = probe([target("http://127.0.0.1:1", hostile) | {"id": hostile}])["results"]
    assert seen["id"] == hostile
