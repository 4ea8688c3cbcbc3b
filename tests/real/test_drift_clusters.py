"""What a cluster holds against what is rendered, by the real kubectl.

It asks a stand-in that holds the rendered objects as Kubernetes stores them, and, where KINGPOST_KUBERNETES names a
directory with `kube-apiserver` and `etcd`, those.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import subprocess
import sys
import time
import tomllib
from contextlib import contextmanager

import pytest
from tests.real.conftest import require, require_root
from tests.real.kube_api import Cluster, free_port, kubectl_words, serving, stored
from tests.real.tls_servers import Authority

from kingpost.observe.drift_clusters import declared_objects, judge, questions
from kingpost.observe.drift_items import Visit
from kingpost.observe.executors.local import Here, NetworkNamespace
from kingpost.observe.looking import look
from kingpost.render.nix_hosts import by_host
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

TOPOLOGY = """
site = { name = "s", substituters = ["attic:home/main"] }
[hosts.node1]
memory = "16GiB"
[clusters.k3s]
host = "node1"
memory_max = "8GiB"
etcd = { quota = "4GiB" }
namespaces.cache = { memory = "3GiB", pods = 20, default_memory = "256MiB" }
[attic.home]
cluster = "k3s"
namespace = "cache"
port = 8080
node_port = 30080
secret = "atticd"
caches.main.public_key = "main:MOjxCMhKFSIS5JGtq5dJYyhVKlCr9vkVuPXBgq6XIWs="
[limits.atticd]
cluster = "k3s"
pod = "cache/home"
memory_max = "1GiB"
memory_high = "512MiB"
[gitlab.none]
url = "http://127.0.0.1:1"
[runners.ci]
executor = "kubernetes"
cluster = "k3s"
namespace = "jobs"
image = "img:1"
token = "runner"
[secrets.atticd]
provider = "path"
path = "/run/atticd"
variables = ["ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"]
[secrets.runner]
provider = "path"
path = "/run/runner"
format = "raw"
"""
TOKEN = "not-a-real-kubernetes-token"
HIDDEN = "not-a-real-secret"


class StandIn:
    """The stand-in, changed directly."""

    def __init__(self, cluster, kubectl):
        self.cluster, self.kubectl = cluster, kubectl

    def put(self, one, *, ready=1):
        self.cluster.put(stored(one, ready=ready))

    def delete(self, kind, namespace, name):
        self.cluster.drop(kind, namespace, name)


class Real:
    """A real API server, changed as a person would."""

    def __init__(self, kubectl):
        self.kubectl = kubectl

    def run(self, *words, stdin=""):
        done = subprocess.run(
            [*self.kubectl, *words], input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def put(self, one, *, ready=1):
        if one["kind"] == "Service":  # a node port is not given back at once
            self.run("replace", "--force", "-f", "-", stdin=json.dumps(one)) if self.held(
                one
            ) else self.create(one)
        else:
            self.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(one))
        if one["kind"] == "Deployment":
            head = one["metadata"]
            status = json.dumps(
                {"status": {"replicas": 1, "readyReplicas": ready, "availableReplicas": ready}}
            )
            self.run("patch", "deployment", head["name"], "-n", head["namespace"], "--subresource=status",
                     "--type=merge", "-p", status)  # fmt: skip

    def held(self, one):
        words = ["get", one["kind"], one["metadata"]["name"], "-n", one["metadata"]["namespace"]]
        return subprocess.run([*self.kubectl, *words], capture_output=True, check=False).returncode == 0

    def create(self, one):
        self.run("create", "-f", "-", stdin=json.dumps(one))

    def delete(self, kind, namespace, name):
        self.run("delete", kind, name, "-n", namespace)


@contextmanager
def stand_in(program, tmp_path):
    authority = Authority(tmp_path / "authority")
    cluster = Cluster(token=TOKEN)
    with serving(cluster, authority) as url:
        yield StandIn(cluster, kubectl_words(program, url, authority, tmp_path, TOKEN))


@contextmanager
def real(program, tmp_path):
    """Run etcd and kube-apiserver on loopback."""
    if not (place := os.environ.get("KINGPOST_KUBERNETES")):
        pytest.skip("KINGPOST_KUBERNETES names no directory with kube-apiserver and etcd")
    client, peer, port = free_port(), free_port(), free_port()
    (tmp_path / "tokens.csv").write_text(f'{TOKEN},admin,1,"system:masters"\n')
    subprocess.run(
        ["openssl", "genrsa", "-out", "sa.key", "2048"], cwd=tmp_path, check=True, capture_output=True
    )
    etcd = [f"{place}/etcd", "--data-dir", "etcd", "--listen-client-urls", f"http://127.0.0.1:{client}",
            "--advertise-client-urls", f"http://127.0.0.1:{client}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", f"default=http://127.0.0.1:{peer}"]  # fmt: skip
    api = [f"{place}/kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{client}", "--bind-address", "127.0.0.1",
           "--service-cluster-ip-range", "10.43.0.0/16", "--secure-port", str(port), "--cert-dir", "certs",
           "--token-auth-file", "tokens.csv", "--service-account-key-file", "sa.key", "--authorization-mode", "RBAC",
           "--service-account-signing-key-file", "sa.key", "--service-account-issuer", "https://kubernetes.default",
           "--disable-admission-plugins", "ServiceAccount", "--advertise-address", "127.0.0.1"]  # fmt: skip
    running = []
    try:
        for number, argv in enumerate((etcd, api)):
            log = (tmp_path / f"log{number}").open("wb")
            running.append(subprocess.Popen(argv, cwd=tmp_path, stdout=log, stderr=log))
            log.close()
        words = (
            str(program),
            "--server",
            f"https://127.0.0.1:{port}",
            "--insecure-skip-tls-verify",
            "--token",
            TOKEN,
        )
        for _ in range(120):
            ready = subprocess.run([*words, "get", "namespace", "default"], capture_output=True, check=False)
            if ready.returncode == 0:
                break
            time.sleep(0.5)
        else:
            raise AssertionError((tmp_path / "log1").read_text()[-2000:])
        yield Real(words)
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(30)


@pytest.fixture(params=[stand_in, real], ids=["stand-in", "real"])
def backend(request, tmp_path):
    program = require("kubectl") / "kubectl"
    with request.param(program, tmp_path) as one:
        yield one


def visit(kubectl):
    [on] = by_host(Platform(Topology.model_validate(tomllib.loads(TOPOLOGY)))).values()
    return Visit(on, kubectl=kubectl)


def compared(one):
    asked = [question for question in questions(one) if not question.id.startswith("etcd")]
    answers = look(Here(), asked)
    held = Visit(one.on, kubectl=one.kubectl, answers=answers)
    return [verdict for verdict in judge(held) if "etcd" not in verdict.subject], answers


def fill(backend, objects):
    """Apply what is rendered, and make the Secrets that it wants."""
    for namespace in ("cache", "jobs"):
        backend.put({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}})
    for manifest in objects.values():
        if manifest["kind"] != "Namespace":
            backend.put(manifest)
    entry = base64.b64encode(HIDDEN.encode()).decode()
    backend.put(secret("cache", "atticd", {"ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64": entry}))
    backend.put(secret("jobs", "runner", {"token": entry}))


def secret(namespace, name, data):
    return {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


def test_a_cluster_as_rendered_and_then_changed_by_hand(backend):
    one = visit(backend.kubectl)
    objects = declared_objects(one, "k3s")
    fill(backend, objects)
    verdicts, _ = compared(one)
    assert {str(v.status) for v in verdicts} == {"ok"}, [v for v in verdicts if str(v.status) != "ok"]
    subjects = {v.subject.removeprefix("node1: k3s: ") for v in verdicts}
    assert {"Deployment cache/home", "ConfigMap cache/home server.toml", "Service cache/home", "Secret cache/atticd",
            "ResourceQuota cache/kingpost", "Deployment jobs/runner-ci", "Role jobs/runner-ci"} <= subjects  # fmt: skip

    changed = copy.deepcopy(objects)
    attic = changed["Deployment", "cache", "home"]
    container = attic["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "ghcr.io/zhaofengli/attic:latest"
    container["resources"]["limits"]["memory"] = "2Gi"
    container["env"] = [one for one in container["env"] if one["name"] != "HOME"]
    container["env"].append({"name": "PASSWORD", "value": HIDDEN})
    attic["spec"]["template"]["metadata"]["annotations"]["kingpost/config"] = "0123456789abcdef"
    backend.put(attic, ready=0)
    runner = changed["Deployment", "jobs", "runner-ci"]
    runner["spec"]["replicas"] = 0
    runner["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "1"
    backend.put(runner)
    changed["ConfigMap", "cache", "home"]["data"]["server.toml"] += f"# {HIDDEN}\n"
    backend.put(changed["ConfigMap", "cache", "home"])
    service = changed["Service", "cache", "home"]
    service["spec"]["ports"][0] |= {"port": 80, "nodePort": 30081}
    backend.put(service)
    changed["ResourceQuota", "cache", "kingpost"]["spec"]["hard"]["limits.memory"] = "5Gi"
    backend.put(changed["ResourceQuota", "cache", "kingpost"])
    changed["Role", "jobs", "runner-ci"]["rules"][3]["verbs"].append(
        "list"
    )  # may read every secret of the namespace
    backend.put(changed["Role", "jobs", "runner-ci"])
    backend.delete("LimitRange", "cache", "kingpost")
    backend.delete("Secret", "jobs", "runner")
    left = copy.deepcopy(objects["ConfigMap", "cache", "home"])
    left["metadata"]["name"] = "old"
    backend.put(left)
    backend.put(secret("cache", "atticd", {"OTHER": "eA=="}))
    verdicts, answers = compared(one)
    failed = {(v.subject.removeprefix("node1: k3s: "), v.code.removeprefix("KP-DRIFT-")): v
              for v in verdicts if str(v.status) == "failed"}  # fmt: skip
    assert set(failed) == {
        ("Deployment cache/home container atticd image", "OBJECT"),
        ("Deployment cache/home container atticd limits.memory", "OBJECT"),
        ("Deployment cache/home container atticd variables", "OBJECT"),
        ("Deployment cache/home configuration", "OBJECT"),
        ("Deployment cache/home ready", "OBJECT-NOT-READY"),
        ("Deployment jobs/runner-ci replicas", "OBJECT"),
        ("Deployment jobs/runner-ci container gitlab-runner limits.cpu", "OBJECT"),
        ("ConfigMap cache/home server.toml", "OBJECT"),
        ("ConfigMap cache/old", "OBJECT-EXTRA"),
        ("Service cache/home port 8080", "OBJECT"),
        ("Service cache/home node port", "OBJECT"),
        ("ResourceQuota cache/kingpost hard limits.memory", "OBJECT"),
        ("Role jobs/runner-ci may on configmaps", "OBJECT"),
        ("Role jobs/runner-ci may on secrets", "OBJECT"),
        ("LimitRange cache/kingpost", "OBJECT-MISSING"),
        ("Secret jobs/runner", "OBJECT-MISSING"),
    }, verdicts
    for (subject, _), verdict in failed.items():
        assert {"declared", "operational"} <= set(verdict.evidence), subject
    variables = failed["Deployment cache/home container atticd variables", "OBJECT"].evidence
    assert "PASSWORD" in variables["operational"]
    assert HIDDEN not in str(verdicts) + str(answers), "a value never leaves the cluster"


def test_a_cluster_that_cannot_be_asked_is_skipped(tmp_path):
    program = require("kubectl") / "kubectl"
    with stand_in(program, tmp_path) as backend:
        backend.cluster.token = "another"
        verdicts, _ = compared(visit(backend.kubectl))
    assert [(v.subject, v.code) for v in verdicts] == [("node1: objects in k3s", "KP-DRIFT-NOT-ASKED")]
    assert "logged in" in verdicts[0].summary


METRICS = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"# HELP x\\netcd_server_quota_backend_bytes 2.147483648e+09\\n"
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", 2381), Handler).serve_forever()
"""


@pytest.mark.parametrize("server", ["metrics", "etcd", "argument", "nothing"])
def test_etcds_quota_in_effect(server, tmp_path):
    """In a network namespace, as its port is always the same one."""
    require_root()
    require("netns")
    if server == "etcd" and not os.environ.get("KINGPOST_KUBERNETES"):
        pytest.skip("KINGPOST_KUBERNETES names no directory with kube-apiserver and etcd")
    name = f"kp-etcd-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    argv = {
        "metrics": [sys.executable, "-c", METRICS],
        "etcd": [f"{os.environ.get('KINGPOST_KUBERNETES')}/etcd", "--data-dir", str(tmp_path / "etcd"),
                 "--listen-metrics-urls", "http://127.0.0.1:2381", "--quota-backend-bytes", "4294967296"],
        "argument": [sys.executable, "-c", "import time; time.sleep(60)", "server",
                     "--etcd-arg=quota-backend-bytes=8589934592"],
        "nothing": ["sleep", "60"],
    }[server]  # fmt: skip
    inside = ["nsenter", f"--net=/run/netns/{name}", "--"]
    subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
    process = subprocess.Popen([*inside, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        asked = [question for question in questions(visit(("kubectl",))) if question.id.startswith("etcd")]
        for _ in range(40):
            answers = look(NetworkNamespace(name), asked)
            if server == "nothing" or answers["etcd k3s"].code == 0:
                break
            time.sleep(0.25)
    finally:
        process.terminate()
        process.wait(10)
        subprocess.run(["ip", "netns", "del", name], check=True)
    held = Visit(visit(()).on, answers=answers)
    [verdict] = [one for one in judge(held) if "etcd" in one.subject]
    assert (verdict.code, verdict.evidence.get("operational")) == {
        "metrics": ("KP-DRIFT-ETCD-QUOTA", "2GiB"),
        "etcd": ("KP-DRIFT-NONE", "4GiB"),
        "argument": ("KP-DRIFT-ETCD-QUOTA", "8GiB"),
        "nothing": ("KP-DRIFT-NOT-ASKED", None),
    }[server]
