"""The rendered config.toml in gitlab-runner's own hands: every key is one that it knows, a reload drops no job.

gitlab-runner is taken from PATH, or from where KINGPOST_GITLAB_RUNNER points; without it these are skipped by name.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
import tomllib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.real.conftest import require_program

from kingpost.render.layout import token_placeholder
from kingpost.render.runner_config import runner_toml
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

TOPOLOGY = """
site = { name = "lab" }
networks.lan = { kind = "lan", cidr = "10.7.0.0/24" }
[hosts.node]
memory = "16GiB"
addresses = { lan = "10.7.0.2" }
docker = { bip = "172.17.0.1/16", pools = [{ base = "172.20.0.0/16", size = 24 }] }
[gitlab.lab]
url = "GITLAB"
[runners.shell]
executor = "shell"
host = "node"
token = "t"
[runners.bridge]
executor = "docker"
host = "node"
image = "registry.example/ci:1"
nix = "host-daemon"
volumes = ["/etc/hostname:/etc/host:ro"]
memory_per_job = "1536MiB"
cpus = 1.5
token = "t"
[runners.per-build]
executor = "docker"
host = "node"
network = "per-build"
image = "registry.example/ci:1"
concurrency = 3
token = "t"
[runners.gone]
executor = "shell"
host = "node"
token = "t"
[secrets.t]
provider = "path"
path = "/run/t"
format = "raw"
"""
NAMES = ("shell", "bridge", "per-build", "gone")
JOB = {
    "id": 7, "token": "job-token", "allow_git_fetch": True,
    "job_info": {"name": "slow", "stage": "test", "project_id": 1, "project_name": "p"},
    "git_info": {
        "repo_url": "http://127.0.0.1:1/p.git", "ref": "main", "sha": "0" * 40, "before_sha": "0" * 40,
        "ref_type": "branch", "refspecs": [], "depth": 0,
    },
    "runner_info": {"timeout": 120},
    "variables": [{"key": "GIT_STRATEGY", "value": "none", "public": True, "masked": False}],
    "steps": [
        {"name": "script", "script": ["echo began", "sleep 6", "echo ended"], "timeout": 120, "when": "on_success",
         "allow_failure": False}
    ],
    "image": {"name": ""}, "services": [], "artifacts": [], "cache": [], "credentials": [], "dependencies": [],
    "features": {"trace_sections": False}, "hooks": [],
}  # fmt: skip


class GitLab:
    """What a runner asks of GitLab: verify, request a job, append to its trace, tell how it ended."""

    def __init__(self):
        self.jobs = []
        self.trace = b""
        self.states = []
        self.systems = set()
        self.url = ""

    def receive(self, method, path, body):
        if path == "/api/v4/runners/verify":
            return (
                (403, {})
                if body["token"].startswith("glrt-gone")
                else (200, {"id": 1, "token": body["token"]})
            )
        if path == "/api/v4/jobs/request":
            self.systems.add(body.get("system_id"))
            mine = body["token"].startswith("glrt-shell") and self.jobs
            return (201, self.jobs.pop()) if mine else (204, None)
        if path == "/api/v4/jobs/7":
            self.states.append(body["state"])
            return 200, {}
        if path == "/api/v4/jobs/7/trace":
            self.trace += body
            return 202, {}
        return 404, {}


@contextmanager
def serve(gitlab):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command != "PATCH":
                body = json.loads(body or b"{}")
            status, said = gitlab.receive(self.command, self.path.partition("?")[0], body)
            data = b"" if said is None else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if self.command == "PATCH":
                self.send_header("Job-Status", "running")
                self.send_header("Range", f"0-{len(gitlab.trace)}")
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = handle_any  # noqa: N815 - http.server's names

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    gitlab.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield gitlab
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def gitlab():
    require_program("gitlab-runner")
    with serve(GitLab()) as running:
        yield running


def rendered(gitlab, names, change=""):
    """Give config.toml as the unit makes it: the placeholders filled in."""
    text = TOPOLOGY.replace("GITLAB", gitlab.url).replace("[gitlab.lab]", change + "[gitlab.lab]")
    text = runner_toml(Platform(Topology.model_validate(tomllib.loads(text))), names)
    for name in names:
        text = text.replace(token_placeholder(name), f"glrt-{name:_<20}")
    return text


def test_every_rendered_key_is_one_that_the_runner_knows(gitlab, tmp_path):
    """`verify --delete` writes the file anew from what was understood: a key that it does not know is gone."""
    config = tmp_path / "config.toml"
    config.write_text(rendered(gitlab, NAMES))
    argv = [require_program("gitlab-runner"), "verify", "--delete", "--config", config]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=60, env={"HOME": str(tmp_path)}
    )
    kept = {runner["name"]: runner for runner in tomllib.loads(config.read_text())["runners"]}
    assert set(kept) == set(NAMES) - {"gone"}, done.stdout + done.stderr
    for asked in tomllib.loads(rendered(gitlab, NAMES))["runners"]:
        if asked["name"] != "gone":
            assert differences(asked, kept[asked["name"]]) == []


def differences(asked, kept, where=""):
    """Give what was asked for and is not kept; a zero value that is left out is kept."""
    found = []
    for key, value in asked.items():
        if isinstance(value, dict):
            found += differences(value, kept.get(key, {}), f"{where}{key}.")
        elif kept.get(key, type(value)()) != value:
            found.append((where + key, value, kept.get(key)))
    return found


def test_a_reload_with_a_new_configuration_drops_no_job(gitlab, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(rendered(gitlab, ("shell",)))
    log = tmp_path / "log"
    gitlab.jobs = [JOB]
    argv = [require_program("gitlab-runner"), "run", "--config", config, "--working-directory", tmp_path]
    with log.open("w") as said:
        runner = subprocess.Popen(
            argv, stdout=said, stderr=said, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        )
    try:
        until(lambda: b"began" in gitlab.trace, log)
        system = (tmp_path / ".runner_system_id").read_text()
        config.write_text(rendered(gitlab, ("shell", "bridge")))
        runner.send_signal(signal.SIGHUP)
        until(lambda: gitlab.states[-1:] == ["success"], log)
        assert b"ended" in gitlab.trace
        assert log.read_text().count("Configuration loaded") >= 2
        assert "failed" not in gitlab.states
        assert (tmp_path / ".runner_system_id").read_text() == system
        assert gitlab.systems == {system}
    finally:
        runner.send_signal(signal.SIGQUIT)
        try:
            runner.wait(20)
        except subprocess.TimeoutExpired:
            runner.kill()
            runner.wait()


def until(holds, log):
    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
